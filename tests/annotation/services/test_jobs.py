"""Jobs: claimed once, kept alive, swept, cancelled, tried again."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotation.models import Event, Job, JobKind, JobState
from annotation.services import jobs
from annotation.services.jobs import (
    LOST_AFTER,
    MAX_LOSSES,
    JobCancelled,
    JobError,
    JobLost,
    RunningJob,
    cancel_job,
    claim_job,
    create_job,
    requeue_interrupted,
    retry_job,
    run_job,
    sweep_jobs,
)
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def sent(monkeypatch):
    """The messages to the worker, instead of a broker."""
    messages = []
    monkeypatch.setattr(
        jobs.current_app, "send_task", lambda name, args, queue: messages.append((name, args, queue)), raising=False
    )
    return messages


def stale(job):
    """The worker of this job died a while ago."""
    Job.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * LOST_AFTER)


def states():
    return list(Job.objects.order_by("pk").values_list("state", flat=True))


# Sending


def test_a_job_is_sent_when_the_transaction_commits(project, sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        job = create_job(project=project, kind=JobKind.EXPORT, subject="COCO", format="coco")
        assert sent == []
    assert sent == [("jobs.export", [job.pk], "compute")]
    assert (job.state, job.arguments) == (JobState.QUEUED, {"format": "coco"})


def test_a_job_whose_transaction_fails_is_never_sent(project, sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        create_job(project=project, kind=JobKind.EXPORT)
        transaction.set_rollback(True)
    assert sent == []
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_where_the_broker_is_away_a_job_is_queued_all_the_same_and_sent_by_the_sweep(monkeypatch, sent):
    working = jobs.current_app.send_task

    def away(*arguments, **options):
        raise OperationalError("no route to the broker")

    monkeypatch.setattr(jobs.current_app, "send_task", away)
    job = create_job(project=factories.make_project(), kind=JobKind.EXPORT)
    assert states() == [JobState.QUEUED]
    Job.objects.update(sent_at=timezone.now() - 2 * jobs.RESEND_AFTER)
    monkeypatch.setattr(jobs.current_app, "send_task", working)
    sweep_jobs()
    assert sent == [("jobs.export", [job.pk], "compute")]


def test_every_kind_of_job_has_its_task():
    from celery import current_app

    current_app.loader.import_default_modules()
    assert {f"jobs.{kind}" for kind in JobKind.values} <= set(current_app.tasks)


# Running


def test_it_keeps_the_result(project):
    job = factories.make_job(project)
    run_job(job_pk=job.pk, function=lambda running: {"message": "7 tiles", "file": "x.zip"})
    job.refresh_from_db()
    assert (job.state, job.progress, job.message, job.result["file"]) == ("succeeded", 1.0, "7 tiles", "x.zip")
    assert job.ended_at >= job.started_at


def test_run_twice_it_runs_once(project):
    job, runs = factories.make_job(project), []
    for _ in range(2):
        run_job(job_pk=job.pk, function=lambda running: runs.append(running))
    assert len(runs) == 1


def test_only_one_of_two_claims_succeeds(project):
    job = factories.make_job(project)
    assert claim_job(job_pk=job.pk).attempt == 1
    assert claim_job(job_pk=job.pk) is None


@pytest.mark.django_db(transaction=True)
def test_claims_at_once_give_the_job_to_one_worker():
    job = factories.make_job(factories.make_project())
    start, claimed = threading.Barrier(6), []

    def claim():
        start.wait()
        try:
            claimed.append(claim_job(job_pk=job.pk))
        finally:
            connection.close()

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one is not None for one in claimed) == [False] * 5 + [True]


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_has_ended_is_not_claimed(project, state):
    assert claim_job(job_pk=factories.make_job(project, state=state).pk) is None


def test_a_job_that_is_gone_is_no_error(project):
    run_job(job_pk=10**9, function=lambda running: pytest.fail("ran"))


def test_a_failure_shows_its_text_and_code(project):
    job = factories.make_job(project)

    def work(running):
        raise JobError("A.svs does not say its pixel size.", code="mpp-missing")

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert (job.state, job.message, job.error_code) == ("failed", "A.svs does not say its pixel size.", "mpp-missing")
    assert job.needs_mpp


def test_any_other_exception_shows_its_type_and_text(project):
    job = factories.make_job(project)
    run_job(job_pk=job.pk, function=lambda running: {}["absent"])
    job.refresh_from_db()
    assert (job.state, job.message) == ("failed", "KeyError: 'absent'")


def test_it_shows_its_progress(project):
    job, seen = factories.make_job(project), []

    def work(running):
        running.report(0.4, "4 of 10 tiles", seconds_left=30)
        seen.append(Job.objects.filter(pk=job.pk).values("state", "progress", "message", "seconds_left").get())

    run_job(job_pk=job.pk, function=work)
    assert seen == [{"state": "running", "progress": 0.4, "message": "4 of 10 tiles", "seconds_left": 30}]


@pytest.mark.parametrize(("told", "shown"), [(-1.0, 0.0), (1.5, 1.0)])
def test_progress_stays_between_0_and_1(project, told, shown):
    running = RunningJob(claim_job(job_pk=factories.make_job(project).pk))
    running.report(told)
    running.job.refresh_from_db()
    assert running.job.progress == shown


def test_reports_that_follow_at_once_are_dropped(project, monkeypatch):
    monkeypatch.setattr(jobs, "REPORT_SECONDS", 3600)
    running = RunningJob(claim_job(job_pk=factories.make_job(project).pk))
    running._last_report = time.monotonic()
    running.report(0.5)
    running.job.refresh_from_db()
    assert running.job.progress == 0


@pytest.mark.django_db(transaction=True)
def test_a_working_job_keeps_its_heartbeat(monkeypatch):
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", 0.01)
    job = factories.make_job(factories.make_project())

    def work(running):
        stale(job)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if Job.objects.get(pk=job.pk).heartbeat_at > timezone.now() - LOST_AFTER:
                return {"message": "alive"}
            time.sleep(0.01)
        return {"message": "dead"}

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert job.message == "alive"


@pytest.mark.django_db(transaction=True)
def test_what_a_job_notes_is_shown_by_its_heartbeat(monkeypatch):
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", 0.01)
    job = factories.make_job(factories.make_project())

    def work(running):
        running.note(0.95, "writing")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            job.refresh_from_db()
            if (job.progress, job.message) == (0.95, "writing"):
                return {"message": "shown"}
            time.sleep(0.01)
        return {"message": "not shown"}

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert job.message == "shown"


def test_a_note_writes_nothing_and_hears_of_a_cancellation(project, django_assert_num_queries):
    job = claim_job(job_pk=factories.make_job(project).pk)
    running = RunningJob(job)
    with django_assert_num_queries(1):
        running.note(0.5, "writing")
    Job.objects.filter(pk=job.pk).update(cancel_requested=True)
    with pytest.raises(JobCancelled):
        running.note(0.6, "writing")
    with pytest.raises(JobCancelled):
        running.keep_result({"tiles": 1})


def test_a_result_is_kept_with_a_fresh_heartbeat_and_only_by_who_holds_the_row(project):
    job = claim_job(job_pk=factories.make_job(project).pk)
    stale(job)
    RunningJob(job).keep_result({"tiles": 1})
    job.refresh_from_db()
    assert job.result == {"tiles": 1}
    assert job.heartbeat_at > timezone.now() - LOST_AFTER
    Job.objects.filter(pk=job.pk).update(attempt=job.attempt + 1)
    with pytest.raises(JobLost):
        RunningJob(job).keep_result({"tiles": 2})


# Losing and finding again


def test_a_job_whose_worker_died_is_queued_again(project, sent, django_capture_on_commit_callbacks):
    job = factories.make_job(project, state=JobState.RUNNING)
    stale(job)
    with django_capture_on_commit_callbacks(execute=True):
        sweep_jobs()
    job.refresh_from_db()
    assert job.state == JobState.QUEUED
    assert sent == [("jobs.export", [job.pk], "compute")]


def test_a_job_with_a_heartbeat_is_left_alone(project, sent):
    job = factories.make_job(project, state=JobState.RUNNING)
    sweep_jobs()
    job.refresh_from_db()
    assert job.state == JobState.RUNNING


def test_a_job_that_killed_its_worker_three_times_fails_with_a_text(project, sent):
    job = factories.make_job(project)
    for _ in range(MAX_LOSSES):
        assert claim_job(job_pk=job.pk) is not None
        stale(job)
        sweep_jobs()
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.FAILED, "worker-lost")
    assert "memory" in job.message


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(project, sent):
    job = factories.make_job(project, state=JobState.RUNNING, cancel_requested=True)
    stale(job)
    sweep_jobs()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_a_queued_job_whose_message_was_lost_is_sent_again(project, sent, django_capture_on_commit_callbacks):
    job = factories.make_job(project)
    with django_capture_on_commit_callbacks(execute=True):
        sweep_jobs()
        sweep_jobs()
    assert [args for _, args, _ in sent] == [[job.pk]]
    Job.objects.filter(pk=job.pk).update(sent_at=timezone.now() - timedelta(hours=1))
    with django_capture_on_commit_callbacks(execute=True):
        sweep_jobs()
    assert len(sent) == 2


def test_what_ran_when_the_machine_stopped_starts_again_without_counting_as_a_crash(project, sent):
    job = factories.make_job(project, state=JobState.RUNNING)
    for _ in range(MAX_LOSSES + 1):
        requeue_interrupted()
        job.refresh_from_db()
        assert (job.state, job.losses) == (JobState.QUEUED, 0)
        claim_job(job_pk=job.pk)


def test_an_interrupted_job_that_was_to_be_cancelled_is_cancelled(project, sent):
    job = factories.make_job(project, state=JobState.RUNNING, cancel_requested=True)
    requeue_interrupted()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def taken_over(project):
    """A job whose first attempt was thought dead, and that a second attempt runs now."""
    first = claim_job(job_pk=factories.make_job(project).pk)
    stale(first)
    sweep_jobs()
    return first, claim_job(job_pk=first.pk)


def test_an_attempt_that_lost_the_row_cannot_report(project, sent):
    first, second = taken_over(project)
    with pytest.raises(JobLost):
        RunningJob(first).report(0.9, "I am still here")
    with pytest.raises(JobLost):
        RunningJob(first).check()
    assert RunningJob(first).should_stop
    second.refresh_from_db()
    assert (second.progress, second.message, second.attempt) == (0.0, "", 2)


def test_an_attempt_that_lost_the_row_cannot_end_it(project, sent):
    job = factories.make_job(project)

    def work(running):
        stale(job)
        sweep_jobs()
        claim_job(job_pk=job.pk)
        return {"message": "too late"}

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert (job.state, job.attempt, job.message, job.result) == (JobState.RUNNING, 2, "", {})


def test_an_attempt_that_hears_of_its_loss_writes_nothing(project, sent):
    job = factories.make_job(project)

    def work(running):
        stale(job)
        sweep_jobs()
        claim_job(job_pk=job.pk)
        running.report(0.5)

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert (job.state, job.progress) == (JobState.RUNNING, 0.0)


# Cancelling and trying again


def test_a_queued_job_is_cancelled_at_once(project):
    job, user = factories.make_job(project), factories.make_user()
    cancel_job(job=job, user=user)
    job.refresh_from_db()
    assert (job.state, job.message) == (JobState.CANCELLED, "cancelled")
    assert claim_job(job_pk=job.pk) is None
    assert Event.objects.get(verb="cancelled").user_name == user.username


def test_a_running_job_hears_that_it_should_stop(project):
    job = factories.make_job(project)

    def work(running):
        cancel_job(job=job, user=None)
        assert running.should_stop
        with pytest.raises(JobCancelled):
            running.check()
        running.report(0.5)
        pytest.fail("went on")

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_an_ended_job_stays_as_it_is(project):
    job = factories.make_job(project, state=JobState.SUCCEEDED)
    cancel_job(job=job, user=None)
    job.refresh_from_db()
    assert (job.state, job.cancel_requested) == (JobState.SUCCEEDED, False)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_failed_can_be_tried_again(project, sent, state, django_capture_on_commit_callbacks):
    job = factories.make_job(
        project, state=state, message="broken", error_code="x", losses=3, cancel_requested=True, arguments={"a": 1}
    )
    with django_capture_on_commit_callbacks(execute=True):
        assert retry_job(job=job, user=None, b=2)
    job.refresh_from_db()
    assert (job.state, job.message, job.error_code, job.losses) == (JobState.QUEUED, "", "", 0)
    assert (job.cancel_requested, job.arguments) == (False, {"a": 1, "b": 2})
    assert len(sent) == 1


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED])
def test_a_job_that_did_not_fail_cannot_be_tried_again(project, sent, state):
    assert not retry_job(job=factories.make_job(project, state=state), user=None)
    assert sent == []


def test_an_attempt_from_before_a_retry_still_cannot_write(project, sent):
    first = claim_job(job_pk=factories.make_job(project).pk)
    Job.objects.filter(pk=first.pk).update(state=JobState.FAILED)
    retry_job(job=first, user=None)
    second = claim_job(job_pk=first.pk)
    with pytest.raises(JobLost):
        RunningJob(first).report(0.9)
    assert second.state == JobState.RUNNING


def test_of_two_jobs_on_one_machine_the_second_waits_its_turn(project, settings):
    first, second = (claim_job(job_pk=factories.make_job(project).pk) for _ in range(2))
    with RunningJob(first).alone("detector"):
        Job.objects.filter(pk=second.pk).update(cancel_requested=True)
        with pytest.raises(JobCancelled), RunningJob(second).alone("detector"):
            pytest.fail("both held it")
    second.refresh_from_db()
    assert "waiting" in second.message
    Job.objects.filter(pk=second.pk).update(cancel_requested=False)
    with RunningJob(second).alone("detector"):
        pass


def test_who_waits_between_two_parts_keeps_its_progress(project):
    first, second = (claim_job(job_pk=factories.make_job(project).pk) for _ in range(2))
    waiting = RunningJob(second)
    waiting.report(0.5, "half")
    with RunningJob(first).alone("detector"):
        Job.objects.filter(pk=second.pk).update(cancel_requested=True)
        with pytest.raises(JobCancelled), waiting.alone("detector"):
            pytest.fail("both held it")
    second.refresh_from_db()
    assert (second.progress, second.message[:7]) == (0.5, "waiting")
