"""The learning curve's geometry: what a reader of the chart would otherwise misread."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.curve_chart import AXES, LABEL_WIDTH, MOST_TICKS, CurvePoint, curve_chart, round_step

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


# Axes to scale


def over(axis: str, *places: float) -> dict:
    fields = {"tiles": "tiles", "boxes": "boxes", "days": "expert_days"}
    points = [CurvePoint(i + 1, 0.5, **{fields[axis]: place}) for i, place in enumerate(places)]
    return curve_chart(points, axis=axis, **SIZE)


@given(places=st.lists(st.floats(0, 1e6), max_size=30).map(sorted), axis=st.sampled_from(["tiles", "boxes", "days"]))
def test_on_an_axis_to_scale_everything_lies_inside_in_its_order(places: list[float], axis: str) -> None:
    chart = over(axis, *places)
    xs = [point["x_px"] for point in chart["points"]]
    assert xs == sorted(xs)
    assert all(chart["left"] <= x <= chart["right"] for x in xs)
    ticks = [tick["px"] for tick in chart["x_ticks"]]
    assert ticks == sorted(set(ticks))
    assert ticks[0] == chart["left"]
    assert ticks[-1] < chart["right"]
    assert 2 <= len(ticks) <= MOST_TICKS + 1
    assert len({tick["label"] for tick in chart["x_ticks"]}) == len(ticks)


@given(places=st.lists(st.floats(0, 1e6), min_size=1, max_size=30).map(sorted))
def test_every_place_of_the_plot_belongs_to_one_point(places: list[float]) -> None:
    chart = over("days", *places)
    bands = sorted((point["band_px"], point["band_width"]) for point in chart["points"])
    assert bands[0][0] == chart["left"]
    assert bands[-1][0] + bands[-1][1] == pytest.approx(chart["right"], abs=0.2)
    for (left, width), (next_left, _) in pairwise(bands):
        assert left + width == pytest.approx(next_left, abs=0.2)
    assert all(
        point["band_px"] - 0.2 <= point["x_px"] <= point["band_px"] + point["band_width"] + 0.2
        for point in chart["points"]
    )


def test_twice_as_many_tiles_lie_twice_as_far_from_zero() -> None:
    chart = over("tiles", 1000, 2000)
    first, second = (point["x_px"] - chart["left"] for point in chart["points"])
    assert second == pytest.approx(2 * first, abs=0.2)
    assert [tick["label"] for tick in chart["x_ticks"]] == ["0", "500", "1,000", "1,500", "2,000"]
    assert chart["x_label"] == "Confirmed tiles"


def test_parts_of_a_day_have_ticks_with_decimals() -> None:
    assert [tick["label"] for tick in over("days", 0.25)["x_ticks"]] == ["0", "0.05", "0.1", "0.15", "0.2", "0.25"]


def test_without_any_time_all_points_stand_at_zero() -> None:
    chart = over("days", 0.0, 0.0)
    assert [point["x_px"] for point in chart["points"]] == [chart["left"]] * 2
    assert [tick["label"] for tick in chart["x_ticks"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("highest", "step"), [(0, 1), (8, 1), (8.1, 2), (16, 2), (17, 5), (41, 10), (0.8, 0.1), (1000, 200), (5e6, 1e6)]
)
def test_ticks_are_round_numbers(highest: float, step: float) -> None:
    assert round_step(highest) == pytest.approx(step)


def test_a_point_that_has_no_place_on_the_axis_is_left_out() -> None:
    points = [CurvePoint(1, 0.5), CurvePoint(2, 0.6, tiles=100)]
    assert [point["label"] for point in curve_chart(points, axis="tiles", **SIZE)["points"]] == ["2"]
    assert len(curve_chart(points, **SIZE)["points"]) == 2


def test_there_is_no_other_axis() -> None:
    assert list(AXES) == ["rounds", "tiles", "boxes", "days"]
    with pytest.raises(KeyError):
        curve_chart([], axis="epochs", **SIZE)


# What a point is


def test_only_points_of_the_same_tiles_and_boxes_are_joined() -> None:
    points = [CurvePoint(1, 0.3, alike=False), CurvePoint(2, 0.4), CurvePoint(3, 0.2, alike=False), CurvePoint(4, 0.5)]
    chart = curve_chart(points, **SIZE)
    _, second, _, last = chart["points"]
    assert chart["line"] == f"{second['x_px']:g},{second['y_px']:g} {last['x_px']:g},{last['y_px']:g}"
    assert "on other tiles or boxes" in chart["points"][0]["title"]
    assert curve_chart(points[2:], **SIZE)["line"] == ""


def test_pre_labels_begin_half_way_between_the_last_manual_and_the_first_assisted_round() -> None:
    modes = [False, False, True, False, True]
    chart = curve_chart([CurvePoint(i + 1, 0.5, assisted=mode) for i, mode in enumerate(modes)], **SIZE)
    before, after = chart["points"][1]["x_px"], chart["points"][2]["x_px"]
    assert chart["assisted_px"] == pytest.approx((before + after) / 2, abs=0.1)


@pytest.mark.parametrize("modes", [[], [True], [False, False], [True, True]])
def test_where_nothing_changes_no_beginning_is_marked(modes: list[bool]) -> None:
    chart = curve_chart([CurvePoint(i + 1, 0.5, assisted=mode) for i, mode in enumerate(modes)], **SIZE)
    assert chart["assisted_px"] is None


def test_the_title_gives_tiles_and_boxes_too() -> None:
    point = CurvePoint(3, 0.6124, expert_hours=4.23, tiles=1250, boxes=1)
    title = curve_chart([point], **SIZE)["points"][0]["title"]
    assert title == "Round 3: mAP@0.5 0.612, 1,250 tiles, 1 box, 4.2 expert-hours so far"
