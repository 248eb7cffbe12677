"""What all readers share: bounded files, image sizes, and the gathering of boxes, tiles and problems."""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol, TextIO

from PIL import Image, UnidentifiedImageError

from annotation.formats.boxes import MINIMUM_SIDE, UnfitBox, cut_box, fit_box
from annotation.formats.classes import CLASS_LIST, ClassIndex, check_class_list
from annotation.formats.records import SPLITS, Dataset, FormatError, LabelledBox, LabelledTile, Problem

LABEL_FILE_BYTES = 8 * 1024 * 1024
CLASS_LIST_BYTES = 1024 * 1024
SPLIT_LIST_BYTES = 64 * 1024 * 1024
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_MAXIMUM_PROBLEMS = 1000
_BUFFER_BYTES = 1 << 20
# What zipfile raises for an entry that is not what the archive says.
DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


class LabelFile(Protocol):
    """What a reader opens: a path, or an entry of an archive."""

    @property
    def name(self) -> str: ...

    @property
    def stem(self) -> str: ...

    def open(self, mode: Literal["rb"], /) -> IO[bytes]: ...


class Problems:
    """Gathers problems; raises FormatError by itself at 1000, so that a file of rubbish does not fill the memory."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, problem: Problem) -> None:
        self._found.append(problem)
        if len(self._found) >= _MAXIMUM_PROBLEMS:
            raise FormatError(self._found)

    def add_all(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem)

    def raise_if_any(self) -> None:
        if self._found:
            raise FormatError(self._found)


def relative_name(path: Path, folder: Path) -> str:
    """The name of a file in messages: relative to the data set's folder, with forward slashes."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) and path != folder else path.name


@contextmanager
def opened(file: LabelFile, name: str) -> Iterator[IO[bytes]]:
    """The file, open; raises FormatError when it cannot be read, at once or on the way."""
    try:
        with file.open("rb") as handle:
            yield handle
    except OSError as error:
        raise FormatError([Problem(name, f"the file cannot be read ({error.strerror})")]) from error
    except UnicodeDecodeError as error:
        raise FormatError([Problem(name, "the file is not UTF-8 text")]) from error
    except DAMAGE as error:
        raise FormatError([Problem(name, "the entry is damaged")]) from error


