"""Files in storage: written whole or not at all, and read from a local path where a library needs one."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile

from annotation.services.file_cache import CacheFull, FileCache, placed
from annotation.services.jobs import JobLost
from annotation.services.patience import DAMAGED, FULL, StorageError, at_once, until_job_ends

if TYPE_CHECKING:
    from annotation.services.s3 import RemoteStorage

logger = logging.getLogger(__name__)

Right = Callable[[Sequence[Path]], bool]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(paths: Sequence[Path]) -> str:
    """What the files of a slide are known by: a single one's SHA-256, of several the SHA-256 of theirs."""
    hashes = [sha256_of(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def is_local() -> bool:
    """Whether storage is a folder of this machine."""
    return isinstance(default_storage, FileSystemStorage)


def _remote() -> "RemoteStorage":
    return cast("RemoteStorage", default_storage)


def store(path: Path, name: str, *, move: bool = False, called: str = "") -> str:
    """Put a local file into storage under this name; an existing one of that name is replaced, in one step.

    `move` gives the file away: on the same disk it is renamed instead of copied. `called`: what people call it.
    Raises StorageError.
    """
    if is_local():
        target = Path(default_storage.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if move and path.stat().st_dev == target.parent.stat().st_dev:
            path.chmod(0o640)
            os.replace(path, target)
        else:
            with path.open("rb") as source, _written_whole(target) as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                os.fchmod(copy.fileno(), 0o640)
        return name
    with path.open("rb") as source, _called(called):
        return str(default_storage.save(name, File(source)))


def keep_upload(upload: "UploadedFile[Any]", name: str) -> None:
    """Put an uploaded file into storage under this name; one that lies on the same disk is renamed."""
    if not isinstance(upload, TemporaryUploadedFile):
        default_storage.save(name, upload)
        return
    store(Path(upload.temporary_file_path()), name, move=True, called=upload.name or "")
    if is_local():
        # The rename took the temporary file away: it must not be deleted again when the upload is closed.
        setattr(upload.file, "close_called", True)  # noqa: B010


def open_stored(name: str, first: int = 0) -> "File[bytes]":
    """A stored file to be read from this byte to its end, as it comes; its `size` is that of the whole file.

    Raises FileNotFoundError, StorageError.
    """
    if is_local():
        local = default_storage.open(name)
        local.seek(first)
        return local
    body, size = _remote().stream(name, first)
    file = File(body)
    file.size = size
    return file


def discard(names: Sequence[str]) -> None:
    """Take files out of storage that nobody needs any more. Where storage is away they stay: that is no failure."""
    try:
        with at_once():
            for name in names:
                default_storage.delete(name)
        if not is_local():
            _cache().forget(names)
    except StorageError as error:
        logger.warning("not deleted: %s", error)


@contextmanager
def held(names: Sequence[str], *, right: Right | None = None, called: str = "") -> Iterator[list[Path]]:
    """Paths on this machine of stored files that belong together; none of them goes away inside.

    With remote storage they are copies in the cache folder (see file_cache.py), placed to each other as in storage,
    where the first one's folder holds them all. `right` is asked whether they are what was stored when they are
    downloaded. Raises FileNotFoundError, StorageError.
    """
    if is_local() or not names:
        paths = [Path(default_storage.path(name)) for name in names]
        for name, path in zip(names, paths, strict=True):
            if not path.exists():
                raise FileNotFoundError(f"{name} is not in storage")
        yield paths
        return
    with ExitStack() as stack:
        with _called(called):
            try:
                paths = stack.enter_context(_cache().held(names, _Stored(names, right)))
            except CacheFull as error:
                raise StorageError(names[0], str(error), FULL) from error
        yield paths


def local_path(name: str, *, right: Right | None = None, called: str = "") -> Path:
    """As `held`, of one file, until the job ends that asks for it; outside a job, until the process does."""
    return local_paths([name], right=right, called=called)[0]


def local_paths(names: Sequence[str], *, right: Right | None = None, called: str = "") -> list[Path]:
    """The same of files that belong together."""
    return (until_job_ends.get() or _until_process_ends).enter_context(held(names, right=right, called=called))


_until_process_ends = ExitStack()


def _cache() -> FileCache:
    return FileCache(cache_dir() / "storage", settings.CACHE_BYTES)


@dataclass(frozen=True)
class _Stored:
    """Files in remote storage, as the cache asks for them."""

    names: Sequence[str]
    right: Right | None

    def size(self) -> int:
        return sum(default_storage.size(name) for name in self.names)

    def write(self, folder: Path) -> None:
        paths = placed(self.names, folder)
        for name, path in zip(self.names, paths, strict=True):
            path.parent.mkdir(exist_ok=True)
            _remote().fetch(name, path)
        if self.right is not None and not self.right(paths):
            raise StorageError(self.names[0], "its SHA-256 is not that of the file that was stored", DAMAGED)


@contextmanager
def _called(name: str) -> Iterator[None]:
    """Let what storage says of a file call it by a name that people know."""
    try:
        yield
    except StorageError as error:
        error.name = name or error.name
        raise


def cache_dir() -> Path:
    """What lies here can be thrown away at any time."""
    return Path(settings.DATA_DIR) / "cache"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _written_whole(path) as file:
        file.write(data)


@contextmanager
def _written_whole(path: Path) -> "Iterator[IO[bytes]]":
    """A file that is in its place when it is whole; nothing is left of one that is not."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        try:
            yield temporary
            temporary.flush()
            os.replace(temporary.name, path)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise


@contextmanager
def work_dir(name: str, *, resumed: bool = False) -> Iterator[Path]:
    """A folder for one job, emptied when the job ends, whether well or not.

    A killed job's folder is taken up again by its next attempt, and so is one that another attempt has begun to use
    (JobLost). `resumed`: also a failed or cancelled job's, so that hours of training are not lost when it is tried
    again.
    """
    folder = _work_path(name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except JobLost:
        raise
    except Exception:  # and nothing else: a worker that is stopped (SystemExit) is as good as killed
        if not resumed:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def drop_work(name: str) -> None:
    """Throw away what a job that failed or was cancelled has left on this machine to be resumed."""
    shutil.rmtree(_work_path(name), ignore_errors=True)


def _work_path(name: str) -> Path:
    return Path(settings.DATA_DIR) / "work" / name
