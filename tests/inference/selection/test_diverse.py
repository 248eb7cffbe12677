import numpy as np
import pytest

from inference.selection.diverse import pick_diverse
from inference.selection.random import pick_random
from inference.selection.room import Room
from tests.inference.selection.pools import make_pool


def around(*degrees: float) -> np.ndarray:
    turned = np.radians(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def rows(pool, size: int, known: np.ndarray | None = None, taken: int | None = None) -> list[int]:
    room = Room(pool, 99)
    if taken is not None:
        room.take(taken)
    return [choice.row for choice in pick_diverse(room, size, np.random.default_rng(0), known=known)]


def test_each_is_the_one_farthest_from_those_before_it() -> None:
    pool = make_pool(5, embeddings=around(0, 20, 90, 175, 260))
    assert rows(pool, 4, taken=0) == [3, 2, 4, 1]


def test_what_is_confirmed_need_not_be_shown_again() -> None:
    pool = make_pool(3, embeddings=around(0, 90, 180))
    assert rows(pool, 1, known=around(2, 178)) == [1]
    assert rows(pool, 1, known=around(95, 178)) == [0]


def test_tiles_without_a_cell_are_left_out() -> None:
    embeddings = np.concatenate([around(0, 90), np.zeros((2, 2), np.float32)])
    assert sorted(rows(make_pool(4, embeddings=embeddings), 4)) == [0, 1]


def test_the_reason_tells_how_unlike() -> None:
    pool = make_pool(2, embeddings=around(0, 60), patients=["P1", "P2"])
    (choice,) = pick_diverse(Room(pool, 9), 1, np.random.default_rng(0), known=around(0))
    assert choice.reason == "cells unlike those known (similarity 0.50); patient P2"
    assert choice.strategy == "diverse"


def test_it_covers_a_pool_better_than_chance() -> None:
    """The farthest that any tile is from a chosen one, in a pool of many common and a few odd tiles."""
    generator = np.random.default_rng(0)
    drawn = generator.normal(size=(600, 8)) * np.where(np.arange(600) < 560, 0.2, 1.0)[:, None] + np.eye(8)[0]
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    pool = make_pool(600, embeddings=drawn)

    def radius(chosen: list[int]) -> float:
        return float(1 - (drawn @ drawn[chosen].T).max(axis=1).min())

    chance = [pick_random(Room(pool, 99), 40, np.random.default_rng(seed)) for seed in range(5)]
    assert radius(rows(pool, 40)) < 0.7 * min(radius([choice.row for choice in one]) for one in chance)


def test_a_pool_without_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="no embeddings"):
        rows(make_pool(2), 1)
