"""Tiles whose cells look unlike those on tiles that are known: k-center on the tiles' embeddings."""

import numpy as np
from numpy.typing import NDArray

from inference.selection.pool import Choice
from inference.selection.room import Room

BLOCK = 32  # known tiles that the whole pool is compared with at once


def pick_diverse(
    room: Room, size: int, generator: np.random.Generator, *, known: NDArray[np.float32] | None = None
) -> list[Choice]:
    """At most `size` tiles, each the one least similar to all that are known, chosen or taken before it.

    The greedy answer to the k-center problem, which is at most twice as far from some tile as the best one (Gonzalez
    1985; for choosing what to label: Sener & Savarese 2018, "Core-set"). Tiles without a cell are not chosen: there
    is nothing to compare.

    known: float32 (m, dimensions), embeddings of tiles that are confirmed, as the pool's. With none the first tile is
    drawn by chance. Raises ValueError for a pool without embeddings.
    """
    pool = room.pool
    if pool.embeddings is None:
        raise ValueError("This pool tells no embeddings.")
    nearest = np.full(len(pool), -1.0, np.float32)  # similarity to the most similar of those known
    centres = pool.embeddings[room.taken] if known is None else np.concatenate([known, pool.embeddings[room.taken]])
    for start in range(0, len(centres), BLOCK):
        np.maximum(nearest, (pool.embeddings @ centres[start : start + BLOCK].T).max(axis=1), out=nearest)
    described = np.any(pool.embeddings, axis=1)
    ties = generator.random(len(pool), np.float32) * np.float32(1e-4)
    choices: list[Choice] = []
    while len(choices) < size:
        row = room.take_best(ties - nearest, described)
        if row is None:
            break
        reason = f"cells unlike those known (similarity {max(float(nearest[row]), 0.0):.2f}); {pool.patient(row)}"
        choices.append(Choice(int(pool.tile_ids[row]), reason, row, "diverse"))
        np.maximum(nearest, pool.embeddings @ pool.embeddings[row], out=nearest)
    return choices
