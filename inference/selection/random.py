"""Random selection: the manual rounds, and what every other strategy is measured against."""

import numpy as np

from inference.selection.pool import Choice, Pool


def select_random(pool: Pool, size: int, seed: int) -> list[Choice]:
    """`size` different tiles (or all, if there are fewer), each equally likely; the same seed gives the same tiles.

    Raises ValueError for a negative size.
    """
    if size < 0:
        raise ValueError(f"A batch cannot have {size} tiles.")
    order = np.random.default_rng(seed).permutation(len(pool))[:size]
    return [Choice(int(pool.tile_ids[index]), f"random; patient {pool.patients[index]}") for index in order]
