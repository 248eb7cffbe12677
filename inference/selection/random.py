"""By chance: the manual rounds, the audit slice, and what every other strategy is measured against."""

import numpy as np

from inference.selection.pool import Choice
from inference.selection.room import Room


def pick_random(room: Room, size: int, generator: np.random.Generator, *, audit: bool = False) -> list[Choice]:
    """`size` different free tiles (or all, if there are fewer), each equally likely.

    Neither caps nor twins count: what is left out of them would be left out of what the sample tells. `audit`: the
    tiles are of the audit slice, which shows what the other strategies do not expect.
    """
    rows = generator.permutation(np.flatnonzero(room.free))[:size]
    for row in rows:
        room.take(int(row), free_of_rules=True)
    word = "random audit" if audit else "random"
    return [
        Choice(int(room.pool.tile_ids[row]), f"{word}; {room.pool.patient(row)}", int(row), "random", audit)
        for row in rows
    ]
