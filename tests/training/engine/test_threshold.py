"""From which score boxes are shown."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.engine.threshold import finding_score


@dataclass(frozen=True)
class Found:
    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray


def found(*rows: tuple[float, float]) -> Found:
    """Boxes of 40 px at these x, with these scores."""
    boxes = np.array([(x, 10, 40, 40) for x, _ in rows], float).reshape(-1, 4)
    return Found(boxes, np.array([score for _, score in rows]), np.full(len(rows), 7))


def cells(*places: float, number: int = 3) -> list[tuple[float, ...]]:
    return [(number, x, 10, 40, 40) for x in places]


def test_it_is_the_score_that_lets_in_the_last_cell_and_not_what_comes_after_it() -> None:
    # F1: 2/4 at 0.4, 4/5 at 0.1, 6/6 at 0.06, then 6/7 with the box that no cell is under.
    truths = [cells(0, 100, 200)]
    assert finding_score(truths, [found((0, 0.4), (100, 0.1), (200, 0.06), (400, 0.05))]) == 0.06


def test_one_false_box_more_is_worth_two_more_cells() -> None:
    # F1: 2/5 with the first, 2/6 with the false one, 6/8 with two more cells.
    truths = [cells(0, 100, 200, 300)]
    assert finding_score(truths, [found((0, 0.9), (400, 0.5), (100, 0.4), (200, 0.3))]) == 0.3


def test_tiles_are_taken_together_and_each_cell_once() -> None:
    truths = [cells(0), cells(100)]
    seen = [found((0, 0.5), (2, 0.2)), found((100, 0.3))]
    assert finding_score(truths, seen) == 0.3


def test_the_class_does_not_matter_but_classes_that_are_not_learned_do() -> None:
    truths = [[*cells(0, number=1), *cells(100, number=9)]]
    seen = [found((0, 0.5), (100, 0.2))]
    assert finding_score(truths, seen) == 0.2
    assert finding_score(truths, seen, ignored={9}) == 0.5


@pytest.mark.parametrize(
    ("truths", "seen"),
    [([cells(0)], [found()]), ([[]], [found((0, 0.9))]), ([cells(0)], [found((300, 0.9))]), ([], [])],
)
def test_where_nothing_is_found_nothing_is_said(truths: list, seen: list[Found]) -> None:
    assert finding_score(truths, seen) is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0.01, 1)), min_size=1, max_size=30, unique_by=lambda row: row[1])
)
def test_no_other_score_gives_a_better_f1(rows: list[tuple[int, float]]) -> None:
    truths = [cells(*(100.0 * place for place in range(5)))]
    seen = found(*[(100.0 * place, score) for place, score in rows])
    best = finding_score(truths, [seen])

    def f1(threshold: float) -> float:
        shown = [place for place, score in rows if score >= threshold]
        right = len({place for place in shown if place < 5})
        return 2 * right / (len(shown) + 5)

    if best is None:
        assert all(place >= 5 for place, _ in rows)
    else:
        assert f1(best) == max(f1(score) for _, score in rows)
