"""Celery's entry points of this app."""

from annotation.services.exports import run_export
from annotation.services.jobs import RunningJob, run_job
from config.tasks import compute_task, short_task
from inference.models import ModelVersion
from inference.services import model_imports
from inference.services.onnx_files import make_onnx
from training.models import RoundState
from training.selectors import check_tiles, has_test_set, project_check_tiles
from training.services import evaluations, rounds
from training.services.cross_validation import run_cross_validation
from training.services.demo import run_demo
from training.services.refresh import run_refresh
from training.services.schedule import fire_due
from training.services.simulation_job import run_simulation
from training.services.snapshots import facts_of_newest


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
    """Of a round's model, as its last step, or of any version by itself."""

    def work(running: RunningJob) -> dict[str, object]:
        if "version" in running.job.arguments:
            return evaluations.evaluate_alone(running)
        return rounds.step(RoundState.EVALUATING, rounds.evaluate)(running)

    run_job(job_pk=job_pk, function=work)


@compute_task("jobs.import_model")
def import_model(job_pk: int) -> None:
    """Here and not in inference, because the imported version is then measured."""

    def work(running: RunningJob) -> dict[str, object]:
        job = running.job
        with running.alone("detector"):
            version, words = model_imports.import_model(running, project_check_tiles(job.project))
        if has_test_set(job.project):
            evaluations.queue_evaluation(version=version, user=job.created_by)
        return {"model_version": version.pk, "message": words}

    run_job(job_pk=job_pk, function=work)


@compute_task("jobs.export_model")
def export_model(job_pk: int) -> None:
    def work(running: RunningJob) -> dict[str, object]:
        version = ModelVersion.objects.select_related("project").get(pk=running.job.arguments["version"])
        return make_onnx(running, version, check_tiles(version))

    run_job(job_pk=job_pk, function=work)


@compute_task("jobs.refresh")
def refresh(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=run_refresh)


@compute_task("jobs.cross_validate")
def cross_validate(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=run_cross_validation)


@compute_task("jobs.simulate")
def simulate(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=run_simulation)


@compute_task("jobs.export")
def export(job_pk: int) -> None:
    """Here and not in annotation, because the split of a tile is known to snapshots only."""

    def work(running: RunningJob) -> dict[str, object]:
        return run_export(running, facts=facts_of_newest(running.job.project))

    run_job(job_pk=job_pk, function=work)


@compute_task("jobs.demo")
def demo(job_pk: int) -> None:
    run_job(job_pk=job_pk, function=run_demo)


@short_task("schedules.fire")
def fire_schedules() -> None:
    fire_due()
