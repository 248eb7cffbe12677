"""The worst errors of a detector: the cells to look at when one wants to know what it has not learned."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from annotation.geometry import iou_matrix
from training.engine.matching import DetectionsLike, Integers, Table, pair_any_class


@dataclass(frozen=True)
class DetectionError:
    """One cell, or what was taken for one.

    tile: its place in the sequences. box: x, y, width, height in tile px; the cell's own where there is one. truth,
    found: class ids. score: of the detection; of a missed cell, of what was seen there with too little confidence.
    """

    tile: int
    box: tuple[float, float, float, float]
    truth: int | None
    found: int | None
    score: float | None


@dataclass(frozen=True)
class WorstErrors:
    """missed: cells without a detection. false: detections without a cell. confused: cells found as another class."""

    missed: tuple[DetectionError, ...]
    false: tuple[DetectionError, ...]
    confused: tuple[DetectionError, ...]


def worst_errors(
    truths: Sequence[ArrayLike],
    detections: Sequence[DetectionsLike],
    classes: int,
    *,
    iou_threshold: float = 0.5,
    confidence: float = 0.25,
    ignored: Collection[int] = (),
    most: int = 24,
) -> WorstErrors:
    """The worst errors of each kind, at most so many, worst first. The arguments are those of `metrics.evaluate`.

    Boxes are paired as in the confusion matrix, so a second box on one cell is a false one. False and confused ones are
    ranked by their score: the surer, the worse. Missed cells are ranked by how little was seen of them: those of which
    the detector saw nothing even below the confidence come first, of the rarest class first; then those that it saw
    with the lowest score.
    """
    table = Table.of(truths, detections, classes, ignored)
    truth_of, found_by = pair_any_class(table, iou_threshold, confidence)
    alone = np.flatnonzero((truth_of < 0) & (table.scores >= confidence))
    paired = np.flatnonzero(truth_of >= 0)
    confused = paired[table.class_ids[paired] != table.truth_class[truth_of[paired]]]
    return WorstErrors(
        missed=_missed(table, np.flatnonzero(found_by < 0), iou_threshold, confidence, most),
        false=tuple(_found(table, row, None) for row in _surest(table, alone, most)),
        confused=tuple(_found(table, row, int(truth_of[row])) for row in _surest(table, confused, most)),
    )


def _surest(table: Table, rows: Integers, most: int) -> Iterable[int]:
    return map(int, rows[np.argsort(-table.scores[rows], kind="stable")][:most])


def _found(table: Table, row: int, truth: int | None) -> DetectionError:
    """A detection that is wrong: there is no cell, or one of another class."""
    box = table.boxes[row] if truth is None else table.truth_boxes[truth]
    return DetectionError(
        tile=int(table.tile[row]),
        box=_plain(box),
        truth=None if truth is None else int(table.truth_class[truth]),
        found=int(table.class_ids[row]),
        score=float(table.scores[row]),
    )


def _missed(
    table: Table, rows: Integers, iou_threshold: float, confidence: float, most: int
) -> tuple[DetectionError, ...]:
    weak = np.flatnonzero(table.scores < confidence)
    frequency = np.bincount(table.truth_class, minlength=table.classes)
    errors = []
    for row in map(int, rows):
        there = weak[table.tile[weak] == table.truth_tile[row]]
        over = there[iou_matrix(table.boxes[there], table.truth_boxes[row][None])[:, 0] >= iou_threshold]
        seen = int(over[table.scores[over].argmax()]) if len(over) else None
        errors.append(
            DetectionError(
                tile=int(table.truth_tile[row]),
                box=_plain(table.truth_boxes[row]),
                truth=int(table.truth_class[row]),
                found=None if seen is None else int(table.class_ids[seen]),
                score=None if seen is None else float(table.scores[seen]),
            )
        )
    return tuple(sorted(errors, key=lambda error: (error.score or 0.0, frequency[error.truth]))[:most])


def _plain(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = (round(float(value), 2) for value in box)
    return x, y, width, height
