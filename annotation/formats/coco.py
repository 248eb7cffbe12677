"""COCO detection: `annotations/instances_<split>.json` and `images/<split>/`.

`bbox` is x, y, width, height in px from the top-left corner, with at most four decimals; a category's id is the class
id (from 0), ids of images and annotations count from 1 through all splits (0 is taken for "no match" by evaluators).
`score` is written when a box has one, and a tile's extra fields become fields of its image.

Format: https://cocodataset.org/#format-data
"""

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TextIO

from annotation.formats.classes import check_class_list
from annotation.formats.reading import ImageFolder, Reading, check_folder, finite, read_text, relative_name, whole
from annotation.formats.records import SPLITS, Dataset, FormatError, LabelledBox, LabelledTile, Problem
from annotation.formats.writing import FolderWriter, ImageSource, checked_tiles

COCO_FILE_BYTES = 128 * 1024 * 1024
_IMAGE_FIELDS = frozenset({"id", "file_name", "width", "height"})


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _image_text(tile: LabelledTile, image_id: int) -> str:
    clash = sorted(_IMAGE_FIELDS & tile.extra.keys())
    if clash:
        raise FormatError([Problem(tile.name, "extra fields cannot be named " + ", ".join(clash))])
    fields = {"id": image_id, "file_name": f"{tile.name}{tile.suffix}", "width": tile.width, "height": tile.height}
    try:
        return _dump(fields | {key: tile.extra[key] for key in sorted(tile.extra)})
    except (TypeError, ValueError) as error:
        raise FormatError([Problem(tile.name, f"the extra fields cannot be written as JSON ({error})")]) from error


def _annotation_text(box: LabelledBox, annotation_id: int, image_id: int) -> str:
    x, y, width, height = (round(value, 4) for value in (box.x, box.y, box.width, box.height))
    fields: dict[str, object] = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": box.class_id,
        "bbox": [x, y, width, height],
        "area": round(width * height, 4),
        "iscrowd": 0,
    }
    return _dump(fields if box.score is None else fields | {"score": box.score})


class _CocoFile:
    """One split's JSON file as it grows: images go straight in, annotations wait in a temporary file."""

    def __init__(self, handle: TextIO, waiting: TextIO) -> None:
        self._handle = handle
        self._waiting = waiting
        self._first_image = self._first_annotation = True
        handle.write('{"info": {"description": "Marrowloop"},\n"images": [')

    def add_image(self, text: str) -> None:
        self._handle.write(f"{'' if self._first_image else ','}\n{text}")
        self._first_image = False

    def add_annotation(self, text: str) -> None:
        self._waiting.write(f"{'' if self._first_annotation else ','}\n{text}")
        self._first_annotation = False

    def finish(self, categories: str) -> None:
        self._handle.write('],\n"annotations": [')
        self._waiting.seek(0)
        shutil.copyfileobj(self._waiting, self._handle)
        self._handle.write(f'],\n"categories": {categories}}}\n')


def write_coco(
    folder: Path, tiles: Iterable[LabelledTile], classes: Sequence[str], *, image: ImageSource | None = None
) -> list[Path]:
    """Write the tiles, one at a time, as COCO into a new or empty folder; returns the files written.

    `image` returns a tile's encoded image; without it only the JSON is written. The same tiles give the same bytes.
    Raises FormatError, and writes nothing, when a tile or box cannot be written (see `checked_tiles`) or extra fields
    are not JSON.
    """
    files: dict[str, _CocoFile] = {}
    annotation_ids = itertools.count(1)
    with FolderWriter(folder) as output, ExitStack() as open_files:

        def file_of(split: str) -> _CocoFile:
            if split not in files:
                handle = open_files.enter_context(output.open_text(f"annotations/instances_{split}.json"))
                waiting = open_files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline=""))
                files[split] = _CocoFile(handle, waiting)
            return files[split]

        for image_id, tile in enumerate(checked_tiles(tiles, classes), start=1):
            coco = file_of(tile.split)
            coco.add_image(_image_text(tile, image_id))
            for box in tile.boxes:
                coco.add_annotation(_annotation_text(box, next(annotation_ids), image_id))
            if image is not None:
                output.write(f"images/{tile.split}/{tile.name}{tile.suffix}", image(tile))
        if not files:
            file_of("train")  # an export of no tiles is still a data set
        categories = _dump([{"id": i, "name": name, "supercategory": "cell"} for i, name in enumerate(classes)])
        for coco in files.values():
            coco.finish(categories)
    return output.written


def _load(path: Path, file: str) -> dict[str, list[dict[str, object]]]:
    """The images, annotations and categories of a COCO file, each a list of objects."""
    text = read_text(path, file, COCO_FILE_BYTES)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError([Problem(file, f"the file is not valid JSON ({error.msg})", error.lineno)]) from error
    except (ValueError, RecursionError) as error:
        raise FormatError([Problem(file, "the file is not valid JSON")]) from error
    lists = {}
    for key in ("images", "annotations", "categories"):
        value = data.get(key) if isinstance(data, dict) else None
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise FormatError([Problem(file, f"`{key}` must be a list of objects")])
        lists[key] = value
    return lists


