"""How good a detector is, in the numbers of the paper: numpy only, intervals by resampling.

Matching is described in `matching`, figures over all scores in `ranking`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.engine.matching import DetectionsLike, Floats, Matches, Table, match_class, match_class_at, pair_any_class
from training.engine.ranking import (
    COCO_THRESHOLDS,
    Curve,
    average_precision,
    coco_average_precision,
    log_average_miss_rate,
    precision_recall_curve,
)

KEPT_DECIMALS = 6  # of resampled figures
FEWEST_PATIENTS = 3  # resampling fewer than three patients says nothing about the next one
AVERAGED = (
    "ap50",
    "ap50_95",
    "precision",
    "recall",
    "f1",
    "average_iou",
    "log_average_miss_rate",
    "count_mse",
)


@dataclass(frozen=True)
class ClassEvaluation:
    """One class. What cannot be said (no truth, no match) is None.

    ap50: 11-point average precision over all scores. log_average_miss_rate: 0 is best. ap50_95: AP@[.5:.95] as COCO.
    curve: precision over recall at the IoU threshold. Evaluations of before these two were measured do not have them.
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
    ap50_95: float | None = None
    curve: Curve | None = None


@dataclass(frozen=True)
class Evaluation:
    """A detector on a set of tiles.

    map50, map50_95, log_average_miss_rate: means over the classes that occur in the truth; None if none does.
    precision, recall, f1, average_iou: over the boxes of all classes together, at the confidence.
    confusion: (classes + 1) rows by (classes + 1) columns, row = truth, column = detection, the last one background;
    each row sums to 1, or is all 0 if it has no box. Boxes are matched whatever their classes, at the confidence.
    map50_interval: 2.5 and 97.5 percentile of map50 over resampled patients (tiles, where there are fewer than 3).
    map50_resampled: map50 of each resampling. The same tiles, boxes and seed are resampled alike, so that two detectors
    can be compared in pairs. Empty in evaluations of before these were kept; None where no class was drawn.
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
    map50_95: float | None = None
    map50_resampled: tuple[float | None, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers; `from_json` gives the same evaluation back."""
        plain = asdict(self)
        plain["classes"] = list(plain["classes"])
        plain["confusion"] = [list(row) for row in self.confusion]
        plain["map50_interval"] = None if self.map50_interval is None else list(self.map50_interval)
        plain["map50_resampled"] = list(self.map50_resampled)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Evaluation":
        """The evaluation that `to_json` gave; what else stands there is left aside. Raises TypeError or KeyError."""
        known = {field.name for field in fields(cls)}
        interval = plain["map50_interval"]
        return cls(
            **{
                **{key: value for key, value in plain.items() if key in known},
                "classes": tuple(_class_from_json(entry) for entry in plain["classes"]),
                "confusion": tuple(tuple(row) for row in plain["confusion"]),
                "map50_interval": None if interval is None else (interval[0], interval[1]),
                "map50_resampled": tuple(plain.get("map50_resampled", ())),
            }
        )


def _class_from_json(plain: Mapping[str, Any]) -> ClassEvaluation:
    curve = plain.get("curve")
    known = Curve(tuple(curve["precision"]), tuple(curve["scores"])) if curve else None
    return ClassEvaluation(**{**plain, "curve": known})


