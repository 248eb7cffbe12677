"""Tiles on which the detector is in doubt: of what class cells are, and whether they are cells at all."""

import numpy as np
from numpy.typing import NDArray

from inference.selection.pool import Choice
from inference.selection.room import Room

THRESHOLD = 0.25  # the score from which a box is shown to readers: at it, a detector is least certain of a cell
TIE = 1e-9


def doubts_of(class_scores: NDArray[np.float32], presence: NDArray[np.float32]) -> tuple[float, float]:
    """How many cells of a tile are of doubtful class, and how many are hardly certain to be cells.

    class_scores: float32 (n, classes). presence: float32 (n,), how certain each is a cell, 0 to 1.

    The doubt about a cell's class is the mean of two numbers from 0 to 1: the entropy of its class scores over the
    greatest there can be, and 1 minus the margin between the two best, both of scores that sum to 1; a cell counts as
    much as it is certain to be one. The doubt about its being a cell is 1 at the threshold and falls to 0 at 0 and at
    twice the threshold.
    """
    classes = class_scores.shape[1]
    if not len(class_scores):
        return 0.0, 0.0
    near = np.clip(1 - np.abs(presence - THRESHOLD) / THRESHOLD, 0, 1)
    if classes < 2:
        return 0.0, float(near.sum())
    shares = class_scores / np.maximum(class_scores.sum(axis=1, keepdims=True), 1e-9)
    entropy = -(shares * np.log(np.maximum(shares, 1e-9))).sum(axis=1) / np.log(classes)
    best = np.sort(shares, axis=1)[:, -2:]
    doubt = (entropy + 1 - (best[:, 1] - best[:, 0])) / 2
    return float((doubt * presence).sum()), float(near.sum())


def pick_uncertain(room: Room, size: int, generator: np.random.Generator) -> list[Choice]:
    """At most `size` tiles with the most doubtful cells, both doubts added; none on which there is no doubt.

    The sum and not the mean over the cells: the time of a reader goes by cells too (Brust et al. 2019, "Active learning
    for deep object detection"). Raises ValueError for a pool without doubts.
    """
    pool = room.pool
    if pool.doubts is None:
        raise ValueError("This pool tells no doubts.")
    total = pool.doubts.sum(axis=1, dtype=np.float64)
    doubtful, ties = total > 0, generator.random(len(pool)) * TIE
    choices: list[Choice] = []
    while len(choices) < size:
        row = room.take_best(total + ties, doubtful)
        if row is None:
            break
        classes, cells = pool.doubts[row]
        reason = f"{classes:.1f} cells of doubtful class, {cells:.1f} hardly certain to be cells; {pool.patient(row)}"
        choices.append(Choice(int(pool.tile_ids[row]), reason, row, "uncertain"))
    return choices
