import numpy as np
import pytest

from inference.selection.pool import Pool, without_implausible
from tests.inference.selection.pools import make_pool

CODES = ["P01"]
ONE_EACH = np.zeros(3, np.intp)


def test_it_knows_its_size_and_its_patients() -> None:
    pool = make_pool(3, patients=["P07", "P01", "P07"])
    assert len(pool) == 3
    assert [pool.patient(row) for row in range(3)] == ["patient P07", "patient P01", "patient P07"]


@pytest.mark.parametrize(
    ("patients", "parts"),
    [
        (ONE_EACH[:2], {}),
        (ONE_EACH, {"expected": np.zeros((2, 2), np.float32)}),
        (ONE_EACH, {"expected": np.zeros(3, np.float32)}),
        (ONE_EACH, {"doubts": np.zeros((2, 2), np.float32)}),
        (ONE_EACH, {"embeddings": np.zeros((4, 2), np.float32)}),
        (ONE_EACH, {"likeness": np.zeros((4, 2), np.float32)}),
        (ONE_EACH, {"cells": np.zeros(2, np.float32)}),
    ],
)
def test_it_refuses_parts_of_different_length(patients: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    values = {"expected": np.zeros((3, 2), np.float32)} | parts
    with pytest.raises(ValueError, match="each tile"):
        Pool(np.arange(3), patients, CODES, **values)


class TestImplausible:
    def test_nothing_is_known_of_a_tile_fuller_than_any_confirmed_one(self) -> None:
        rows = [[10, 5.1, 0], [10, 5, 0], [0, 2, 0]]  # totals 15.1, 15 and 2 against 1.5 x 10
        ones = np.ones((3, 2))
        pool = without_implausible(
            make_pool(expected=rows, doubts=ones, embeddings=ones, likeness=ones), most=np.full(3, 10.0)
        )
        assert pool.expected.tolist() == [[0, 0, 0], [10, 5, 0], [0, 2, 0]]
        for part in (pool.doubts, pool.embeddings, pool.likeness):
            assert part is not None
            assert part.tolist() == [[0, 0], [1, 1], [1, 1]]
        assert pool.tile_ids.tolist() == [100, 101, 102]

    def test_cells_that_nobody_wants_fill_a_tile_too(self) -> None:
        pool = without_implausible(make_pool(expected=[[12, 0, 0], [12, 0, 0]], cells=[52, 45]), most=np.full(2, 30.0))
        assert pool.expected.tolist() == [[0, 0, 0], [12, 0, 0]]

    def test_a_large_image_may_hold_more(self) -> None:
        rows = [[30, 0, 0], [30, 0, 0]]
        pool = without_implausible(make_pool(expected=rows), most=np.array([10.0, 40.0]))
        assert pool.expected.tolist() == [[0, 0, 0], [30, 0, 0]]
        assert pool.doubts is None

    def test_without_a_confirmed_tile_everything_is_believed(self) -> None:
        pool = without_implausible(make_pool(expected=[[100, 0, 0]]), most=np.zeros(1))
        assert pool.expected.tolist() == [[100, 0, 0]]
