"""Zip archives of labels and images, opened only when nothing in them is dangerous.

Refused as a whole: paths that lead out of the folder, links, encrypted entries, entries that are packed otherwise than
nearly every program does it, and bombs (too many files, too much in total, or far more than the archive's own size).
Labels are read where they are: a hundred thousand small files are not unpacked. Images are, because programs want them
as files. An entry that turns out larger than it says is damaged.
"""

import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from annotation.formats.files import FileTree
from annotation.formats.reading import DAMAGE, IMAGE_SUFFIXES, Problems
from annotation.formats.records import FormatError, Problem

# What systems put into archives by themselves.
_CLUTTER = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})
# The ways of packing that every program knows, and whose damage is told by one kind of error.
_PACKINGS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_FORBIDDEN = frozenset('\\:*?"<>|')
_LONGEST_PART = 200
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: files, bytes of one and of all, and bytes for each byte of the archive.

    `ratio` counts only above `free_bytes`: a few label files pack to next to nothing.
    """

    files: int = 400_000
    file_bytes: int = 512 * 1024 * 1024
    total_bytes: int = 16 * 1024**3
    ratio: int = 100
    free_bytes: int = 64 * 1024 * 1024


def _path_problem(name: str) -> str | None:
    """Why an entry of this name is not unpacked, or None."""
    parts = name.removesuffix("/").split("/")
    if not name.strip("/") or name.startswith("/") or ".." in parts or name[1:2] == ":":
        return "the path leads out of the archive's folder"
    if any(len(part.encode()) > _LONGEST_PART or not part.isprintable() or _FORBIDDEN & set(part) for part in parts):
        return "the path is not safe on every system"
    return None


def _entry_problem(entry: zipfile.ZipInfo, limits: Limits) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind and kind not in (stat.S_IFREG, stat.S_IFDIR):
        return "links and devices are not unpacked"
    if entry.flag_bits & 0x1:
        return "the file is encrypted"
    if entry.compress_type not in _PACKINGS and not entry.is_dir():
        return "the file is packed in another way than deflated: pack the archive anew, as plain zip"
    if entry.file_size > limits.file_bytes:
        return f"the file is larger than {limits.file_bytes // 1024**2} MB"
    return _path_problem(entry.orig_filename if "\\" in entry.orig_filename else entry.filename)


def _check_names(names: list[str]) -> None:
    problems = Problems()
    for name, count in Counter(names).items():
        if count > 1:
            problems.add(Problem(ascii(name[:80]), "is in the archive twice"))
    folders = {name.rpartition("/")[0] for name in names}
    folders |= {str(parent) for folder in folders for parent in PurePosixPath(folder).parents}
    for name in folders.intersection(names):
        problems.add(Problem(ascii(name[:80]), "is a file and a folder"))
    problems.raise_if_any()


def _check(entries: list[zipfile.ZipInfo], packed: int, file: str, limits: Limits) -> None:
    if len(entries) > limits.files:
        raise FormatError([Problem(file, f"{len(entries)} files: an archive holds at most {limits.files}")])
    problems = Problems()
    for entry in entries:
        reason = _entry_problem(entry, limits)
        if reason is not None:
            problems.add(Problem(ascii(entry.filename[:80]), reason))
    problems.raise_if_any()
    _check_names([entry.filename for entry in entries if not entry.is_dir()])
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes:
        raise FormatError([Problem(file, f"unpacked it would be larger than {limits.total_bytes // 1024**3} GB")])
    if total > limits.free_bytes and total > limits.ratio * packed:
        reason = f"it unpacks to more than {limits.ratio} times its size, as an archive that is made to do harm would"
        raise FormatError([Problem(file, reason)])


def _unpack_entry(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with zipped.open(entry) as source, target.open("xb") as output:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > entry.file_size:
                raise zipfile.BadZipFile("larger than it says")
            output.write(chunk)


@contextmanager
def open_archive(
    archive: Path,
    folder: Path,
    *,
    file: str,
    limits: Limits | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[FileTree]:
    """The files of an archive, without a wrapping folder; its images are unpacked into the new `folder`.

    `file` is what messages call the archive. `on_progress` gets how many images are unpacked, and of how many. Raises
    FormatError naming the entry and the reason; what is unpacked by then is the caller's to delete.
    """
    limits = limits or Limits()
    try:
        zipped = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise FormatError([Problem(file, "the file is not a zip archive, or it is damaged")]) from error
    with zipped:
        _check(zipped.infolist(), archive.stat().st_size, file, limits)
        names = [
            entry.filename
            for entry in zipped.infolist()
            if not entry.is_dir() and not _CLUTTER.intersection(entry.filename.split("/"))
        ]
        folder.mkdir(parents=True)
        _unpack_images(zipped, names, folder, on_progress)
        yield FileTree(names, zipped.open, folder).without_wrapping()


def _unpack_images(
    zipped: zipfile.ZipFile, names: list[str], folder: Path, on_progress: Callable[[int, int], None]
) -> None:
    images = [zipped.getinfo(name) for name in names if name[name.rfind(".") :].lower() in IMAGE_SUFFIXES]
    if sum(entry.file_size for entry in images) > shutil.disk_usage(folder).free:
        raise FormatError([Problem("(all images)", "there is not enough room on the disk to unpack them")])
    for done, entry in enumerate(images, start=1):
        try:
            _unpack_entry(zipped, entry, folder / entry.filename)
        except DAMAGE as error:
            raise FormatError([Problem(ascii(entry.filename[:80]), "the entry is damaged")]) from error
        on_progress(done, len(images))
