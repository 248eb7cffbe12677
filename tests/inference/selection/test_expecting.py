import numpy as np
import pytest

from inference.selection.expecting import expected_counts


def expected(*cells: tuple[list[float], float]) -> list[float]:
    scores = np.array([scores for scores, _ in cells], np.float32).reshape(-1, 3)
    return expected_counts(scores, np.array([presence for _, presence in cells], np.float32)).tolist()


def test_a_certain_cell_of_a_certain_class_is_one() -> None:
    assert expected(([0, 1, 0], 1)) == pytest.approx([0, 1, 0])


def test_a_cell_counts_as_much_as_it_is_one() -> None:
    assert expected(([0, 0.4, 0], 0.4)) == pytest.approx([0, 0.4, 0])


def test_it_is_shared_out_by_the_squares_of_the_scores() -> None:
    assert expected(([0.6, 0.3, 0], 0.9)) == pytest.approx([0.9 * 0.8, 0.9 * 0.2, 0])


def test_what_is_left_over_for_a_rare_class_hardly_adds_up() -> None:
    assert expected(*[([0.95, 0.05, 0], 1.0)] * 20)[1] < 0.1


def test_cells_add_up_and_none_is_nothing() -> None:
    assert expected(([0, 1, 0], 1), ([0.5, 0.5, 0], 1)) == pytest.approx([0.5, 1.5, 0])
    assert expected() == [0, 0, 0]


def test_a_cell_without_any_score_counts_for_no_class() -> None:
    assert expected(([0, 0, 0], 0.5)) == [0, 0, 0]
