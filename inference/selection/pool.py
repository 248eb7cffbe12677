"""What the selection strategies choose from, and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAUSIBLE_FACTOR = 1.5  # times the fullest confirmed tile: what a detector may expect and still be believed


@dataclass(frozen=True)
class Pool:
    """The tiles that a batch can be chosen from, as arrays: 100,000 tiles of 20 classes take 60 MB with all of them.

    tile_ids: int64 (n,). patients: int (n,), places in patient_codes.
    expected: float32 (n, classes), the expected count of each class (`expected_counts`); zeros where no detector has
    looked.
    doubts: float32 (n, 2), how many cells are of doubtful class, and how many are hardly certain to be cells; None if
    no strategy asks for it.
    embeddings: float32 (n, dimensions), what the tile's cells look like on average, of length 1 around the pool's
    mean; zeros where nothing is known. None if no strategy asks for it.
    likeness: float32 (n, groups), the similarity (a cosine, 0 to 1) of the tile's most similar cell to the examples of
    each group; 0 where nothing is known. None if nothing is looked for.
    cells: float32 (n,), how many cells of any class a reader will have to look at, those of classes that nobody wants
    more of included; None if they are the sums of `expected`.
    Raises ValueError if the lengths differ.
    """

    tile_ids: NDArray[np.int64]
    patients: NDArray[np.intp]
    patient_codes: Sequence[str]
    expected: NDArray[np.float32]
    doubts: NDArray[np.float32] | None = None
    embeddings: NDArray[np.float32] | None = None
    likeness: NDArray[np.float32] | None = None
    cells: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        parts: list[NDArray[Any] | None] = [self.patients, self.expected, self.doubts, self.embeddings, self.likeness]
        parts.append(self.cells)
        if self.expected.ndim != 2 or any(len(part) != len(self) for part in parts if part is not None):
            raise ValueError("A pool needs one patient, one row of expected counts, and so on, for each tile.")

    def __len__(self) -> int:
        return len(self.tile_ids)

    @property
    def cells_per_tile(self) -> NDArray[np.float64]:
        """How many cells of any class are expected on each tile: float64 (n,)."""
        if self.cells is None:
            return np.asarray(self.expected.sum(axis=1, dtype=np.float64))
        return self.cells.astype(np.float64)

    def patient(self, row: int) -> str:
        """The patient of a tile, for its reason."""
        return f"patient {self.patient_codes[self.patients[row]]}"


def without_implausible(pool: Pool, most: NDArray[np.float64]) -> Pool:
    """The pool with nothing known of tiles on which the detector sees more boxes than any confirmed tile holds.

    `most`: float (n,), the most boxes on a confirmed tile of the same area; 0 when none is confirmed yet, which trusts
    everything. In a thick or smudged place a young detector sees dozens of rare cells, doubtful cells and cells that
    look like no other; only the random audit should bring such a tile.
    """
    trusted = (pool.cells_per_tile <= PLAUSIBLE_FACTOR * most) | (most == 0)

    def kept(values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if values is None else np.where(trusted[:, None], values, np.float32(0)).astype(np.float32)

    return replace(
        pool,
        expected=np.where(trusted[:, None], pool.expected, np.float32(0)).astype(np.float32),
        doubts=kept(pool.doubts),
        embeddings=kept(pool.embeddings),
        likeness=kept(pool.likeness),
    )


@dataclass(frozen=True)
class Choice:
    """A chosen tile, and why, in words for the expert who gets it.

    row: its place in the pool. strategy: which one chose it. audit: whether it belongs to the random audit slice.
    """

    tile_id: int
    reason: str
    row: int
    strategy: str
    audit: bool = False
