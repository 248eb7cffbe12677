"""Celery's entry points of this app."""

from annotation.services.deliveries import deliver, forget_old_deliveries, sweep_deliveries
from annotation.services.folders import look_due, run_look
from annotation.services.jobs import run_job, sweep_jobs
from annotation.services.label_imports import run_label_import
from annotation.services.notices import send_mails
from annotation.services.slides import import_staged
from annotation.services.uploads import throw_away_old
from config.tasks import compute_task, short_task


@short_task("jobs.sweep")
def sweep() -> None:
    sweep_jobs()


@short_task("notices.mail")
def mail_notices() -> None:
    send_mails()


@short_task("webhooks.deliver")
def deliver_message(delivery_pk: int) -> None:
    deliver(delivery_pk=delivery_pk)


@short_task("webhooks.sweep")
def sweep_webhooks() -> None:
    sweep_deliveries()


@short_task("uploads.throw_away")
def throw_away_uploads() -> None:
    """What nobody needs any more: uploads that were left, messages of long ago."""
    throw_away_old()
    forget_old_deliveries()


@short_task("folders.look")
def look_into_folders() -> None:
    look_due()


@compute_task("jobs.look")
def look(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=run_look)


@compute_task("jobs.import_slide")
def import_slide(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=import_staged)


@compute_task("jobs.import_labels")
def import_labels(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=run_label_import)
