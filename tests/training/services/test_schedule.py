"""The schedule: fires when it should, once, and says why when it does not."""

import threading
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import ModelEntry

from annotation.models import BatchState, Event, Job, JobKind, JobState, Notice, NoticeKind, Role
from annotation.services import jobs
from annotation.services.annotations import skip
from config.celery import app
from tests import factories
from training.models import Mode, Round, RoundState, Schedule, ScheduleMode
from training.services import schedule as service
from training.services.rounds import close_round, settings_of
from training.services.schedule import (
    ScheduleSettings,
    change_schedule,
    fire_due,
    new_tiles,
    next_time,
    pause_schedule,
    schedule_of,
    standing_of,
)
from training.services.snapshots import take_snapshot
from training.tasks import fire_schedules

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 4, 20, 0, tzinfo=UTC)  # a Wednesday
NIGHT = datetime(2026, 3, 5, 2, 0, tzinfo=UTC)
NIGHTLY = ScheduleSettings(mode=ScheduleMode.TIMES, at=time(2, 0))


@pytest.fixture
def project():
    return factories.make_project(lead=factories.make_user())


def annotating(project, *, read=2, **fields):
    """A round with a batch of nine tiles, some of them read."""
    round_ = factories.make_round(project, batch=factories.make_batch(project), **fields)
    reader = factories.make_member(project)
    for task in round_.batch.tasks.all()[:read]:
        factories.submit_task(task, reader, (0, 10, 20, 30, 40))
    return round_


def set_up(project, settings, now=NOW):
    return change_schedule(project=project, settings=settings, user=None, now=now)


def fire(project, now):
    """What a look at this time did: how many schedules fired, and what this one says of it."""
    fired = fire_due(now=now)
    return fired, schedule_of(project).last_outcome


def state_of(round_):
    return Round.objects.get(pk=round_.pk).state


def end(round_, state=RoundState.DONE):
    Round.objects.filter(pk=round_.pk).update(state=state)


# ---- set times ----


def test_at_the_set_time_the_round_is_closed_and_trained(project):
    round_ = annotating(project)
    set_up(project, NIGHTLY)
    assert fire(project, NIGHT - timedelta(minutes=1)) == (0, "")
    fired, outcome = fire(project, NIGHT + timedelta(seconds=20))
    assert (fired, outcome) == (1, "Round 1 was closed, with 2 of 9 tiles read and 2 new ones to train on.")
    assert state_of(round_) == RoundState.CLOSING
    assert Job.objects.get().kind == JobKind.SNAPSHOT
    round_.batch.refresh_from_db()
    assert round_.batch.state == BatchState.CLOSED
    assert Event.objects.filter(verb="schedule fired").count() == 1
    assert schedule_of(project).next_run_at == NIGHT + timedelta(days=1)


def test_nights_that_were_missed_run_once(project):
    round_ = annotating(project)
    set_up(project, NIGHTLY)
    back = NIGHT + timedelta(days=3, hours=7)
    assert fire(project, back)[0] == 1
    assert state_of(round_) == RoundState.CLOSING
    end(round_)
    second = annotating(project, number=2)
    for minutes in range(1, 60):
        assert fire_due(now=back + timedelta(minutes=minutes)) == 0
    assert state_of(second) == RoundState.ANNOTATING
    assert schedule_of(project).next_run_at == NIGHT + timedelta(days=4)


def test_nights_of_a_pause_are_not_made_up_for(project):
    round_ = annotating(project)
    set_up(project, NIGHTLY)
    pause_schedule(project=project, paused=True, user=None, now=NOW)
    assert fire_due(now=NIGHT + timedelta(days=2)) == 0
    pause_schedule(project=project, paused=False, user=None, now=NIGHT + timedelta(days=2, hours=8))
    assert fire_due(now=NIGHT + timedelta(days=2, hours=9)) == 0
    assert state_of(round_) == RoundState.ANNOTATING
    assert fire_due(now=NIGHT + timedelta(days=3)) == 1
    assert state_of(round_) == RoundState.CLOSING


