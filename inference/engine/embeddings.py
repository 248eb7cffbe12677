"""What cells look like, in a few numbers each: the features that a network sees of a crop, projected at random."""

from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.engine.detector import Detections, Detector

DIMENSIONS = 64
MOST_CELLS = 24  # of a tile that are kept, the best first: 3 kB
SEED = 1984

Floats = NDArray[np.float32]


@runtime_checkable
class Describing(Detector, Protocol):
    """A detector whose detections carry embeddings."""

    def describe(self, tile: NDArray[np.uint8], boxes: ArrayLike) -> Floats:
        """The embedding of each cell: float32 (n, 64). tile: uint8 (H, W, 3). boxes: (n, 4), x, y, width, height."""


def embed(features: Floats) -> Floats:
    """Features, float32 (n, any), as embeddings: float32 (n, 64).

    A fixed Gaussian projection, which keeps distances and angles nearly as they are (Johnson & Lindenstrauss 1984).
    They can be compared with each other as long as they come from the same network.
    """
    return np.asarray(features @ _projection(features.shape[1]), np.float32)


@cache
def _projection(features: int) -> Floats:
    # RandomState gives the same numbers in every version of numpy; stored embeddings must stay comparable.
    drawn = np.random.RandomState(SEED).standard_normal((features, DIMENSIONS))
    return np.asarray(drawn / np.sqrt(DIMENSIONS), np.float32)


def pack(embeddings: Floats) -> bytes:
    """Embeddings (n, 64) for the database: float16, little-endian, row by row, the first 24 of them."""
    return np.ascontiguousarray(embeddings[:MOST_CELLS], "<f2").tobytes()


def unpack(data: bytes | memoryview) -> Floats:
    """The embeddings that `pack` has packed: float32 (n, 64)."""
    return np.frombuffer(data, "<f2").astype(np.float32).reshape(-1, DIMENSIONS)


def embeddings_of(found: Detections) -> Floats:
    """The embeddings that detections carry: float32 (n, 64). Raises ValueError if they carry none."""
    if found.embeddings is None:
        raise ValueError("These detections carry no embeddings.")
    return found.embeddings


def tile_embedding(found: Detections) -> Floats:
    """The mean of the embeddings of a tile's cells, each weighted by its score: float32 (64,); zeros if there is none.

    Raises ValueError for detections without embeddings.
    """
    cells = embeddings_of(found)
    if not len(cells):
        return np.zeros(DIMENSIONS, np.float32)
    return np.asarray(np.average(cells, axis=0, weights=found.scores + 1e-6), np.float32)
