import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.precision_recall_chart import BOTTOM, LEFT, RIGHT, TOP, axes, class_chart


def points(line):
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def curve(*precision, scores=None):
    return {"precision": list(precision), "scores": list(scores or [0.9] * len(precision))}


def test_a_perfect_curve_runs_along_the_top():
    chart = class_chart(curve(*[1.0] * 101), name="blast", confidence=0.25)
    assert points(chart["line"])[0] == (LEFT, TOP)
    assert points(chart["line"])[-1] == (RIGHT, TOP)
    assert chart["title"].startswith("blast: precision 1.00 at the surest, recall 1.00 at most")


def test_a_curve_falls_to_the_ground_where_no_more_is_found():
    chart = class_chart(curve(1.0, 0.5), name="blast", confidence=0.25)
    first, second, end = points(chart["line"])
    assert first[1] == TOP
    assert second[1] == (TOP + BOTTOM) / 2
    assert end == (second[0], BOTTOM)


def test_it_is_marked_where_the_score_falls_to_the_confidence():
    chart = class_chart(curve(1.0, 0.8, 0.6, scores=[0.9, 0.5, 0.1]), name="blast", confidence=0.25)
    assert chart["at_confidence"]["title"] == "recall 0.01, precision 0.80, score 0.50"
    assert class_chart(curve(1.0, scores=[0.1]), name="blast", confidence=0.25)["at_confidence"] is None


def test_a_class_of_which_nothing_is_found_says_so():
    chart = class_chart(curve(), name="blast", confidence=0.25)
    assert (chart["line"], chart["places"], chart["title"]) == ("", [], "blast: no detection is right")


def test_another_versions_curve_is_drawn_too():
    chart = class_chart(curve(1.0), name="blast", confidence=0.25, other=curve(0.5, 0.5))
    assert points(chart["other_line"])[0] == (LEFT, (TOP + BOTTOM) / 2)
    assert class_chart(curve(1.0), name="blast", confidence=0.25)["other_line"] == ""


def test_the_axes_end_where_the_plot_ends():
    shared = axes()
    assert [tick["px"] for tick in shared["x_ticks"]] == [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    assert [tick["px"] for tick in shared["y_ticks"]] == [BOTTOM, (TOP + BOTTOM) / 2, TOP]


@given(st.lists(st.floats(0, 1), max_size=101), st.floats(0, 1))
def test_everything_lies_inside_the_plot(precision, confidence):
    scores = sorted(precision, reverse=True)
    chart = class_chart(curve(*precision, scores=scores), name="blast", confidence=confidence)
    marks = [*points(chart["line"]), *((place["x_px"], place["y_px"]) for place in chart["places"])]
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in marks)
    if chart["at_confidence"]:
        assert chart["at_confidence"]["x_px"] == pytest.approx(
            LEFT + (sum(score >= confidence for score in scores) - 1) / 100 * (RIGHT - LEFT), abs=0.06
        )
