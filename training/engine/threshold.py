"""From which score a detector's boxes are worth showing to a reader."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.engine.matching import DetectionsLike, Table, pair_any_class

IOU = 0.5


@dataclass(frozen=True)
class _Nameless:
    """Detections of one tile without their classes."""

    boxes: NDArray[Any]
    scores: NDArray[Any]

    @property
    def class_ids(self) -> NDArray[Any]:
        return np.zeros(len(self.scores), np.int64)


def finding_score(
    truths: Sequence[ArrayLike], found: Sequence[DetectionsLike], *, ignored: Collection[int] = ()
) -> float | None:
    """The score from which on boxes find cells with the best F1, whatever the classes say; None if nothing is found.

    A detector that has seen few tiles finds cells long before its scores say so: from a fixed score on, such a one
    shows nothing. A box too many costs its reader about as much as one that is missing, so that F1 weighs them rightly;
    a wrong class is put right by one key.

    truths: float (n, 5) per tile: class, x, y, width, height in tile px. found: per tile, all boxes down to a low
    score; of a two-stage detector those of its finder. ignored: classes that the detector does not learn.
    """
    rows = [np.asarray(boxes, np.float64).reshape(-1, 5) for boxes in truths]
    cells = [boxes[~np.isin(boxes[:, 0], list(ignored))] * [0, 1, 1, 1, 1] for boxes in rows]
    table = Table.of(cells, [_Nameless(one.boxes, one.scores) for one in found], 1, ())
    taken, _ = pair_any_class(table, IOU, 0.0)
    order = np.argsort(-table.scores, kind="stable")
    right = np.cumsum(taken[order] >= 0)
    if not len(right) or not right[-1]:
        return None
    f1 = 2 * right / (np.arange(1, len(right) + 1) + len(table.truth_tile))
    return float(table.scores[order][f1.argmax()])
