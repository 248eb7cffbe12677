import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from inference.engine import suppression
from inference.engine.suppression import suppress


def random_output(seed: int, boxes: int = 60) -> np.ndarray:
    """Float32 (4 + 3 classes, boxes): centres within 100 px, sides of 5 to 45 px."""
    random = np.random.default_rng(seed).random
    return np.concatenate([random((2, boxes)) * 100, random((2, boxes)) * 40 + 5, random((3, boxes))]).astype(
        np.float32
    )


def test_one_cell_keeps_one_box_whatever_the_classes_say() -> None:
    output = np.array(
        [
            [50.0, 52.0, 90.0],  # centre x
            [50.0, 50.0, 50.0],  # centre y
            [20.0, 20.0, 20.0],  # width
            [20.0, 20.0, 20.0],  # height
            [0.9, 0.1, 0.2],  # class 0
            [0.3, 0.8, 0.7],  # class 1
        ],
        np.float32,
    )
    # The first two overlap by 18 x 20 of 440: IoU 0.82
    kept = suppress(output, min_score=0.05, iou=0.6, max_detections=300)
    assert kept.boxes.tolist() == [[40, 40, 20, 20], [80, 40, 20, 20]]
    assert kept.class_ids.tolist() == [0, 1]
    assert kept.class_scores == pytest.approx(np.array([[0.9, 0.3], [0.2, 0.7]]))
    assert len(suppress(output, min_score=0.05, iou=0.85, max_detections=300)) == 3


@given(st.integers(0, 1000), st.floats(0.1, 0.9), st.floats(0.0, 0.9))
@settings(max_examples=30, deadline=None)
def test_no_two_kept_boxes_overlap_more_than_allowed(seed: int, iou: float, min_score: float) -> None:
    kept = suppress(random_output(seed), min_score=min_score, iou=iou, max_detections=300)
    assert (kept.scores >= np.float32(min_score)).all()
    corners = np.concatenate([kept.boxes[:, :2], kept.boxes[:, :2] + kept.boxes[:, 2:]], axis=1)
    for index, box in enumerate(corners):
        for other in corners[index + 1 :]:
            sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
            union = (box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - sides.prod()
            assert sides.prod() / union <= iou + 1e-5


@given(st.integers(0, 1000), st.floats(0.1, 0.9), st.integers(1, 80))
@example(0, 0.5, 0)
@settings(max_examples=30, deadline=None)
def test_it_keeps_what_torchvision_keeps(seed: int, iou: float, boxes: int) -> None:
    output = random_output(seed, boxes)
    kept = suppress(output, min_score=0.0, iou=iou, max_detections=300)
    corners = np.concatenate([output[:2] - output[2:4] / 2, output[:2] + output[2:4] / 2]).T
    scores = output[4:].max(axis=0)
    theirs = nms(torch.from_numpy(corners), torch.from_numpy(scores), iou).numpy()
    assert kept.scores.tolist() == scores[theirs].tolist()
    assert kept.boxes[:, :2].tolist() == corners[theirs, :2].tolist()


def test_of_equal_scores_the_first_stays() -> None:
    output = np.array([[50, 51], [50, 50], [20, 20], [20, 20], [0.5, 0.5]], np.float32)
    assert suppress(output, min_score=0.1, iou=0.5, max_detections=300).boxes.tolist() == [[40, 40, 20, 20]]


def test_only_the_best_candidates_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "CANDIDATES", 5)
    output = random_output(1)
    kept = suppress(output, min_score=0.0, iou=1.0, max_detections=300)
    assert kept.scores.tolist() == sorted(output[4:].max(axis=0), reverse=True)[:5]


def test_what_is_no_number_is_left_out() -> None:
    output = random_output(2, 4)
    output[4:, 1] = np.nan
    assert len(suppress(output, min_score=0.0, iou=1.0, max_detections=300)) == 3


def test_nothing_found_keeps_the_shapes() -> None:
    kept = suppress(random_output(3), min_score=1.1, iou=0.6, max_detections=300)
    assert (kept.boxes.shape, kept.class_scores.shape, kept.class_ids.dtype) == ((0, 4), (0, 3), np.int64)
