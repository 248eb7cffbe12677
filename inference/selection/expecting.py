"""How many cells of each class a detector's answer lets expect."""

import numpy as np
from numpy.typing import NDArray

SHARPNESS = 2  # the power that class scores are taken to


def expected_counts(class_scores: NDArray[np.float32], presence: NDArray[np.float32]) -> NDArray[np.float32]:
    """The expected count of each class on a tile: float32 (classes,).

    class_scores: float32 (n, classes). presence: float32 (n,), how certain each is a cell, 0 to 1; on the scale of
    `inference.services.pre_labels`, on which every version shows boxes from the same value on.

    Each cell counts as much as it is certain to be one, shared out over the classes by the squares of its class scores.
    As they are, scores promise too much of rare classes: training shows these more often than they occur, and what is
    left over for them on every common cell adds up. Measured on the smears with a classifier trained on 60 tiles that
    names 70 % of cells rightly: a batch has 16 % more rare cells by the squares, and the sums over all tiles are 0.8 to
    1.0 times the truth for the three rare classes, where those of the scores are 0.9 to 1.9 times.
    """
    sharpened = class_scores.astype(np.float64) ** SHARPNESS
    shares = sharpened / np.maximum(sharpened.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray((shares * presence[:, None]).sum(axis=0), np.float32)
