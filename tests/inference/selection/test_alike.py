import numpy as np
import pytest

from inference.selection.alike import directions, likeness_of, pick_alike
from inference.selection.room import Room
from tests.inference.selection.pools import make_pool


def floats(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


class TestDirections:
    def test_they_have_length_one_around_the_centre(self) -> None:
        found = directions(floats([3, 1], [1, 5]), floats([1, 1])[0])
        assert found.tolist() == [[1, 0], [0, 1]]

    def test_what_is_not_known_stays_so(self) -> None:
        assert directions(floats([0, 0]), floats([1, 1])[0]).tolist() == [[0, 0]]


class TestLikeness:
    def test_the_most_similar_cell_counts_for_each_group(self) -> None:
        cells, groups = floats([1, 0], [0.6, 0.8]), [floats([0, 1]), floats([1, 0], [0, -1])]
        assert likeness_of(cells, groups).tolist() == pytest.approx([0.8, 1.0])

    def test_an_opposite_cell_is_not_less_than_unlike(self) -> None:
        assert likeness_of(floats([-1, 0]), [floats([1, 0])]).tolist() == [0]

    def test_a_tile_without_a_cell_is_like_nothing(self) -> None:
        assert likeness_of(np.zeros((0, 2), np.float32), [floats([1, 0])]).tolist() == [0]


class TestPicking:
    POOL = make_pool(4, likeness=[[0.9, 0.1], [0.8, 0], [0, 0.3], [0, 0]], patients=["P1", "P2", "P3", "P4"])

    def test_the_groups_take_turns_as_long_as_they_have_tiles(self) -> None:
        choices = pick_alike(Room(self.POOL, 9), 4, np.random.default_rng(0), names=["basophil", "mast cell"])
        assert [choice.reason for choice in choices] == [
            "a cell that looks like basophil (similarity 0.90); patient P1",
            "a cell that looks like mast cell (similarity 0.30); patient P3",
            "a cell that looks like basophil (similarity 0.80); patient P2",
        ]
        assert {choice.strategy for choice in choices} == {"like"}

    def test_nothing_to_look_for_finds_nothing(self) -> None:
        pool = make_pool(3, likeness=np.zeros((3, 0)))
        assert pick_alike(Room(pool, 9), 2, np.random.default_rng(0), names=[]) == []

    def test_a_pool_that_was_not_compared_is_refused(self) -> None:
        for pool in (make_pool(2), self.POOL):
            with pytest.raises(ValueError, match="like these examples"):
                pick_alike(Room(pool, 9), 1, np.random.default_rng(0), names=["basophil"])
