"""Celery's entry points of this app."""

from annotation.services.jobs import run_job, sweep_jobs
from annotation.services.slides import import_staged
from config.tasks import compute_task, short_task


@short_task("jobs.sweep")
def sweep() -> None:
    sweep_jobs()


@compute_task("jobs.import_slide")
def import_slide(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=import_staged)
