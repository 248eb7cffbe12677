"""LabelImg: label files beside their images, one folder per split, to be opened with LabelImg's "Open Dir".

PascalVOC flavour: `<split>/<tile>.xml`. LabelImg counts pixels from 0 and its right and bottom corners are the edges of
the box (xmin = x, xmax = x + width), unlike the VOC development kit; see `voc` for that one. Corners are written with
up to four decimals; LabelImg itself cuts them to whole pixels when it loads them (and never saves a corner below 1).
YOLO flavour: `<split>/<tile>.txt` as in `yolo`, with the `classes.txt` that LabelImg looks for beside them.

In both, `classes.txt` in the frozen order lies at the top too: LabelImg takes it as its list of predefined classes.
`tiles.csv` (ours, ignored by LabelImg) keeps the sizes for the YOLO flavour. Scores and extra fields are not written.

Format: LabelImg 1.8, as its PascalVOC and YOLO readers take it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from annotation.formats.classes import CLASS_LIST, check_class_list, class_list_text
from annotation.formats.reading import (
    ImageFolder,
    Reading,
    check_folder,
    find_class_list,
    relative_name,
    split_folders,
)
from annotation.formats.records import SPLITS, Dataset, FormatError, LabelledTile, Problem
from annotation.formats.tile_table import TILE_TABLE, TileSizes, TileTable, table_in
from annotation.formats.voc import read_voc_file, voc_text
from annotation.formats.writing import FolderWriter, ImageSource, Output, checked_tiles
from annotation.formats.yolo import YoloFolder, read_yolo_folder, yolo_text

Flavour = Literal["voc", "yolo"]


def _write_voc_tiles(output: Output, tiles: Iterable[LabelledTile], classes: Sequence[str]) -> None:
    for tile in tiles:
        content = voc_text(tile, classes, folder=tile.split, first_pixel=0)
        output.write(f"{tile.split}/{tile.name}.xml", content)


def _write_yolo_tiles(output: Output, tiles: Iterable[LabelledTile], classes: Sequence[str]) -> None:
    listed: set[str] = set()
    with output.open_text(TILE_TABLE) as handle:
        table = TileTable(handle)
        for tile in tiles:
            if tile.split not in listed:
                output.write(f"{tile.split}/{CLASS_LIST}", class_list_text(classes))
                listed.add(tile.split)
            table.add(tile)
            output.write(f"{tile.split}/{tile.name}.txt", yolo_text(tile))


def _with_images(output: Output, tiles: Iterable[LabelledTile], image: ImageSource | None) -> Iterator[LabelledTile]:
    """Pass the tiles on, each with its image written."""
    for tile in tiles:
        if image is not None:
            output.write(f"{tile.split}/{tile.name}{tile.suffix}", image(tile))
        yield tile


def write_labelimg(
    folder: Path,
    tiles: Iterable[LabelledTile],
    classes: Sequence[str],
    *,
    flavour: Flavour,
    image: ImageSource | None = None,
) -> list[Path]:
    """Write the tiles, one at a time, for LabelImg into a new or empty folder; returns the files written.

    `image` returns a tile's encoded image; without it only labels are written. The same tiles give the same bytes.
    Raises FormatError, and writes nothing, when a tile or box cannot be written (see `checked_tiles`).
    """
    with FolderWriter(folder) as output:
        fill_labelimg(output, tiles, classes, flavour=flavour, image=image)
    return output.written


def fill_labelimg(
    output: Output,
    tiles: Iterable[LabelledTile],
    classes: Sequence[str],
    *,
    flavour: Flavour,
    image: ImageSource | None = None,
) -> None:
    """Put the files of `write_labelimg` into an open folder or archive."""
    output.write(CLASS_LIST, class_list_text(classes))
    ready = _with_images(output, checked_tiles(tiles, classes), image)
    write = _write_voc_tiles if flavour == "voc" else _write_yolo_tiles
    write(output, ready, classes)


def _read_voc_folder(reading: Reading, root: Path, labels: Path, split: str) -> None:
    image_files = ImageFolder(labels)
    paths = sorted(labels.glob("*.xml"))
    for path in paths:
        read_voc_file(reading, path, relative_name(path, root), image_files, split, 0)
    reading.add_unlabelled(image_files, {path.stem for path in paths})


def read_labelimg(
    folder: Path,
    *,
    flavour: Flavour,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    leave_out_bad_boxes: bool = False,
) -> Dataset:
    """Read a folder that LabelImg saved into (all tiles are train then), or one folder per split.

    Class names come from `classes.txt`; when `classes` (the project's frozen list) is given they are looked up in it;
    PascalVOC files without either get ids in order of appearance. `size` (width, height in px) serves tiles of the YOLO
    flavour that have neither an image nor a line in `tiles.csv`.
    Degenerate and outside boxes are an error, or are left out and listed in the result with `leave_out_bad_boxes`.
    Raises FormatError with everything found: bad XML or lines, unknown classes, missing image sizes, and so on.
    """
    check_folder(folder)
    names = find_class_list(folder, (".", *SPLITS))
    if flavour == "yolo" and names is None and classes is None:
        raise FormatError([Problem(folder.name, f"there is no class list ({CLASS_LIST})")])
    reading = Reading(frozen=names if classes is None else classes, leave_out_bad_boxes=leave_out_bad_boxes)
    tile_sizes = TileSizes(table_in(folder), size)
    for labels, split in split_folders(folder, "*.xml" if flavour == "voc" else "*.txt"):
        if flavour == "voc":
            _read_voc_folder(reading, folder, labels, split)
        else:
            file_names = names or check_class_list(classes or (), "the class list")
            read_yolo_folder(reading, folder, YoloFolder(labels, labels, split), file_names, tile_sizes)
    return reading.dataset()
