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
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from math import isnan, nan
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

import numpy as np

from annotation.formats.classes import check_class_list
from annotation.formats.json_stream import stream_lists
from annotation.formats.reading import ImageFolder, LabelFile, Reading, check_folder, finite, relative_name, whole
from annotation.formats.records import SPLITS, Dataset, FormatError, LabelledBox, LabelledTile, Problem
from annotation.formats.writing import FolderWriter, ImageSource, Output, checked_tiles

COCO_FILE_BYTES = 512 * 1024 * 1024
# In one file, so that one that is made to do harm fills no memory.
_MOST = {"images": 400_000, "annotations": 3_000_000, "categories": 10_000}
_MOST_ID = 1 << 62
_IMAGE_FIELDS = frozenset({"id", "file_name", "width", "height"})


# One encoder for all: json.dumps with these settings would make one for every box.
_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


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
    """As the encoder would write it, which takes longer over a million of them. All numbers are finite."""
    class_id, *sides, score = box
    x, y, width, height = [round(value, 4) for value in sides]
    certainty = "" if score is None else f', "score": {score}'
    return (
        f'{{"id": {annotation_id}, "image_id": {image_id}, "category_id": {class_id}, '
        f'"bbox": [{x}, {y}, {width}, {height}], "area": {round(width * height, 4)}, "iscrowd": 0{certainty}}}'
    )


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
    with FolderWriter(folder) as output:
        fill_coco(output, tiles, classes, image=image)
    return output.written


def fill_coco(
    output: Output, tiles: Iterable[LabelledTile], classes: Sequence[str], *, image: ImageSource | None = None
) -> None:
    """Put the files of `write_coco` into an open folder or archive."""
    files: dict[str, _CocoFile] = {}
    annotation_ids = itertools.count(1)
    with ExitStack() as open_files:

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


def category_names(entries: Iterable[Mapping[str, object]], file: str) -> dict[int, str]:
    """Category id -> name, in the order of the ids."""
    names: dict[int, str] = {}
    for position, entry in enumerate(entries, start=1):
        category_id, name = whole(entry.get("id")), entry.get("name")
        if category_id is None or not isinstance(name, str) or category_id in names:
            raise FormatError([Problem(file, f"category {position}: an id of its own and a name are needed")])
        names[category_id] = name.strip()
    check_class_list(list(names.values()), f"{file}, categories")
    return dict(sorted(names.items()))


class _Image(NamedTuple):
    """An image with an id of its own, a file name and a size (px)."""

    stem: str
    suffix: str
    size: tuple[int, int]
    extra: Mapping[str, object]


