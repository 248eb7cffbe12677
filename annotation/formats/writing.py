"""What all writers share: a folder that fills only if everything went well, and the check of each tile."""

import operator
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

from annotation.formats.boxes import MINIMUM_SIDE, UnfitBox, fit_box
from annotation.formats.classes import check_class_list
from annotation.formats.records import FormatError, LabelledBox, LabelledTile, Problem

ImageSource = Callable[[LabelledTile], bytes]
_PARTIAL = ".partial"


def number(value: float) -> str:
    """A coordinate in px with at most 4 decimals, without trailing zeros: 68, 68.25."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


class Output(Protocol):
    """Where a writer puts its files: a folder or an archive. Names are relative, with forward slashes."""

    def make_folder(self, relative: str) -> None: ...

    def write(self, relative: str, content: str | bytes) -> None: ...

    def open_text(self, relative: str) -> TextIO: ...


class FolderWriter:
    """Fills a new or empty folder, as a context manager.

    Files are made in a hidden folder inside it and moved up at the end, so a failed export leaves the folder empty.
    Raises FormatError when the folder already holds something: labels of an older export must not stay among new ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder / _PARTIAL
        self._made: set[Path] = set()
        self.written: list[Path] = []

    def __enter__(self) -> "FolderWriter":
        if self._folder.exists() and (not self._folder.is_dir() or any(self._folder.iterdir())):
            raise FormatError([Problem(self._folder.name, "an export needs a new or empty folder")])
        self._partial.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            for entry in sorted(self._partial.iterdir()):
                entry.replace(self._folder / entry.name)
        shutil.rmtree(self._partial)

    def make_folder(self, relative: str) -> None:
        self._prepare(self._partial / relative)

    def write(self, relative: str, content: str | bytes) -> None:
        """Write one file; text becomes UTF-8 with the line ends it has."""
        data = content.encode("utf-8") if isinstance(content, str) else content
        self._register(relative).write_bytes(data)

    def open_text(self, relative: str) -> TextIO:
        """Open one file for text that grows while the tiles stream by; the caller closes it."""
        return self._register(relative).open("w", encoding="utf-8", newline="")

    def _register(self, relative: str) -> Path:
        path = self._partial / relative
        self._prepare(path.parent)
        self.written.append(self._folder / relative)
        return path

    def _prepare(self, folder: Path) -> None:
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)


def _fitted(tile: LabelledTile, class_count: int, minimum_side: float) -> tuple[LabelledTile, list[Problem]]:
    boxes: list[LabelledBox] = []
    problems: list[Problem] = []
    for position, box in enumerate(tile.boxes, start=1):
        if not 0 <= box.class_id < class_count:
            problems.append(Problem(tile.name, f"box {position} has the unknown class id {box.class_id}"))
            continue
        try:
            boxes.append(fit_box(box, tile.width, tile.height, minimum_side=minimum_side))
        except UnfitBox as error:
            problems.append(Problem(tile.name, f"box {position}: {error}"))
    if len(boxes) == len(tile.boxes) and all(map(operator.is_, boxes, tile.boxes)):
        return tile, problems  # as nearly always: no second check of its name
    return replace(tile, boxes=tuple(boxes)), problems


def checked_tiles(
    tiles: Iterable[LabelledTile], classes: Sequence[str], *, minimum_side: float = MINIMUM_SIDE
) -> Iterator[LabelledTile]:
    """Yield the tiles one by one, fit to be written; once one is not, only the rest's problems are gathered.

    Raises FormatError at the end with the problems of all tiles: unknown class ids, boxes that are not finite, shorter
    than `minimum_side` px or outside, and names that a file system without letter case would take for the same.
    """
    check_class_list(classes, "the class list")
    problems: list[Problem] = []
    names: set[str] = set()
    for tile in tiles:
        key = unicodedata.normalize("NFC", tile.name).casefold()
        if key in names:
            problems.append(Problem(tile.name, "two tiles have this name"))
        names.add(key)
        fitted, unfit = _fitted(tile, len(classes), minimum_side)
        problems += unfit
        if not problems:
            yield fitted
    if problems:
        raise FormatError(problems)
