"""Whether another round is worth its hours: the gain of the last two rounds, with its interval. No Django.

Two evaluations of the same tiles and boxes are resampled alike (`metrics.evaluate` draws patients by a fixed seed), so
their differences, resampling by resampling, are a paired bootstrap (Efron and Tibshirani 1993, "An Introduction to the
Bootstrap", chapters 13 and 16). For evaluations that kept only their intervals the two are combined by the method of
variance estimates recovery (Newcombe 1998, Stat Med 17; Zou and Donner 2008, Stat Med 27): with values a and b and
intervals (a-, a+), (b-, b+) the difference b - a has

    low = b - a - sqrt((b - b-)^2 + (a+ - a)^2),   high = b - a + sqrt((b+ - b)^2 + (a - a-)^2).

That takes the two for independent. Models that find the same cells difficult are not, so it is wider than need be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

import numpy as np

OVER_ROUNDS = 2
NOTABLE_GAIN = 0.05  # mAP: while the interval reaches so far, "no gain" is not what was measured

Interval = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """One round's mAP@0.5 with its 95 % interval, as far as it is known.

    resampled: mAP@0.5 of each resampling, in their order; empty where they were not kept. truth: a name of the tiles
    and boxes measured on. hours: expert-hours up to and including this round.
    """

    round_number: int
    value: float
    interval: Interval | None
    resampled: Sequence[float | None]
    truth: str
    hours: float


class Verdict(StrEnum):
    TOO_FEW = "too few rounds"
    NOT_ALIKE = "not comparable"
    RISING = "rising"
    FLAT = "no gain proven"
    UNDECIDED = "undecided"
    FALLING = "falling"


@dataclass(frozen=True)
class Plateau:
    """The verdict, and what it rests on. paired: whether the interval is of a paired bootstrap."""

    verdict: Verdict
    text: str
    gain: float | None = None
    interval: Interval | None = None
    hours: float | None = None
    paired: bool = False


def plateau(rounds: Sequence[Measured]) -> Plateau:
    """Judge the last of the rounds, which come in order, by the one two before it."""
    if len(rounds) <= OVER_ROUNDS:
        return Plateau(Verdict.TOO_FEW, f"Too few rounds to say: it takes {OVER_ROUNDS + 1} evaluated ones.")
    before, last = rounds[-1 - OVER_ROUNDS], rounds[-1]
    if before.truth != last.truth:
        text = f"Rounds {before.round_number} and {last.round_number} were not measured on the same tiles and boxes"
        return Plateau(Verdict.NOT_ALIKE, f"{text}: what they gained cannot be said.")
    gain, hours = last.value - before.value, last.hours - before.hours
    interval, paired = gain_interval(before, last)
    verdict = _verdict(interval)
    return Plateau(verdict, _in_words(verdict, gain, interval, hours), gain, interval, hours, paired)


def gain_interval(before: Measured, last: Measured) -> tuple[Interval | None, bool]:
    """The 95 % interval of the gain, and whether it is paired; None where a round has no interval."""
    if before.resampled and len(before.resampled) == len(last.resampled):
        pairs = zip(before.resampled, last.resampled, strict=True)
        differences = [new - old for old, new in pairs if old is not None and new is not None]
        if differences:
            low, high = np.percentile(differences, [2.5, 97.5])
            return (float(low), float(high)), True
    if before.interval is None or last.interval is None:
        return None, False
    gain = last.value - before.value
    down = sqrt((last.value - last.interval[0]) ** 2 + (before.interval[1] - before.value) ** 2)
    up = sqrt((last.interval[1] - last.value) ** 2 + (before.value - before.interval[0]) ** 2)
    return (gain - down, gain + up), False


def _verdict(interval: Interval | None) -> Verdict:
    if interval is None:
        return Verdict.UNDECIDED
    low, high = interval
    if low > 0:
        return Verdict.RISING
    if high < 0:
        return Verdict.FALLING
    return Verdict.FLAT if high < NOTABLE_GAIN else Verdict.UNDECIDED


def _in_words(verdict: Verdict, gain: float, interval: Interval | None, hours: float) -> str:
    known = (
        "no interval is known" if interval is None else f"95% interval {signed(interval[0])} to {signed(interval[1])}"
    )
    cost = f"The last two rounds {'lost' if gain < 0 else 'gained'} {abs(gain):.3f} mAP@0.5 ({known}) for {hours:.1f} "
    if verdict == Verdict.RISING:
        end = "rising, worth another round."
    elif verdict == Verdict.FALLING:
        end = "falling. Look at the newest labels before another round."
    elif verdict == Verdict.FLAT:
        end = "no gain is proven. Another round may not be worth its hours."
    else:
        reach = "" if interval is None else f", but up to {signed(interval[1])} is not ruled out"
        end = f"no gain is proven{reach}. A larger locked test set would tell more."
    return f"{cost}expert-hours: {end}"


def signed(value: float) -> str:
    """Three decimals, with a real minus sign; what rounds to zero has none."""
    text = f"{abs(value):.3f}"
    return text if value >= 0 or text == "0.000" else f"−{text}"
