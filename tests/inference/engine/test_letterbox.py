import cv2
import numpy as np
import pytest

from inference.engine.detector import Detections
from inference.engine.letterbox import PADDING, letterbox, to_tile


def tile(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_tile_of_the_networks_size_is_left_as_it_is() -> None:
    pixels = tile(64, 64)
    assert (letterbox(pixels, 64, 1.0) == pixels).all()


def test_a_square_tile_is_resized_bilinearly() -> None:
    pixels = tile(100, 100)
    assert (letterbox(pixels, 64, 0.64) == cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_LINEAR)).all()


def test_what_a_tile_lacks_of_a_square_is_grey() -> None:
    pixels = tile(48, 96)
    square = letterbox(pixels, 64, 64 / 96)
    assert (square.shape, square.dtype) == ((64, 64, 3), np.uint8)
    assert (square[:32] == cv2.resize(pixels, (64, 32), interpolation=cv2.INTER_LINEAR)).all()
    assert (square[32:] == PADDING).all()


def test_boxes_come_back_in_the_tiles_px_and_end_at_its_edges() -> None:
    boxes = np.array([[-2, 10, 20, 30], [50, 20, 20, 20]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    found = to_tile(Detections(boxes, scores, np.array([0, 0]), scores[:, None]), 0.5, height=70, width=130)
    assert found.boxes.tolist() == [[0, 20, 36, 50], [100, 40, 30, 30]]
    assert found.boxes.dtype == np.float32
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
