"""The learning curve's geometry: what a reader of the chart would otherwise misread."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.curve_chart import LABEL_WIDTH, CurvePoint, curve_chart

SIZE = {"width": 960, "height": 320}


@st.composite
def curve_points(draw: st.DrawFn) -> list[CurvePoint]:
    triples = draw(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted), max_size=60))
    return [CurvePoint(i + 1, value, low, high) for i, (low, value, high) in enumerate(triples)]


@given(points=curve_points())
def test_everything_lies_inside_the_axes(points: list[CurvePoint]) -> None:
    chart = curve_chart(points, **SIZE)
    assert len(chart["points"]) == len(points)
    for point in chart["points"]:
        assert chart["left"] < point["x_px"] < chart["right"]
        assert chart["top"] <= point["high_px"] <= point["y_px"] <= point["low_px"] <= chart["bottom"]
    for tick in chart["y_ticks"]:
        assert chart["top"] <= tick["px"] <= chart["bottom"]


@given(points=curve_points())
def test_the_axis_ends_on_ticks_and_spans_at_least_three_tenths(points: list[CurvePoint]) -> None:
    chart = curve_chart(points, **SIZE)
    ticks = chart["y_ticks"]
    assert (ticks[0]["px"], ticks[-1]["px"]) == (chart["bottom"], chart["top"])
    lowest, highest = float(ticks[0]["label"]), float(ticks[-1]["label"])
    assert lowest >= 0
    assert highest <= 1
    assert highest - lowest >= 0.3 - 1e-9
    assert len({tick["label"] for tick in ticks}) == len(ticks)


@given(points=curve_points())
def test_shown_labels_do_not_overlap_and_the_newest_is_shown(points: list[CurvePoint]) -> None:
    shown = [point for point in curve_chart(points, **SIZE)["points"] if point["show_value"]]
    gaps = [right["x_px"] - left["x_px"] for left, right in pairwise(shown)]
    # Positions are rounded to a tenth of a pixel.
    assert all(gap >= LABEL_WIDTH - 2 for gap in gaps)
    if points:
        assert shown[-1]["label"] == str(points[-1].round_number)


def test_no_point_gives_empty_axes_over_the_whole_scale() -> None:
    chart = curve_chart([], **SIZE)
    assert (chart["points"], chart["line"], chart["x_ticks"]) == ([], "", [])
    assert [tick["label"] for tick in chart["y_ticks"]] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]


def test_one_point_stands_in_the_middle_without_a_line() -> None:
    chart = curve_chart([CurvePoint(1, 0.5, 0.4, 0.6)], **SIZE)
    assert chart["line"] == ""
    assert chart["points"][0]["x_px"] == (chart["left"] + chart["right"]) / 2
    assert [tick["label"] for tick in chart["x_ticks"]] == ["1"]


def test_a_value_halfway_up_the_axis_is_drawn_halfway_up() -> None:
    chart = curve_chart([CurvePoint(1, 0.2), CurvePoint(2, 0.35), CurvePoint(3, 0.5)], **SIZE)
    assert [tick["label"] for tick in chart["y_ticks"]] == ["0.2", "0.3", "0.4", "0.5"]
    first, middle, last = (point["y_px"] for point in chart["points"])
    assert (first, middle, last) == (chart["bottom"], (chart["top"] + chart["bottom"]) / 2, chart["top"])


def test_the_line_visits_the_points_in_order() -> None:
    chart = curve_chart([CurvePoint(1, 0.2), CurvePoint(2, 0.5)], **SIZE)
    first, last = chart["points"]
    assert chart["line"] == f"{first['x_px']:g},{first['y_px']:g} {last['x_px']:g},{last['y_px']:g}"


def test_a_point_without_interval_has_no_whisker() -> None:
    point = curve_chart([CurvePoint(1, 0.5)], **SIZE)["points"][0]
    assert not point["has_interval"]
    assert point["low_px"] == point["high_px"] == point["y_px"]


def test_the_title_gives_value_interval_and_hours() -> None:
    chart = curve_chart([CurvePoint(3, 0.6124, 0.58, 0.641, expert_hours=4.23)], **SIZE)
    assert chart["points"][0]["title"] == "Round 3: mAP@0.5 0.612 (0.580 to 0.641), 4.2 expert-hours so far"


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (CurvePoint(2, 0.5, low=0.4), "both its ends"),
        (CurvePoint(2, 0.5, low=0.6, high=0.7), "round 2"),
        (CurvePoint(2, 1.2), "round 2"),
        (CurvePoint(2, float("nan")), "round 2"),
    ],
)
def test_it_rejects_values_that_are_no_map_with_interval(point: CurvePoint, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        curve_chart([point], **SIZE)


def test_it_rejects_an_image_too_small_for_the_axes() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        curve_chart([], width=100, height=320)
