import numpy as np
import pytest

from inference.selection.room import Room
from inference.selection.uncertain import doubts_of, pick_uncertain
from tests.inference.selection.pools import make_pool


def doubts(*cells: list[float]) -> tuple[float, float]:
    """Of cells with these class scores, of a detector whose class scores share the certainty of a cell."""
    scores = np.array(cells, np.float32).reshape(-1, 3)
    return doubts_of(scores, scores.sum(axis=1))


class TestDoubts:
    def test_a_certain_cell_of_a_certain_class_is_none(self) -> None:
        assert doubts([1, 0, 0]) == pytest.approx((0, 0), abs=1e-6)

    def test_a_cell_that_may_be_of_any_class_counts_as_one(self) -> None:
        assert doubts([1 / 3, 1 / 3, 1 / 3]) == pytest.approx((1, 0), abs=1e-6)

    def test_entropy_and_margin_count_alike(self) -> None:
        # Between two of three classes: an entropy of log 2 / log 3 and a margin of 0.
        assert doubts([0.5, 0.5, 0])[0] == pytest.approx((np.log(2) / np.log(3) + 1) / 2)

    def test_a_doubtful_class_counts_as_much_as_there_is_a_cell(self) -> None:
        assert doubts([0.2, 0.2, 0])[0] == pytest.approx(0.4 * doubts([0.5, 0.5, 0])[0], abs=1e-6)

    @pytest.mark.parametrize(
        ("presence", "doubt"), [(0.0, 0), (0.05, 0.2), (0.125, 0.5), (0.25, 1), (0.375, 0.5), (0.5, 0), (1, 0)]
    )
    def test_a_cell_is_most_doubtful_at_the_threshold(self, presence: float, doubt: float) -> None:
        assert doubts([presence, 0, 0])[1] == pytest.approx(doubt, abs=1e-6)

    def test_cells_add_up(self) -> None:
        one, two = doubts([0.3, 0.1, 0]), doubts([0.2, 0.2, 0.2])
        assert doubts([0.3, 0.1, 0], [0.2, 0.2, 0.2]) == pytest.approx((one[0] + two[0], one[1] + two[1]))

    def test_no_cell_and_a_single_class_leave_no_doubt_of_the_class(self) -> None:
        assert doubts() == (0, 0)
        one = np.array([[0.25]], np.float32)
        assert doubts_of(one, one[:, 0]) == (0, 1)


class TestPicking:
    POOL = make_pool(4, doubts=[[1, 0.5], [3, 0], [0, 0], [1, 4]], patients=["P1", "P2", "P3", "P4"])

    def test_the_most_doubtful_tiles_come_first_and_say_why(self) -> None:
        choices = pick_uncertain(Room(self.POOL, 9), 2, np.random.default_rng(0))
        assert [choice.reason for choice in choices] == [
            "1.0 cells of doubtful class, 4.0 hardly certain to be cells; patient P4",
            "3.0 cells of doubtful class, 0.0 hardly certain to be cells; patient P2",
        ]
        assert {choice.strategy for choice in choices} == {"uncertain"}

    def test_a_tile_without_doubt_is_not_chosen(self) -> None:
        choices = pick_uncertain(Room(self.POOL, 9), 4, np.random.default_rng(0))
        assert [choice.row for choice in choices] == [3, 1, 0]

    def test_the_cap_and_twins_hold(self) -> None:
        pool = make_pool(4, doubts=[[4, 0], [3, 0], [2, 0], [1, 0]], embeddings=[[1, 0], [1, 0], [0, 1], [-1, 0]])
        assert [choice.row for choice in pick_uncertain(Room(pool, 9), 3, np.random.default_rng(0))] == [0, 2, 3]

    def test_a_pool_without_doubts_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no doubts"):
            pick_uncertain(Room(make_pool(2), 9), 1, np.random.default_rng(0))
