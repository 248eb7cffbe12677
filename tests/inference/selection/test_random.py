import numpy as np
import pytest

from inference.selection.pool import Pool
from inference.selection.random import select_random


def pool(tiles: int = 50) -> Pool:
    patients = [f"P{index % 4:02d}" for index in range(tiles)]
    return Pool(np.arange(100, 100 + tiles), patients, np.zeros((tiles, 3), np.float32))


def test_it_chooses_different_tiles_of_the_pool_and_says_why() -> None:
    choices = select_random(pool(), 20, seed=1)
    assert len({choice.tile_id for choice in choices}) == 20
    for choice in choices:
        assert 100 <= choice.tile_id < 150
        assert choice.reason == f"random; patient P{(choice.tile_id - 100) % 4:02d}"


def test_the_same_seed_gives_the_same_batch_and_another_seed_another() -> None:
    assert select_random(pool(), 20, seed=1) == select_random(pool(), 20, seed=1)
    assert select_random(pool(), 20, seed=1) != select_random(pool(), 20, seed=2)


def test_each_tile_is_equally_likely() -> None:
    drawn = [choice.tile_id for seed in range(400) for choice in select_random(pool(10), 5, seed=seed)]
    counts = np.bincount(np.array(drawn) - 100, minlength=10)
    assert counts.sum() == 2000
    assert np.abs(counts - 200).max() < 50  # 5 standard deviations of sqrt(400 * 0.5 * 0.5) = 10


def test_a_small_pool_is_taken_whole() -> None:
    assert sorted(choice.tile_id for choice in select_random(pool(3), 20, seed=1)) == [100, 101, 102]
    assert select_random(pool(0), 20, seed=1) == []


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 tiles"):
        select_random(pool(), -1, seed=1)
