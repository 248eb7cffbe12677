"""How good a detector is, in the numbers of the paper: numpy only, every match made once, intervals by resampling.

Matching and average precision follow Pascal VOC (Everingham et al. 2010, "The Pascal Visual Object Classes (VOC)
Challenge", IJCV 88; 11 points as in VOC 2007). The log-average miss rate follows Dollar et al. 2012, "Pedestrian
Detection: An Evaluation of the State of the Art", PAMI 34.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annotation.geometry import iou_matrix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
FEWEST_PATIENTS = 3  # resampling fewer than three patients says nothing about the next one
MISS_RATE_POINTS = np.logspace(-2, 0, 9)  # false positives per tile


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
class ClassEvaluation:
    """One class. What cannot be said (no truth, no match) is None.

    ap50: 11-point average precision over all scores. log_average_miss_rate: 0 is best.
    precision, recall, f1, average_iou, count_mse: at the confidence of the evaluation; `count_mse` is the mean over
    tiles of the squared difference between the number of detected and of true boxes.
    """

    name: str
    truth_count: int
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    average_iou: float | None
    log_average_miss_rate: float | None
    count_mse: float


@dataclass(frozen=True)
class Evaluation:
    """A detector on a set of tiles.

    map50, log_average_miss_rate: means over the classes that occur in the truth; None if none does.
    precision, recall, f1, average_iou: over the boxes of all classes together, at the confidence.
    confusion: (classes + 1) rows by (classes + 1) columns, row = truth, column = detection, the last one background;
    each row sums to 1, or is all 0 if it has no box. Boxes are matched whatever their classes, at the confidence.
    map50_interval: 2.5 and 97.5 percentile of map50 over resampled patients (tiles, where there are fewer than 3).
    """

    classes: tuple[ClassEvaluation, ...]
    tiles: int
    iou_threshold: float
    confidence: float
    map50: float | None
    map50_interval: tuple[float, float] | None
    interval_over: Literal["patients", "tiles"]
    precision: float | None
    recall: float | None
    f1: float | None
    average_iou: float | None
    log_average_miss_rate: float | None
    confusion: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers; `from_json` gives the same evaluation back."""
        plain = asdict(self)
        plain["classes"] = list(plain["classes"])
        plain["confusion"] = [list(row) for row in self.confusion]
        plain["map50_interval"] = None if self.map50_interval is None else list(self.map50_interval)
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Evaluation":
        """The evaluation that `to_json` gave. Raises TypeError or KeyError for anything else."""
        interval = plain["map50_interval"]
        return cls(
            **{
                **plain,
                "classes": tuple(ClassEvaluation(**entry) for entry in plain["classes"]),
                "confusion": tuple(tuple(row) for row in plain["confusion"]),
                "map50_interval": None if interval is None else (interval[0], interval[1]),
            }
        )


def evaluate(
    truths: Sequence[ArrayLike],
    detections: Sequence[DetectionsLike],
    classes: Sequence[str],
    patients: Sequence[str],
    *,
    iou_threshold: float = 0.5,
    confidence: float = 0.25,
    ignored: Collection[int] = (),
    bootstrap: int = 200,
    seed: int = 0,
    ranked: Sequence[DetectionsLike] | None = None,
) -> Evaluation:
    """Judge the detections of each tile by its truth.

    truths: per tile (n, 5): class id, x, y, width, height in tile px. detections: per tile, boxes in the same px.
    patients: the patient of each tile; the interval resamples them.
    confidence: the score from which a detection counts in precision, recall, F1, IoU, counts and confusion.
    ignored: class ids that are left out, in the truth and in the detections.
    bootstrap: the number of resamplings; 0 gives no interval.
    ranked: what AP and miss rate rank, when it is more than `detections`: see `every_class`.
    Raises ValueError if the sequences differ in length or a class id is none of the classes.
    """
    if not len(truths) == len(detections) == len(patients):
        raise ValueError("Truths, detections and patients must be one for each tile.")
    table = _Table.of(truths, detections, len(classes), ignored)
    judged = [index for index in range(len(classes)) if index not in set(ignored)]
    matches = {index: _match_class(table, index, iou_threshold) for index in judged}
    weights = np.ones(table.tiles)
    ranking = matches
    if ranked is not None:
        if len(ranked) != len(truths):
            raise ValueError("Truths and ranked detections must be one for each tile.")
        all_ranked = _Table.of(truths, ranked, len(classes), ignored)
        ranking = {index: _match_class(all_ranked, index, iou_threshold) for index in judged}
    per_class = [
        _class_evaluation(classes[index], matches[index], ranking[index], table.tiles, confidence) for index in judged
    ]
    totals = np.sum([matches[index].totals(confidence) for index in judged], axis=0) if judged else np.zeros(4)
    precision, recall, f1, average_iou = _ratios(*totals)
    interval, over = _interval(list(ranking.values()), patients, bootstrap, seed)
    return Evaluation(
        classes=tuple(per_class),
        tiles=table.tiles,
        iou_threshold=iou_threshold,
        confidence=confidence,
        map50=_mean_average_precision(list(ranking.values()), weights),
        map50_interval=interval,
        interval_over=over,
        precision=precision,
        recall=recall,
        f1=f1,
        average_iou=average_iou,
        log_average_miss_rate=_mean([entry.log_average_miss_rate for entry in per_class if entry.truth_count]),
        confusion=_confusion(table, iou_threshold, confidence),
    )


