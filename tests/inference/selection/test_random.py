import numpy as np

from inference.selection.pool import Choice, Pool
from inference.selection.random import pick_random
from inference.selection.room import Room
from tests.inference.selection.pools import make_pool


def pick(pool: Pool, size: int, seed: int = 1, audit: bool = False) -> list[Choice]:
    return pick_random(Room(pool, cap=1), size, np.random.default_rng(seed), audit=audit)


def test_it_chooses_different_tiles_of_the_pool_and_says_why() -> None:
    choices = pick(make_pool(50), 20)
    assert len({choice.tile_id for choice in choices}) == 20
    for choice in choices:
        assert choice.tile_id == 100 + choice.row
        assert choice.reason == f"random; patient P{choice.row % 4:02d}"
        assert (choice.strategy, choice.audit) == ("random", False)


def test_an_audit_says_so() -> None:
    choices = pick(make_pool(50), 5, audit=True)
    assert all(choice.audit and choice.reason.startswith("random audit; patient P") for choice in choices)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another() -> None:
    assert pick(make_pool(50), 20, seed=1) == pick(make_pool(50), 20, seed=1)
    assert pick(make_pool(50), 20, seed=1) != pick(make_pool(50), 20, seed=2)


def test_each_tile_is_equally_likely_whatever_its_patient_and_its_twins() -> None:
    pool = make_pool(10, patients=["P0"] * 9 + ["P1"], embeddings=np.ones((10, 1)))
    drawn = [choice.row for seed in range(400) for choice in pick(pool, 5, seed=seed)]
    counts = np.bincount(drawn, minlength=10)
    assert counts.sum() == 2000
    assert np.abs(counts - 200).max() < 50  # 5 standard deviations of sqrt(400 * 0.5 * 0.5) = 10


def test_a_small_pool_is_taken_whole() -> None:
    assert sorted(choice.tile_id for choice in pick(make_pool(3), 20)) == [100, 101, 102]
    assert pick(make_pool(0), 20) == []


def test_what_is_taken_is_not_taken_again() -> None:
    room = Room(make_pool(9), cap=9)
    room.take(4)
    assert 4 not in {choice.row for choice in pick_random(room, 9, np.random.default_rng(0))}
