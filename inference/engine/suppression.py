"""One cell, one box: non-maximum suppression in numpy, the same for every back end, so that none needs torch for it."""

import numpy as np
from numpy.typing import NDArray

from inference.engine.detector import Detections

CANDIDATES = 3000  # boxes of one tile that enter non-maximum suppression

Floats = NDArray[np.float32]


def suppress(output: Floats, *, min_score: float, iou: float, max_detections: int) -> Detections:
    """Class-agnostic non-maximum suppression: one cell, one box, whatever the classes say.

    output: float32 (4 + classes, anchors), centre x, y, width, height, then the class scores. Boxes keep its px.
    """
    scores = output[4:].max(axis=0)
    candidates = np.flatnonzero(scores >= min_score)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")[:CANDIDATES]]
    centre, size = output[:2, candidates].T, output[2:4, candidates].T
    first = centre - size / 2
    kept = _kept(np.concatenate([first, centre + size / 2], axis=1), iou, max_detections)
    chosen = candidates[kept]
    class_scores = np.ascontiguousarray(output[4:, chosen].T)
    return Detections(
        boxes=np.concatenate([first[kept], size[kept]], axis=1),
        scores=scores[chosen],
        class_ids=class_scores.argmax(axis=1),
        class_scores=class_scores,
    )


def _kept(corners: Floats, iou: float, most: int) -> NDArray[np.int64]:
    """Which boxes (left, top, right, bottom; the best first) stay: those that no better one overlaps too much."""
    left, top, right, bottom = corners.T
    areas = (right - left) * (bottom - top)
    alive = np.arange(len(corners))
    kept: list[int] = []
    while len(alive) and len(kept) < most:
        best, rest = alive[0], alive[1:]
        kept.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        common = np.maximum(width, 0) * np.maximum(height, 0)
        # As a product: two boxes without area, whose IoU is 0 / 0, both stay.
        alive = rest[common <= iou * (areas[best] + areas[rest] - common)]
    return np.array(kept, dtype=np.int64)
