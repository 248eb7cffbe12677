"""Figures of a ranking: what the detections of a class are worth, best score first, at every score at once.

Average precision at 11 points is Pascal VOC's of 2007 (Everingham et al. 2010, "The Pascal Visual Object Classes (VOC)
Challenge", IJCV 88), at 101 points COCO's (Lin et al. 2014, "Microsoft COCO: Common Objects in Context", ECCV). The
log-average miss rate follows Dollar et al. 2012, "Pedestrian Detection: An Evaluation of the State of the Art", PAMI
34.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.engine.matching import Floats, Integers, Matches

COCO_THRESHOLDS = tuple((np.arange(50, 100, 5) / 100).tolist())  # IoU
CURVE_DECIMALS = 4
# Three cells of ten are a recall of 0.3 and reach it: of linspace(0, 1, 11) they would not, which is COCO's way at 101.
RECALLS = {11: np.arange(11) / 10, 101: np.linspace(0, 1, 101)}
MISS_RATE_POINTS = np.logspace(-2, 0, 9)  # false positives per tile


def average_precision(recall: Floats, precision: Floats, points: Literal[11, 101] = 11) -> float:
    """Interpolated average precision: the mean, over equidistant recalls, of the best precision at that recall or more.

    recall, precision: float (n,) of the n best detections, recall rising. 11 points: VOC 2007; 101 points: COCO.
    """
    reached = _reached(recall, RECALLS[points])
    return float(_best_from_here(precision)[reached].sum() / points)


def coco_average_precision(matches: Sequence[Matches]) -> float:
    """AP@[.5:.95]: the mean of 101-point average precision over matches at each of COCO_THRESHOLDS.

    COCO looks at the 100 best detections of an image at most; here all of a tile count.
    """
    curves = [one.curve(np.ones(len(one.truth_per_tile))) for one in matches]
    return float(np.mean([average_precision(recall, precision, points=101) for recall, precision, _ in curves]))


@dataclass(frozen=True)
class Curve:
    """A precision-recall curve at the recalls 0, 0.01 .. 1, as far as they are reached.

    precision: the best precision at that recall or more. scores: of the detection with which that recall is reached.
    """

    precision: tuple[float, ...]
    scores: tuple[float, ...]


def precision_recall_curve(matches: Matches) -> Curve:
    """The curve of a class, its numbers rounded to 4 decimals."""
    recall, precision, _ = matches.curve(np.ones(len(matches.truth_per_tile)))
    reached = _reached(recall, RECALLS[101])
    best, scores = _best_from_here(precision)[reached], matches.score[reached]
    return Curve(tuple(best.round(CURVE_DECIMALS).tolist()), tuple(scores.round(CURVE_DECIMALS).tolist()))


def _reached(recall: Floats, recalls: Floats) -> Integers:
    """For each of these recalls that is reached, the place of the first detection that reaches it."""
    index = np.searchsorted(recall, recalls, side="left")
    return index[index < len(recall)]


def _best_from_here(precision: Floats) -> Floats:
    return np.maximum.accumulate(precision[::-1])[::-1]


def log_average_miss_rate(recall: Floats, false_per_tile: Floats) -> float:
    """exp of the mean log miss rate at 9 false positives per tile, 1e-2 to 1e0 spaced evenly in log (Dollar 2012).

    The miss rate at a point is that of the last detection before the curve passes it, 1 if the curve starts beyond it.
    """
    after = np.searchsorted(false_per_tile, MISS_RATE_POINTS, side="right")
    miss = np.concatenate([[1.0], 1.0 - recall])[after]
    return float(np.exp(np.log(np.maximum(miss, 1e-10)).mean()))
