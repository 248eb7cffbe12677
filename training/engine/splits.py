"""Splits in which no patient is on both sides, as alike in their classes as the patients allow."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

Indices = NDArray[np.int64]


class TooFewPatients(ValueError):
    """There are fewer patients than parts to split them into."""


def split_by_patient(
    patients: Sequence[str], class_counts: NDArray[np.int64], *, folds: int = 5, seed: int = 0
) -> list[Indices]:
    """Index sets of the tiles of each fold, which together hold every tile once; a patient is in one fold only.

    patients: the patient of each tile. class_counts: int (tiles, classes), boxes per class. Tiles are stratified by the
    rarest of their classes (StratifiedGroupKFold of scikit-learn), so that the rare classes spread over the folds.
    Raises TooFewPatients if there are fewer patients than folds, ValueError if the lengths differ.
    """
    if len(patients) != len(class_counts):
        raise ValueError("There must be one row of class counts for each tile.")
    names = sorted(set(patients))
    if folds < 2:
        raise ValueError("A split needs at least 2 folds.")
    if len(names) < folds:
        raise TooFewPatients(
            f"{folds} folds need tiles of at least {folds} patients, but there are tiles of {len(names)} only."
        )
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    strata = rarest_class(class_counts)
    if np.unique(strata, return_counts=True)[1].max() < folds:
        strata = np.zeros_like(strata)  # so few tiles that no class can be spread over the folds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer tiles than folds is common and harmless
        parts = splitter.split(np.zeros(len(strata)), strata, groups=np.asarray(patients, dtype=str))
        return [np.asarray(inside, dtype=np.int64) for _, inside in parts]


def validation_split(
    patients: Sequence[str], class_counts: NDArray[np.int64], *, folds: int = 5, seed: int = 0
) -> tuple[Indices, Indices]:
    """Indices of the tiles to train on and of those to validate with; no patient is in both.

    About 1 / folds of the tiles validate; with fewer patients than folds, the tiles of about one patient do.
    Of the folds that leave every class some boxes to train on, the one whose size is nearest 1 / folds is taken.
    Raises TooFewPatients if all tiles are of one patient.
    """
    available = min(folds, len(set(patients)))
    if available < 2:
        raise TooFewPatients("A validation set needs tiles of at least 2 patients, because no patient may be in both.")
    parts = split_by_patient(patients, class_counts, folds=available, seed=seed)
    totals = class_counts.sum(axis=0)
    target = len(patients) / folds

    def cost(part: Indices) -> tuple[int, float]:
        lost = int(((totals > 0) & (class_counts[part].sum(axis=0) == totals)).sum())
        return (len(patients) if not len(part) else lost), abs(len(part) - target)

    validation = min(parts, key=cost)
    return np.setdiff1d(np.arange(len(patients)), validation), validation


def rarest_class(class_counts: NDArray[np.int64]) -> Indices:
    """For each tile the class, of those it holds, with the fewest boxes over all tiles; -1 for an empty tile."""
    totals = class_counts.sum(axis=0)
    frequency = np.where(class_counts > 0, totals, np.iinfo(np.int64).max)
    if class_counts.shape[1] == 0:
        return np.full(len(class_counts), -1)
    return np.where(class_counts.any(axis=1), frequency.argmin(axis=1), -1)
