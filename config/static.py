"""Static files under hashed names that never change, ES modules and their imports included."""

from django.contrib.staticfiles.storage import ManifestFilesMixin
from whitenoise.storage import CompressedManifestStaticFilesStorage


class ModuleStaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Django rewrites the imports of *.js only; ours are *.mjs."""

    _imports = ManifestFilesMixin._js_module_import_aggregation_patterns[1]  # type: ignore[attr-defined]
    patterns = (*ManifestFilesMixin.patterns, ("*.mjs", _imports))
