"""The geometry of one class's AP over the rounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.class_chart import BOTTOM, LEFT, RIGHT, TOP, ClassPoint, class_chart, round_axes

values = st.lists(st.none() | st.floats(0, 1), max_size=40)


@given(values=values)
def test_everything_lies_inside_the_axes(values):
    chart = class_chart([ClassPoint(i + 1, value) for i, value in enumerate(values)], name="blast")
    assert len(chart["places"]) == len([value for value in values if value is not None])
    assert all(LEFT < place["x_px"] < RIGHT and TOP <= place["y_px"] <= BOTTOM for place in chart["places"])
    axes = round_axes(list(range(1, len(values) + 1)))
    assert all(LEFT < tick["px"] < RIGHT for tick in axes["x_ticks"])
    if values:
        assert axes["x_ticks"][-1]["label"] == str(len(values))


def test_a_round_in_which_nothing_can_be_said_leaves_a_gap_in_the_places_but_none_in_time():
    chart = class_chart([ClassPoint(1, 0.2), ClassPoint(2, None), ClassPoint(3, 0.6)], name="blast")
    first, last = chart["places"]
    ticks = [tick["px"] for tick in round_axes([1, 2, 3])["x_ticks"]]
    assert (first["x_px"], last["x_px"]) == (ticks[0], ticks[2])
    assert chart["line"] == f"{first['x_px']:g},{first['y_px']:g} {last['x_px']:g},{last['y_px']:g}"
    assert chart["title"] == "blast: Round 1: AP@0.5 0.20; Round 3: AP@0.5 0.60"


def test_what_was_measured_elsewhere_is_not_joined():
    points = [ClassPoint(1, 0.2, alike=False), ClassPoint(2, 0.3), ClassPoint(3, 0.6)]
    chart = class_chart(points, name="blast")
    assert len(chart["line"].split()) == 2
    assert [place["alike"] for place in chart["places"]] == [False, True, True]


@pytest.mark.parametrize("points", [[], [ClassPoint(1, None)]])
def test_a_class_without_a_figure_says_so(points):
    assert class_chart(points, name="blast") == {"line": "", "places": [], "title": "blast: not measured"}