def _category_names(entries: Iterable[Mapping[str, object]], file: str) -> dict[int, str]:
    """Category id -> name, in the order of the ids."""
    names: dict[int, str] = {}
    for position, entry in enumerate(entries, start=1):
        category_id, name = whole(entry.get("id")), entry.get("name")
        if category_id is None or not isinstance(name, str) or category_id in names:
            raise FormatError([Problem(file, f"category {position}: an id of its own and a name are needed")])
        names[category_id] = name.strip()
    check_class_list(list(names.values()), f"{file}, categories")
    return dict(sorted(names.items()))


def _read_annotation(
    reading: Reading, entry: Mapping[str, object], names: Mapping[int, str], size: tuple[int, int], file: str, what: str
) -> LabelledBox | None:
    bbox, category_id, score = entry.get("bbox"), whole(entry.get("category_id")), entry.get("score")
    values = [finite(value) for value in bbox] if isinstance(bbox, list) else []
    known = [value for value in values if value is not None]
    if len(values) != 4 or len(known) != 4 or (score is not None and finite(score) is None):
        reading.problems.add(Problem(file, f"{what}`bbox` must be four finite numbers, and a score a finite number"))
        return None
    if category_id is None or category_id not in names:
        category = repr(entry.get("category_id"))[:80]
        reading.problems.add(Problem(file, f"{what}category {category} is not in `categories`"))
        return None
    if entry.get("iscrowd") in (1, True):
        reading.bad_box(Problem(file, f"{what}a crowd region is not the box of one cell"))
        return None
    class_id = reading.index.find(names[category_id], file)
    x, y, width, height = known
    box = LabelledBox(class_id or 0, x, y, width, height, finite(score))
    return reading.fit(box, size, file, what=what)


def _image_sizes(reading: Reading, images: Iterable[Mapping[str, object]], file: str) -> dict[int, tuple[int, int]]:
    """Image id -> width, height in px of the images that have an id of their own, a file name and a size."""
    sizes: dict[int, tuple[int, int]] = {}
    for position, entry in enumerate(images, start=1):
        image_id, width, height = whole(entry.get("id")), whole(entry.get("width")), whole(entry.get("height"))
        if image_id is None or image_id in sizes or not isinstance(entry.get("file_name"), str):
            reading.problems.add(Problem(file, f"image {position}: an id of its own and a file name are needed"))
        elif width is None or height is None or width < 1 or height < 1:
            reading.problems.add(Problem(file, f"image {image_id}: missing image size (width and height above 0)"))
        else:
            sizes[image_id] = (width, height)
    return sizes


def _read_file(reading: Reading, lists: Mapping[str, list[dict[str, object]]], file: str, split: str) -> set[str]:
    """Read one file into `reading`; returns the stems of its images."""
    names = _category_names(lists["categories"], file)
    sizes = _image_sizes(reading, lists["images"], file)
    boxes: dict[int, list[LabelledBox]] = {image_id: [] for image_id in sizes}
    listed = {whole(entry.get("id")) for entry in lists["images"]}
    for position, entry in enumerate(lists["annotations"], start=1):
        image_id, what = whole(entry.get("image_id")), f"annotation {repr(entry.get('id', position))[:40]}: "
        if image_id in sizes:
            box = _read_annotation(reading, entry, names, sizes[image_id], file, what)
            if box is not None:
                boxes[image_id].append(box)
        elif image_id is None or image_id not in listed:
            reading.problems.add(Problem(file, f"{what}its image is not in `images`"))
    stems = set()
    for entry in lists["images"]:
        image_id = whole(entry.get("id"))
        if image_id in sizes:
            path = PurePosixPath(str(entry["file_name"]))
            extra = {key: value for key, value in entry.items() if key not in _IMAGE_FIELDS}
            stems.add(path.stem)
            reading.add_tile(
                file,
                path.stem,
                sizes[image_id],
                boxes[image_id],
                split=split,
                suffix=path.suffix or ".jpg",
                extra=extra,
            )
    return stems


def _split_files(folder: Path) -> list[tuple[Path, str]]:
    if folder.is_file():
        return [(folder, "train")]
    check_folder(folder)
    paths = [(folder / "annotations" / f"instances_{split}.json", split) for split in SPLITS]
    found = [(path, split) for path, split in paths if path.is_file()]
    if not found:
        raise FormatError([Problem(folder.name, "there is no annotations/instances_train.json, _val or _test in it")])
    return found


def read_coco(folder: Path, *, classes: Sequence[str] | None = None, leave_out_bad_boxes: bool = False) -> Dataset:
    """Read a COCO data set: a folder with `annotations/instances_<split>.json`, or one JSON file (all tiles are train).

    Class ids are the order of the category ids; when `classes` (the project's frozen list) is given, category names are
    looked up in it. Images without annotations are tiles without boxes. Fields of an image beyond id, file_name, width
    and height become the tile's `extra`.
    Degenerate, outside and crowd boxes are an error, or are left out and listed with `leave_out_bad_boxes`.
    Raises FormatError with everything found: bad JSON, unknown classes, missing image sizes, and so on.
    """
    files = _split_files(folder)
    loaded = [(relative_name(path, folder), split, _load(path, relative_name(path, folder))) for path, split in files]
    first_file, _, first_lists = loaded[0]
    found = tuple(_category_names(first_lists["categories"], first_file).values())
    reading = Reading(frozen=found if classes is None else classes, leave_out_bad_boxes=leave_out_bad_boxes)
    for file, split, lists in loaded:
        stems = _read_file(reading, lists, file, split)
        if folder.is_dir():
            reading.add_unlabelled(ImageFolder(folder / "images" / split), stems)
    return reading.dataset()
