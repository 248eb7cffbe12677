"""The two-stage detector: a finder of one class finds every cell, a classifier names each by a crop.

Tayebi et al. 2022 find and name at once; Goldgof et al. 2023 name single cells. These are the two halves joined.
"""

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.engine.crops import crop_cells
from inference.engine.detector import Detections, Detector, WeightsError
from inference.engine.embeddings import embed

FINDER_CLASSES = ("cell",)


class Classifier(Protocol):
    """Names cells by their crops."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the class ids."""

    @property
    def side(self) -> float:
        """Of the crops, in tile px."""

    @property
    def size(self) -> int:
        """Of the crops, in px of the classifier's input."""

    def look(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What is seen of crops, uint8 (n, size, size, 3), RGB.

        The probability of each class: float32 (n, classes), rows sum to 1. The features that the classifier's head
        has it from: float32 (n, features).
        """

    def classify(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities alone."""


class TwoStageDetector:
    """Answers as every detector does. A box's class scores are the finder's score, shared out over the classes.

    So the score of a class is the product of the finder's score and the classifier's probability, and the sum over
    the classes is the finder's score. The embeddings of the cells come from the classifier's features.
    """

    def __init__(self, finder: Detector, classifier: Classifier) -> None:
        if len(finder.classes) != 1:
            raise WeightsError(f"A finder knows one class; this one knows {len(finder.classes)}.")
        self.finder = finder
        self.classifier = classifier
        self.classes = classifier.classes

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """Detections of each tile; see `inference.engine.detector.Detector.detect`.

        `min_score` is what the finder's score must reach: a cell that is certainly one is not dropped because it may be
        of several classes.
        """
        found = self.finder.detect(tiles, min_score=min_score, iou=iou, max_detections=max_detections)
        side, size = self.classifier.side, self.classifier.size
        crops = [crop_cells(tile, one.boxes, side=side, size=size) for tile, one in zip(tiles, found, strict=True)]
        named, features = self.classifier.look(np.concatenate([*crops, np.empty((0, size, size, 3), np.uint8)]))
        ends = np.cumsum([len(one) for one in found])[:-1]
        parts = zip(found, np.split(named, ends), np.split(embed(features), ends), strict=True)
        return [_named(*part) for part in parts]

    def describe(self, tile: NDArray[np.uint8], boxes: ArrayLike) -> NDArray[np.float32]:
        """See `inference.engine.embeddings.Describing.describe`."""
        crops = crop_cells(tile, boxes, side=self.classifier.side, size=self.classifier.size)
        return embed(self.classifier.look(crops)[1])


def _named(found: Detections, probabilities: NDArray[np.float32], embeddings: NDArray[np.float32]) -> Detections:
    class_scores = found.scores[:, None] * probabilities
    scores = class_scores.max(axis=1, initial=0.0)
    order = np.argsort(-scores, kind="stable")
    return Detections(
        boxes=found.boxes[order],
        scores=scores[order],
        class_ids=class_scores.argmax(axis=1)[order],
        class_scores=class_scores[order],
        embeddings=embeddings[order],
    )
