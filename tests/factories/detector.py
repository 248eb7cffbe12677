"""A detector without weights: it finds what it was told on every tile, and counts the tiles."""

import numpy as np

from inference.engine.detector import Detections
from inference.engine.embeddings import DIMENSIONS


class ToldDetector:
    """`found`: (class number, x, y, width, height, score) for every tile; the other classes score a tenth of it.

    Cells of a class all look the same, and those of two classes not at all alike.
    """

    def __init__(self, *found, classes=3):
        self.found, self.classes, self.tiles = found, tuple(map(str, range(classes))), 0

    def detect(self, tiles, *, min_score=0.05, iou=0.6, max_detections=300):
        self.tiles += len(tiles)
        kept = [one for one in self.found if one[5] >= min_score]
        scores = np.zeros((len(kept), len(self.classes)), np.float32)
        for row, one in enumerate(kept):
            scores[row] = one[5] / 10
            scores[row, one[0]] = one[5]
        answer = Detections(
            boxes=np.array([one[1:5] for one in kept], np.float32).reshape(-1, 4),
            scores=np.array([one[5] for one in kept], np.float32),
            class_ids=np.array([one[0] for one in kept], np.int64),
            class_scores=scores,
            embeddings=self._looks([one[0] for one in kept]),
        )
        return [answer for _ in tiles]

    def describe(self, tile, boxes):
        """A box that it was told of looks as its class does; any other one as class 0."""
        numbers = {one[1:5]: one[0] for one in self.found}
        return self._looks([numbers.get(tuple(box), 0) for box in np.asarray(boxes).tolist()])

    def _looks(self, numbers):
        return np.eye(DIMENSIONS, dtype=np.float32)[np.array(numbers, np.int64)]
