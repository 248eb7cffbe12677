"""Hours to a level, shares of hours, and how sure they are."""

import json

import pytest

from training.simulation.operators import Operators, Work
from training.simulation.results import Estimate, Point, common_levels, hours_share, hours_to_reach, map50_at

HOUR = Operators(key=3599.0, point=0, button=0, mental=0, recognise=0)
PER_KEY = 3599 / 3600  # hours


def point(number: int, keys: int, map50: float) -> Point:
    work = Work(keys=keys)
    return Point(
        round=number,
        assisted=False,
        tiles=10 * number,
        boxes=70 * number,
        work=work,
        map50=map50,
        interval=(map50 - 0.1, map50 + 0.1),
        aps={"basophil": None, "blast": map50},
        batch_tiles=10,
        batch_boxes=70,
        batch_rare=3,
        batch_work=Work(keys=10),
        fates={"kept": 6, "moved": 1, "reclassified": 2, "deleted": 1, "added": 4},
    )


MANUAL = [point(1, 10, 0.2), point(2, 20, 0.4), point(3, 30, 0.5), point(4, 40, 0.5)]


class TestHoursToReach:
    def test_between_rounds_on_a_straight_line(self) -> None:
        assert hours_to_reach(MANUAL, 0.3, HOUR) == pytest.approx(15 * PER_KEY)

    def test_the_first_time_counts(self) -> None:
        falling = [*MANUAL, point(5, 50, 0.3), point(6, 60, 0.5)]
        assert hours_to_reach(falling, 0.5, HOUR) == pytest.approx(30 * PER_KEY)

    def test_what_the_first_model_reaches_costs_the_first_round(self) -> None:
        assert hours_to_reach(MANUAL, 0.1, HOUR) == pytest.approx(10 * PER_KEY)

    def test_none_if_it_is_never_reached(self) -> None:
        assert hours_to_reach(MANUAL, 0.51, HOUR) is None
        assert hours_to_reach([], 0.1, HOUR) is None


def test_map50_at_equal_hours() -> None:
    assert map50_at(MANUAL, 25 * PER_KEY, HOUR) == pytest.approx(0.45)
    assert map50_at(MANUAL, 40 * PER_KEY, HOUR) == pytest.approx(0.5)
    assert map50_at(MANUAL, 9 * PER_KEY, HOUR) is None
    assert map50_at(MANUAL, 41 * PER_KEY, HOUR) is None


class TestHoursShare:
    def test_seed_by_seed_against_the_best_of_the_manual_arm(self) -> None:
        quick = [point(1, 10, 0.2), point(2, 15, 0.6)]
        curves = {"a": {0: MANUAL, 1: MANUAL}, "c": {0: quick, 1: [point(1, 12, 0.5)]}}
        share = hours_share(curves, "c", HOUR)
        assert share.reached == {0: pytest.approx((10 + 5 * 0.75) / 30), 1: pytest.approx(12 / 30)}
        assert share.at_least == {}

    def test_a_seed_that_never_got_there_is_not_left_out_silently(self) -> None:
        share = hours_share({"a": {0: MANUAL}, "c": {0: [point(1, 45, 0.4)]}}, "c", HOUR)
        assert share.reached == {}
        assert share.at_least == {0: pytest.approx(1.5)}
        assert share.to_json()["never_reached_at_least"] == {"0": pytest.approx(1.5)}
        assert share.to_json()["mean"] is None

    def test_where_nothing_was_learned_nothing_is_said(self) -> None:
        nothing = [point(1, 10, 0.0), point(2, 20, 0.0)]
        assert hours_share({"a": {0: nothing}, "c": {0: nothing}}, "c", HOUR).reached == {}

    def test_seeds_that_only_one_arm_has_are_left_out(self) -> None:
        assert hours_share({"a": {0: MANUAL}, "c": {1: MANUAL}}, "c", HOUR).reached == {}

    def test_an_arm_against_itself_is_one(self) -> None:
        assert hours_share({"a": {0: MANUAL}}, "a", HOUR).reached == {0: pytest.approx(1.0)}


class TestEstimate:
    def test_students_t(self) -> None:
        estimate = Estimate([0.4, 0.5, 0.6])
        assert estimate.value == pytest.approx(0.5)
        # t(0.975, 2) = 4.3027 from any table; the standard error is 0.1 / sqrt(3)
        assert estimate.interval == (pytest.approx(0.5 - 0.24842, abs=1e-4), pytest.approx(0.5 + 0.24842, abs=1e-4))

    def test_one_seed_has_no_interval(self) -> None:
        assert (Estimate([0.4]).value, Estimate([0.4]).interval) == (0.4, None)
        assert (Estimate([]).value, Estimate([]).interval) == (None, None)


def test_levels_are_those_that_every_curve_passes() -> None:
    other = [point(1, 10, 0.31), point(2, 20, 0.62)]
    assert common_levels({"a": {0: MANUAL}, "c": {0: other}}) == [0.35, 0.4, 0.45, 0.5]
    assert common_levels({}) == []


def test_a_point_survives_json() -> None:
    one = point(2, 20, 0.4)
    assert Point.of_json(json.loads(json.dumps(one.to_json()))) == one


def test_shares_of_a_batch() -> None:
    one = point(1, 10, 0.2)
    assert one.kept == pytest.approx(0.6)
    assert one.seconds_per_box(Operators(key=7.0)) == pytest.approx(1.0)
