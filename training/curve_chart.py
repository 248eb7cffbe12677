"""Geometry of the learning curve: mAP@0.5 of each round with its interval, in pixels, for a template to draw.

Pure Python and no Django: the server renders the curve as SVG, so the page needs no chart library and no script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

# Room for the axis labels and, inside the plot, for a value label centred on the first and last point.
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 56, 16, 28, 48
INSET = 32
# A value label ("0.612") needs about this much width; of closer points the newer one is labelled.
LABEL_WIDTH = 48
# A curve whose values hardly differ must look flat: the axis always spans at least this much mAP.
SMALLEST_SPAN = 0.3
MOST_TICKS = 8  # of a numeric x-axis, besides zero


@dataclass(frozen=True)
class CurvePoint:
    """One evaluated round.

    `value`, `low` and `high` are mAP@0.5 in 0..1; `low` and `high` are the ends of its interval, both or neither.
    `expert_hours` and `expert_days` are the active expert time up to and including this round, `tiles` and `boxes` what
    its model learned from; None is not known. `assisted`: experts were shown pre-labels. `alike`: it was measured on
    the same tiles and boxes as the newest round; only such points are joined.
    """

    round_number: int
    value: float
    low: float | None = None
    high: float | None = None
    expert_hours: float | None = None
    expert_days: float | None = None
    tiles: int | None = None
    boxes: int | None = None
    assisted: bool = False
    alike: bool = True


@dataclass(frozen=True)
class Axis:
    """What the curve is drawn over: `place` gives a point's number on it, or None where that is not known."""

    label: str
    place: Callable[[CurvePoint], float | None]


# Rounds stand side by side, whatever their numbers; the other axes are to scale and begin at zero.
ROUNDS = "rounds"
AXES = {
    ROUNDS: Axis("Round", lambda point: point.round_number),
    "tiles": Axis("Confirmed tiles", lambda point: point.tiles),
    "boxes": Axis("Confirmed boxes", lambda point: point.boxes),
    "days": Axis("Expert-days", lambda point: point.expert_days),
}


class PlottedPoint(TypedDict):
    """A point in pixels; `low_px` and `high_px` equal `y_px` when there is no interval.

    `band_px` and `band_width` are the strip of the plot in which a pointer means this point.
    """

    x_px: float
    y_px: float
    low_px: float
    high_px: float
    band_px: float
    band_width: float
    has_interval: bool
    assisted: bool
    alike: bool
    label: str
    value: str
    show_value: bool
    title: str


class Tick(TypedDict):
    """A tick of an axis: `px` along it and the text beside it."""

    px: float
    label: str


class CurveChart(TypedDict):
    """All that the template `components/curve.html` draws; pixels from the top left of `width` x `height`.

    `line` joins the points that are alike. `assisted_px` is where pre-labels begin, None if there is no such place.
    """

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    points: list[PlottedPoint]
    line: str
    assisted_px: float | None
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def curve_chart(points: Sequence[CurvePoint], *, width: int, height: int, axis: str = ROUNDS) -> CurveChart:
    """Lay out the curve of `points`, in round order, over one of AXES in an image of `width` x `height` px.

    No point gives empty axes over 0..1; one point stands in the middle with no line. A point without a place on the
    axis is left out. Raises ValueError when a value or an interval is not in 0..1, an interval is half given or does
    not hold its value, or the image is too small; KeyError for another axis.
    """
    left, right, top, bottom = MARGIN_LEFT, width - MARGIN_RIGHT, MARGIN_TOP, height - MARGIN_BOTTOM
    if right - left <= 2 * INSET or bottom <= top:
        raise ValueError(f"a curve does not fit in {width} x {height} px")
    for point in points:
        _check(point)
    place = AXES[axis].place
    points = [point for point in points if place(point) is not None]
    lowest, highest, step = y_range(points)

    def y_px(value: float) -> float:
        return round(bottom - (value - lowest) / (highest - lowest) * (bottom - top), 1)

    if axis == ROUNDS:
        xs, ticks = _side_by_side(len(points), left + INSET, right - INSET), None
    else:
        xs, ticks = _to_scale([place(point) or 0.0 for point in points], left, right - INSET)
    shown, bands = _labelled(xs), _bands(xs, left, right)
    plotted = [_plot(point, xs[i], y_px, i in shown, bands[i]) for i, point in enumerate(points)]
    if ticks is None:
        ticks = [{"px": point["x_px"], "label": point["label"]} for point in plotted if point["show_value"]]
    joined = [point for point in plotted if point["alike"]]
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "top": top,
        "bottom": bottom,
        "points": plotted,
        "line": " ".join(f"{p['x_px']:g},{p['y_px']:g}" for p in joined) if len(joined) > 1 else "",
        "assisted_px": _assisted_px(plotted),
        "x_label": AXES[axis].label,
        "x_ticks": ticks,
        "y_ticks": [{"px": y_px(value), "label": f"{value:.1f}"} for value in y_steps(lowest, highest, step)],
    }