def test_a_paused_schedule_stays_paused_when_it_is_changed(project):
    annotating(project)
    pause_schedule(project=project, paused=True, user=None)
    set_up(project, NIGHTLY)
    assert fire_due(now=NIGHT) == 0
    assert (schedule_of(project).paused, schedule_of(project).next_run_at) == (True, None)


def test_nothing_new_is_nothing_done(project):
    first = annotating(project)
    end(first)
    Round.objects.filter(pk=first.pk).update(snapshot=take_snapshot(project=project, seed=0))
    second = factories.make_round(project, number=2, batch=factories.make_batch(project))
    first_batch_task = first.batch.tasks.first()
    # Submitted, but without truth of its own: as where readers still have to agree.
    second.batch.tasks.filter(pk=second.batch.tasks.first().pk).update(state="submitted")
    assert first_batch_task.tile.truth is not None
    set_up(project, NIGHTLY)
    fired, outcome = fire(project, NIGHT)
    assert (fired, outcome) == (1, "Nothing was done: no tile has been confirmed since the last training.")
    assert state_of(second) == RoundState.ANNOTATING


@pytest.mark.parametrize("state", [RoundState.SELECTING, RoundState.TRAINING, RoundState.EVALUATING])
def test_a_round_that_is_not_being_annotated_is_left_alone(project, state):
    round_ = annotating(project)
    end(round_, state)
    set_up(project, NIGHTLY)
    assert fire(project, NIGHT)[1] == f"Nothing was done: Round 1 is {state.label}."
    assert state_of(round_) == state


def test_a_round_that_stopped_is_left_alone(project):
    job = factories.make_job(project, kind=JobKind.TRAIN, state=JobState.FAILED)
    annotating(project, job=job)
    Round.objects.update(state=RoundState.TRAINING)
    set_up(project, NIGHTLY)
    assert fire(project, NIGHT)[1] == "Nothing was done: Round 1 stopped while training."


def test_without_a_round_nothing_is_done(project):
    end(annotating(project), RoundState.CANCELLED)
    set_up(project, NIGHTLY)
    assert fire(project, NIGHT)[1] == "Nothing was done: no round is under way."


def test_a_batch_of_which_nothing_is_read_is_left_alone(project):
    annotating(project, read=0)
    factories.make_truth(factories.make_tile(project), (0, 10, 20, 30, 40))
    set_up(project, NIGHTLY)
    assert fire(project, NIGHT)[1] == "Nothing was done: no tile of Round 1 is confirmed yet."


def test_a_schedule_by_hand_never_fires(project):
    annotating(project, read=9)
    set_up(project, NIGHTLY)
    set_up(project, ScheduleSettings(), now=NIGHT)
    assert fire_due(now=NIGHT + timedelta(days=1)) == 0
    assert schedule_of(project).next_run_at is None


def test_a_project_without_a_schedule_is_trained_by_hand(project):
    assert schedule_of(project).mode == ScheduleMode.BY_HAND
    assert not Schedule.objects.exists()


def test_a_project_that_was_removed_takes_its_schedule_along():
    project = factories.make_project()
    set_up(project, NIGHTLY)
    Event.objects.all()._raw_delete("default")
    project.delete()
    assert fire_due(now=NIGHT) == 0


@pytest.mark.parametrize(
    ("weekdays", "after", "wanted"),
    [
        ("1234567", datetime(2026, 3, 4, 1, 59), datetime(2026, 3, 4, 2)),
        ("1234567", datetime(2026, 3, 4, 2, 0), datetime(2026, 3, 5, 2)),
        ("3", datetime(2026, 3, 4, 2, 0), datetime(2026, 3, 11, 2)),
        ("67", datetime(2026, 3, 4, 20, 0), datetime(2026, 3, 7, 2)),
        ("1", datetime(2026, 12, 30, 20, 0), datetime(2027, 1, 4, 2)),
    ],
)
def test_the_next_set_time(weekdays, after, wanted):
    assert next_time(time(2, 0), weekdays, after.replace(tzinfo=UTC)) == wanted.replace(tzinfo=UTC)


