"""How far one detector's answers lie from another's: whether an export may stand for its weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotation.geometry import iou_matrix
from inference.engine.crops import crop_cells
from inference.engine.detector import Detections, Detector
from inference.engine.suppression import CANDIDATES
from inference.engine.two_stage import TwoStageDetector

CERTAIN = 0.25  # the score from which a detection is shown to readers
FLOOR = 0.05  # the score from which detections are compared
SAME_CELL = 0.5  # IoU, as in evaluation

# What an export may differ by.
MOST_DISTANCE = 1.0  # tile px
MOST_SCORE_DIFFERENCE = 0.05
MOST_AP_DIFFERENCE = 0.005

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Difference:
    """What the second of two detectors answers otherwise than the first.

    tiles: how many were compared. boxes: how many of a score of at least 0.25 the first saw on them.
    distance: tile px, the greatest distance between the sides of a box of the second and of the first's nearest one.
    score: the greatest difference between the class scores of these two.
    ap: for each class that the first sees at 0.25 or more, 1 minus the second's average precision on what the first
    sees; 0 if both see the same.
    """

    tiles: int
    boxes: int
    distance: float
    score: float
    ap: dict[str, float]

    @property
    def is_small(self) -> bool:
        """Whether the second may stand for the first; not if there was nothing to compare."""
        return bool(
            self.boxes
            and self.distance <= MOST_DISTANCE
            and self.score <= MOST_SCORE_DIFFERENCE
            and max(self.ap.values(), default=0.0) <= MOST_AP_DIFFERENCE
        )

    def in_words(self) -> str:
        """The numbers for people, with the class that differs most."""
        if not self.boxes:
            return f"on {self.tiles} tiles no cell was seen, so nothing could be compared"
        words = (
            f"on {self.tiles} tiles with {self.boxes} boxes, sides of boxes differ by at most {self.distance:.2f} px, "
            f"class scores by {self.score:.3f}"
        )
        if not self.ap:  # cells were found, but none was named with any certainty
            return f"{words}; no class was seen"
        worst = max(self.ap, key=lambda name: self.ap[name])
        where = f" (in {worst})" if self.ap[worst] > 0 else ""
        return f"{words}, AP of a class by {self.ap[worst]:.4f}{where}"


def compare(first: Detector, second: Detector, tiles: Sequence[Pixels]) -> Difference:
    """How far the second detector's answers lie from the first's on tiles, each uint8 (H, W, 3).

    Reduced precision turns scores a little, and with them, in one cell of a hundred, which of two neighbouring boxes
    of a cell survives suppression. Neither is the better one, so a box of the second is measured against what the
    first saw before suppression.

    AP is all-point average precision at IoU 0.5 of every (box, class) of the second with a class score of at least
    0.05, where the truth is every (box, class) of the first of at least 0.25, and the first's between 0.05 and 0.25 are
    neither right nor wrong: a score may fall from one side of 0.25 to the other. What is missing, comes in addition,
    lies elsewhere or has another class lowers it. Raises ValueError if the two do not name the same classes.
    """
    if first.classes != second.classes:
        raise ValueError("The two detectors do not name the same classes.")
    if isinstance(first, TwoStageDetector) and isinstance(second, TwoStageDetector):
        return _compare_stages(first, second, tiles)
    answers = [_Answers.of(first, second, tile) for tile in tiles]
    measured = [pair for one in answers for pair in one.differences()]
    return Difference(
        tiles=len(tiles),
        boxes=sum(int((one.first.scores >= CERTAIN).sum()) for one in answers),
        distance=max((distance for distance, _ in measured), default=0.0),
        score=max((score for _, score in measured), default=0.0),
        ap=_ap_differences(answers, first.classes),
    )


def _compare_stages(first: TwoStageDetector, second: TwoStageDetector, tiles: Sequence[Pixels]) -> Difference:
    """Finder with finder and classifier with classifier, on the same crops; but AP of both stages together."""
    finders = compare(first.finder, second.finder, tiles)
    answers, score = [], finders.score
    side, size = first.classifier.side, first.classifier.size
    for tile in tiles:
        seen = first.detect(tile[None], min_score=FLOOR)[0]
        answers.append(_Answers(seen, seen, second.detect(tile[None], min_score=FLOOR)[0]))
        crops = crop_cells(tile, seen.boxes[seen.class_scores.sum(axis=1) >= CERTAIN], side=side, size=size)
        apart = np.abs(first.classifier.classify(crops) - second.classifier.classify(crops))
        score = max(score, float(apart.max(initial=0.0)))
    return replace(finders, score=score, ap=_ap_differences(answers, first.classes))


def compare_export(
    weights: Path,
    export: Path,
    tiles: Sequence[Pixels],
    *,
    image_size: int,
    classifier: Path | None = None,
    classifier_export: Path | None = None,
) -> Difference:
    """How far an OpenVINO export (its folder) lies from its weights as torch computes them in float32.

    classifier, classifier_export: of a two-stage detector, both. Raises WeightsError.
    """
    from inference.engine.openvino_detector import OpenvinoDetector
    from inference.engine.torch_detector import TorchDetector

    exact = TorchDetector(weights, image_size=image_size, device="cpu", exact=True)
    exported = OpenvinoDetector(export)
    if classifier is None or classifier_export is None:
        return compare(exact, exported, tiles)
    from inference.engine.classifier import TorchClassifier
    from inference.engine.openvino_classifier import OpenvinoClassifier

    first = TwoStageDetector(exact, TorchClassifier(classifier, device="cpu"))
    return compare(first, TwoStageDetector(exported, OpenvinoClassifier(classifier_export)), tiles)


@dataclass(frozen=True)
class _Answers:
    """What both see on one tile; `unsuppressed`: all that the first saw before suppression."""

    first: Detections
    unsuppressed: Detections
    second: Detections

    @classmethod
    def of(cls, first: Detector, second: Detector, tile: Pixels) -> "_Answers":
        one = tile[None]
        return cls(
            first=first.detect(one, min_score=FLOOR)[0],
            unsuppressed=first.detect(one, min_score=FLOOR, iou=1.0, max_detections=CANDIDATES)[0],
            second=second.detect(one, min_score=FLOOR)[0],
        )

    def differences(self) -> Iterable[tuple[float, float]]:
        """For each certain box of the second, the distance (px) and score difference to the first's most like it."""
        theirs = _sides(self.unsuppressed.boxes)
        for place in np.flatnonzero(self.second.scores >= CERTAIN):
            if not len(theirs):
                yield np.inf, 1.0
                continue
            distances = np.abs(theirs - _sides(self.second.boxes[place][None])).max(axis=1)
            scores = np.abs(self.unsuppressed.class_scores - self.second.class_scores[place]).max(axis=1)
            likest = np.maximum(distances / MOST_DISTANCE, scores / MOST_SCORE_DIFFERENCE).argmin()
            yield float(distances[likest]), float(scores[likest])

    def ranked(self, number: int) -> tuple[list[tuple[float, bool]], int]:
        """(score, whether it is right) of the second's boxes of a class, and how many there are to find."""
        wanted = self.first.class_scores[:, number] >= CERTAIN
        found = np.flatnonzero(self.second.class_scores[:, number] >= FLOOR)
        found = found[np.argsort(-self.second.class_scores[found, number], kind="stable")]
        overlap = iou_matrix(self.second.boxes[found], self.first.boxes)
        overlap[:, self.first.class_scores[:, number] < FLOOR] = 0.0
        answers = []
        for row, place in zip(overlap, found, strict=True):
            likest = int(np.where(wanted, row, 0.0).argmax()) if len(row) else 0
            if len(row) and wanted[likest] and row[likest] >= SAME_CELL:
                answers.append((float(self.second.class_scores[place, number]), True))
                overlap[:, likest] = 0.0
            elif not (row >= SAME_CELL).any():
                answers.append((float(self.second.class_scores[place, number]), False))
        return answers, int(wanted.sum())


def _sides(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Left, top, right, bottom."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _ap_differences(answers: Sequence[_Answers], classes: Sequence[str]) -> dict[str, float]:
    differences = {}
    for number, name in enumerate(classes):
        ranked, wanted = [], 0
        for one in answers:
            found, count = one.ranked(number)
            ranked += found
            wanted += count
        if wanted:
            differences[name] = 1.0 - _average_precision(ranked, wanted)
    return differences


def _average_precision(ranked: list[tuple[float, bool]], wanted: int) -> float:
    """The area under the curve of precision over recall, after precision is made to fall (VOC from 2010 on)."""
    right = np.array([one for _, one in sorted(ranked, key=lambda pair: -pair[0])], dtype=np.float64)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_from_here * right).sum() / wanted)
