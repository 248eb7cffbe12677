"""Truths and detections for the tests of metrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference.engine.detector import Detections
from training.engine.metrics import Evaluation, evaluate

CLASSES = ("blast", "lymphocyte", "basophil")


def detections(rows: Sequence[Sequence[float]]) -> Detections:
    """Rows of class id, x, y, width, height, score."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    scores = np.zeros((len(table), len(CLASSES)), np.float32)
    return Detections(table[:, 1:5].astype(np.float32), table[:, 5].astype(np.float32), table[:, 0].astype(int), scores)


def perfect(truth: np.ndarray) -> Detections:
    return detections(np.column_stack([truth, np.full(len(truth), 0.9)]))


def random_tiles(seed: int, tiles: int = 12, classes: int = 3) -> tuple[list[np.ndarray], list[Detections]]:
    """Truths, and detections of which some are near them, some far, some doubled, with distinct scores."""
    generator = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(tiles):
        count = int(generator.integers(0, 8))
        size = generator.uniform(30, 80, (count, 2))
        truth = np.column_stack([generator.integers(classes, size=count), generator.uniform(0, 400, (count, 2)), size])
        copies = truth[generator.integers(count, size=count + 3)] if count else np.zeros((0, 5))
        copies = copies + np.column_stack(
            [np.zeros(len(copies)), generator.normal(0, 9, (len(copies), 2)), generator.normal(0, 4, (len(copies), 2))]
        )
        wrong = generator.random(len(copies)) < 0.2
        copies[wrong, 0] = generator.integers(classes, size=int(wrong.sum()))
        found.append(detections(np.column_stack([copies, generator.random(len(copies))])))
        truths.append(truth)
    return truths, found


def judge(truths: Sequence[Any], found: Sequence[Detections], **options: Any) -> Evaluation:
    patients = options.pop("patients", [f"P{index:02d}" for index in range(len(truths))])
    return evaluate(truths, found, CLASSES, patients, **{"bootstrap": 0, **options})
