"""Geometry of the learning curve: mAP@0.5 of each round with its interval, in pixels, for a template to draw.

Pure Python and no Django: the server renders the curve as SVG, so the page needs no chart library and no script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

# Room for the axis labels and, inside the plot, for a value label centred on the first and last point.
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 56, 16, 28, 48
INSET = 32
# A value label ("0.612") needs about this much width; closer points share a label.
LABEL_WIDTH = 48
# A curve whose values hardly differ must look flat: the axis always spans at least this much mAP.
SMALLEST_SPAN = 0.3


@dataclass(frozen=True)
class CurvePoint:
    """One evaluated round.

    `value`, `low` and `high` are mAP@0.5 in 0..1; `low` and `high` are the ends of its interval, both or neither.
    `expert_hours` is the active expert time up to and including this round.
    """

    round_number: int
    value: float
    low: float | None = None
    high: float | None = None
    expert_hours: float | None = None


class PlottedPoint(TypedDict):
    """A point in pixels; `low_px` and `high_px` equal `y_px` when there is no interval."""

    x_px: float
    y_px: float
    low_px: float
    high_px: float
    has_interval: bool
    label: str
    value: str
    show_value: bool
    title: str


class Tick(TypedDict):
    """A tick of an axis: `px` along it and the text beside it."""

    px: float
    label: str


class CurveChart(TypedDict):
    """All that the template `components/curve.html` draws; pixels from the top left of `width` x `height`."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    points: list[PlottedPoint]
    line: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def curve_chart(points: Sequence[CurvePoint], *, width: int, height: int) -> CurveChart:
    """Lay out the curve of `points`, in round order, in an image of `width` x `height` px.

    No point gives empty axes over 0..1; one point stands in the middle with no line. Raises ValueError when a value
    or an interval is not in 0..1, an interval is half given or does not hold its value, or the image is too small.
    """
    left, right, top, bottom = MARGIN_LEFT, width - MARGIN_RIGHT, MARGIN_TOP, height - MARGIN_BOTTOM
    if right - left <= 2 * INSET or bottom <= top:
        raise ValueError(f"a curve does not fit in {width} x {height} px")
    for point in points:
        _check(point)
    lowest, highest, step = _y_range(points)

    def y_px(value: float) -> float:
        return round(bottom - (value - lowest) / (highest - lowest) * (bottom - top), 1)

    xs = _x_positions(len(points), left + INSET, right - INSET)
    every = _label_step(xs)
    plotted = [_plot(point, xs[i], y_px, _is_labelled(i, len(xs), every)) for i, point in enumerate(points)]
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "top": top,
        "bottom": bottom,
        "points": plotted,
        "line": " ".join(f"{p['x_px']:g},{p['y_px']:g}" for p in plotted) if len(plotted) > 1 else "",
        "x_ticks": [{"px": p["x_px"], "label": p["label"]} for p in plotted if p["show_value"]],
        "y_ticks": [{"px": y_px(value), "label": f"{value:.1f}"} for value in _steps(lowest, highest, step)],
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


def _y_range(points: Sequence[CurvePoint]) -> tuple[float, float, float]:
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


def _steps(lowest: float, highest: float, step: float) -> list[float]:
    return [lowest + i * step for i in range(round((highest - lowest) / step) + 1)]


def _x_positions(count: int, first: float, last: float) -> list[float]:
    if count == 1:
        return [round((first + last) / 2, 1)]
    return [round(first + i * (last - first) / (count - 1), 1) for i in range(count)]


def _label_step(xs: Sequence[float]) -> int:
    if len(xs) < 2:
        return 1
    return max(1, math.ceil(LABEL_WIDTH / (xs[1] - xs[0])))


def _is_labelled(index: int, count: int, every: int) -> bool:
    """Labels are counted back from the last point: the newest round always shows its value."""
    return (count - 1 - index) % every == 0


def _plot(point: CurvePoint, x_px: float, y_px: Callable[[float], float], labelled: bool) -> PlottedPoint:
    low, high = _ends(point)
    return {
        "x_px": x_px,
        "y_px": y_px(point.value),
        "low_px": y_px(low),
        "high_px": y_px(high),
        "has_interval": point.low is not None,
        "label": str(point.round_number),
        "value": f"{point.value:.3f}",
        "show_value": labelled,
        "title": _title(point),
    }


def _title(point: CurvePoint) -> str:
    text = f"Round {point.round_number}: mAP@0.5 {point.value:.3f}"
    if point.low is not None and point.high is not None:
        text += f" ({point.low:.3f} to {point.high:.3f})"
    if point.expert_hours is not None:
        text += f", {point.expert_hours:.1f} expert-hours so far"
    return text
