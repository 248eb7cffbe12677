"""Files in storage: written whole or not at all, and read from a local path where a library needs one."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store(path: Path, name: str, *, move: bool = False) -> str:
    """Put a local file into storage under this name; an existing one of that name is replaced.

    `move` gives the file away: on the same disk it is renamed instead of copied.
    """
    if hasattr(default_storage, "location"):
        target = Path(default_storage.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if move and path.stat().st_dev == target.parent.stat().st_dev:
            path.chmod(0o640)
            os.replace(path, target)
            return name
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as temporary:
            with path.open("rb") as source:
                shutil.copyfileobj(source, temporary, 1 << 20)
        Path(temporary.name).chmod(0o640)
        os.replace(temporary.name, target)
        return name
    default_storage.delete(name)
    with path.open("rb") as source:
        return str(default_storage.save(name, File(source)))


def keep_upload(upload: "UploadedFile[Any]", name: str) -> None:
    """Put an uploaded file into storage under this name; one that lies on the same disk is renamed."""
    if not isinstance(upload, TemporaryUploadedFile):
        default_storage.save(name, upload)
        return
    store(Path(upload.temporary_file_path()), name, move=True)
    # The rename took the temporary file away: it must not be deleted again when the upload is closed.
    setattr(upload.file, "close_called", True)  # noqa: B010


def local_path(name: str) -> Path:
    """A path on this machine that holds the stored file; with remote storage, a copy in the cache folder.

    Raises FileNotFoundError if storage has no such file.
    """
    if hasattr(default_storage, "location"):
        path = Path(default_storage.path(name))
        if not path.exists():
            raise FileNotFoundError(f"{name} is not in storage")
        return path
    path = cache_dir() / "storage" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
            with default_storage.open(name) as source:
                shutil.copyfileobj(source, temporary, 1 << 20)
        os.replace(temporary.name, path)
    return path


def cache_dir() -> Path:
    """What lies here can be thrown away at any time."""
    return Path(settings.DATA_DIR) / "cache"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        temporary.write(data)
    os.replace(temporary.name, path)


@contextmanager
def work_dir(name: str) -> Iterator[Path]:
    """A folder for one job, emptied when the job ends; a killed job's folder is taken up again by its next attempt."""
    folder = Path(settings.DATA_DIR) / "work" / name
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
