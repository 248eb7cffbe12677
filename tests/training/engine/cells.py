"""Tiles with two kinds of drawn cells, big enough to learn from in seconds."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.engine.dataset import TrainingTile, write_dataset

CLASSES = ("lymphocyte", "eosinophil")
COLOURS = ((90, 40, 140), (230, 90, 60))
SIDE = 96


def draw_tile(seed: int, cells: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pixels, uint8 RGB (96, 96, 3), and boxes, float (n, 5), of discs that do not overlap."""
    generator = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), 225, np.uint8)
    corners = generator.permutation([(x, y) for x in (4, 34, 64) for y in (4, 34, 64)])[:cells]
    boxes = []
    for x, y in corners.tolist():
        class_id, radius = int(generator.integers(2)), int(generator.integers(10, 14))
        cv2.circle(pixels, (x + radius, y + radius), radius, COLOURS[class_id], -1)
        boxes.append((class_id, x, y, 2 * radius + 1, 2 * radius + 1))
    return pixels, np.array(boxes, np.float64).reshape(-1, 5)


def training_tile(seed: int, cells: int = 3) -> TrainingTile:
    """One drawn tile, ready for `write_dataset`."""
    pixels, boxes = draw_tile(seed, cells)
    return TrainingTile(f"tile{seed}", lambda: pixels, boxes)


def small_dataset(folder: Path, tiles: int = 8) -> Path:
    """The data.yaml of a data set of drawn tiles, one of them empty, and two to validate with."""
    train = [training_tile(seed) for seed in range(tiles - 1)] + [training_tile(tiles, cells=0)]
    return write_dataset(folder, train, [training_tile(100), training_tile(101)], CLASSES)
