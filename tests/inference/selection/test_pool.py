import numpy as np
import pytest

from inference.selection.pool import Pool


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
