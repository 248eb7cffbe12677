"""What all readers share: bounded files, image sizes, and the gathering of boxes, tiles and problems."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from annotation.formats.boxes import MINIMUM_SIDE, UnfitBox, fit_box
from annotation.formats.classes import CLASS_LIST, ClassIndex, check_class_list
from annotation.formats.records import SPLITS, Dataset, FormatError, LabelledBox, LabelledTile, Problem

LABEL_FILE_BYTES = 8 * 1024 * 1024
CLASS_LIST_BYTES = 1024 * 1024
SPLIT_LIST_BYTES = 64 * 1024 * 1024
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_MAXIMUM_PROBLEMS = 1000


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


def read_bounded(path: Path, name: str, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes; raises FormatError when it is larger or cannot be read."""
    try:
        with path.open("rb") as handle:
            content = handle.read(limit + 1)
    except OSError as error:
        raise FormatError([Problem(name, f"the file cannot be read ({error.strerror})")]) from error
    if len(content) > limit:
        raise FormatError([Problem(name, f"the file is larger than {limit // (1024 * 1024)} MB")])
    return content


def read_text(path: Path, name: str, limit: int) -> str:
    """The text of a UTF-8 file (with or without byte-order mark); raises FormatError as `read_bounded` does."""
    try:
        return read_bounded(path, name, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError([Problem(name, "the file is not UTF-8 text")]) from error


def finite(value: object) -> float | None:
    """A number or its text as a float, or None when it is not one or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # Python's own notation, in no format
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def whole(value: object) -> int | None:
    """A whole number, its text or a float without fraction (5, "5", "5.0") as an int, or None when it is not one."""
    result = finite(value)
    return int(result) if result is not None and result.is_integer() else None


def check_folder(folder: Path) -> None:
    """Raises FormatError when the folder is missing."""
    if not folder.is_dir():
        raise FormatError([Problem(folder.name, "there is no such folder")])


def read_class_list(path: Path, folder: Path) -> tuple[str, ...]:
    """The names in `classes.txt`, in id order. Raises FormatError when a line is blank or a name is there twice."""
    name = relative_name(path, folder)
    lines = read_text(path, name, CLASS_LIST_BYTES).rstrip().splitlines()
    return check_class_list([line.strip() for line in lines], name)


def find_class_list(folder: Path, places: Sequence[str] = (".",)) -> tuple[str, ...] | None:
    """The first `classes.txt` in one of the places under `folder`, or None."""
    for place in places:
        path = folder / place / CLASS_LIST
        if path.is_file():
            return read_class_list(path, folder)
    return None


class ImageFolder:
    """The images of one folder by stem (an empty one when the folder does not exist)."""

    def __init__(self, folder: Path) -> None:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        self._paths = {path.stem: path for path in reversed(entries) if path.suffix.lower() in IMAGE_SUFFIXES}

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


class Reading:
    """What a reader has gathered so far: tiles, problems, boxes left out, and class names in use."""

    def __init__(self, *, frozen: Sequence[str] | None, leave_out_bad_boxes: bool) -> None:
        self.problems = Problems()
        self.index = ClassIndex(None if frozen is None else check_class_list(frozen, "the class list"))
        self._leave_out = leave_out_bad_boxes
        self._left_out: list[Problem] = []
        self._tiles: dict[str, LabelledTile] = {}
        self._unlabelled: list[str] = []

    def bad_box(self, problem: Problem) -> None:
        """A box that cannot be kept: left out and listed, or a problem, as the caller of the reader wished."""
        if self._leave_out:
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
        minimum_side: float = MINIMUM_SIDE,
    ) -> LabelledBox | None:
        """The box cut to the tile, or None when it is not fit to be kept (see `bad_box`)."""
        try:
            return fit_box(box, *size, minimum_side=minimum_side)
        except UnfitBox as error:
            self.bad_box(Problem(file, f"{what}{error}", line))
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
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Keep a tile, or note why its name, size or suffix cannot be used."""
        if name in self._tiles:
            self.problems.add(Problem(file, f"two tiles have the name {name[:80]!r}"))
        try:
            self._tiles[name] = LabelledTile(name, *size, tuple(boxes), split, suffix, extra or {})
        except FormatError as error:
            self.problems.add_all(Problem(file, problem.reason) for problem in error.problems)

    def add_unlabelled(self, images: ImageFolder, stems: set[str]) -> None:
        self._unlabelled += images.names_without(stems)

    def dataset(self) -> Dataset:
        """Everything read, split by split in name order. Raises FormatError with all problems when there are any."""
        unknown = self.index.problem()
        if unknown is not None:
            self.problems.add(unknown)
        self.problems.raise_if_any()
        tiles = sorted(self._tiles.values(), key=lambda tile: (SPLITS.index(tile.split), tile.name))
        return Dataset(self.index.names, tuple(tiles), tuple(self._left_out), tuple(self._unlabelled))


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
