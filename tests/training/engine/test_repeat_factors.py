import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from training.engine.repeat_factors import class_factors, repeated, tile_factors

# Eight tiles: class 0 on all of them, class 1 on two (a quarter), class 2 on one (an eighth), class 3 on none.
COUNTS = np.zeros((8, 4), np.int64)
COUNTS[:, 0] = 3
COUNTS[:2, 1] = 1
COUNTS[1, 2] = 7


def test_a_class_below_the_threshold_gets_the_root_of_how_far_it_lies_below() -> None:
    # t = 1/2: class 1 has sqrt((1/2) / (1/4)) = sqrt 2, class 2 has sqrt((1/2) / (1/8)) = 2.
    assert class_factors(COUNTS, 0.5) == pytest.approx([1.0, 2**0.5, 2.0, 1.0])


def test_a_tile_has_the_greatest_factor_of_its_classes() -> None:
    assert tile_factors(COUNTS, 0.5) == pytest.approx([2**0.5, 2.0, 1, 1, 1, 1, 1, 1])


def test_whole_factors_repeat_for_certain_and_fractions_by_chance() -> None:
    drawn = [np.bincount(repeated(COUNTS, 0.5, seed=seed), minlength=8) for seed in range(400)]
    assert {tuple(counts[1:]) for counts in drawn} == {(2, 1, 1, 1, 1, 1, 1)}
    assert {int(counts[0]) for counts in drawn} == {1, 2}
    assert np.mean([counts[0] for counts in drawn]) == pytest.approx(2**0.5, abs=0.1)


def test_the_same_seed_gives_the_same_order() -> None:
    assert repeated(COUNTS, 0.5, seed=3).tolist() == repeated(COUNTS, 0.5, seed=3).tolist()


def test_a_threshold_below_every_share_changes_nothing() -> None:
    assert repeated(COUNTS, 0.125, seed=0).tolist() == list(range(8))


def test_no_tiles_and_no_classes_are_no_mistake() -> None:
    assert repeated(np.zeros((0, 3), np.int64), 0.5, seed=0).tolist() == []
    assert repeated(np.zeros((2, 0), np.int64), 0.5, seed=0).tolist() == [0, 1]


some_counts = arrays.arrays(np.int64, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=st.integers(0, 3))


@given(some_counts, st.floats(0.001, 1.0), st.integers(0, 2**31))
def test_every_tile_stays_and_none_comes_more_often_than_its_factor_rounded_up(
    counts: np.ndarray, threshold: float, seed: int
) -> None:
    factors = tile_factors(counts, threshold)
    times = np.bincount(repeated(counts, threshold, seed=seed), minlength=len(counts))
    assert (times >= np.floor(factors)).all()
    assert (times <= np.ceil(factors)).all()
    assert (factors >= 1).all()


@given(some_counts, st.floats(0.001, 1.0))
def test_more_boxes_of_a_class_on_its_tiles_change_nothing(counts: np.ndarray, threshold: float) -> None:
    assert tile_factors(counts * 5, threshold) == pytest.approx(tile_factors(counts, threshold))


@given(some_counts, st.floats(0.001, 0.5))
def test_a_higher_threshold_never_shows_a_tile_less_often(counts: np.ndarray, threshold: float) -> None:
    assert (tile_factors(counts, 2 * threshold) >= tile_factors(counts, threshold)).all()
