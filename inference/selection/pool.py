"""What the selection strategies choose from, and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

PLAUSIBLE_FACTOR = 1.5  # times the fullest confirmed tile: what a detector may expect and still be believed


@dataclass(frozen=True)
class Pool:
    """The tiles that a batch can be chosen from.

    tile_ids: int64 (n,). patients: the patient of each tile.
    expected: float32 (n, classes), the expected count of each class: the sum over the tile's detections of their class
    scores; zeros where no detector has looked. Raises ValueError if the lengths differ.
    """

    tile_ids: NDArray[np.int64]
    patients: Sequence[str]
    expected: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not (self.expected.ndim == 2 and len(self.tile_ids) == len(self.patients) == len(self.expected)):
            raise ValueError("A pool needs one patient and one row of expected counts for each tile.")

    def __len__(self) -> int:
        return len(self.tile_ids)


def without_implausible(pool: Pool, most: NDArray[np.float64]) -> Pool:
    """The pool with nothing expected of tiles on which the detector sees more boxes than any confirmed tile holds.

    `most`: float (n,), the most boxes on a confirmed tile of the same area; 0 when none is confirmed yet, which trusts
    everything. In a thick or smudged place a young detector sees dozens of rare cells; only the random audit should
    bring such a tile.
    """
    trusted = (pool.expected.sum(axis=1) <= PLAUSIBLE_FACTOR * most) | (most == 0)
    return replace(pool, expected=np.where(trusted[:, None], pool.expected, np.float32(0)).astype(np.float32))


@dataclass(frozen=True)
class Choice:
    """A chosen tile, and why, in words for the expert who gets it."""

    tile_id: int
    reason: str
