"""CSV: `boxes.csv`, one row per box, and one row without a class for a tile without boxes.

`x`, `y`, `width`, `height` are px of the tile, the columns that begin with `slide_` px of the whole slide (level 0),
all with at most four decimals and the origin at the top left. Words that a spreadsheet would take for a formula have an
apostrophe before them. `classes.txt` holds the frozen order of the classes. There are no images.
"""

import csv
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from annotation.csv_cells import plain_cell, safe_cell
from annotation.formats.classes import CLASS_LIST, class_list_text
from annotation.formats.reading import (
    LabelFile,
    Reading,
    bounded_text,
    check_folder,
    find_class_list,
    finite_all,
    opened,
    relative_name,
    whole,
)
from annotation.formats.records import Dataset, FormatError, LabelledBox, LabelledTile, Problem
from annotation.formats.slide_pixels import in_slide_px
from annotation.formats.writing import FolderWriter, Output, checked_tiles, number

BOX_TABLE = "boxes.csv"
TILE_COLUMNS = ("tile", "split", "tile_width", "tile_height", "patient", "slide", "round", "author")
_PX = ("x", "y", "width", "height")
_SLIDE_PX = ("slide_x", "slide_y", "slide_width", "slide_height")
BOX_COLUMNS = ("class_id", "class", *_PX, *_SLIDE_PX)
_NEEDED = ("tile", "tile_width", "tile_height", "class", *_PX)
_TABLE_BYTES = 512 * 1024 * 1024
_HEAD_BYTES = 64 * 1024
_WORDS = ("patient", "slide", "author")


def tile_cells(tile: LabelledTile) -> list[object]:
    """The cells of TILE_COLUMNS."""
    patient, slide, author = (safe_cell(str(tile.extra.get(key) or "")) for key in _WORDS)
    of_round = tile.extra.get("round")
    return [
        tile.name,
        tile.split,
        tile.width,
        tile.height,
        patient,
        slide,
        "" if of_round is None else of_round,
        author,
    ]


def box_cells(tile: LabelledTile, box: LabelledBox, class_names: Sequence[str]) -> list[object]:
    """The cells of BOX_COLUMNS, the slide's empty when the tile's place is unknown; `class_names` are safe cells."""
    cells = [box.class_id, class_names[box.class_id], *_numbers(box)]
    return [*cells, *(_numbers(in_slide_px(box, tile)) if "slide_x" in tile.extra else [""] * 4)]


def _numbers(box: LabelledBox) -> list[str]:
    return [number(box.x), number(box.y), number(box.width), number(box.height)]


def write_csv(folder: Path, tiles: Iterable[LabelledTile], classes: Sequence[str]) -> list[Path]:
    """Write `boxes.csv`, tile by tile, into a new or empty folder; returns the files written.

    Raises FormatError, and writes nothing, when a tile or box cannot be written (see `checked_tiles`).
    """
    with FolderWriter(folder) as output:
        fill_csv(output, tiles, classes)
    return output.written


def fill_csv(output: Output, tiles: Iterable[LabelledTile], classes: Sequence[str]) -> None:
    """Put the files of `write_csv` into an open folder or archive."""
    class_names = [safe_cell(name) for name in classes]
    nothing = [""] * len(BOX_COLUMNS)
    output.write(CLASS_LIST, class_list_text(classes))
    with output.open_text(BOX_TABLE) as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow([*TILE_COLUMNS, *BOX_COLUMNS])
        for tile in checked_tiles(tiles, classes):
            cells = tile_cells(tile)
            if tile.boxes:
                rows.writerows([*cells, *box_cells(tile, box, class_names)] for box in tile.boxes)
            else:
                rows.writerow([*cells, *nothing])