@dataclass(frozen=True)
class Ranked:
    """Detections that repeat a box once for each class that it may be."""

    boxes: NDArray[Any]
    scores: NDArray[Any]
    class_ids: NDArray[Any]


def every_class(boxes: ArrayLike, class_scores: ArrayLike, *, floor: float = 0.01) -> Ranked:
    """One detection per box and class whose score reaches `floor`, for the ranking figures.

    boxes (n, 4), class_scores (n, classes). AP ranks the detections of a class by that class's score; a box whose best
    class is myelocyte still says something of promyelocytes. Darknet, with which the paper's detector was trained, and
    ultralytics compute AP in this way; a reader sees one class per box, so precision, recall, counts and confusion
    keep to that.
    """
    scores = np.asarray(class_scores)
    index, class_ids = np.nonzero(scores >= floor)
    return Ranked(np.asarray(boxes)[index], scores[index, class_ids], class_ids)


def average_precision(recall: Floats, precision: Floats, points: Literal[11, 101] = 11) -> float:
    """Interpolated average precision: the mean, over equidistant recalls, of the best precision at that recall or more.

    recall, precision: float (n,) of the n best detections, recall rising. 11 points: VOC 2007; 101 points: COCO.
    """
    if len(recall) == 0:
        return 0.0
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, np.linspace(0, 1, points), side="left")
    reached = index < len(recall)
    return float(np.where(reached, best_from_here[np.minimum(index, len(recall) - 1)], 0.0).mean())


@dataclass(frozen=True)
class _Table:
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
    ) -> "_Table":
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
class _Matches:
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


def _match_class(table: _Table, class_id: int, iou_threshold: float) -> _Matches:
    of_truth, of_found = table.truth_class == class_id, table.class_ids == class_id
    truth_tile, truth_boxes = table.truth_tile[of_truth], table.truth_boxes[of_truth]
    tile, boxes, scores = table.tile[of_found], table.boxes[of_found], table.scores[of_found]
    right, iou = np.zeros(len(tile), bool), np.zeros(len(tile))
    for found, truth in _shared_tiles(tile, truth_tile):
        chosen = _greedy(iou_matrix(boxes[found], truth_boxes[truth]), iou_threshold)
        right[found] = ~np.isnan(chosen)
        iou[found] = np.nan_to_num(chosen)
    order = np.argsort(-scores, kind="stable")
    counts = np.bincount(truth_tile, minlength=table.tiles)
    return _Matches(tile[order], scores[order], right[order], iou[order], counts)


def _shared_tiles(tile: Integers, truth_tile: Integers) -> list[tuple[slice, slice]]:
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


