"""Copies of stored files on this machine, bounded by size, shared by all its processes.

One entry holds the files of one slide, or another single file, in a folder of its own. Whoever uses an entry holds a
shared lock (flock) on that folder from before its paths are handed out until the files are closed again, and an entry
is deleted only under the exclusive lock: a path that was handed out stays, whether or not it is open yet. (That an
open file survives its deletion would not do: OpenSlide opens some formats anew for every read.) The kernel gives a
dead process's locks back, so nothing has to be tidied up after one.

An entry is filled under its exclusive lock, in a folder `part` that is renamed to `files` when it is whole: of two
processes that want the same slide one downloads it, and the other waits for it. Room is made under the lock of the
cache's own folder; files that are being filled count with the size that they will have.
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from uuid import uuid4

FILES, PART, NEEDS, GONE = "files", "part", "needs", "gone-"
FULL = {errno.ENOSPC, errno.EDQUOT}


class Source(Protocol):
    """Where the files of an entry come from; asked only when they are not here."""

    def size(self) -> int:
        """Bytes of all files together."""

    def write(self, folder: Path) -> None:
        """Put the files into the folder, as `placed` says."""


class CacheFull(Exception):
    """There is no room on the disk for a file, even with nothing else in the cache that could go."""


@dataclass(frozen=True)
class _Entry:
    """used: when it was last asked for. bytes: on the disk now. needs: bytes in the end, if it is being filled."""

    folder: Path
    whole: bool
    used: float
    bytes: int
    needs: int

    @property
    def counted(self) -> int:
        return max(self.bytes, self.needs)


class FileCache:
    """`most`: bytes. They are exceeded by what is in use, and by a single entry that is larger."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most

    @contextmanager
    def held(self, names: Sequence[str], source: Source) -> Iterator[list[Path]]:
        """The paths of these files, which belong together; nobody takes them away inside.

        Raises CacheFull, and what `source` raises.
        """
        entry = self._entry_of(names)
        paths = placed(names, entry / FILES)
        lock = self._take(entry, paths, source)
        try:
            yield paths
        finally:
            os.close(lock)

    def forget(self, names: Sequence[str]) -> None:
        """Delete the copy of these files, unless somebody uses it."""
        _evicted(self._entry_of(names))

    def _entry_of(self, names: Sequence[str]) -> Path:
        return self.folder / hashlib.sha256("\n".join(names).encode()).hexdigest()[:32]

    def _take(self, entry: Path, paths: Sequence[Path], source: Source) -> int:
        """The shared lock on the entry, filled."""
        while True:
            lock = _locked(entry, fcntl.LOCK_SH)
            if all(path.exists() for path in paths):
                os.utime(entry)
                return lock
            os.close(lock)
            if (entry / FILES).exists():
                self._drop_broken(entry, paths)
                continue
            lock = _locked(entry, fcntl.LOCK_EX)
            try:
                if not (entry / FILES).exists():
                    self._fill(entry, source)
                fcntl.flock(lock, fcntl.LOCK_SH)  # which is not one step: somebody may have come between
                if _is_at(lock, entry) and all(path.exists() for path in paths):
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    def _fill(self, entry: Path, source: Source) -> None:
        part = entry / PART
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        try:
            self._make_room(entry, source.size())
            part.mkdir()
            source.write(part)
            part.rename(entry / FILES)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in FULL:
                raise CacheFull(f"the disk of {self.folder} is full") from error
            raise
        finally:
            (entry / NEEDS).unlink(missing_ok=True)

    def _make_room(self, entry: Path, size: int) -> None:
        with self._alone():
            others = [one for one in self._entries() if one.folder != entry]
            taken = sum(one.counted for one in others)
            promised = sum(one.counted - one.bytes for one in others)
            free = shutil.disk_usage(self.folder).free - promised
            for one in sorted(others, key=lambda one: (one.whole, one.used)):
                if taken + size <= self.most and size <= free:
                    break
                if _evicted(one.folder):
                    taken -= one.counted
                    free += one.counted
            if size > free:
                raise CacheFull(f"{_gb(size)} are needed on the disk of {self.folder}, {_gb(max(0, free))} are free")
            (entry / NEEDS).write_text(str(size))

    def _drop_broken(self, entry: Path, paths: Sequence[Path]) -> None:
        """Somebody has deleted a file in the cache folder: start the entry anew."""
        with self._alone():
            if (entry / FILES).exists() and not all(path.exists() for path in paths):
                _remove(entry)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(self.folder, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(lock)

    def _entries(self) -> list[_Entry]:
        found = []
        for folder in self.folder.iterdir():
            if folder.name.startswith(GONE):  # whose deletion was broken off
                shutil.rmtree(folder, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    found.append(_entry(folder))
        return found


def placed(names: Sequence[str], folder: Path) -> list[Path]:
    """Where in a folder these files lie: as they lie in storage below the folder of the first one."""
    above = PurePosixPath(names[0]).parent
    return [folder / PurePosixPath(name).relative_to(above) for name in names]


def _entry(folder: Path) -> _Entry:
    size = 0
    for path in folder.glob("*/**/*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    try:
        needs = int((folder / NEEDS).read_text())
    except (FileNotFoundError, ValueError):
        needs = 0
    return _Entry(folder, (folder / FILES).exists(), folder.stat().st_mtime, size, needs)


def _locked(folder: Path, how: int) -> int:
    """The descriptor of a folder, made if need be, that holds the lock on it."""
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # not `exist_ok`: that asks again, and by then it may have been deleted
            folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # deleted since
            continue
        try:
            fcntl.flock(lock, how)
            if _is_at(lock, folder):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # it was deleted before we had the lock


def _is_at(lock: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), folder.stat())
    except FileNotFoundError:
        return False


def _evicted(folder: Path) -> bool:
    """Delete an entry that nobody uses; False if somebody does."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(folder: Path) -> None:
    # Renamed first: nobody finds half of an entry.
    gone = folder.with_name(f"{GONE}{uuid4().hex}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
