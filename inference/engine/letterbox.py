"""Tiles of any shape on the detector's square, as in training, and boxes back on the tiles."""

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.engine.detector import Detections

PADDING = 114  # the grey that ultralytics pads with in training


def check_tiles(tiles: NDArray[np.uint8]) -> None:
    """Raises ValueError for anything but uint8 (N, H, W, 3)."""
    if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[3] != 3:
        raise ValueError(f"Tiles must be uint8 (N, H, W, 3), not {tiles.dtype} {tiles.shape}.")


def check_image_size(image_size: int) -> None:
    """Raises ValueError for a side that the network cannot have."""
    if image_size <= 0 or image_size % 32:
        raise ValueError(f"The image size must be a multiple of 32 px, not {image_size}.")


def letterbox(tile: NDArray[np.uint8], image_size: int, scale: float) -> NDArray[np.uint8]:
    """A tile resized as in training (bilinear), padded right and below to a square: uint8 (size, size, 3)."""
    height, width = (max(1, round(side * scale)) for side in tile.shape[:2])
    fitted = tile if tile.shape[:2] == (height, width) else cv2.resize(tile, (width, height))  # bilinear by default
    if height == width == image_size:
        return np.asarray(fitted, np.uint8)
    image = np.full((image_size, image_size, 3), PADDING, np.uint8)
    image[:height, :width] = fitted
    return image


def to_tile(detections: Detections, scale: float, height: int, width: int) -> Detections:
    """Detections on the square, in px of the tile of this size, cut at the tile's edges."""
    first = detections.boxes[:, :2] / scale
    last = first + detections.boxes[:, 2:] / scale
    limits = np.array([width, height], np.float32)
    first, last = np.clip(first, 0, limits), np.clip(last, 0, limits)
    boxes = np.concatenate([first, last - first], axis=1).astype(np.float32)
    return Detections(boxes, detections.scores, detections.class_ids, detections.class_scores)
