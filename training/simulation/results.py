"""What the arms of a simulation bought: hours to reach a level, shares of hours, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student_t

from training.simulation.operators import Operators, Work

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Point:
    """One round of one arm and seed. Counts are of all rounds so far, but for `batch_*`, which are of this round.

    work: the operators of all rounds so far. map50: mAP@0.5 on the locked test set, with its interval over patients.
    aps: AP@0.5 by class. fates: of the batch's pre-label boxes, how many were kept, moved, reclassified, deleted.
    """

    round: int
    assisted: bool
    tiles: int
    boxes: int
    work: Work
    map50: float
    interval: tuple[float, float] | None
    aps: Mapping[str, float | None]
    batch_tiles: int
    batch_boxes: int
    batch_rare: int
    batch_work: Work
    fates: Mapping[str, int] = field(default_factory=dict)

    def hours(self, operators: Operators) -> float:
        return self.work.seconds(operators) / 3600

    def seconds_per_box(self, operators: Operators) -> float | None:
        return self.batch_work.seconds(operators) / self.batch_boxes if self.batch_boxes else None

    @property
    def kept(self) -> float | None:
        """The share of the batch's pre-label boxes that stayed as they were."""
        total = sum(self.fates.get(name, 0) for name in ("kept", "moved", "reclassified", "deleted"))
        return self.fates.get("kept", 0) / total if total else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> "Point":
        made = {"work": Work(**raw["work"]), "batch_work": Work(**raw["batch_work"])}
        interval = raw["interval"]
        return cls(**{**raw, **made, "interval": (interval[0], interval[1]) if interval else None})


Curves = Mapping[str, Mapping[int, Sequence[Point]]]  # by arm and seed, each in the order of its rounds


def hours_to_reach(points: Sequence[Point], level: float, operators: Operators) -> float | None:
    """Expert-hours until mAP@0.5 is first at this level, on straight lines between rounds; None if it never is.

    Before the first model nothing is known, so a level that it reaches at once costs the whole first round.
    """
    before: Point | None = None
    for point in points:
        if point.map50 >= level:
            if before is None:
                return point.hours(operators)
            share = (level - before.map50) / (point.map50 - before.map50)
            return before.hours(operators) + share * (point.hours(operators) - before.hours(operators))
        before = point
    return None


def map50_at(points: Sequence[Point], hours: float, operators: Operators) -> float | None:
    """mAP@0.5 after so many expert-hours, on straight lines between rounds; None outside of them."""
    for before, after in pairwise(points):
        first, last = before.hours(operators), after.hours(operators)
        if first <= hours <= last:
            share = (hours - first) / (last - first) if last > first else 1.0
            return before.map50 + share * (after.map50 - before.map50)
    return None


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds and its 95 % interval by Student's t (None with one seed), from what each seed gave."""

    of_seeds: Sequence[float]

    @property
    def value(self) -> float | None:
        return mean(self.of_seeds) if self.of_seeds else None

    @property
    def interval(self) -> tuple[float, float] | None:
        count = len(self.of_seeds)
        if count < 2:
            return None
        centre = mean(self.of_seeds)
        quantile = float(student_t.ppf(0.5 + CONFIDENCE / 2, count - 1))
        reach = quantile * stdev(self.of_seeds) / math.sqrt(count)
        return centre - reach, centre + reach


@dataclass(frozen=True)
class HoursShare:
    """An arm's hours to the best mAP@0.5 of the manual arm, as a share of the manual arm's own, seed by seed.

    at_least: of the seeds in which the arm never got there, the share that it had spent by then: the true one is
    greater, so that the mean of `reached` alone would flatter.
    """

    reached: Mapping[int, float]
    at_least: Mapping[int, float]

    @property
    def estimate(self) -> Estimate:
        """Over the seeds that got there."""
        return Estimate(list(self.reached.values()))

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.estimate.value,
            "interval": self.estimate.interval,
            "by_seed": {str(seed): share for seed, share in self.reached.items()},
            "never_reached_at_least": {str(seed): share for seed, share in self.at_least.items()},
        }


def hours_share(curves: Curves, arm: str, operators: Operators, *, manual: str = "a") -> HoursShare:
    """Only of seeds that both arms have."""
    reached, at_least = {}, {}
    for seed, base in sorted(curves.get(manual, {}).items()):
        points = curves.get(arm, {}).get(seed)
        if not points or not base:
            continue
        best = max(point.map50 for point in base)
        own = hours_to_reach(base, best, operators)
        if not best or not own:  # nothing was learned, so nothing was reached
            continue
        hours = hours_to_reach(points, best, operators)
        if hours is None:
            at_least[seed] = points[-1].hours(operators) / own
        else:
            reached[seed] = hours / own
    return HoursShare(reached, at_least)


def common_levels(curves: Curves, *, step: float = 0.05) -> list[float]:
    """The levels of mAP@0.5, by this step, that every arm and seed passes between its first and its best round."""
    every = [points for of_seed in curves.values() for points in of_seed.values() if points]
    if not every:
        return []
    low = max(points[0].map50 for points in every)
    high = min(max(point.map50 for point in points) for points in every)
    first = math.floor(low / step) + 1
    return [round(number * step, 4) for number in range(first, math.floor(high / step + 1e-9) + 1)]
