"""Images larger than a tile: cut into windows of a tile's size, and what a detector found in them put together again.

A detector sees every image at one size, so cells on a large image would become too small to be named.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.engine.detector import Detections, Detector

SIDE = 512  # px of a window
OVERLAP = 64  # px that neighbouring windows share at least: 16 um at 0.25 um/px
LARGEST_WHOLE = 768  # px; an image with no longer side goes to the detector as it is
EDGE = 4  # px; a box that ends closer to a window's inner edge may be of a cell that goes on beyond it
SAME = 0.5  # IoU, in what two windows both see, from which two boxes are one cell

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A part of an image, in whole px of it."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: Pixels) -> Pixels:
        """The window's px of an image (H, W, 3)."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def is_large(width: int, height: int) -> bool:
    """Whether an image of this size is looked at in windows."""
    return max(width, height) > LARGEST_WHOLE


def windows_of(width: int, height: int, *, overlap: int = OVERLAP) -> list[Window]:
    """Windows of 512 px that cover an image from edge to edge, row by row, evenly spread.

    Neighbours share at least `overlap` px. Along a side that is shorter than a window, the window has that side.
    """
    return [
        Window(x, y, min(SIDE, width), min(SIDE, height))
        for y in _starts(height, overlap)
        for x in _starts(width, overlap)
    ]


def _starts(length: int, overlap: int) -> list[int]:
    if length <= SIDE:
        return [0]
    count = math.ceil((length - overlap) / (SIDE - overlap))
    return [round(index * (length - SIDE) / (count - 1)) for index in range(count)]


def detect_images(detector: Detector, images: Sequence[Pixels], *, min_score: float) -> list[Detections]:
    """Detections of each image, uint8 (H, W, 3), of any sizes; large ones are looked at in windows.

    At most 300 boxes come from each window.
    """
    found: dict[int, Detections] = {}
    for indices in _by_shape(images):
        if is_large(images[indices[0]].shape[1], images[indices[0]].shape[0]):
            found |= {index: detect_in_windows(detector, images[index], min_score=min_score) for index in indices}
        else:
            together = detector.detect(np.stack([images[index] for index in indices]), min_score=min_score)
            found |= dict(zip(indices, together, strict=True))
    return [found[index] for index in range(len(images))]


def _by_shape(images: Sequence[Pixels]) -> Iterator[list[int]]:
    shapes = [image.shape for image in images]
    for shape in dict.fromkeys(shapes):
        yield [index for index, one in enumerate(shapes) if one == shape]


def detect_in_windows(detector: Detector, image: Pixels, *, min_score: float) -> Detections:
    """Detections of one image, uint8 (H, W, 3), found in overlapping windows, in px of the image."""
    height, width = image.shape[:2]
    windows = windows_of(width, height)
    found = detector.detect(np.stack([window.cut(image) for window in windows]), min_score=min_score)
    return join_windows(windows, found, width, height)


def join_windows(windows: Sequence[Window], found: Sequence[Detections], width: int, height: int) -> Detections:
    """What was found in overlapping windows of an image of `width` x `height` px, each cell once, in px of the image.

    A box that a window's inner edge may have cut is dropped where another window shows that place whole: what is found
    there counts, if it is nothing too. Cells larger than the overlap are whole in no window: their pieces are joined.
    Of two boxes of one cell the better score stays, whatever the classes: one cell, one box. Whether two boxes are of
    one cell is judged in the px that both windows show.
    """
    owner = np.repeat(np.arange(len(windows)), [len(one) for one in found])
    views = np.array([(one.x, one.y, one.x + one.width, one.y + one.height) for one in windows], dtype=np.float64)
    corners = _corners(found) + views[owner][:, [0, 1, 0, 1]]
    scores = np.concatenate([one.scores for one in found])
    inner = _shrunk(views, width, height)
    cut = ~_contains(inner[owner], corners)
    alive = ~(cut & _is_whole_in_another(corners, inner))
    shared = _seen(corners, views) > 1
    near = _overlap(views)
    kept = []
    for index in np.lexsort((-scores, cut)):  # uncut boxes first, by falling score
        if not alive[index]:
            continue
        kept.append(index)
        alive[index] = False
        if not shared[index]:
            continue
        rivals = np.flatnonzero(alive & shared & near[owner[index]][owner])
        region = _intersection(views[owner[index]], views[owner[rivals]])
        same = rivals[_iou(_intersection(corners[index], region), _intersection(corners[rivals], region)) > SAME]
        alive[same] = False
        if cut[index]:
            corners[index] = _union(corners[[index, *same]])
    return _picked(found, corners, np.array(kept, dtype=np.int64))