def average_row(classes: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The last row of the paper's Table 2: of each figure the mean over the classes that occur in the truth.

    classes: as in the JSON of an evaluation. A class for which a figure cannot be said does not count in its mean.
    """
    present = [row for row in classes if row["truth_count"]]
    return {name: _mean([row.get(name) for row in present]) for name in AVERAGED}


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
    table = Table.of(truths, detections, len(classes), ignored)
    judged = [index for index in range(len(classes)) if index not in set(ignored)]
    matches = {index: match_class(table, index, iou_threshold) for index in judged}
    weights = np.ones(table.tiles)
    all_ranked = table
    if ranked is not None:
        if len(ranked) != len(truths):
            raise ValueError("Truths and ranked detections must be one for each tile.")
        all_ranked = Table.of(truths, ranked, len(classes), ignored)
    rankings = {index: match_class_at(all_ranked, index, (iou_threshold, *COCO_THRESHOLDS)) for index in judged}
    ranking = [rankings[index][0] for index in judged]
    per_class = [
        _class_evaluation(classes[index], matches[index], rankings[index], table.tiles, confidence) for index in judged
    ]
    totals = np.sum([matches[index].totals(confidence) for index in judged], axis=0) if judged else np.zeros(4)
    precision, recall, f1, average_iou = _ratios(*totals)
    resampled, over = _resampled(ranking, patients, bootstrap, seed)
    return Evaluation(
        classes=tuple(per_class),
        tiles=table.tiles,
        iou_threshold=iou_threshold,
        confidence=confidence,
        map50=_mean_average_precision(ranking, weights),
        map50_interval=_interval(resampled),
        interval_over=over,
        precision=precision,
        recall=recall,
        f1=f1,
        average_iou=average_iou,
        log_average_miss_rate=_mean([entry.log_average_miss_rate for entry in per_class if entry.truth_count]),
        confusion=_confusion(table, iou_threshold, confidence),
        map50_95=_mean([entry.ap50_95 for entry in per_class if entry.truth_count]),
        map50_resampled=tuple(None if value is None else round(value, KEPT_DECIMALS) for value in resampled),
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


def _class_evaluation(
    name: str, matches: Matches, rankings: Sequence[Matches], tiles: int, confidence: float
) -> ClassEvaluation:
    """`rankings`: at the IoU of the evaluation first, then at COCO's."""
    ranking, *coco = rankings
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
        ap50_95=coco_average_precision(coco) if truths else None,
        curve=precision_recall_curve(ranking) if truths else None,
    )


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


def _mean_average_precision(matches: Sequence[Matches], weights: Floats) -> float | None:
    """The mean of AP over classes whose truth occurs in the tiles, each counted `weights` times."""
    present = [item for item in matches if weights @ item.truth_per_tile > 0]
    return _mean([average_precision(*item.curve(weights)[:2]) for item in present])


def _resampled(
    matches: Sequence[Matches], patients: Sequence[str], bootstrap: int, seed: int
) -> tuple[list[float | None], Literal["patients", "tiles"]]:
    """map50 over resampled groups of tiles, `bootstrap` times; the matches stay, only their weights change."""
    names, group = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    over: Literal["patients", "tiles"] = "patients" if len(names) >= FEWEST_PATIENTS else "tiles"
    if over == "tiles":
        group = np.arange(len(patients))
    groups = int(group.max()) + 1 if len(group) else 0
    if not bootstrap or not groups:
        return [], over
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=bootstrap)
    return [_mean_average_precision(matches, weights[group].astype(np.float64)) for weights in drawn], over


def _interval(resampled: Sequence[float | None]) -> tuple[float, float] | None:
    """The 95 % interval: 2.5 and 97.5 percentile of what is known."""
    known = [value for value in resampled if value is not None]
    if not known:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _confusion(table: Table, iou_threshold: float, confidence: float) -> tuple[tuple[float, ...], ...]:
    """Row-normalised, truth by detection, background last; boxes are paired whatever their classes."""
    truth_of, found_by = pair_any_class(table, iou_threshold, confidence)
    background = table.classes
    counts = np.zeros((table.classes + 1, table.classes + 1))
    of_truth = np.append(table.class_ids, background)[found_by]  # -1, for none, is the last one
    np.add.at(counts, (table.truth_class, of_truth), 1)
    alone = (truth_of < 0) & (table.scores >= confidence)
    np.add.at(counts[background], table.class_ids[alone], 1)
    sums = counts.sum(axis=1, keepdims=True)
    normalised = np.divide(counts, sums, out=np.zeros_like(counts), where=sums > 0)
    return tuple(tuple(float(value) for value in row) for row in normalised)
