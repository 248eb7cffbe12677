"""Tiles and boxes written as the folder that ultralytics trains from."""

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from annotation.geometry import boxes_of_tile
from inference.engine.windows import is_large, windows_of
from training.engine.progress import Cancelled, full_disk_told

# Measured on 512 px tiles, 2 cores: JPEG at 95 takes 1.2 ms and 71 KB a tile and changes a pixel by 0.45 of 255 levels
# on average, far less than the colour changes of training do; PNG takes 12 ms and 377 KB.
JPEG_OPTIONS = [cv2.IMWRITE_JPEG_QUALITY, 95]
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class TrainingTile:
    """A tile to train on or to validate with.

    name: letters, digits, "-" and "_", different for every tile of the data set; it becomes the file name.
    read: returns the pixels, uint8 (H, W, 3), RGB.
    boxes: float (n, 5): class id, x, y, width, height in tile px, top-left origin. None at all is data as well.
    """

    name: str
    read: Callable[[], NDArray[np.uint8]]
    boxes: NDArray[np.float64]


def write_dataset(
    folder: Path,
    train: Sequence[TrainingTile],
    validation: Sequence[TrainingTile],
    classes: Sequence[str],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    ignored: Collection[int] = (),
) -> Path:
    """Write a data set in the layout of ultralytics and return the path of its data.yaml.

    A data set already in `folder` is replaced. The folder appears only once it is whole, and holds no absolute path.
    `should_stop` is asked before every tile, and `on_progress` is told after it how many are done of how many.
    Boxes are cut at the tile's edges; boxes of `ignored` class ids are left out, so their cells count as background.
    An image too large for the detector becomes windows of 512 px, edge to edge, as it is detected in such windows. A
    box belongs to each window that holds its centre (two, where windows overlap).
    Raises Cancelled, ValueError for a name or a box that cannot be written, TrainingError if the disk is full.
    """
    _check_names([*train, *validation])
    growing = folder.with_name(folder.name + ".writing")
    shutil.rmtree(growing, ignore_errors=True)
    with full_disk_told(folder):
        _write(growing, train, validation, classes, ignored, on_progress, should_stop)
    shutil.rmtree(folder, ignore_errors=True)
    growing.replace(folder)
    return folder / "data.yaml"


def _write(
    growing: Path,
    train: Sequence[TrainingTile],
    validation: Sequence[TrainingTile],
    classes: Sequence[str],
    ignored: Collection[int],
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> None:
    done = 0
    for part, tiles in (("train", train), ("val", validation)):
        images, labels = growing / "images" / part, growing / "labels" / part
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for tile in tiles:
            if should_stop():
                raise Cancelled
            _write_tile(images, labels, tile, len(classes), ignored)
            done += 1
            on_progress(done, len(train) + len(validation))
    (growing / "data.yaml").write_text(
        f"train: images/train\nval: images/val\nnames: {json.dumps(list(classes), ensure_ascii=False)}\n",
        encoding="utf-8",
    )


def label_lines(boxes: NDArray[np.float64], height: int, width: int, ignored: Collection[int] = ()) -> list[str]:
    """YOLO label lines: class id, then centre x, y, width, height as shares of the tile, for a tile of that many px."""
    lines = []
    for class_id, x, y, box_width, box_height in boxes:
        left, right = np.clip([x, x + box_width], 0, width) / width
        top, bottom = np.clip([y, y + box_height], 0, height) / height
        if int(class_id) in ignored or right <= left or bottom <= top:
            continue
        centre = (left + right) / 2, (top + bottom) / 2
        lines.append(f"{int(class_id)} {centre[0]:.7f} {centre[1]:.7f} {right - left:.7f} {bottom - top:.7f}")
    return lines


def _write_tile(images: Path, labels: Path, tile: TrainingTile, classes: int, ignored: Collection[int]) -> None:
    boxes = np.asarray(tile.boxes, np.float64).reshape(-1, 5)
    if not np.isfinite(boxes).all():
        raise ValueError(f"A box of tile {tile.name} has a coordinate that is not a number.")
    if len(boxes) and (boxes[:, 0].min() < 0 or boxes[:, 0].max() >= classes):
        raise ValueError(f"A box of tile {tile.name} has a class that the taxonomy does not have.")
    for name, pixels, inside in _samples(tile.name, tile.read(), boxes):
        encoded, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), JPEG_OPTIONS)
        if not encoded:
            raise ValueError(f"Tile {tile.name} could not be written as an image.")
        with (images / f"{name}.jpg").open("xb") as file:  # a window must not take another tile's name
            file.write(data.tobytes())
        height, width = pixels.shape[:2]
        lines = label_lines(inside, height, width, ignored)
        (labels / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def _samples(
    name: str, pixels: NDArray[np.uint8], boxes: NDArray[np.float64]
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float64]]]:
    """Name, pixels and boxes of what a tile is trained on as: itself, or its windows."""
    height, width = pixels.shape[:2]
    if not is_large(width, height):
        yield name, pixels, boxes
        return
    for window in windows_of(width, height, overlap=0):
        size = (window.width, window.height)
        indices, inside = boxes_of_tile(boxes[:, 1:], window.x, window.y, size, size)
        yield f"{name}_{window.x}_{window.y}", window.cut(pixels), np.column_stack([boxes[indices, 0], inside])


def _check_names(tiles: Sequence[TrainingTile]) -> None:
    seen: set[str] = set()
    for tile in tiles:
        if not PLAIN_NAME.fullmatch(tile.name):
            raise ValueError(f"The tile name {tile.name!r} is not made of letters, digits, '-' and '_' only.")
        if tile.name in seen:
            raise ValueError(f"Two tiles are called {tile.name}.")
        seen.add(tile.name)