def test_the_night_that_lacks_an_hour_and_the_one_that_has_it_twice(settings):
    settings.TIME_ZONE = "Europe/Berlin"
    timezone.get_default_timezone.cache_clear()
    berlin = ZoneInfo("Europe/Berlin")
    try:
        times = [datetime(2026, 3, 28, 12, 0, tzinfo=berlin), datetime(2026, 10, 24, 12, 0, tzinfo=berlin)]
        for noon, nights in zip(times, ([29, 30], [25, 26]), strict=True):
            found = next_time(time(2, 30), "1234567", noon)
            after = next_time(time(2, 30), "1234567", found)
            assert [found.astimezone(berlin).day, after.astimezone(berlin).day] == nights
    finally:
        timezone.get_default_timezone.cache_clear()


# ---- complete, and so many new tiles ----


def test_a_complete_batch_closes_its_round(project):
    round_ = annotating(project, read=7)
    set_up(project, ScheduleSettings(mode=ScheduleMode.COMPLETE))
    assert fire_due(now=NOW) == 0
    reader = factories.make_member(project)
    unread, last = round_.batch.tasks.filter(state="open")
    skip(task=unread, user=reader, reason="out of focus")
    assert fire_due(now=NOW) == 0
    factories.submit_task(last, reader)
    assert fire_due(now=NOW) == 1
    assert state_of(round_) == RoundState.CLOSING
    assert fire_due(now=NOW) == 0


def test_a_batch_of_which_all_is_skipped_does_not_close_its_round(project):
    round_ = annotating(project, read=0)
    for task in round_.batch.tasks.all():
        skip(task=task, user=factories.make_member(project), reason="out of focus")
    set_up(project, ScheduleSettings(mode=ScheduleMode.COMPLETE))
    assert fire_due(now=NOW) == 0


def test_so_many_new_tiles_close_the_round(project):
    round_ = annotating(project, read=4)
    set_up(project, ScheduleSettings(mode=ScheduleMode.NEW_TILES, new_tiles=5))
    assert fire(project, NOW) == (0, "")
    factories.submit_task(round_.batch.tasks.filter(state="open").first(), factories.make_member(project))
    assert fire_due(now=NOW) == 1
    assert state_of(round_) == RoundState.CLOSING


def test_new_are_the_tiles_that_the_last_finished_round_was_not_trained_on(project):
    round_ = annotating(project, read=4)
    locked = factories.make_slide(project, patient=factories.make_patient(project, locked=True), tiles=1)
    factories.make_truth(locked.tiles.get())
    assert new_tiles(project) == 4
    end(round_)
    Round.objects.update(snapshot=take_snapshot(project=project, seed=0))
    assert new_tiles(project) == 0
    corrected = round_.batch.tasks.filter(state="submitted").first()
    factories.submit_task(corrected, factories.make_member(project))
    factories.make_truth(factories.make_tile(project))
    assert new_tiles(project) == 2
    # What a round that was given up would have been trained on is still new.
    given_up = take_snapshot(project=project, seed=1)
    factories.make_round(project, number=2, state=RoundState.CANCELLED, snapshot=given_up)
    assert new_tiles(project) == 2


# ---- the next round ----


def test_the_next_round_is_started_when_the_closed_one_is_done(project):
    round_ = annotating(project)
    set_up(project, ScheduleSettings(mode=ScheduleMode.TIMES, at=time(2), start_next=True))
    fire_due(now=NIGHT)
    assert fire_due(now=NIGHT + timedelta(minutes=1)) == 0  # it is training
    end(round_)
    fired, outcome = fire(project, NIGHT + timedelta(hours=1))
    assert (fired, outcome) == (1, "Round 2 was started after Round 1 was done.")
    second = project.rounds.get(number=2)
    assert (second.state, second.mode, settings_of(second)) == (RoundState.SELECTING, "manual", settings_of(round_))
    assert schedule_of(project).next_run_at == NIGHT + timedelta(days=1)
    assert fire_due(now=NIGHT + timedelta(hours=2)) == 0


