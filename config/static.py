"""Static files under hashed names that never change, ES modules and their imports included."""

import re
from typing import Any

from django.contrib.staticfiles.storage import ManifestFilesMixin
from django.core.files.base import ContentFile
from minify_html import minify
from whitenoise.storage import CompressedManifestStaticFilesStorage

# Comments that stand on lines of their own, as all of ours do but for a few words after code.
COMMENTS = re.compile(r"^\s*(?:/\*\*.*?\*/|//[^\n]*)\n", re.DOTALL | re.MULTILINE)
OPEN, CLOSE = '<script type="module">', "</script>"


def minify_module(script: str) -> str:
    """The module without comments and white space. Raises ValueError for text that would end a script element."""
    if CLOSE in script:
        raise ValueError("a module cannot be minified with </script> in it")
    page = minify(OPEN + COMMENTS.sub("", script) + CLOSE, minify_js=True)
    return page[page.index(">") + 1 :].removesuffix(CLOSE)


class ModuleStaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Django rewrites the imports of *.js only; ours are *.mjs. They are stored minified."""

    _imports = ManifestFilesMixin._js_module_import_aggregation_patterns[1]  # type: ignore[attr-defined]
    patterns = (*ManifestFilesMixin.patterns, ("*.mjs", _imports))

    def _save(self, name: str, content: Any) -> str:
        if name.endswith(".mjs"):
            script = b"".join(content.chunks()).decode("utf-8")
            content = ContentFile(minify_module(script).encode("utf-8"))
        return str(super()._save(name, content))