def _corners(found: Sequence[Detections]) -> Floats:
    """Left, top, right, bottom of every box, float64 (n, 4), in px of its window."""
    boxes = np.concatenate([one.boxes for one in found]).astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _shrunk(views: Floats, width: int, height: int) -> Floats:
    """The windows without the rim along their inner edges, in which a box is not known to be whole."""
    ends = np.array([0, 0, width, height], dtype=np.float64)
    rim = np.array([EDGE, EDGE, -EDGE, -EDGE], dtype=np.float64)
    outwards = np.array([-np.inf, -np.inf, np.inf, np.inf])  # there is nothing beyond the image's own edge
    return np.where(views == ends, outwards, views + rim)


def _contains(areas: Floats, corners: Floats) -> NDArray[np.bool_]:
    inside = (corners[..., :2] >= areas[..., :2]) & (corners[..., 2:] <= areas[..., 2:])
    return np.asarray(inside.all(axis=-1), dtype=np.bool_)


def _is_whole_in_another(corners: Floats, inner: Floats) -> NDArray[np.bool_]:
    """For boxes that are cut in their own window: whether some window, which is then another one, shows them whole."""
    whole = np.zeros(len(corners), dtype=np.bool_)
    for area in inner:
        whole |= _contains(area, corners)
    return whole


def _seen(corners: Floats, views: Floats) -> NDArray[np.int64]:
    """In how many windows each box lies, if only in part."""
    seen = np.zeros(len(corners), dtype=np.int64)
    for view in views:
        seen += _area(_intersection(view, corners)) > 0
    return seen


def _overlap(views: Floats) -> NDArray[np.bool_]:
    """Which pairs of different windows share px: bool (windows, windows)."""
    pairs = _area(_intersection(views[:, None], views[None, :])) > 0
    np.fill_diagonal(pairs, val=False)
    return np.asarray(pairs, dtype=np.bool_)


def _intersection(a: Floats, b: Floats) -> Floats:
    return np.concatenate([np.maximum(a, b)[..., :2], np.minimum(a, b)[..., 2:]], axis=-1)


def _union(corners: Floats) -> Floats:
    return np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])


def _area(corners: Floats) -> Floats:
    """0 where nothing is left."""
    return np.asarray(np.clip(corners[..., 2:] - corners[..., :2], 0.0, None).prod(axis=-1), dtype=np.float64)


def _iou(a: Floats, b: Floats) -> Floats:
    common = _area(_intersection(a, b))
    together = _area(a) + _area(b) - common
    return np.divide(common, together, out=np.zeros_like(common), where=together > 0)


def _picked(found: Sequence[Detections], corners: Floats, kept: NDArray[np.int64]) -> Detections:
    scores = np.concatenate([one.scores for one in found])
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    boxes = np.concatenate([corners[kept, :2], corners[kept, 2:] - corners[kept, :2]], axis=1)
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=scores[kept],
        class_ids=np.concatenate([one.class_ids for one in found])[kept],
        class_scores=np.concatenate([one.class_scores for one in found])[kept],
        embeddings=_embeddings(found, kept),
    )


def _embeddings(found: Sequence[Detections], kept: NDArray[np.int64]) -> NDArray[np.float32] | None:
    told = [one.embeddings for one in found if one.embeddings is not None]
    return np.concatenate(told)[kept] if len(told) == len(found) else None