class CocoFile:
    """One file as it is read: its categories and images, and the annotations as columns of numbers.

    Categories and images may stand behind the annotations, so boxes are made at the end, image by image. A file of a
    million boxes takes some tens of MiB so. `words`: the fields of images that are kept, if they are text; else all.
    """

    def __init__(self, reading: Reading, path: LabelFile, file: str, *, words: Sequence[str] | None = None) -> None:
        self._reading, self._file, self._words = reading, file, words
        self._images: dict[int, _Image | None] = {}
        self._shared: dict[object, Mapping[str, object]] = {}
        self._listed = 0
        self._counts: Counter[int] = Counter()
        self._image_ids, self._category_ids, self._ids = array("q"), array("q"), array("q")
        self._numbers = array("d")
        self._crowds: set[int] = set()
        categories: list[dict[str, object]] = []
        add = {"images": self._add_image, "annotations": self._add_annotation, "categories": categories.append}
        counts = dict.fromkeys(_MOST, 0)
        for key, entry in stream_lists(path, file, tuple(add), COCO_FILE_BYTES):
            counts[key] += 1
            if counts[key] > _MOST[key]:
                raise FormatError([Problem(file, f"more than {_MOST[key]} {key}: make several files of them")])
            add[key](entry)
        self.names = category_names(categories, file)

    def _add_image(self, entry: dict[str, object]) -> None:
        image_id, width, height = whole(entry.get("id")), whole(entry.get("width")), whole(entry.get("height"))
        problems = self._reading.problems
        self._listed += 1
        own = image_id is not None and abs(image_id) < _MOST_ID and image_id not in self._images
        if image_id is None or not own or not isinstance(entry.get("file_name"), str):
            problems.add(Problem(self._file, f"image {self._listed}: an id of its own and a file name are needed"))
        elif width is None or height is None or width < 1 or height < 1:
            problems.add(Problem(self._file, f"image {image_id}: missing image size (width and height above 0)"))
            self._images[image_id] = None
        else:
            path = PurePosixPath(str(entry["file_name"]))
            self._images[image_id] = _Image(path.stem, path.suffix or ".jpg", (width, height), self._extra(entry))

    def _extra(self, entry: dict[str, object]) -> Mapping[str, object]:
        if self._words is None:
            return {key: value for key, value in entry.items() if key not in _IMAGE_FIELDS}
        words = tuple((key, entry[key]) for key in self._words if isinstance(entry.get(key), str))
        return self._shared.setdefault(words, dict(words))

    def _add_annotation(self, entry: dict[str, object]) -> None:
        position = len(self._ids) + 1
        own_id = entry.get("id")
        number = own_id if type(own_id) is int and abs(own_id) < _MOST_ID else position
        image_id, category_id = whole(entry.get("image_id")), whole(entry.get("category_id"))
        bbox, score = entry.get("bbox"), entry.get("score")
        values = [finite(value) for value in bbox] if isinstance(bbox, list) else []
        known = [value for value in values if value is not None]
        certainty = nan if score is None else finite(score)
        reason = None
        if len(values) != 4 or len(known) != 4 or certainty is None:
            reason = "`bbox` must be four finite numbers, and a score a finite number"
        elif image_id is None or abs(image_id) >= _MOST_ID:
            reason = "its image is not in `images`"
        elif category_id is None or abs(category_id) >= _MOST_ID:
            reason = f"category {repr(entry.get('category_id'))[:80]} is not in `categories`"
        if reason is not None or image_id is None or category_id is None or certainty is None:
            self._reading.problems.add(Problem(self._file, f"annotation {number}: {reason}"))
            return
        self._counts[image_id] += 1
        if self._counts[image_id] > self._reading.most_boxes:
            self._reading.too_many(self._file, "more", f"image {image_id}: ")
            self._reading.problems.raise_if_any()  # a file made of boxes would go on for long
        if entry.get("iscrowd") in (1, True):
            self._crowds.add(len(self._ids))
        self._ids.append(number)
        self._image_ids.append(image_id)
        self._category_ids.append(category_id)
        self._numbers.extend(known)
        self._numbers.append(certainty)

    def add_tiles(self, split: str) -> set[str]:
        """Give every image with its boxes to the reading; returns the stems of the images."""
        of_image, known = np.array(self._image_ids, np.int64), np.array(list(self._images), np.int64)
        order = np.argsort(of_image, kind="stable")
        ends = np.searchsorted(of_image[order], known, "right").tolist()
        stems = set()
        for (image_id, image), end in zip(self._images.items(), ends, strict=True):
            if image is None:
                continue
            found = [self._box(row, image.size) for row in order[end - self._counts[image_id] : end].tolist()]
            boxes = [box for box in found if box is not None]
            stems.add(image.stem)
            self._reading.add_tile(
                self._file,
                image.stem,
                image.size,
                boxes,
                split=split,
                suffix=image.suffix,
                drawn=bool(found),
                extra=image.extra,
            )
        for row in np.flatnonzero(~np.isin(of_image, known)).tolist():
            problem = Problem(self._file, f"annotation {self._ids[row]}: its image is not in `images`")
            self._reading.problems.add(problem)
        return stems

    def _box(self, row: int, size: tuple[int, int]) -> LabelledBox | None:
        what, category_id = f"annotation {self._ids[row]}: ", self._category_ids[row]
        if category_id not in self.names:
            reason = f"{what}category {category_id} is not in `categories`"
            self._reading.problems.add(Problem(self._file, reason))
            return None
        if row in self._crowds:
            self._reading.bad_box(Problem(self._file, f"{what}a crowd region is not the box of one cell"))
            return None
        class_id = self._reading.index.find(self.names[category_id], self._file)
        x, y, width, height, score = self._numbers[5 * row : 5 * row + 5]
        box = LabelledBox(class_id or 0, x, y, width, height, None if isnan(score) else score)
        return self._reading.fit(box, size, self._file, what=what)


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
    reading = Reading(frozen=classes, leave_out_bad_boxes=leave_out_bad_boxes)
    files = [(CocoFile(reading, path, relative_name(path, folder)), split) for path, split in _split_files(folder)]
    if classes is None:
        reading.index.freeze(list(files[0][0].names.values()))
    for file, split in files:
        stems = file.add_tiles(split)
        if folder.is_dir():
            reading.add_unlabelled(ImageFolder(folder / "images" / split), stems)
    return reading.dataset()
