"""Several files of a version as one download."""

import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeVar

from annotation.formats.archive import ARCHIVE_TIME
from annotation.services.storage import held
from inference.models import ModelVersion
from inference.services.model_exports import stored_name


def two_stage_archive(version: ModelVersion) -> IO[bytes]:
    """Both weights files of a two-stage version. Raises FileNotFoundError if storage lacks one, StorageError."""
    return _zipped({"finder.pt": version.weights, "classifier.pt": version.classifier})


def openvino_archive(version: ModelVersion) -> IO[bytes]:
    """The stored OpenVINO export. Raises FileNotFoundError if there is none or storage lacks a file, StorageError."""
    names = version.exports.get("openvino", {}).get("files", {})
    if not names:
        raise FileNotFoundError(f"{version} has no OpenVINO export.")
    files = {name: stored_name(version.weights, name) for name in names}
    for name in version.exports["openvino"].get("classifier_files", {}):
        files[f"classifier/{name}"] = stored_name(version.classifier, name)
    return _zipped(files)


def _zipped(files: Mapping[str, str]) -> IO[bytes]:
    """A temporary file that holds the archive of these stored files, at its beginning."""
    archive = tempfile.TemporaryFile()  # noqa: SIM115 (whoever sends it closes it)
    try:
        with ExitStack() as stack:
            here = {inside: stack.enter_context(held([name])) for inside, name in files.items()}
            zip_files({inside: paths[0] for inside, paths in here.items()}, archive)
    except BaseException:
        archive.close()
        raise
    archive.seek(0)
    return archive


T = TypeVar("T", Path, IO[bytes])


def zip_files(files: Mapping[str, Path], target: T) -> T:
    """Write an archive of files under these names. Weights hardly shrink, so they are not compressed."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zipped:
        for name, path in files.items():
            info = zipfile.ZipInfo(name, ARCHIVE_TIME)
            info.external_attr = 0o644 << 16
            with path.open("rb") as source, zipped.open(info, "w", force_zip64=True) as inside:
                while chunk := source.read(1 << 20):
                    inside.write(chunk)
    return target