def read_bounded(path: LabelFile, name: str, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes; raises FormatError when it is larger or cannot be read."""
    with opened(path, name) as handle:
        content = handle.read(limit + 1)
    if len(content) > limit:
        raise too_large(name, limit)
    return content


def too_large(name: str, limit: int) -> FormatError:
    """The error for a file of more than `limit` bytes."""
    return FormatError([Problem(name, f"the file is larger than {limit // (1024 * 1024)} MB")])


def read_text(path: LabelFile, name: str, limit: int) -> str:
    """The text of a UTF-8 file (with or without byte-order mark); raises FormatError as `read_bounded` does."""
    try:
        return read_bounded(path, name, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError([Problem(name, "the file is not UTF-8 text")]) from error


class _Bounded(io.RawIOBase):
    """A file that ends in a FormatError after `limit` bytes."""

    def __init__(self, handle: IO[bytes], file: str, limit: int) -> None:
        self._handle, self._file, self._limit, self._left = handle, file, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # what io hands over
        content = self._handle.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise too_large(self._file, self._limit)
        buffer[: len(content)] = content
        return len(content)


def bounded_text(handle: IO[bytes], file: str, limit: int, newline: str | None = None) -> TextIO:
    """The text of an open UTF-8 file, with or without byte-order mark. Raises FormatError after `limit` bytes."""
    buffered = io.BufferedReader(_Bounded(handle, file, limit), _BUFFER_BYTES)  # type: ignore[type-var]
    return io.TextIOWrapper(buffered, encoding="utf-8-sig", newline=newline)


def finite(value: object) -> float | None:
    """A number or its text as a float, or None when it is not one or not finite."""
    kind = type(value)
    if kind is not float and kind is not int and (kind is not str or "_" in str(value)):
        return None  # a truth value; or digits in groups, which only Python writes
    try:
        result = float(value)  # type: ignore[arg-type]  # one of the three
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def finite_all(texts: Sequence[str]) -> list[float]:
    """The numbers of all texts, blanks around them or not; an empty list when one is not finite, or not a number."""
    try:
        numbers = list(map(float, texts))
    except ValueError:
        return []
    return numbers if math.isfinite(sum(numbers)) and "_" not in "".join(texts) else []


def whole(value: object) -> int | None:
    """A whole number, its text or a float without fraction (5, "5", "5.0") as an int, or None when it is not one."""
    result = finite(value)
    return int(result) if result is not None and result.is_integer() else None


def check_folder(folder: Path) -> None:
    """Raises FormatError when the folder is missing."""
    if not folder.is_dir():
        raise FormatError([Problem(folder.name, "there is no such folder")])


def read_class_list(path: LabelFile, name: str) -> tuple[str, ...]:
    """The names in `classes.txt`, in id order. Raises FormatError when a line is blank or a name is there twice."""
    lines = read_text(path, name, CLASS_LIST_BYTES).rstrip().splitlines()
    return check_class_list([line.strip() for line in lines], name)


def find_class_list(folder: Path, places: Sequence[str] = (".",)) -> tuple[str, ...] | None:
    """The first `classes.txt` in one of the places under `folder`, or None."""
    for place in places:
        path = folder / place / CLASS_LIST
        if path.is_file():
            return read_class_list(path, relative_name(path, folder))
    return None


class ImageFolder:
    """The images of one folder by stem (an empty one when the folder does not exist)."""

    def __init__(self, folder: Path) -> None:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        self._paths = {path.stem: path for path in reversed(entries) if path.suffix.lower() in IMAGE_SUFFIXES}

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, stem: str) -> Path | None:
        return self._paths.get(stem)

    def suffix(self, stem: str) -> str | None:
        return self._paths[stem].suffix if stem in self._paths else None

    def names_without(self, stems: set[str]) -> list[str]:
        """The file names of the images whose stem is not in `stems`, sorted."""
        return sorted(path.name for stem, path in self._paths.items() if stem not in stems)

    def size(self, stem: str) -> tuple[int, int] | None:
        """Width and height in px from the image's header, None without an image. Raises FormatError when unreadable."""
        path = self._paths.get(stem)
        if path is None:
            return None
        try:
            with Image.open(path) as image:
                return image.size
        except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise FormatError([Problem(path.name, "the image cannot be read")]) from error


class ImageTree(ImageFolder):
    """The images below a folder by stem, wherever they lie. Raises FormatError when two have the same stem.

    `without`: the names of folders whose files are no images of tiles.
    """

    def __init__(self, folder: Path, without: Collection[str] = ()) -> None:
        self._paths = {}
        problems = Problems()
        for path in sorted(folder.rglob("*")):
            if without and not set(path.relative_to(folder).parts[:-1]).isdisjoint(without):
                continue
            if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
                continue
            first = self._paths.setdefault(path.stem, path)
            if first != path:
                other = relative_name(first, folder)
                problems.add(Problem(relative_name(path, folder), f"has the same name as {other}, but for its folder"))
        problems.raise_if_any()


@dataclass(frozen=True)
class BadBoxes:
    """What is done with boxes that cannot be kept: by default each is a problem.

    `leave_out`: they are left out and listed. `cut`: those that reach outside are cut at the tile's edge and listed.
    `minimum_side` in px: what is shorter is degenerate. `most`: a tile with more boxes is a problem whatever is chosen.
    """

    leave_out: bool = False
    cut: bool = False
    minimum_side: float = MINIMUM_SIDE
    most: float = math.inf


# Takes a tile as soon as it is read, its label file, and the class names that the ids of its boxes are places of.
Keep = Callable[[LabelledTile, str, Sequence[str]], None]


class Reading:
    """What a reader has gathered so far: tiles, problems, boxes left out or cut, and class names in use.

    With `keep`, tiles are handed on as they are read, problems or not, and nothing is held of them but their names.
    """

    def __init__(
        self,
        *,
        frozen: Sequence[str] | None,
        leave_out_bad_boxes: bool = False,
        bad_boxes: BadBoxes | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.problems = Problems()
        self.index = ClassIndex(None if frozen is None else check_class_list(frozen, "the class list"))
        self._bad_boxes = bad_boxes or BadBoxes(leave_out=leave_out_bad_boxes)
        self._minimum_side = self._bad_boxes.minimum_side
        self._left_out: list[Problem] = []
        self._cut: list[Problem] = []
        self._keep = keep or self._gather
        self._names: set[str] = set()
        self._tiles: list[LabelledTile] = []
        self._sources: dict[str, str] = {}
        self._unlabelled: list[str] = []
        self._emptied: list[str] = []
        self._passed_over: list[Problem] = []

    def bad_box(self, problem: Problem) -> None:
        """A box that cannot be kept: left out and listed, or a problem, as the caller of the reader wished."""
        if self._bad_boxes.leave_out:
            self._left_out.append(problem)
        else:
            self.problems.add(problem)

    def fit(
        self,
        box: LabelledBox,
        size: tuple[int, int],
        file: str,
        line: int | None = None,
        *,
        what: str = "",
    ) -> LabelledBox | None:
        """The box cut to the tile, or None when it is not fit to be kept (see `bad_box`)."""
        width, height = size
        minimum_side = self._minimum_side
        try:
            return fit_box(box, width, height, minimum_side=minimum_side)
        except UnfitBox as error:
            problem = Problem(file, f"{what}{error}", line)
        if self._bad_boxes.cut:
            try:
                cut = cut_box(box, *size, minimum_side=minimum_side)
            except UnfitBox:
                pass
            else:
                self._cut.append(problem)
                return cut
        self.bad_box(problem)
        return None

    def add_tile(
        self,
        file: str,
        name: str,
        size: tuple[int, int],
        boxes: Sequence[LabelledBox],
        *,
        split: str,
        suffix: str,
        drawn: bool,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Keep a tile, or note why its name, size, suffix or number of boxes cannot be used.

        `drawn`: whether its file has anything on it, be it boxes that cannot be kept.
        """
        if name in self._names:
            self.problems.add(Problem(file, f"two tiles have the name {name[:80]!r}"))
        if len(boxes) > self._bad_boxes.most:
            self.too_many(file, str(len(boxes)))
        self._names.add(name)
        if drawn and not boxes:
            self._emptied.append(name)
        try:
            tile = LabelledTile(name, *size, tuple(boxes), split, suffix, extra or {})
        except FormatError as error:
            self.problems.add_all(Problem(file, problem.reason) for problem in error.problems)
        else:
            self._keep(tile, file, self.index.in_order)

    def _gather(self, tile: LabelledTile, file: str, names: Sequence[str]) -> None:
        self._tiles.append(tile)
        self._sources[tile.name] = file

    @property
    def most_boxes(self) -> float:
        """How many boxes a tile may have."""
        return self._bad_boxes.most

    def too_many(self, file: str, count: str, what: str = "") -> None:
        """A tile has more boxes than a tile may have."""
        reason = f"{what}{count} boxes on one tile: at most {self._bad_boxes.most} are taken"
        self.problems.add(Problem(file, reason))

    def add_unlabelled(self, images: ImageFolder, stems: set[str]) -> None:
        self._unlabelled += images.names_without(stems)

    def add_unread(self, name: str, passed_over: Problem | None = None) -> None:
        """An image that the labels name without a word of what is on it; `passed_over`: what is not taken for one."""
        self._unlabelled.append(name)
        if passed_over is not None:
            self._passed_over.append(passed_over)

    def dataset(self) -> Dataset:
        """All that was gathered, split by split in name order. Raises FormatError with all problems, if any."""
        unknown = self.index.problem()
        if unknown is not None:
            self.problems.add(unknown)
        self.problems.raise_if_any()
        tiles = sorted(self._tiles, key=lambda tile: (SPLITS.index(tile.split), tile.name))
        return Dataset(
            self.index.names,
            tuple(tiles),
            tuple(self._left_out),
            tuple(self._unlabelled),
            tuple(self._cut),
            self._sources,
            tuple(self._emptied),
            tuple(self._passed_over),
        )


def split_folders(folder: Path, pattern: str) -> list[tuple[Path, str]]:
    """Folders of label files with their split: train, val and test below `folder`, and `folder` itself as train.

    Raises FormatError when another folder holds label files, so that none is passed over in silence.
    """
    found = [(folder, "train")] if any(path.name != CLASS_LIST for path in folder.glob(pattern)) else []
    found += [(folder / split, split) for split in SPLITS if (folder / split).is_dir()]
    others = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in SPLITS]
    problems = [
        Problem(name, "the splits are train, val and test") for name in others if any((folder / name).glob(pattern))
    ]
    if problems:
        raise FormatError(problems)
    return found
