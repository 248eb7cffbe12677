"""`tiles.csv`: the name, split, image suffix and size (px) of every tile of a YOLO or LabelImg export.

YOLO text has no sizes, so an export without images could not be read back without it. Other tools ignore the file.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from annotation.formats.reading import ImageFolder, LabelFile, Problems, read_text, whole
from annotation.formats.records import LabelledTile, Problem

TILE_TABLE = "tiles.csv"
_HEADER = ["name", "split", "suffix", "width", "height"]
_TABLE_BYTES = 64 * 1024 * 1024


class TileTable:
    """Writes the table line by line into an open text file."""

    def __init__(self, handle: TextIO) -> None:
        self._rows = csv.writer(handle, lineterminator="\n")
        self._rows.writerow(_HEADER)

    def add(self, tile: LabelledTile) -> None:
        self._rows.writerow([tile.name, tile.split, tile.suffix, tile.width, tile.height])


def _read_table(file: LabelFile | None) -> dict[str, tuple[str, tuple[int, int]]]:
    if file is None:
        return {}
    rows = csv.reader(read_text(file, TILE_TABLE, _TABLE_BYTES).splitlines())
    table: dict[str, tuple[str, tuple[int, int]]] = {}
    known: dict[tuple[str, tuple[int, int]], tuple[str, tuple[int, int]]] = {}  # nearly all tiles are of one size
    problems = Problems()
    if next(rows, None) != _HEADER:
        problems.add(Problem(TILE_TABLE, "the columns must be " + ", ".join(_HEADER), 1))
    for line, row in enumerate(rows, start=2):
        width, height = (whole(row[3]), whole(row[4])) if len(row) == len(_HEADER) else (None, None)
        if width is None or height is None:
            problems.add(Problem(TILE_TABLE, "a tile needs name, split, suffix, width and height", line))
        else:
            facts = (row[2], (width, height))
            table[row[0]] = known.setdefault(facts, facts)
    problems.raise_if_any()
    return table


class TileSizes:
    """Finds the size (width, height in px) and image suffix of a tile.

    The image itself comes first, then `tiles.csv` where there is one, then what is `known` by the tile's name, then
    `default`. Raises FormatError with every malformed line of the table.
    """

    def __init__(
        self,
        table: LabelFile | None,
        default: tuple[int, int] | None,
        known: Callable[[str], tuple[int, int] | None] = lambda name: None,
    ) -> None:
        self._table = _read_table(table)
        self._default = default
        self._known = known

    def find(self, images: ImageFolder, stem: str) -> tuple[tuple[int, int] | None, str]:
        """Size, or None when nothing tells it, and suffix. Raises FormatError when the image cannot be read."""
        suffix, size = self._table.get(stem) or (".jpg", self._known(stem) or self._default)
        return images.size(stem) or size, images.suffix(stem) or suffix


def table_in(folder: Path) -> Path | None:
    """The table in a folder, or None."""
    path = folder / TILE_TABLE
    return path if path.is_file() else None
