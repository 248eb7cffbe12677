"""Tiles that hold cells similar to examples: for a class that the detector has never seen."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.selection.pool import Choice
from inference.selection.room import Room

Floats = NDArray[np.float32]


def directions(embeddings: Floats, centre: Floats) -> Floats:
    """Embeddings, float32 (n, d), around a centre, each of length 1; zeros stay where nothing is known (all zeros)."""
    known = np.any(embeddings, axis=1, keepdims=True)
    moved = np.where(known, embeddings - centre, np.float32(0))
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.maximum(lengths, 1e-9), np.float32)


def likeness_of(cells: Floats, examples: Sequence[Floats]) -> Floats:
    """Of one tile: for each group of examples the similarity of the most similar cell, float32 (groups,), 0 to 1.

    cells: float32 (n, d); examples: float32 (m, d) each; all of length 1.
    """
    if not len(cells):
        return np.zeros(len(examples), np.float32)
    found = [max(float((cells @ group.T).max(initial=0.0)), 0.0) for group in examples]
    return np.array(found, np.float32)


def pick_alike(room: Room, size: int, generator: np.random.Generator, *, names: Sequence[str]) -> list[Choice]:
    """At most `size` tiles with the cells most similar to the examples; the groups take turns.

    names: what the examples of each group are, for the reasons. Raises ValueError for a pool without likeness.
    """
    pool = room.pool
    if pool.likeness is None or pool.likeness.shape[1] != len(names):
        raise ValueError("This pool does not tell how much its cells are like these examples.")
    ties = generator.random(len(pool), np.float32) * np.float32(1e-6)
    choices: list[Choice] = []
    turns = list(range(len(names)))
    while len(choices) < size and turns:
        group = turns.pop(0)
        row = room.take_best(pool.likeness[:, group] + ties, pool.likeness[:, group] > 0)
        if row is None:
            continue
        turns.append(group)
        similarity = pool.likeness[row, group]
        reason = f"a cell that looks like {names[group]} (similarity {similarity:.2f}); {pool.patient(row)}"
        choices.append(Choice(int(pool.tile_ids[row]), reason, row, "like"))
    return choices