def _check(point: CurvePoint) -> None:
    name = f"round {point.round_number}"
    if (point.low is None) != (point.high is None):
        raise ValueError(f"{name}: an interval needs both its ends")
    low, high = _ends(point)
    if not 0 <= low <= point.value <= high <= 1:
        raise ValueError(f"{name}: expected 0 <= low <= value <= high <= 1, got {low}, {point.value}, {high}")


def _ends(point: CurvePoint) -> tuple[float, float]:
    if point.low is None or point.high is None:
        return point.value, point.value
    return point.low, point.high


def y_range(points: Sequence[CurvePoint]) -> tuple[float, float, float]:
    """Lowest and highest value of the axis and the step of its ticks, in tenths so that ticks have one decimal."""
    if not points:
        return 0.0, 1.0, 0.2
    # Rounded first: 0.3 * 10 must count as 3 tenths and not as a little more.
    low = math.floor(round(min(_ends(point)[0] for point in points) * 10, 6))
    high = math.ceil(round(max(_ends(point)[1] for point in points) * 10, 6))
    while high - low < round(SMALLEST_SPAN * 10):
        low, high = (low - 1, high) if high == 10 or (low > 0 and (high - low) % 2) else (low, high + 1)
    step = 2 if high - low > 5 else 1
    low -= low % step
    high += (high - low) % step
    return low / 10, high / 10, step / 10


def y_steps(lowest: float, highest: float, step: float) -> list[float]:
    """The ticks of the y-axis."""
    return [lowest + i * step for i in range(round((highest - lowest) / step) + 1)]


def _side_by_side(count: int, first: float, last: float) -> list[float]:
    if count == 1:
        return [round((first + last) / 2, 1)]
    return [round(first + i * (last - first) / (count - 1), 1) for i in range(count)]


def _to_scale(places: Sequence[float], first: float, last: float) -> tuple[list[float], list[Tick]]:
    """Positions of numbers from 0 on an axis that ends on a tick, and its ticks."""
    step = round_step(max(places, default=0.0))
    count = max(1, math.ceil(round(max(places, default=0.0) / step, 6)))

    def px(number: float) -> float:
        return round(first + number / (count * step) * (last - first), 1)

    return [px(number) for number in places], [
        {"px": px(i * step), "label": f"{round(i * step, 6):,g}"} for i in range(count + 1)
    ]


def round_step(highest: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten, from 0.0001 on, that goes at most MOST_TICKS times into it."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(max(highest / MOST_TICKS, 0.0001)))
    return next(power * factor for factor in (1, 2, 5, 10) if round(highest / (power * factor), 6) <= MOST_TICKS)


def _labelled(xs: Sequence[float]) -> set[int]:
    """Which points show their value: the newest always does, an older one where there is room beside those shown."""
    shown: list[int] = []
    for index in reversed(range(len(xs))):
        # Positions are rounded to a tenth of a pixel.
        if all(abs(xs[index] - xs[other]) > LABEL_WIDTH - 0.2 for other in shown):
            shown.append(index)
    return set(shown)


def _bands(xs: Sequence[float], left: float, right: float) -> list[tuple[float, float]]:
    """For each point the strip, from half-way to the one before to half-way to the next, as place and width."""
    order = sorted(range(len(xs)), key=lambda index: xs[index])
    edges = [left, *((xs[one] + xs[other]) / 2 for one, other in pairwise(order)), right]
    bands = {index: (round(edges[i], 1), round(edges[i + 1] - edges[i], 1)) for i, index in enumerate(order)}
    return [bands[index] for index in range(len(xs))]


def _assisted_px(points: Sequence[PlottedPoint]) -> float | None:
    for before, point in pairwise(points):
        if point["assisted"] and not before["assisted"]:
            return round((before["x_px"] + point["x_px"]) / 2, 1)
    return None


def _plot(
    point: CurvePoint, x_px: float, y_px: Callable[[float], float], labelled: bool, band: tuple[float, float]
) -> PlottedPoint:
    low, high = _ends(point)
    return {
        "x_px": x_px,
        "y_px": y_px(point.value),
        "low_px": y_px(low),
        "high_px": y_px(high),
        "band_px": band[0],
        "band_width": band[1],
        "has_interval": point.low is not None,
        "assisted": point.assisted,
        "alike": point.alike,
        "label": str(point.round_number),
        "value": f"{point.value:.3f}",
        "show_value": labelled,
        "title": _title(point),
    }


def _title(point: CurvePoint) -> str:
    text = f"Round {point.round_number}: mAP@0.5 {point.value:.3f}"
    if point.low is not None and point.high is not None:
        text += f" ({point.low:.3f} to {point.high:.3f})"
    if not point.alike:
        text += " on other tiles or boxes"
    if point.tiles is not None:
        text += f", {point.tiles:,} tile{'' if point.tiles == 1 else 's'}"
    if point.boxes is not None:
        text += f", {point.boxes:,} box{'' if point.boxes == 1 else 'es'}"
    if point.expert_hours is not None:
        text += f", {point.expert_hours:.1f} expert-hours so far"
    return text
