"""Single-cell crops: a PNG per box in a folder per class, and `manifest.csv` that says what each one is.

A folder is named after the class's number and name (`03_promyelocyte`), a crop after its tile and its place among the
tile's boxes. Classes without a cell have an empty folder, so that folders and classes agree whatever was chosen.
"""

import csv
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from annotation.csv_cells import safe_cell
from annotation.formats.classes import CLASS_LIST, class_list_text
from annotation.formats.csv_table import BOX_COLUMNS, TILE_COLUMNS, box_cells, tile_cells
from annotation.formats.records import LabelledTile
from annotation.formats.writing import FolderWriter, Output, checked_tiles

CROP_TABLE = "manifest.csv"
# The PNGs of a tile's boxes, in their order.
CropSource = Callable[[LabelledTile], Sequence[bytes]]


def class_folder(class_id: int, name: str) -> str:
    """A folder name that every system takes: the class's number, then its name in ASCII."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return f"{class_id:02d}_{re.sub(r'[^A-Za-z0-9]+', '-', plain).strip('-')}".rstrip("_")


def write_crops(
    folder: Path, tiles: Iterable[LabelledTile], classes: Sequence[str], *, crops: CropSource
) -> list[Path]:
    """Write the crops, tile by tile, into a new or empty folder; returns the files written.

    Raises FormatError, and writes nothing, when a tile or box cannot be written (see `checked_tiles`).
    """
    with FolderWriter(folder) as output:
        fill_crops(output, tiles, classes, crops=crops)
    return output.written


def fill_crops(output: Output, tiles: Iterable[LabelledTile], classes: Sequence[str], *, crops: CropSource) -> None:
    """Put the files of `write_crops` into an open folder or archive."""
    folders = [class_folder(class_id, name) for class_id, name in enumerate(classes)]
    class_names = [safe_cell(name) for name in classes]
    for folder in folders:
        output.make_folder(folder)
    output.write(CLASS_LIST, class_list_text(classes))
    with output.open_text(CROP_TABLE) as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(["file", *TILE_COLUMNS, *BOX_COLUMNS])
        for tile in checked_tiles(tiles, classes):
            cells = tile_cells(tile)
            pictures = crops(tile) if tile.boxes else ()
            for place, (box, picture) in enumerate(zip(tile.boxes, pictures, strict=True), start=1):
                file = f"{folders[box.class_id]}/{tile.name}_{place:03d}.png"
                output.write(file, picture)
                rows.writerow([file, *cells, *box_cells(tile, box, class_names)])
