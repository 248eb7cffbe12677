"""Celery's entry points of this app."""

from annotation.services.exports import run_export
from annotation.services.jobs import RunningJob, run_job
from config.tasks import compute_task
from training.models import RoundState
from training.services import rounds
from training.services.demo import run_demo
from training.services.snapshots import parts_of_newest


@compute_task("jobs.select")
def select(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=rounds.step(RoundState.SELECTING, rounds.select))


@compute_task("jobs.pre_label")
def pre_label(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=rounds.step(RoundState.PRE_LABELLING, rounds.pre_label))


@compute_task("jobs.snapshot")
def snapshot(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=rounds.step(RoundState.CLOSING, rounds.snapshot))


@compute_task("jobs.train")
def train(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=rounds.step(RoundState.TRAINING, rounds.train))


@compute_task("jobs.evaluate")
def evaluate(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=rounds.step(RoundState.EVALUATING, rounds.evaluate))


@compute_task("jobs.export")
def export(job_pk: int) -> None:
    """Here and not in annotation, because the split of a tile is known to snapshots only."""

    def work(running: RunningJob) -> dict[str, object]:
        return run_export(running, parts=parts_of_newest(running.job.project))

    run_job(job_pk=job_pk, function=work)


@compute_task("jobs.demo")
def demo(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=run_demo)
