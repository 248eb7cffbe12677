"""Boxes as rectangles: arrays of shape (n, 4), columns x, y, width, height, origin at the top left, float64, in any
one unit of length.

Widths and heights are taken to be non-negative.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Sides = float | tuple[float, float]  # of a square, or width and height


def sides(size: Sides) -> tuple[float, float]:
    """Width and height."""
    return size if isinstance(size, tuple) else (size, size)


def as_boxes(boxes: ArrayLike) -> FloatArray:
    """`boxes` as a float64 array of shape (n, 4); an empty list becomes shape (0, 4). Raises ValueError for
    any other shape.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes have the shape (n, 4), not {array.shape}")
    return array


def clip(
    x: float, y: float, width: float, height: float, bound_width: float, bound_height: float
) -> tuple[float, float, float, float] | None:
    """The part of one box (x, y, width, height) that lies in [0, bound_width] x [0, bound_height]; None if no
    area is left.
    """
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, bound_width), min(y + height, bound_height)
    if not (right > left and bottom > top):
        return None
    return left, top, right - left, bottom - top


def iou_matrix(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Intersection over union of every box of `a` (n, 4) with every box of `b` (m, 4): float64 (n, m), in 0..1.

    Two boxes without area have an IoU of 0 (Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV
    2010, eq. 4, without the +1 of whole pixels: these boxes are continuous).
    """
    first, second = _corners(a), _corners(b)
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.clip(right_bottom - left_top, 0.0, None).prod(axis=2)
    # Areas come from the corners, not from width x height, so that a box with itself gives exactly 1.
    union = _areas(first)[:, None] + _areas(second)[None, :] - intersection
    ratio = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return np.asarray(np.minimum(ratio, 1.0), dtype=np.float64)


def centre_inside(boxes: ArrayLike, x: float, y: float, width: float, height: float) -> NDArray[np.bool_]:
    """Which of `boxes` (n, 4) have their centre in [x, x + width) x [y, y + height): bool (n,).

    The interval is half open so that a centre on the line between two neighbouring tiles belongs to exactly one of
    them.
    """
    array = as_boxes(boxes)
    centre_x, centre_y = array[:, 0] + array[:, 2] / 2, array[:, 1] + array[:, 3] / 2
    inside = (centre_x >= x) & (centre_x < x + width) & (centre_y >= y) & (centre_y < y + height)
    return np.asarray(inside, dtype=np.bool_)


def boxes_of_tile(
    boxes_level0: ArrayLike, x: float, y: float, extent: Sides, size: Sides
) -> tuple[NDArray[np.intp], FloatArray]:
    """The boxes that belong to one tile, in tile px.

    `boxes_level0` (n, 4) are in level-0 px of the slide; the tile covers `extent` of it from (x, y) on and is `size`
    px large; both are one number for a square, else (width, height). A box belongs to the tile that holds its centre.
    Returns (indices (k,) into `boxes_level0`, boxes (k, 4) in tile px, float64, clipped to the tile).
    """
    array = as_boxes(boxes_level0)
    across, down = sides(extent)
    limits = np.array(sides(size) * 2)
    indices = np.flatnonzero(centre_inside(array, x, y, across, down))
    corners = _corners(array[indices]) - np.array([x, y, x, y], dtype=np.float64)
    corners = np.clip(corners * (limits / np.array([across, down] * 2)), 0.0, limits)
    return indices, np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _corners(boxes: ArrayLike) -> FloatArray:
    array = as_boxes(boxes)
    return np.concatenate([array[:, :2], array[:, :2] + array[:, 2:]], axis=1)


def _areas(corners: FloatArray) -> FloatArray:
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
