"""How far readers of the same tiles agree: on where cells are, and on what they are. No Django.

Boxes are arrays of shape (n, 4) as in annotation.geometry, classes int64 arrays of class numbers from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from annotation.geometry import as_boxes, iou_matrix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SAME_CELL = 0.5  # IoU from which two boxes may be of one cell
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Reading:
    """One reader's boxes on one tile: float64 (n, 4), and their classes: int64 (n,). Raises ValueError if they differ
    in number.
    """

    boxes: Floats
    classes: Integers

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.classes):
            raise ValueError(f"{len(self.boxes)} boxes cannot have {len(self.classes)} classes.")

    @classmethod
    def of(cls, boxes: ArrayLike, classes: ArrayLike) -> "Reading":
        """From anything that numpy takes, such as empty lists."""
        return cls(as_boxes(boxes), np.asarray(classes, np.int64).reshape(-1))


@dataclass(frozen=True)
class Estimate:
    """A figure, and its 95 % interval; None where it cannot be said."""

    value: float | None
    interval: tuple[float, float] | None = None


def match_boxes(first: ArrayLike, second: ArrayLike, *, iou: float = SAME_CELL) -> Integers:
    """Which boxes of two readers are of one cell: int64 (k, 2), pairs of indices, sorted by the first.

    Of all one-to-one pairings of boxes with at least this IoU, one whose sum of IoUs is greatest (Kuhn 1955, "The
    Hungarian method for the assignment problem", Naval Research Logistics 2).
    """
    overlap = iou_matrix(first, second)
    overlap[overlap < iou] = 0.0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    found = overlap[rows, columns] > 0
    return np.column_stack([rows[found], columns[found]]).astype(np.int64)


def group_cells(readings: Sequence[Reading]) -> Integers:
    """The cells that several readers have found on one tile: int64 (cells, readers), each reader's box, or -1.

    Reader after reader, boxes are matched with the means of the boxes grouped so far; what matches none is a new cell.
    """
    groups: Integers = np.full((0, len(readings)), -1, np.int64)
    for number, reading in enumerate(readings):
        means = np.array([_mean_box(readings, group) for group in groups])
        pairs = match_boxes(means, reading.boxes)
        groups[pairs[:, 0], number] = pairs[:, 1]
        others = np.setdiff1d(np.arange(len(reading.boxes)), pairs[:, 1])
        new = np.full((len(others), len(readings)), -1, np.int64)
        new[:, number] = others
        groups = np.concatenate([groups, new])
    return groups


def _mean_box(readings: Sequence[Reading], group: Integers) -> Floats:
    found = [readings[reader].boxes[index] for reader, index in enumerate(group) if index >= 0]
    mean: Floats = np.mean(found, axis=0)
    return mean


@dataclass(frozen=True)
class Consensus:
    """What several readers say of a tile together, as boxes (n, 4) with classes (n,).

    support: float64 (n,), the share of the readers who found the cell and gave it this class; 1 where all agree.
    """

    reading: Reading
    support: Floats

    @property
    def unanimous(self) -> bool:
        return bool((self.support == 1).all())


def consensus_of(readings: Sequence[Reading]) -> Consensus:
    """Every cell that anybody found: the mean of its boxes, with the class that most readers gave it.

    Of classes with equally many votes, the one of the earlier reader. Raises ValueError without any reading.
    """
    if not readings:
        raise ValueError("A consensus needs a reading.")
    boxes, classes, support = [], [], []
    for group in group_cells(readings):
        votes = [int(readings[reader].classes[index]) for reader, index in enumerate(group) if index >= 0]
        best = max(votes, key=votes.count)  # the first of those with most votes
        boxes.append(_mean_box(readings, group))
        classes.append(best)
        support.append(votes.count(best) / len(readings))
    return Consensus(Reading.of(boxes, classes), np.array(support, np.float64))


def maturation_weights(lineages: Sequence[str], maturations: Sequence[int | None]) -> Floats:
    """How wrong it is to call a class by another's name: float64 (classes, classes), 0 for itself to 1.

    Inside a lineage the distance in its order of maturation, as a share of the lineage's longest; 1 between lineages
    and where a class has no place in the order. Raises ValueError if the lengths differ.
    """
    if len(lineages) != len(maturations):
        raise ValueError("Each class has one lineage and one maturation.")
    weights = 1.0 - np.eye(len(lineages))
    for lineage in {one for one in lineages if one}:
        placed = [index for index, one in enumerate(lineages) if one == lineage and maturations[index] is not None]
        order = np.array([maturations[index] for index in placed], np.float64)
        span = float(np.ptp(order)) if len(order) else 0.0
        if span:
            weights[np.ix_(placed, placed)] = np.abs(order[:, None] - order[None, :]) / span
    return weights


def cohens_kappa(table: ArrayLike, weights: Floats | None = None) -> float | None:
    """Agreement of two readers beyond chance: 1 if they always agree, 0 if as often as by chance.

    table: (classes, classes), cells by the first reader's class and the second's. weights: how much each disagreement
    counts, 0 to 1; without them all alike (Cohen 1960, Educational and Psychological Measurement 20; weighted: Cohen
    1968, Psychological Bulletin 70). None without cells, or where chance alone would give full agreement.
    """
    counts = np.asarray(table, np.float64)
    value = _kappas(counts[None], 1.0 - np.eye(len(counts)) if weights is None else weights)[0]
    return None if np.isnan(value) else float(value)


def _kappas(tables: Floats, weights: Floats) -> Floats:
    """Cohen's kappa of each table (n, classes, classes): float64 (n,), NaN where there is none."""
    total = tables.sum(axis=(1, 2))
    observed = (tables * weights).sum(axis=(1, 2)) * total
    expected = np.einsum("ni,ij,nj->n", tables.sum(axis=2), weights, tables.sum(axis=1))
    ratio = np.divide(observed, expected, out=np.full_like(observed, np.nan), where=expected > 0)
    result: Floats = 1.0 - ratio
    return result


def fleiss_kappa(tiles: Sequence[ArrayLike]) -> Estimate:
    """Agreement of several readers beyond chance (Fleiss 1971, Psychological Bulletin 76), its interval over the tiles.

    tiles: for each, (cells, classes), how many readers gave each cell each class; the same number for every cell, at
    least two, or ValueError. Nothing can be said without cells, or if only one class was ever given.
    """
    ratings = [np.asarray(one, np.float64) for one in tiles]
    found = [one for one in ratings if len(one)]
    if not found:
        return Estimate(None)
    readers = np.concatenate([one.sum(axis=1) for one in found])
    if readers.min() != readers.max() or readers[0] < 2:
        raise ValueError("Fleiss' kappa needs the same number of readers for every cell, at least two.")
    pairs = readers[0] * (readers[0] - 1)
    agreeing = np.array([((one * (one - 1)).sum()) / pairs for one in found])  # sums over a tile's cells
    cells = np.array([len(one) for one in found], np.float64)
    classes = np.array([one.sum(axis=0) for one in found])

    def kappas(weights: Floats) -> Floats:
        observed = _shares(weights @ agreeing, weights @ cells)
        given = weights @ classes
        by_chance = (_shares(given, np.broadcast_to(given.sum(axis=1, keepdims=True), given.shape)) ** 2).sum(axis=1)
        return _shares(observed - by_chance, 1 - by_chance)

    return _estimate(kappas(np.ones((1, len(found))))[0], kappas(_draws(len(found))))


@dataclass(frozen=True)
class PairAgreement:
    """Two readers on the same tiles.

    tables: int64 (tiles, classes, classes), the cells that both found, by the first's class and the second's.
    only: int64 (tiles, 2), cells that the first only and that the second only found.
    weights: as of `maturation_weights`.
    """

    tables: Integers
    only: Integers
    weights: Floats

    @cached_property
    def table(self) -> Integers:
        """All tiles together: int64 (classes, classes)."""
        total: Integers = self.tables.sum(axis=0)
        return total

    @property
    def both(self) -> int:
        return int(self.table.sum())

    @property
    def only_first(self) -> int:
        return int(self.only[:, 0].sum())

    @property
    def only_second(self) -> int:
        return int(self.only[:, 1].sum())

    @cached_property
    def detection(self) -> Estimate:
        """Of all the boxes of both, the share that the other has too: the F1 of either against the other (Hripcsak &
        Rothschild 2005, JAMIA 12: what kappa tends to where the true negatives are without number).
        """
        both = 2 * self.tables.sum(axis=(1, 2))
        return self._share(both, both + self.only.sum(axis=1))

    @cached_property
    def missed(self) -> Estimate:
        """Of the second's boxes, the share that the first does not have."""
        return self._share(self.only[:, 1], self.only[:, 1] + self.tables.sum(axis=(1, 2)))

    @cached_property
    def unconfirmed(self) -> Estimate:
        """Of the first's boxes, the share that the second does not have."""
        return self._share(self.only[:, 0], self.only[:, 0] + self.tables.sum(axis=(1, 2)))

    @cached_property
    def same_class(self) -> Estimate:
        """Of the cells that both found, the share that both called the same."""
        return self._share(np.trace(self.tables, axis1=1, axis2=2), self.tables.sum(axis=(1, 2)))

    @cached_property
    def kappa(self) -> Estimate:
        """Cohen's, of the classes of the cells that both found."""
        return self._kappa(1.0 - np.eye(len(self.weights)))

    @cached_property
    def weighted_kappa(self) -> Estimate:
        """Cohen's, with disagreements weighted by the distance in maturation."""
        return self._kappa(self.weights)

    @cached_property
    def of_classes(self) -> list[Estimate]:
        """For each class, of the cells that either called so, the share that both did (specific agreement: Cicchetti &
        Feinstein 1990, Journal of Clinical Epidemiology 43); nothing can be said of a class that neither gave.
        """
        both = 2 * np.diagonal(self.tables, axis1=1, axis2=2)
        either = self.tables.sum(axis=1) + self.tables.sum(axis=2)
        values = _shares(both.sum(axis=0), either.sum(axis=0))
        drawn = _shares(self._draws @ both, self._draws @ either)
        return [_estimate(value, drawn[:, place]) for place, value in enumerate(values)]

    def _share(self, part: Integers, whole: Integers) -> Estimate:
        """The ratio of two sums over the tiles: int64 (tiles,) each."""
        value = _shares(part.sum(keepdims=True), whole.sum(keepdims=True))[0]
        return _estimate(value, _shares(self._draws @ part, self._draws @ whole))

    def _kappa(self, weights: Floats) -> Estimate:
        classes = len(weights)
        flat = self.tables.reshape(len(self.tables), classes * classes)
        drawn = (self._draws @ flat).reshape(-1, classes, classes)
        return _estimate(_kappas(self.table[None].astype(np.float64), weights)[0], _kappas(drawn, weights))

    @cached_property
    def _draws(self) -> Floats:
        return _draws(len(self.tables))


def _draws(tiles: int) -> Floats:
    """How often each bootstrap sample holds each tile: float64 (RESAMPLES, tiles); the same for as many tiles."""
    if not tiles:
        return np.zeros((RESAMPLES, 0))
    drawn = np.random.default_rng(0).multinomial(tiles, np.full(tiles, 1 / tiles), RESAMPLES)
    return np.asarray(drawn, np.float64)


def _shares(part: ArrayLike, whole: ArrayLike) -> Floats:
    below = np.asarray(whole, np.float64)
    ratio: Floats = np.divide(np.asarray(part, np.float64), below, out=np.full(below.shape, np.nan), where=below > 0)
    return ratio


def _estimate(value: float, drawn: Floats) -> Estimate:
    """The value with the percentiles of what its bootstrap samples gave (Efron 1979, Annals of Statistics 7)."""
    if np.isnan(value):
        return Estimate(None)
    known = drawn[~np.isnan(drawn)]
    if len(known) < 2:
        return Estimate(float(value))
    outside = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(known, [outside, 100 - outside])
    return Estimate(float(value), (float(low), float(high)))


def pair_agreement(pairs: Sequence[tuple[Reading, Reading]], weights: Floats) -> PairAgreement:
    """Compare two readers on tiles that both have read. `weights`: (classes, classes), of `maturation_weights`."""
    classes = len(weights)
    tables = np.zeros((len(pairs), classes, classes), np.int64)
    only = np.zeros((len(pairs), 2), np.int64)
    for number, (first, second) in enumerate(pairs):
        matched = match_boxes(first.boxes, second.boxes)
        np.add.at(tables[number], (first.classes[matched[:, 0]], second.classes[matched[:, 1]]), 1)
        only[number] = len(first.boxes) - len(matched), len(second.boxes) - len(matched)
    return PairAgreement(tables, only, weights)


def ratings_of(tiles: Sequence[Sequence[Reading]], classes: int) -> list[Integers]:
    """For Fleiss' kappa: of each tile int64 (cells, classes), of the cells that all of its readers have found."""
    rows = []
    for readings in tiles:
        groups = group_cells(readings)
        found = groups[(groups >= 0).all(axis=1)]
        votes = np.zeros((len(found), classes), np.int64)
        for reader, reading in enumerate(readings):
            np.add.at(votes, (np.arange(len(found)), reading.classes[found[:, reader]]), 1)
        rows.append(votes)
    return rows


def disagreement(first: Reading, second: Reading, weights: Floats) -> float:
    """How far two readings of a tile are apart, in cells: 1 for each that only one has, and the weight of each pair of
    different classes.
    """
    matched = match_boxes(first.boxes, second.boxes)
    apart = weights[first.classes[matched[:, 0]], second.classes[matched[:, 1]]].sum()
    return float(len(first.boxes) + len(second.boxes) - 2 * len(matched) + apart)
