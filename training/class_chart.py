"""Geometry of one class's AP over the rounds, in pixels, for a template to draw as SVG. Pure Python, no Django."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

WIDTH, HEIGHT = 220, 130
LEFT, RIGHT, TOP, BOTTOM = 30, 208, 10, 100  # of the plot, in px of WIDTH x HEIGHT
TICKS = (0.0, 0.5, 1.0)
LABEL_WIDTH = 22  # a round's number needs about so much


@dataclass(frozen=True)
class ClassPoint:
    """A class's AP@0.5 in 0..1 in one round, None where it cannot be said; `alike` as of a CurvePoint."""

    round_number: int
    value: float | None
    alike: bool = True


class Place(TypedDict):
    """A place on a curve, and what it says when one points at it."""

    x_px: float
    y_px: float
    alike: bool
    title: str


class ClassChart(TypedDict):
    """All that `components/class_curve.html` draws of one class."""

    line: str
    places: list[Place]
    title: str


def class_chart(points: Sequence[ClassPoint], *, name: str) -> ClassChart:
    """Lay out a class's points, one for each round of `round_axes`; only alike ones are joined."""
    xs = _xs(len(points))
    places: list[Place] = [
        {
            "x_px": x,
            "y_px": _y(point.value),
            "alike": point.alike,
            "title": f"Round {point.round_number}: AP@0.5 {point.value:.2f}",
        }
        for x, point in zip(xs, points, strict=True)
        if point.value is not None
    ]
    joined = [place for place in places if place["alike"]]
    return {
        "line": " ".join(f"{place['x_px']:g},{place['y_px']:g}" for place in joined) if len(joined) > 1 else "",
        "places": places,
        "title": f"{name}: {'; '.join(place['title'] for place in places) or 'not measured'}",
    }


def round_axes(numbers: Sequence[int]) -> dict[str, Any]:
    """What the charts of all classes share: the plot's edges, and the ticks for these rounds and for AP."""
    xs = _xs(len(numbers))
    every = max(1, math.ceil(LABEL_WIDTH / (xs[1] - xs[0]))) if len(xs) > 1 else 1
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "top": TOP,
        "bottom": BOTTOM,
        "x_ticks": [
            {"px": x, "label": str(number)}
            for place, (x, number) in enumerate(zip(xs, numbers, strict=True))
            if (len(xs) - 1 - place) % every == 0
        ],
        "y_ticks": [{"px": _y(tick), "label": f"{tick:g}"} for tick in TICKS],
    }


def _xs(count: int) -> list[float]:
    if count == 1:
        return [round((LEFT + RIGHT) / 2, 1)]
    inset = 10
    width = RIGHT - LEFT - 2 * inset
    return [round(LEFT + inset + index * width / (count - 1), 1) for index in range(count)]


def _y(value: float) -> float:
    return round(BOTTOM - value * (BOTTOM - TOP), 1)
