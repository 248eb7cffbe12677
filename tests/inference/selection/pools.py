"""Pools made for the tests of selection."""

from collections.abc import Sequence

import numpy as np

from inference.selection.pool import Pool


def make_pool(
    tiles: int = 0, *, expected: Sequence[Sequence[float]] | None = None, patients: Sequence[str] = (), **parts
) -> Pool:
    """So many tiles, or one for each row of `expected`; of four patients in turn, if none are given. Keys from 100."""
    rows = np.array(expected, np.float32).reshape(-1, 3) if expected is not None else np.zeros((tiles, 3), np.float32)
    names = list(patients) or [f"P{index % 4:02d}" for index in range(len(rows))]
    codes, places = np.unique(names, return_inverse=True) if names else (np.empty(0, str), np.empty(0, int))
    arrays = {name: np.asarray(value, np.float32) for name, value in parts.items()}
    return Pool(np.arange(100, 100 + len(rows)), places.reshape(-1), [str(code) for code in codes], rows, **arrays)
