"""Crops of cells: what the classifier of a two-stage detector looks at."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

CONTEXT = 1.5  # sides of the median cell: what lies around a cell tells its size and the stain
MUCH_SMALLER = 0.67  # below this scale, interpolating between four px would skip others


def crop_side(boxes: ArrayLike) -> float:
    """The side, in tile px, of the crops for cells with these boxes, (n, 4): x, y, width, height in tile px.

    One side for all of them, because a cell's size tells its class. Raises ValueError if there is no box.
    """
    sides = np.asarray(boxes, np.float64).reshape(-1, 4)[:, 2:]
    if not len(sides):
        raise ValueError("There is no box to take the size of crops from.")
    return float(np.median(sides.max(axis=1)) * CONTEXT)


def crop_cells(
    tile: NDArray[np.uint8], boxes: ArrayLike, *, side: float, size: int, margin: float = 1.0
) -> NDArray[np.uint8]:
    """Squares around the middles of boxes: uint8 (n, size, size, 3).

    tile: uint8 (H, W, 3). boxes: (n, 4), x, y, width, height in tile px. side: of a square, in tile px; around a
    larger cell it is larger, so that the cell is whole in it. margin: how many times as large the squares are in the
    end. Beyond the tile's edge its pixels are mirrored.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    scale = size / (side * margin)
    if scale < MUCH_SMALLER:
        tile = np.asarray(cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        boxes, side = boxes * scale, side * scale
    crops = np.empty((len(boxes), size, size, 3), np.uint8)
    for crop, (x, y, width, height) in zip(crops, boxes, strict=True):
        step = max(side, width, height) * margin / size  # tile px for each px of the crop
        left, top = x + width / 2 - step * size / 2, y + height / 2 - step * size / 2
        # Middles of pixels lie at half px: the crop's first is half a step from the square's edge.
        placed = np.array([[step, 0, left + (step - 1) / 2], [0, step, top + (step - 1) / 2]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(tile, placed, (size, size), dst=crop, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return crops