def test_the_next_round_takes_the_selection_of_its_mode(project):
    factories.make_version(project, current=True)
    for number in (1, 2):
        factories.make_round(project, number=number, state=RoundState.DONE)
    manual = factories.make_round(project, number=3, state=RoundState.DONE, settings={"size": 7, "strategy": "random"})
    Schedule.objects.create(project=project, mode=ScheduleMode.COMPLETE, start_next=True, closed_round=manual)
    fire_due(now=NOW)
    found = project.rounds.get(number=4)
    assert (found.mode, found.settings["strategy"], found.settings["size"]) == (Mode.ASSISTED, "rare", 7)


def test_the_next_round_is_released_by_itself(project):
    settings = {"size": 7, "strategy": "uncertain", "hold": True}
    before = factories.make_round(project, state=RoundState.DONE, settings=settings)
    Schedule.objects.create(project=project, mode=ScheduleMode.COMPLETE, start_next=True, closed_round=before)
    fire_due(now=NOW)
    found = settings_of(project.rounds.get(number=2))
    assert (found.hold, found.strategy, found.size) == (False, "uncertain", 7)


def test_without_the_option_no_round_is_started(project):
    round_ = annotating(project)
    set_up(project, NIGHTLY)
    fire_due(now=NIGHT)
    end(round_)
    assert fire_due(now=NIGHT + timedelta(hours=1)) == 0
    assert project.rounds.count() == 1


def test_after_a_cancelled_round_none_is_started(project):
    round_ = annotating(project)
    set_up(project, ScheduleSettings(mode=ScheduleMode.TIMES, at=time(2), start_next=True))
    fire_due(now=NIGHT)
    end(round_, RoundState.CANCELLED)
    outcome = fire(project, NIGHT + timedelta(hours=1))[1]
    assert outcome == "Round 1 was cancelled, so the next round was not started."
    assert project.rounds.count() == 1


def test_a_round_that_the_lead_has_started_meanwhile_stays_the_only_one(project):
    round_ = annotating(project)
    set_up(project, ScheduleSettings(mode=ScheduleMode.TIMES, at=time(2), start_next=True))
    fire_due(now=NIGHT)
    end(round_)
    factories.make_round(project, number=2)
    assert fire(project, NIGHT + timedelta(hours=1))[1].startswith("The next round was not started: A round is under")
    assert project.rounds.count() == 2
    assert schedule_of(project).closed_round is None


def test_taking_the_option_back_starts_no_round(project):
    round_ = annotating(project)
    set_up(project, ScheduleSettings(mode=ScheduleMode.TIMES, at=time(2), start_next=True))
    fire_due(now=NIGHT)
    set_up(project, NIGHTLY, now=NIGHT)
    end(round_)
    assert fire_due(now=NIGHT + timedelta(hours=1)) == 0


# ---- once, and in any weather ----


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", [ScheduleMode.TIMES, ScheduleMode.COMPLETE, ScheduleMode.NEW_TILES])
def test_of_two_workers_that_fire_at_once_one_closes_the_round(monkeypatch, mode):
    monkeypatch.setattr(jobs, "send_job", lambda job: None)
    project = factories.make_project()
    round_ = annotating(project, read=9)
    set_up(project, ScheduleSettings(mode=mode, new_tiles=3))
    looked = threading.Barrier(4)
    is_due = service._is_due

    def all_see_it_due(schedule, now):
        due = is_due(schedule, now)
        looked.wait(timeout=60)
        return due

    monkeypatch.setattr(service, "_is_due", all_see_it_due)
    fired = []

    def work():
        try:
            fired.append(fire_due(now=NIGHT))
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fired) == [0, 0, 0, 1]
    assert Job.objects.filter(kind=JobKind.SNAPSHOT).count() == 1
    assert state_of(round_) == RoundState.CLOSING
    assert schedule_of(project).last_outcome.startswith("Round 1 was closed")


