"""What the two stages of a two-stage detector are trained on."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.engine.dataset import TrainingTile


def wanted_boxes(tile: TrainingTile, ignored: Collection[int] = ()) -> NDArray[np.float64]:
    """Class id, x, y, width, height of the boxes whose class id is not ignored: float (n, 5)."""
    boxes = np.asarray(tile.boxes, np.float64).reshape(-1, 5)
    return boxes[~np.isin(boxes[:, 0], list(ignored))]


def as_cells(tile: TrainingTile, ignored: Collection[int] = ()) -> TrainingTile:
    """The tile as the finder sees it: every wanted cell is of class 0, "cell"."""
    boxes = wanted_boxes(tile, ignored)
    return replace(tile, boxes=np.column_stack([np.zeros(len(boxes)), boxes[:, 1:]]))