class _Table:
    """The rows as they are read: each tile's first row, and its boxes as numbers."""

    def __init__(self, reading: Reading, file: str, head: Sequence[str]) -> None:
        self._reading = reading
        self._file = file
        self._columns = {name: head.index(name) for name in (*_NEEDED, "split", *_WORDS) if name in head}
        self._width = len(head)
        self._box_columns = [head.index(name) for name in ("class", *_PX)]
        self._facts: dict[str, tuple[tuple[int, int], str, dict[str, object]]] = {}
        self._boxes: dict[str, array[float]] = {}
        self._bad: set[str] = set()  # the tiles with boxes that cannot be kept
        self._sizes: dict[tuple[str, str], tuple[int, int]] = {}

    def _size(self, row: Sequence[str]) -> tuple[int, int] | None:
        texts = (row[self._columns["tile_width"]], row[self._columns["tile_height"]])
        if texts not in self._sizes:
            width, height = map(whole, texts)
            if width is None or height is None or width < 1 or height < 1:
                return None
            self._sizes[texts] = (width, height)
        return self._sizes[texts]

    def _words(self, row: Sequence[str]) -> dict[str, object]:
        cells = {name: row[self._columns[name]] for name in _WORDS if name in self._columns}
        return {name: plain_cell(cell) for name, cell in cells.items() if cell}

    def add(self, row: Sequence[str], line: int) -> None:
        problems = self._reading.problems
        if len(row) != self._width:
            problems.add(Problem(self._file, "the row has another number of cells than the head", line))
            return
        name, size = row[self._columns["tile"]], self._size(row)
        split = (row[self._columns["split"]] if "split" in self._columns else "") or "train"
        if size is None:
            problems.add(Problem(self._file, "missing image size: tile_width and tile_height above 0", line))
            return
        if name not in self._facts:
            self._facts[name], self._boxes[name] = (size, split, self._words(row)), array("d")
        if self._facts[name][:2] != (size, split):
            problems.add(Problem(self._file, f"{name[:80]!r} has another size or split above", line))
            return
        class_name, *cells = [row[column] for column in self._box_columns]
        if not class_name and not any(cells):
            return
        known = finite_all(cells)
        if not known or not class_name:
            problems.add(Problem(self._file, "a box needs a class and a finite x, y, width and height", line))
            return
        class_id = self._reading.index.find(plain_cell(class_name), self._file)
        fitted = self._reading.fit(LabelledBox(class_id or 0, *known), size, self._file, line)
        if fitted is not None:
            self._boxes[name].extend(fitted[:5])
        else:
            self._bad.add(name)
        if len(self._boxes[name]) > 5 * self._reading.most_boxes:
            self._reading.too_many(self._file, "more", f"{name[:80]!r}: ")
            problems.raise_if_any()  # a table made of boxes would go on for long

    def finish(self) -> set[str]:
        """Give every tile to the reading; returns their names."""
        for name, (size, split, extra) in self._facts.items():
            numbers = iter(self._boxes.pop(name))
            rows = zip(*[numbers] * 5, strict=True)
            boxes = [LabelledBox(int(class_id), x, y, width, height) for class_id, x, y, width, height in rows]
            drawn = bool(boxes) or name in self._bad
            self._reading.add_tile(self._file, name, size, boxes, split=split, suffix=".jpg", drawn=drawn, extra=extra)
        return set(self._facts)


def has_boxes(path: LabelFile, file: str) -> bool:
    """Whether a CSV file's head names the columns that boxes need. Raises FormatError when it cannot be read."""
    with opened(path, file) as handle:
        head = handle.readline(_HEAD_BYTES).decode("utf-8-sig", "replace")
    return set(_NEEDED) <= set(next(csv.reader([head]), []))


def read_csv_file(reading: Reading, path: LabelFile, file: str) -> set[str]:
    """Read one table into `reading`, row by row: a table of a million boxes is never held as a whole.

    Returns the names of its tiles. Raises FormatError when it is no CSV file, or lacks columns.
    """
    with opened(path, file) as handle:
        rows = csv.reader(bounded_text(handle, file, _TABLE_BYTES, newline=""), strict=True)
        try:
            head = next(rows, [])
            missing = [name for name in _NEEDED if name not in head]
            if missing:
                raise FormatError([Problem(file, f"columns are missing: {', '.join(missing)}", 1)])
            table = _Table(reading, file, head)
            for row in rows:
                if row:
                    table.add(row, rows.line_num)
        except csv.Error as error:
            raise FormatError([Problem(file, f"the file is not valid CSV ({error})", rows.line_num)]) from error
    return table.finish()


def read_csv(folder: Path, *, classes: Sequence[str] | None = None, leave_out_bad_boxes: bool = False) -> Dataset:
    """Read a folder with `boxes.csv`, or one CSV file with the columns tile, tile_width, tile_height, class, x, y,
    width and height (px of the tile); split, patient, slide and author may be there, other columns are not read.

    Class ids are those of `classes` (the project's frozen list), else of `classes.txt`, else in order of appearance.
    Degenerate and outside boxes are an error, or are left out and listed in the result with `leave_out_bad_boxes`.
    Raises FormatError with everything found: missing columns, numbers that are none, unknown classes, and so on.
    """
    path, found = folder, None
    if not folder.is_file():
        check_folder(folder)
        path, found = folder / BOX_TABLE, find_class_list(folder)
    file = relative_name(path, folder)
    if not path.is_file():
        raise FormatError([Problem(folder.name, f"there is no {BOX_TABLE} in it")])
    reading = Reading(frozen=found if classes is None else classes, leave_out_bad_boxes=leave_out_bad_boxes)
    read_csv_file(reading, path, file)
    return reading.dataset()