def test_a_schedule_that_was_changed_meanwhile_does_not_fire(project, monkeypatch):
    round_ = annotating(project)
    set_up(project, NIGHTLY)
    is_due = service._is_due

    def changed_meanwhile(schedule, now):
        due = is_due(schedule, now)
        set_up(project, ScheduleSettings(), now=now)
        return due

    monkeypatch.setattr(service, "_is_due", changed_meanwhile)
    assert fire_due(now=NIGHT) == 0
    assert state_of(round_) == RoundState.ANNOTATING


def test_a_round_that_the_lead_closes_at_the_same_moment_is_closed_once(project, monkeypatch):
    round_ = annotating(project)
    set_up(project, NIGHTLY)
    standing = service.standing_of

    def closed_meanwhile(project):
        found = standing(project)
        close_round(round_=Round.objects.get(pk=round_.pk), user=None)
        return found

    monkeypatch.setattr(service, "standing_of", closed_meanwhile)
    assert fire(project, NIGHT)[1] == "Nothing was done: Round 1 is not being annotated."
    assert Job.objects.filter(kind=JobKind.SNAPSHOT).count() == 1


def test_an_error_is_told_once_and_stops_no_other_project(project, monkeypatch):
    broken, sound = annotating(project), annotating(factories.make_project())
    for round_ in (broken, sound):
        set_up(round_.project, NIGHTLY)
    close = service.close_round

    def breaks(*, round_, user):
        if round_ == broken:
            Round.objects.filter(pk=round_.pk).update(number=99)
            raise ZeroDivisionError("division by zero")
        close(round_=round_, user=user)

    monkeypatch.setattr(service, "close_round", breaks)
    assert fire_due(now=NIGHT) == 1
    assert state_of(sound) == RoundState.CLOSING
    found = Round.objects.get(pk=broken.pk)
    assert (found.state, found.number) == (RoundState.ANNOTATING, 1)  # what it had begun was undone
    assert schedule_of(project).last_outcome == "Stopped by an error: ZeroDivisionError: division by zero"
    assert fire_due(now=NIGHT + timedelta(minutes=1)) == 0
    notice = Notice.objects.get(kind=NoticeKind.RUN_FAILED)
    assert notice.user == project.memberships.get(role=Role.LEAD).user
    assert "ZeroDivisionError" in notice.text


def test_a_schedule_at_set_times_always_has_a_next_one(project):
    with pytest.raises(IntegrityError, match="a_set_time_comes_next"), transaction.atomic():
        Schedule.objects.create(project=project, mode=ScheduleMode.TIMES)


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"new_tiles": 0}, "a_schedule_waits_for_a_tile"), ({"weekdays": ""}, "a_schedule_has_a_weekday")],
)
def test_a_schedule_that_cannot_be_is_refused(project, fields, name):
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        Schedule.objects.create(project=project, **fields)


def test_changes_are_in_the_log(project):
    lead = factories.make_user()
    change_schedule(project=project, settings=NIGHTLY, user=lead)
    pause_schedule(project=project, paused=True, user=lead)
    pause_schedule(project=project, paused=True, user=lead)
    events = Event.objects.filter(user=lead).order_by("pk")
    assert [event.verb for event in events] == ["changed schedule", "paused"]
    assert events[0].data["at"] == "02:00"


def test_the_standing_counts_what_is_read_and_what_is_new(project):
    round_ = annotating(project, read=3)
    found = standing_of(project)
    assert (found.round, found.done, found.total, found.new_tiles, found.obstacle) == (round_, 3, 9, 3, "")


# ---- beat ----


def test_beat_looks_every_minute_and_once_after_a_long_stop():
    """The clock is django-celery-beat's: what it missed while it was off, it makes up for by one look."""
    made = ModelEntry.from_entry("fire-schedules", app=app, **app.conf.beat_schedule["fire-schedules"])
    assert made.task == fire_schedules.name
    row = PeriodicTask.objects.get(name="fire-schedules")
    assert (row.interval.every, row.interval.period) == (60, "seconds")
    row.last_run_at = timezone.now() - timedelta(days=3)
    entry = ModelEntry(row, app=app)
    assert entry.is_due().is_due
    assert not next(entry).is_due().is_due
