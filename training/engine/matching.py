"""Which detection is which cell: boxes of all tiles in flat arrays, matched greedily by score.

Matching follows Pascal VOC (Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", IJCV 88) in
that each truth is taken once, and COCO in that a detection takes the best truth that is still free.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annotation.geometry import iou_matrix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class DetectionsLike(Protocol):
    """What `evaluate` needs of detections; `inference.engine.detector.Detections` is one."""

    @property
    def boxes(self) -> NDArray[Any]:
        """(n, 4): x, y, width, height."""

    @property
    def scores(self) -> NDArray[Any]:
        """(n,): 0 to 1."""

    @property
    def class_ids(self) -> NDArray[Any]:
        """(n,): class ids."""


@dataclass(frozen=True)
class Table:
    """All boxes of all tiles in flat arrays, sorted by tile; detections by falling score inside a tile."""

    tiles: int
    classes: int
    truth_tile: Integers
    truth_class: Integers
    truth_boxes: Floats
    tile: Integers
    class_ids: Integers
    boxes: Floats
    scores: Floats

    @classmethod
    def of(
        cls, truths: Sequence[ArrayLike], detections: Sequence[DetectionsLike], classes: int, ignored: Collection[int]
    ) -> "Table":
        truth = [np.asarray(boxes, np.float64).reshape(-1, 5) for boxes in truths]
        flat_truth = np.concatenate([*truth, np.zeros((0, 5))])
        found = [
            np.column_stack([item.class_ids, np.asarray(item.boxes).reshape(-1, 4), item.scores]) for item in detections
        ]
        flat = np.concatenate([*found, np.zeros((0, 6))])
        truth_tile = np.repeat(np.arange(len(truth)), [len(boxes) for boxes in truth])
        tile = np.repeat(np.arange(len(found)), [len(boxes) for boxes in found])
        for class_ids in (flat_truth[:, 0], flat[:, 0]):
            if len(class_ids) and not (class_ids.min() >= 0 and class_ids.max() < classes):
                raise ValueError(f"A box has a class id that is not one of the {classes} classes.")
        kept_truth = ~np.isin(flat_truth[:, 0], list(ignored))
        kept = ~np.isin(flat[:, 0], list(ignored))
        flat, tile = flat[kept], tile[kept]
        order = np.lexsort((-flat[:, 5], tile))
        flat, tile = flat[order], tile[order]
        return cls(
            tiles=len(truth),
            classes=classes,
            truth_tile=truth_tile[kept_truth],
            truth_class=flat_truth[kept_truth, 0].astype(np.int64),
            truth_boxes=flat_truth[kept_truth, 1:5],
            tile=tile,
            class_ids=flat[:, 0].astype(np.int64),
            boxes=flat[:, 1:5],
            scores=flat[:, 5],
        )


@dataclass(frozen=True)
class Matches:
    """The detections of one class over all tiles, by falling score, and which of them are right.

    tile, score, right, iou: one entry per detection (iou is 0 where it is not right). truth_per_tile: (tiles,).
    """

    tile: Integers
    score: Floats
    right: NDArray[np.bool_]
    iou: Floats
    truth_per_tile: Integers

    def totals(self, confidence: float) -> Floats:
        """Right detections, all detections, truths and the sum of IoU of the right ones, at a confidence."""
        counted = self.score >= confidence
        right = self.right & counted
        return np.array([right.sum(), counted.sum(), self.truth_per_tile.sum(), self.iou[right].sum()])

    def curve(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Recall, precision and false positives per tile after each detection, each tile counted `weights` times."""
        weight = weights[self.tile]
        right = np.cumsum(weight * self.right)
        wrong = np.cumsum(weight * ~self.right)
        truths = float(weights @ self.truth_per_tile)
        counted = right + wrong
        precision = np.divide(right, counted, out=np.zeros_like(right), where=counted > 0)
        recall = right / truths if truths else np.zeros_like(right)
        return recall, precision, wrong / max(float(weights.sum()), 1.0)


def match_class(table: Table, class_id: int, iou_threshold: float) -> Matches:
    """The detections of a class matched with its truths at one IoU."""
    return match_class_at(table, class_id, (iou_threshold,))[0]


def match_class_at(table: Table, class_id: int, iou_thresholds: Sequence[float]) -> list[Matches]:
    """The same at several IoUs, of which each matches anew; overlaps are worked out once."""
    of_truth, of_found = table.truth_class == class_id, table.class_ids == class_id
    truth_tile, truth_boxes = table.truth_tile[of_truth], table.truth_boxes[of_truth]
    tile, boxes, scores = table.tile[of_found], table.boxes[of_found], table.scores[of_found]
    chosen = np.full((len(iou_thresholds), len(tile)), np.nan)
    for found, truth in shared_tiles(tile, truth_tile):
        overlap = iou_matrix(boxes[found], truth_boxes[truth])
        for row, threshold in enumerate(iou_thresholds):
            chosen[row, found] = _greedy(overlap, threshold)
    order = np.argsort(-scores, kind="stable")
    counts = np.bincount(truth_tile, minlength=table.tiles)
    return [
        Matches(tile[order], scores[order], ~np.isnan(taken[order]), np.nan_to_num(taken[order]), counts)
        for taken in chosen
    ]


def shared_tiles(tile: Integers, truth_tile: Integers) -> list[tuple[slice, slice]]:
    """The runs of detections and of truths of every tile that has both; both arrays are sorted."""
    both = np.intersect1d(tile, truth_tile)
    starts, ends = np.searchsorted(tile, both, "left"), np.searchsorted(tile, both, "right")
    truth_starts, truth_ends = np.searchsorted(truth_tile, both, "left"), np.searchsorted(truth_tile, both, "right")
    runs = zip(starts.tolist(), ends.tolist(), truth_starts.tolist(), truth_ends.tolist(), strict=True)
    return [(slice(a, b), slice(c, d)) for a, b, c, d in runs]


def _greedy(iou: Floats, iou_threshold: float) -> Floats:
    """For each detection (row, best score first) the IoU with the truth it takes, NaN if it takes none.

    As in VOC each truth is taken once; as in COCO a detection takes the best truth that is still free, so that of two
    touching cells of one class neither is lost.
    """
    taken = np.full(len(iou), np.nan)
    free = iou.copy()
    for row in np.flatnonzero(iou.max(axis=1) >= iou_threshold):
        best = int(free[row].argmax())
        if free[row, best] >= iou_threshold:
            taken[row] = free[row, best]
            free[:, best] = -1.0
    return taken


def pair_any_class(table: Table, iou_threshold: float, confidence: float) -> tuple[Integers, Integers]:
    """Detections of at least this confidence and truths, paired greedily by score whatever their classes.

    Returns for each detection of the table the index of the truth that it takes, and for each truth that of the
    detection that takes it; -1 for none, and for detections of less confidence.
    """
    counted = np.flatnonzero(table.scores >= confidence)
    truth_of, found_by = np.full(len(table.tile), -1), np.full(len(table.truth_tile), -1)
    for found, truth in shared_tiles(table.tile[counted], table.truth_tile):
        rows = counted[found]
        iou = iou_matrix(table.boxes[rows], table.truth_boxes[truth])
        for row in np.flatnonzero(iou.max(axis=1) >= iou_threshold):
            best = int(iou[row].argmax())
            if iou[row, best] >= iou_threshold:
                truth_of[rows[row]] = truth.start + best
                found_by[truth.start + best] = rows[row]
                iou[:, best] = -1.0
    return truth_of, found_by
