"""Jobs: created with a row, claimed by a conditional UPDATE, kept alive by a heartbeat, swept when the worker died.

The attempt number is the fence: a worker that lost its row (it was thought dead, and the job was started again) can
no longer write to it.
"""

import errno
import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from annotation.models import Job, JobKind, JobState, Project, User
from annotation.models.job import ACTIVE
from annotation.services.events import record
from annotation.services.notices import tell_job_failed
from annotation.services.patience import AWAY, Patience, StorageError, patience

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5
LOST_AFTER = timedelta(seconds=settings.JOB_LOST_SECONDS)
RESEND_AFTER = timedelta(minutes=10)
MAX_LOSSES = 3
REPORT_SECONDS = 0.5
WAIT_SECONDS = 1.0


class JobError(Exception):
    """A failure with a text for the user; any other exception is shown with its type."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class JobCancelled(Exception):
    """Somebody pressed cancel."""


class JobLost(Exception):
    """The row belongs to another attempt now: stop, and write nothing."""


class RunningJob:
    """What a job's function gets: the row, a way to report, a way to hear that it should stop."""

    def __init__(self, job: Job, patience: Patience | None = None) -> None:
        self.job = job
        self._patience = patience or Patience()
        self._last_report = 0.0
        self._progress = 0.0
        self._noted: dict[str, Any] = {}  # for the heartbeat to show
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name=f"heartbeat-{job.pk}", daemon=True)

    def __enter__(self) -> "RunningJob":
        self._beat.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._beat.join()

    def report(
        self, progress: float, message: str = "", *, seconds_left: float | None = None, at_once: bool = False
    ) -> None:
        """Show progress (0 to 1). Raises JobCancelled or JobLost.

        Reports closer together than 0.5 s are dropped, but for those `at_once`: what begins a longer part.
        """
        if not at_once and time.monotonic() - self._last_report < REPORT_SECONDS:
            return
        self._last_report = time.monotonic()
        self._noted = {}
        self._progress = min(max(progress, 0.0), 1.0)
        self._update(progress=self._progress, message=message, seconds_left=seconds_left)
        self.check()

    def note(self, progress: float, message: str) -> None:
        """`report` from within a transaction: the heartbeat shows it, over its own connection, where that can write.

        The row stays free for others: whoever cancels the job, or asks how it is, does not wait for the transaction.
        Raises JobCancelled or JobLost.
        """
        self._noted = {"progress": min(max(progress, 0.0), 1.0), "message": message}
        self.check()

    def keep_result(self, result: dict[str, Any]) -> None:
        """Write the result, as the last act of a transaction that makes it true. Raises JobCancelled or JobLost.

        The heartbeat with it: where one transaction at a time can write (SQLite), there was none while this one lasted.
        """
        self.check()
        self._update(result=result)

    def _update(self, **fields: Any) -> None:
        if not self._rows().update(heartbeat_at=timezone.now(), **fields):
            raise JobLost

    def check(self) -> None:
        """Raise JobCancelled when somebody asked for it, JobLost when another attempt holds the row."""
        asked = self._rows().values_list("cancel_requested", flat=True).first()
        if asked is None:
            raise JobLost
        if asked:
            raise JobCancelled

    @property
    def should_stop(self) -> bool:
        try:
            self.check()
        except (JobCancelled, JobLost):
            return True
        return False

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Wait until no other job on this machine does `what`; a killed job's hold ends with its process.

        Two trainings at once on the same cores take far longer than one after the other.
        """
        path = Path(settings.DATA_DIR) / f"{what}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self.report(self._progress, "waiting: another job uses the processor")
                    self.check()
                    time.sleep(WAIT_SECONDS)
            yield

    def _rows(self) -> Any:
        return Job.objects.filter(pk=self.job.pk, state=JobState.RUNNING, attempt=self.job.attempt)

    def _keep_alive(self) -> None:
        try:
            while not self._stop.wait(HEARTBEAT_SECONDS):
                try:
                    self._beat_once()
                except Exception:
                    # The next beat tries again; LOST_AFTER leaves room for several.
                    logger.exception("heartbeat of job %s", self.job.pk)
        finally:
            connection.close()

    def _beat_once(self) -> None:
        waits_for = self._patience.text
        shown = self._noted | ({"message": waits_for} if waits_for else {})
        self._rows().update(heartbeat_at=timezone.now(), **shown)
        if waits_for and self.should_stop:
            self._patience.over.set()


@transaction.atomic
def create_job(
    *, project: Project, kind: JobKind, subject: str = "", created_by: User | None = None, **arguments: Any
) -> Job:
    """Queue a job; it is sent to the worker when the transaction commits."""
    job = Job.objects.create(
        project=project, kind=kind, subject=subject[:255], created_by=created_by, arguments=arguments
    )
    send_job(job=job)
    return job


def send_job(*, job: Job) -> None:
    """Send a queued job to the worker on commit. Sent twice, it runs once: claiming is conditional.

    Where the broker is away the job stays queued, and the sweep sends it again: what has been written is no failure.
    """
    Job.objects.filter(pk=job.pk).update(sent_at=timezone.now())
    transaction.on_commit(
        lambda: current_app.send_task(f"jobs.{job.kind}", args=[job.pk], queue="compute"), robust=True
    )


def claim_job(*, job_pk: int) -> Job | None:
    """Take a queued job; None if somebody else has it or it was cancelled."""
    now = timezone.now()
    claimed = Job.objects.filter(pk=job_pk, state=JobState.QUEUED).update(
        state=JobState.RUNNING,
        attempt=F("attempt") + 1,
        started_at=now,
        heartbeat_at=now,
        ended_at=None,
        progress=0.0,
        seconds_left=None,
        message="",
        error_code="",
    )
    return Job.objects.select_related("project", "created_by").get(pk=job_pk) if claimed else None


def run_job(*, job_pk: int, function: Callable[[RunningJob], dict[str, Any] | None]) -> None:
    """Claim the job and run `function`; record done, failed or cancelled. `function` must be safe to run twice."""
    job = claim_job(job_pk=job_pk)
    if job is None:
        return
    with patience() as waiting, RunningJob(job, waiting) as running:
        try:
            result = _run(function, running)
        except JobCancelled:
            _end(job, JobState.CANCELLED, message="cancelled")
        except JobLost:
            logger.warning("job %s was taken over by another attempt", job.pk)
        except JobError as error:
            _end(job, JobState.FAILED, message=str(error), error_code=error.code)
        except Exception as error:
            logger.exception("job %s failed", job.pk)
            _end(job, JobState.FAILED, message=f"{type(error).__name__}: {error}")
        else:
            _end(job, JobState.SUCCEEDED, progress=1.0, result=result or {}, message=(result or {}).get("message", ""))


def _run(function: Callable[[RunningJob], dict[str, Any] | None], running: RunningJob) -> dict[str, Any] | None:
    """What the function returns; what stands in its way on this machine, as a JobError."""
    try:
        return function(running)
    except StorageError as error:
        running.check()  # cancelled, or lost, while it waited
        hint = " Nothing is lost: run it again." if error.code == AWAY else ""
        raise JobError(f"{error}.{hint}", code=error.code) from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise JobError(f"The disk of the worker's machine is full{where}.", code="disk-full") from error


@transaction.atomic
def _end(job: Job, state: JobState, **fields: Any) -> None:
    ended = Job.objects.filter(pk=job.pk, state=JobState.RUNNING, attempt=job.attempt).update(
        state=state, ended_at=timezone.now(), seconds_left=None, **fields
    )
    if ended and state == JobState.FAILED:
        job.refresh_from_db()
        tell_job_failed(job)


@transaction.atomic
def cancel_job(*, job: Job, user: User | None) -> None:
    """Cancel a queued job at once; ask a running one to stop. An ended job stays as it is."""
    now = timezone.now()
    record(project=job.project, user=user, verb="cancelled", subject=job)
    Job.objects.filter(pk=job.pk, state=JobState.QUEUED).update(
        state=JobState.CANCELLED, ended_at=now, message="cancelled"
    )
    Job.objects.filter(pk=job.pk, state=JobState.RUNNING).update(cancel_requested=True)


@transaction.atomic
def retry_job(*, job: Job, user: User | None, **arguments: Any) -> bool:
    """Queue a failed or cancelled job again, with some arguments changed; False if it is not in such a state."""
    changed = Job.objects.filter(pk=job.pk, state__in=[JobState.FAILED, JobState.CANCELLED]).update(
        state=JobState.QUEUED,
        arguments=job.arguments | arguments,
        losses=0,
        cancel_requested=False,
        message="",
        error_code="",
    )
    if changed:
        record(project=job.project, user=user, verb="retried", subject=job)
        send_job(job=job)
    return bool(changed)


def sweep_jobs() -> None:
    """Start lost jobs again, fail those that were lost too often, send queued ones whose message was lost."""
    now = timezone.now()
    lost = Job.objects.filter(state=JobState.RUNNING, heartbeat_at__lt=now - LOST_AFTER)
    lost.filter(cancel_requested=True).update(state=JobState.CANCELLED, ended_at=now, message="cancelled")
    lost.filter(losses__gte=MAX_LOSSES - 1).update(
        state=JobState.FAILED,
        ended_at=now,
        message=f"The worker stopped {MAX_LOSSES} times during this job: it may have run out of memory.",
        error_code="worker-lost",
    )
    lost.update(
        state=JobState.QUEUED, losses=F("losses") + 1, sent_at=None, message="The worker stopped; starting again."
    )
    # Told again by the next sweeps, nobody is told twice; and no stop of this process leaves it untold.
    for job in Job.objects.filter(state=JobState.FAILED, error_code="worker-lost", ended_at__gt=now - RESEND_AFTER):
        tell_job_failed(job)
    unsent = Q(sent_at__isnull=True) | Q(sent_at__lt=now - RESEND_AFTER)
    for job in Job.objects.filter(unsent, state=JobState.QUEUED):
        send_job(job=job)


def requeue_interrupted() -> None:
    """Start again what was running when this machine's only worker stopped. Never call it while a worker is alive."""
    stopped = Job.objects.filter(state=JobState.RUNNING)
    stopped.update(heartbeat_at=timezone.now() - 2 * LOST_AFTER)
    # A stop on purpose is no sign of a job that kills its worker.
    stopped.filter(cancel_requested=False).update(state=JobState.QUEUED, sent_at=None)
    sweep_jobs()


def active_jobs(project: Project) -> Any:
    return project.jobs.filter(state__in=ACTIVE)
