"""Tiles with rare classes shown more often (Gupta, Dollar and Girshick 2019, "LVIS", CVPR, section 4.3)."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def class_factors(class_counts: Counts, threshold: float) -> NDArray[np.float64]:
    """r(c) = max(1, sqrt(t / f(c))) of each class, float (classes,).

    class_counts: int (tiles, classes), boxes per class. f(c): the share of the tiles that hold class c; t: `threshold`,
    the share from which a class is common. A class on no tile has 1.
    """
    if not len(class_counts):
        return np.ones(class_counts.shape[1])
    share = (class_counts > 0).mean(axis=0)
    return np.where(share > 0, np.sqrt(threshold / np.where(share > 0, share, 1.0)), 1.0).clip(min=1.0)


def tile_factors(class_counts: Counts, threshold: float) -> NDArray[np.float64]:
    """How often each tile is to be shown, on average: the greatest factor of its classes, 1 for an empty tile."""
    factors = np.where(class_counts > 0, class_factors(class_counts, threshold), 1.0)
    return np.asarray(factors.max(axis=1, initial=1.0))


def repeated(class_counts: Counts, threshold: float, *, seed: int) -> Counts:
    """The tiles' indices, rising, each as often as an epoch shows it: int (at least tiles,).

    The whole part of a factor counts for certain, the fraction by chance, drawn once for the whole training with the
    seed. (LVIS draws anew for every epoch; here the number of steps of an epoch, from which the learning rate is
    planned, stays the same, and so does a training that is resumed.)
    """
    factors = tile_factors(class_counts, threshold)
    whole = np.floor(factors)
    more = np.random.default_rng(seed).random(len(factors)) < factors - whole
    return np.repeat(np.arange(len(factors)), whole.astype(np.int64) + more)
