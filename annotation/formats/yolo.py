"""YOLO detection text, in the folder layout that ultralytics trains from.

`labels/<split>/<tile>.txt` has one line per box, `class x_centre y_centre width height`, the last four as fractions of
the tile's width and height; a tile without boxes has an empty file. `images/<split>/` holds the images and `data.yaml`
the class names. `data.yaml` has no `path` on purpose: ultralytics takes its own folder then, while `path: .` would mean
whatever folder the training is started from. `tiles.csv` (ours, ignored by others) keeps the sizes in px, which YOLO
text does not have. Scores and extra fields are not written: a training label with six columns is refused.

Format: https://docs.ultralytics.com/datasets/detect/
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from annotation.formats.classes import CLASS_LIST, check_class_list
from annotation.formats.reading import (
    CLASS_LIST_BYTES,
    LABEL_FILE_BYTES,
    ImageFolder,
    LabelFile,
    Reading,
    check_folder,
    find_class_list,
    finite,
    read_text,
    relative_name,
    split_folders,
    whole,
)
from annotation.formats.records import SPLITS, Dataset, FormatError, LabelledBox, LabelledTile, Problem
from annotation.formats.tile_table import TILE_TABLE, TileSizes, TileTable, table_in
from annotation.formats.writing import FolderWriter, ImageSource, Output, checked_tiles

DATA_FILE = "data.yaml"


def yolo_text(tile: LabelledTile) -> str:
    """One line per box. Eight decimals keep a box of a 4096 px tile to 0.0001 px."""
    lines = []
    for box in tile.boxes:
        x_centre, y_centre = (box.x + box.width / 2) / tile.width, (box.y + box.height / 2) / tile.height
        numbers = f"{x_centre:.8f} {y_centre:.8f} {box.width / tile.width:.8f} {box.height / tile.height:.8f}"
        lines.append(f"{box.class_id} {numbers}\n")
    return "".join(lines)


def write_yolo(
    folder: Path, tiles: Iterable[LabelledTile], classes: Sequence[str], *, image: ImageSource | None = None
) -> list[Path]:
    """Write the tiles, one at a time, as an ultralytics data set into a new or empty folder; returns the files written.

    `image` returns a tile's encoded image; without it only labels are written. The same tiles give the same bytes.
    Raises FormatError, and writes nothing, when a tile or box cannot be written (see `checked_tiles`).
    """
    with FolderWriter(folder) as output:
        fill_yolo(output, tiles, classes, image=image)
    return output.written


def fill_yolo(
    output: Output, tiles: Iterable[LabelledTile], classes: Sequence[str], *, image: ImageSource | None = None
) -> None:
    """Put the files of `write_yolo` into an open folder or archive."""
    used = {"train", "val"}
    with output.open_text(TILE_TABLE) as handle:
        table = TileTable(handle)
        for tile in checked_tiles(tiles, classes):
            used.add(tile.split)
            table.add(tile)
            output.write(f"labels/{tile.split}/{tile.name}.txt", yolo_text(tile))
            if image is not None:
                output.write(f"images/{tile.split}/{tile.name}{tile.suffix}", image(tile))
    splits = [split for split in SPLITS if split in used]
    # ultralytics insists on train and val; their folders exist even when no tile is in them.
    for split in splits:
        output.make_folder(f"images/{split}")
        output.make_folder(f"labels/{split}")
    data = {**{split: f"images/{split}" for split in splits}, "names": dict(enumerate(classes))}
    output.write(DATA_FILE, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def names_of_data_file(path: LabelFile, file: str = DATA_FILE) -> tuple[str, ...]:
    """The class names of `data.yaml`, a list or a mapping from 0 on; `file` is its name in messages.

    Raises FormatError.
    """
    text = read_text(path, file, CLASS_LIST_BYTES)
    try:
        # BaseLoader makes nothing but strings, lists and mappings; a class named "no" or "1" stays its name.
        data = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise FormatError([Problem(file, "the file is not valid YAML")]) from error
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, dict):
        by_id = {whole(key): name for key, name in names.items()}
        names = [by_id.get(class_id) for class_id in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError([Problem(file, "`names` must list the classes, numbered from 0 without gaps")])
    return check_class_list(names, file)


def _class_list(folder: Path) -> tuple[str, ...] | None:
    if (folder / DATA_FILE).is_file():
        return names_of_data_file(folder / DATA_FILE)
    return find_class_list(folder, (".", "labels"))


def _read_line(row: str) -> tuple[int, list[float]] | None:
    """Class id and four or five numbers of one line, or None when it is malformed."""
    class_text, *fields = row.split()
    try:
        x, y, width, height = map(float, fields)
        if "_" not in row and math.isfinite(x + y + width + height):
            return int(class_text), [x, y, width, height]  # as nearly always
    except ValueError:
        pass
    class_id, numbers = whole(class_text), [finite(field) for field in fields]
    known = [value for value in numbers if value is not None]
    if class_id is None or len(known) != len(numbers) or len(numbers) not in (4, 5):
        return None
    return class_id, known


def _read_boxes(
    reading: Reading, text: str, file: str, size: tuple[int, int], names: Sequence[str]
) -> list[LabelledBox]:
    """The boxes (px) in the text of one label file, for a tile of `size` px; problems go to `reading`.

    A sixth column, as ultralytics predictions have, is the score.
    """
    tile_width, tile_height = size
    boxes = []
    for line, row in enumerate(text.splitlines(), start=1):
        if not row or row.isspace():
            continue
        parsed = _read_line(row)
        if parsed is None:
            reason = "expected `class x_centre y_centre width height`, all finite numbers"
            reading.problems.add(Problem(file, f"{reason}, found {row.strip()[:80]!r}", line))
            continue
        class_number, numbers = parsed
        x_centre, y_centre, width, height = numbers[:4]
        if not 0 <= class_number < len(names):
            reason = f"class {class_number} is not in the class list (0 to {len(names) - 1})"
            reading.problems.add(Problem(file, reason, line))
            continue
        class_id = reading.index.find(names[class_number], file)
        left, top = (x_centre - width / 2) * tile_width, (y_centre - height / 2) * tile_height
        score = numbers[4] if len(numbers) > 4 else None
        box = LabelledBox(class_id or 0, left, top, width * tile_width, height * tile_height, score)
        fitted = reading.fit(box, size, file, line)
        if fitted is not None:
            boxes.append(fitted)
    return boxes


@dataclass(frozen=True)
class YoloFolder:
    """One split: the folder of its label files, the folder of its images (may be missing), and its name."""

    labels: Path
    images: Path
    split: str


def read_yolo_file(
    reading: Reading,
    path: LabelFile,
    file: str,
    images: ImageFolder,
    split: str,
    names: Sequence[str],
    tile_sizes: TileSizes,
) -> None:
    """Read one label file into `reading`; the tile takes its name from the file."""
    try:
        size, suffix = tile_sizes.find(images, path.stem)
        text = read_text(path, file, LABEL_FILE_BYTES)
    except FormatError as error:
        reading.problems.add_all(error.problems)
        return
    if size is None:
        reading.problems.add(Problem(file, f"missing image size: no image of this name and no {TILE_TABLE}"))
        return
    boxes = _read_boxes(reading, text, file, size, names)
    reading.add_tile(file, path.stem, size, boxes, split=split, suffix=suffix, drawn=bool(text.strip()))


def read_yolo_folder(
    reading: Reading, root: Path, part: YoloFolder, names: Sequence[str], tile_sizes: TileSizes
) -> None:
    """Read all label files of one split of the data set at `root` into `reading`."""
    images = ImageFolder(part.images)
    paths = [path for path in sorted(part.labels.glob("*.txt")) if path.name != CLASS_LIST]
    for path in paths:
        read_yolo_file(reading, path, relative_name(path, root), images, part.split, names, tile_sizes)
    reading.add_unlabelled(images, {path.stem for path in paths})


def read_yolo(
    folder: Path,
    *,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    leave_out_bad_boxes: bool = False,
) -> Dataset:
    """Read an ultralytics data set, or `labels/` and `images/` without splits (all tiles are train then).

    Class names come from `data.yaml` or `classes.txt`; when `classes` (the project's frozen list) is given they are
    looked up in it. `size` (width, height in px) serves tiles that have neither an image nor a line in `tiles.csv`.
    Degenerate and outside boxes are an error, or are left out and listed in the result with `leave_out_bad_boxes`.
    Raises FormatError with everything found: malformed lines, unknown classes, missing image sizes, and so on.
    """
    check_folder(folder)
    if not (folder / "labels").is_dir():
        raise FormatError([Problem(folder.name, "there is no folder `labels` in it")])
    names = _class_list(folder) or (check_class_list(classes, "the class list") if classes is not None else None)
    if names is None:
        raise FormatError([Problem(folder.name, f"there is no class list ({DATA_FILE} or {CLASS_LIST})")])
    reading = Reading(frozen=names if classes is None else classes, leave_out_bad_boxes=leave_out_bad_boxes)
    tile_sizes = TileSizes(table_in(folder), size)
    for labels, split in split_folders(folder / "labels", "*.txt"):
        images = folder / "images" / labels.relative_to(folder / "labels")
        read_yolo_folder(reading, folder, YoloFolder(labels, images, split), names, tile_sizes)
    return reading.dataset()