def _class_evaluation(
    name: str, matches: _Matches, ranking: _Matches, tiles: int, confidence: float
) -> ClassEvaluation:
    truths = int(matches.truth_per_tile.sum())
    recall, precision_curve, false_per_tile = ranking.curve(np.ones(tiles))
    precision, share_found, f1, average_iou = _ratios(*matches.totals(confidence))
    detected = np.bincount(matches.tile[matches.score >= confidence], minlength=tiles)
    return ClassEvaluation(
        name=name,
        truth_count=truths,
        ap50=average_precision(recall, precision_curve) if truths else None,
        precision=precision,
        recall=share_found,
        f1=f1,
        average_iou=average_iou,
        log_average_miss_rate=log_average_miss_rate(recall, false_per_tile) if truths else None,
        count_mse=float(np.mean((detected - matches.truth_per_tile) ** 2)) if tiles else 0.0,
    )


def log_average_miss_rate(recall: Floats, false_per_tile: Floats) -> float:
    """exp of the mean log miss rate at 9 false positives per tile, 1e-2 to 1e0 spaced evenly in log (Dollar 2012).

    The miss rate at a point is that of the last detection before the curve passes it, 1 if the curve starts beyond it.
    """
    after = np.searchsorted(false_per_tile, MISS_RATE_POINTS, side="right")
    miss = np.concatenate([[1.0], 1.0 - recall])[after]
    return float(np.exp(np.log(np.maximum(miss, 1e-10)).mean()))


def _ratios(
    right: float, found: float, truths: float, iou_sum: float
) -> tuple[float | None, float | None, float | None, float | None]:
    """Precision, recall, F1 and average IoU; None where there is nothing to divide by."""
    precision = float(right / found) if found else None
    recall = float(right / truths) if truths else None
    f1 = float(2 * right / (found + truths)) if found + truths else None
    return precision, recall, f1, float(iou_sum / right) if right else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_average_precision(matches: Sequence[_Matches], weights: Floats) -> float | None:
    """The mean of AP over classes whose truth occurs in the tiles, each counted `weights` times."""
    present = [item for item in matches if weights @ item.truth_per_tile > 0]
    return _mean([average_precision(*item.curve(weights)[:2]) for item in present])


def _interval(
    matches: Sequence[_Matches], patients: Sequence[str], bootstrap: int, seed: int
) -> tuple[tuple[float, float] | None, Literal["patients", "tiles"]]:
    """The 95 % interval of map50 over resampled groups of tiles; the matches stay, only their weights change."""
    names, group = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    over: Literal["patients", "tiles"] = "patients" if len(names) >= FEWEST_PATIENTS else "tiles"
    if over == "tiles":
        group = np.arange(len(patients))
    groups = int(group.max()) + 1 if len(group) else 0
    if not bootstrap or not groups:
        return None, over
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=bootstrap)
    values = [_mean_average_precision(matches, weights[group].astype(np.float64)) for weights in drawn]
    known = [value for value in values if value is not None]
    if not known:
        return None, over
    low, high = np.percentile(known, [2.5, 97.5])
    return (float(low), float(high)), over


def _confusion(table: _Table, iou_threshold: float, confidence: float) -> tuple[tuple[float, ...], ...]:
    """Row-normalised, truth by detection, background last; boxes are matched greedily by score over all classes."""
    counted = table.scores >= confidence
    tile, boxes, class_ids = table.tile[counted], table.boxes[counted], table.class_ids[counted]
    background = table.classes
    of_found = np.full(len(tile), background)  # the class of the truth that each detection takes
    of_truth = np.full(len(table.truth_tile), background)  # and the other way round
    for found, truth in _shared_tiles(tile, table.truth_tile):
        iou = iou_matrix(boxes[found], table.truth_boxes[truth])
        for row in np.flatnonzero(iou.max(axis=1) >= iou_threshold):
            best = int(iou[row].argmax())
            if iou[row, best] >= iou_threshold:
                of_found[found.start + row] = table.truth_class[truth.start + best]
                of_truth[truth.start + best] = class_ids[found.start + row]
                iou[:, best] = -1.0
    counts = np.zeros((table.classes + 1, table.classes + 1))
    np.add.at(counts, (table.truth_class, of_truth), 1)
    alone = of_found == background
    np.add.at(counts[background], class_ids[alone], 1)
    sums = counts.sum(axis=1, keepdims=True)
    normalised = np.divide(counts, sums, out=np.zeros_like(counts), where=sums > 0)
    return tuple(tuple(float(value) for value in row) for row in normalised)
