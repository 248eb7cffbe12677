import numpy as np
import pytest

from inference.selection.pool import Pool, without_implausible


def test_it_knows_its_size() -> None:
    assert len(Pool(np.arange(3), ["P01"] * 3, np.zeros((3, 2), np.float32))) == 3


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        (["P01"] * 2, np.zeros((3, 2), np.float32)),
        (["P01"] * 3, np.zeros((2, 2), np.float32)),
        (["P01"] * 3, np.zeros(3)),
    ],
)
def test_it_refuses_parts_of_different_length(patients: list[str], expected: np.ndarray) -> None:
    with pytest.raises(ValueError, match="each tile"):
        Pool(np.arange(3), patients, expected)


class TestImplausible:
    def test_nothing_is_expected_of_a_tile_fuller_than_any_confirmed_one(self) -> None:
        expected = np.array(
            [[10, 5.1], [10, 5.0], [0, 2]], dtype=np.float32
        )  # totals 15.1, 15.0 and 2 against 1.5 x 10
        pool = without_implausible(Pool(np.arange(3), ["P01"] * 3, expected), most=np.full(3, 10.0))
        assert pool.expected.tolist() == [[0, 0], [10, 5], [0, 2]]
        assert pool.tile_ids.tolist() == [0, 1, 2]

    def test_a_large_image_may_hold_more(self) -> None:
        expected = np.array([[30, 0], [30, 0]], dtype=np.float32)
        pool = without_implausible(Pool(np.arange(2), ["P01"] * 2, expected), most=np.array([10.0, 40.0]))
        assert pool.expected.tolist() == [[0, 0], [30, 0]]

    def test_without_a_confirmed_tile_everything_is_believed(self) -> None:
        expected = np.array([[100, 0]], dtype=np.float32)
        pool = without_implausible(Pool(np.arange(1), ["P01"], expected), most=np.zeros(1))
        assert pool.expected.tolist() == [[100, 0]]
