"""Geometry of one class's precision-recall curve, in pixels, for a template to draw as SVG. Pure Python, no Django."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

WIDTH, HEIGHT = 220, 190
LEFT, RIGHT, TOP, BOTTOM = 34, 212, 10, 150  # of the plot, in px of WIDTH x HEIGHT
TICKS = (0.0, 0.5, 1.0)
HOVERED = 5  # every so many hundredths of recall there is a place to point at


class Place(TypedDict):
    """A place on a curve, and what it says when one points at it."""

    x_px: float
    y_px: float
    title: str


class ClassChart(TypedDict):
    """All that `components/precision_recall.html` draws of one class."""

    line: str
    other_line: str
    at_confidence: Place | None
    places: list[Place]
    title: str


def class_chart(
    curve: Mapping[str, Sequence[float]], *, name: str, confidence: float, other: Mapping[str, Any] | None = None
) -> ClassChart:
    """Lay out a class's curve: precision and scores at the recalls 0, 0.01 .. 1 as far as they are reached.

    confidence: where the curve is marked. other: the same class's curve of another version, drawn behind it.
    """
    precision, scores = curve["precision"], curve["scores"]
    places = [_place(index, precision[index], scores[index]) for index in range(0, len(precision), HOVERED)]
    sure = [index for index, score in enumerate(scores) if score >= confidence]
    at_confidence = _place(sure[-1], precision[sure[-1]], scores[sure[-1]]) if sure else None
    title = f"{name}: no detection is right"
    if precision:
        title = f"{name}: precision {precision[0]:.2f} at the surest, recall {(len(precision) - 1) / 100:.2f} at most"
    return {
        "line": _line(precision),
        "other_line": _line(other["precision"]) if other else "",
        "at_confidence": at_confidence,
        "places": places,
        "title": title if at_confidence is None else f"{title}; at confidence {confidence:g}: {at_confidence['title']}",
    }


def axes() -> dict[str, Any]:
    """What all charts share: the plot's edges and the ticks of both axes."""
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "top": TOP,
        "bottom": BOTTOM,
        "x_ticks": [{"px": _x(tick), "label": f"{tick:g}"} for tick in TICKS],
        "y_ticks": [{"px": _y(tick), "label": f"{tick:g}"} for tick in TICKS],
    }


def _x(recall: float) -> float:
    return round(LEFT + recall * (RIGHT - LEFT), 1)


def _y(precision: float) -> float:
    return round(BOTTOM - precision * (BOTTOM - TOP), 1)


def _place(index: int, precision: float, score: float) -> Place:
    title = f"recall {index / 100:.2f}, precision {precision:.2f}, score {score:.2f}"
    return {"x_px": _x(index / 100), "y_px": _y(precision), "title": title}


def _line(precision: Sequence[float]) -> str:
    """The points of a polyline; where no more is found, it falls to the ground."""
    points = [(_x(index / 100), _y(value)) for index, value in enumerate(precision)]
    if points and len(precision) <= 100:
        points.append((points[-1][0], _y(0.0)))
    return " ".join(f"{x:g},{y:g}" for x, y in points)
