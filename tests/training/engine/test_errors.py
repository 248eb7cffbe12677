from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.engine.judged import CLASSES, detections, judge, random_tiles
from training.engine.errors import DetectionError, WorstErrors, worst_errors


def errors_of(truths, found, **options) -> WorstErrors:
    return worst_errors(truths, found, len(CLASSES), **options)


def test_a_tile_with_an_error_of_each_kind():
    truth = [[0, 0, 0, 10, 10], [0, 50, 0, 10, 10], [1, 0, 50, 10, 10]]
    found = detections(
        [
            [0, 0, 0, 10, 10, 0.9],  # right
            [0, 1, 0, 10, 10, 0.8],  # the same cell again
            [2, 0, 51, 10, 10, 0.7],  # a lymphocyte taken for a basophil
            [2, 80, 80, 10, 10, 0.6],  # nothing there
            [1, 50, 1, 10, 10, 0.2],  # seen, but with too little confidence
        ]
    )
    errors = errors_of([[], truth], [detections([]), found])
    assert errors.missed == (DetectionError(1, (50, 0, 10, 10), truth=0, found=1, score=pytest.approx(0.2)),)
    assert errors.confused == (DetectionError(1, (0, 50, 10, 10), truth=1, found=2, score=pytest.approx(0.7)),)
    assert errors.false == (
        DetectionError(1, (1, 0, 10, 10), truth=None, found=0, score=pytest.approx(0.8)),
        DetectionError(1, (80, 80, 10, 10), truth=None, found=2, score=pytest.approx(0.6)),
    )


def test_missed_cells_of_which_nothing_was_seen_come_first_the_rarest_class_first():
    truth = [[0, x, 0, 10, 10] for x in (0, 30, 60)] + [[1, 90, 0, 10, 10], [2, 120, 0, 10, 10]]
    seen = detections([[0, 60, 0, 10, 10, 0.2], [2, 120, 0, 10, 10, 0.1], [0, 121, 0, 10, 10, 0.05]])
    missed = errors_of([truth], [seen]).missed
    assert [(error.truth, error.score) for error in missed] == [
        (1, None),
        (0, None),
        (0, None),
        (2, pytest.approx(0.1)),
        (0, pytest.approx(0.2)),
    ]


def test_what_is_ignored_is_no_error():
    truth = [[2, 0, 0, 10, 10]]
    found = detections([[2, 50, 0, 10, 10, 0.9]])
    assert errors_of([truth], [found], ignored={2}) == WorstErrors((), (), ())


def test_tiles_without_anything_have_no_errors():
    assert errors_of([], []) == errors_of([[]], [detections([])]) == WorstErrors((), (), ())


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_errors_are_those_that_the_confusion_matrix_counts(seed, confidence):
    truths, found = random_tiles(seed)
    errors = errors_of(truths, found, confidence=confidence, most=1000)
    matrix = judge(truths, found, confidence=confidence).confusion
    background = len(CLASSES)
    for class_id in range(len(CLASSES)):
        total = sum(int((np.asarray(truth).reshape(-1, 5)[:, 0] == class_id).sum()) for truth in truths)
        missed = sum(error.truth == class_id for error in errors.missed)
        assert missed == pytest.approx(total * matrix[class_id][background])
        confused = sum(error.truth == class_id for error in errors.confused)
        right = total * matrix[class_id][class_id]
        assert missed + confused + right == pytest.approx(total)
        if errors.false:
            false = sum(error.found == class_id for error in errors.false)
            assert false / len(errors.false) == pytest.approx(matrix[background][class_id])


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_there_are_at_most_so_many_and_the_worst_come_first(seed, most):
    truths, found = random_tiles(seed)
    every, few = errors_of(truths, found, most=1000), errors_of(truths, found, most=most)
    for kind, errors in asdict(every).items():
        assert list(asdict(few)[kind]) == list(errors[:most])
    for errors in (every.false, every.confused):
        scores = [error.score for error in errors]
        assert scores == sorted(scores, reverse=True)
        assert all(score >= 0.25 for score in scores)
    assert all((error.score or 0) < 0.25 for error in every.missed)
