from datetime import UTC, datetime, timedelta

import pytest

from training.models import Round, Schedule, ScheduleMode
from training.schedule_words import next_run_in_words
from training.services.schedule import Standing

NOW = datetime(2026, 3, 4, 20, 0, tzinfo=UTC)  # a Wednesday
ANNOTATING = Standing(Round(number=3), 120, 250, 37, "")
TRAINING = Standing(Round(number=3), 250, 250, 250, "Round 3 is training")
NO_ROUND = Standing(None, 0, 0, 0, "no round is under way")


def said(standing, **fields):
    return next_run_in_words(Schedule(**fields), standing, NOW)


@pytest.mark.parametrize(
    ("hours", "day"),
    [(1, "Today 21:00"), (6, "Tomorrow 02:00"), (30, "Friday 6 Mar 02:00"), (24 * 6 + 6, "Wednesday 11 Mar 02:00")],
)
def test_a_set_time_is_named_by_its_day(hours, day):
    fields = {"mode": ScheduleMode.TIMES, "next_run_at": NOW + timedelta(hours=hours)}
    assert said(ANNOTATING, **fields) == f"{day} (UTC), if at least 1 tile is new: 37 are."


def test_a_time_that_has_passed_waits_for_the_worker():
    fields = {"mode": ScheduleMode.TIMES, "next_run_at": NOW - timedelta(hours=2)}
    assert said(ANNOTATING, **fields) == "Due since today 18:00 (UTC): as soon as the worker runs."


@pytest.mark.parametrize(
    ("standing", "fields", "words"),
    [
        (ANNOTATING, {}, "By hand: a lead closes the round on its page."),
        (ANNOTATING, {"mode": "complete", "paused": True}, "Paused: nothing is closed or started by itself."),
        (ANNOTATING, {"mode": "complete"}, "When every tile of the batch is read: 120 of 250 are."),
        (
            TRAINING,
            {"mode": "complete"},
            "When every tile of the batch is read: 250 of 250 are. Now Round 3 is training.",
        ),
        (NO_ROUND, {"mode": "complete"}, "When every tile of the batch is read. Now no round is under way."),
        (ANNOTATING, {"mode": "tiles", "new_tiles": 50}, "When 50 tiles are new: 37 are."),
        (ANNOTATING, {"mode": "tiles", "new_tiles": 1}, "When 1 tile is new: 37 are."),
        (TRAINING, {"mode": "tiles", "new_tiles": 50}, "When 50 tiles are new: 250 are. Now Round 3 is training."),
        (
            TRAINING,
            {"mode": "times", "next_run_at": NOW + timedelta(hours=1)},
            "Today 21:00 (UTC), if at least 1 tile is new: 250 are. Now Round 3 is training.",
        ),
        (
            NO_ROUND,
            {"mode": "times", "next_run_at": NOW + timedelta(hours=1)},
            "Today 21:00 (UTC), if at least 1 tile is new: none are.",
        ),
        (
            ANNOTATING,
            {"mode": "times", "closed_round": Round(number=3)},
            "The next round is started when Round 3 is done.",
        ),
    ],
)
def test_it_says_what_it_waits_for(standing, fields, words):
    assert said(standing, **fields) == words
