"""What is still to be had of a pool while a batch is chosen: the rules that all strategies share."""

import numpy as np
from numpy.typing import NDArray

from inference.selection.pool import Pool

TWIN = 0.97  # similarity of two tiles' embeddings from which the second shows nothing new

Mask = NDArray[np.bool_]


class Room:
    """Free tiles, of patients that have not given their share, that do not look like one already taken.

    cap: the most tiles of one patient. Where only tiles are left that a rule forbids, the rule gives way: first the
    cap, which doubles, then twins are let in.
    """

    def __init__(self, pool: Pool, cap: int) -> None:
        self.pool = pool
        self.free: Mask = np.ones(len(pool), bool)
        self.taken: list[int] = []
        self._cap = max(cap, 1)
        self._given = np.zeros(len(pool.patient_codes), np.int64)
        self._twins: Mask = np.zeros(len(pool), bool)

    def open(self, wanted: Mask | None = None) -> Mask:
        """Which of the `wanted` tiles (or of all) can be taken: bool (n,). None is True if none of them is free."""
        free = self.free if wanted is None else self.free & wanted
        if not free.any():
            return free
        if not (free & ~self._twins).any():
            self._twins[free] = False
        single = free & ~self._twins
        while not (found := single & (self._given < self._cap)[self.pool.patients]).any():
            self._cap *= 2
        return found

    def take(self, row: int, *, free_of_rules: bool = False) -> None:
        """Take a tile. `free_of_rules`: it neither counts for its patient nor closes its twins."""
        self.free[row] = False
        self.taken.append(row)
        if free_of_rules:
            return
        self._given[self.pool.patients[row]] += 1
        embeddings = self.pool.embeddings
        if embeddings is not None:
            self._twins |= embeddings @ embeddings[row] >= TWIN

    def take_best(self, values: NDArray[np.floating], wanted: Mask) -> int | None:
        """Take the open one of the `wanted` tiles with the greatest value; None if none is left."""
        found = self.open(wanted)
        if not found.any():
            return None
        row = int(np.where(found, values, -np.inf).argmax())
        self.take(row)
        return row
