"""Pre-labels renewed while a batch is read: the head of a two-stage model learns what has been confirmed so far."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import transaction

from annotation.models import Job, JobKind, JobState, User
from annotation.services.events import record
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.projects import NotAllowed
from annotation.services.storage import local_path, work_dir
from inference.models import DetectorKind, ModelVersion
from inference.services.model_exports import make_export
from inference.services.pre_labels import pre_label_batch
from inference.services.registry import current_version, register_version
from training.models import Part, Round, RoundState, Snapshot
from training.services.evaluations import evaluate_version, promote_if_better
from training.services.runs import rows_of, tiles_of, training_tiles
from training.services.snapshots import check_no_locked_patient, take_snapshot
from training.services.stages import finder_snapshot
from training.services.yolo import told

if TYPE_CHECKING:
    from django.db.models import QuerySet

SHARES = {"head": 0.4, "export": 0.6, "evaluation": 0.8}  # of a refresh that are done by then, about


@dataclass(frozen=True)
class _Head:
    """A classifier in a folder that will go away, and its mean accuracy over the classes of the validation part."""

    classifier: Path
    accuracy: float | None


def refreshes_of(round_: Round) -> "QuerySet[Job]":
    """The round's refreshes, the newest first."""
    jobs = Job.objects.filter(project=round_.project_id, kind=JobKind.REFRESH, arguments__round=round_.pk)
    return jobs.order_by("-pk")


def why_not_refresh(round_: Round) -> str:
    """Why the round's pre-labels cannot be renewed now; empty if they can."""
    version = current_version(round_.project)
    if round_.state != RoundState.ANNOTATING or round_.batch is None:
        return f"{round_} is not being annotated."
    if version is None or version.kind != DetectorKind.TWO_STAGE:
        return "Only a two-stage model learns in the middle of a batch; the current model is not one."
    if not round_.batch.tasks.filter(state="submitted").exists():
        return "No tile of this batch is confirmed yet."
    if not round_.batch.tasks.filter(state="open", revision=0).exists():
        return "Every tile of this batch has been begun."
    return ""


@transaction.atomic
def start_refresh(*, round_: Round, user: User | None) -> Job:
    """Queue a refresh; the one that is under way if there is one. Raises NotAllowed."""
    active = refreshes_of(round_).filter(state__in=[JobState.QUEUED, JobState.RUNNING]).first()
    if active is not None:
        return active
    reason = why_not_refresh(round_)
    if reason:
        raise NotAllowed(reason)
    record(project=round_.project, user=user, verb="asked to refresh", subject=round_)
    return create_job(
        project=round_.project, kind=JobKind.REFRESH, subject=str(round_), created_by=user, round=round_.pk
    )


def run_refresh(running: RunningJob) -> dict[str, Any]:
    """The job: retrain the head, measure, and if that is no worse, pre-label what nobody has begun.

    Raises JobError with a text for the user, LockedPatient, JobCancelled.
    """
    round_ = Round.objects.select_related("project__taxonomy", "batch").get(pk=running.job.arguments["round"])
    with running.alone("detector"):
        reason = why_not_refresh(round_)
        if reason or round_.batch is None:
            raise JobError(reason)
        before = current_version(round_.project)
        version = _made_by(running.job) or _make(running, round_, before)
        if version is None:
            return {"message": "nothing has been confirmed that the model does not know"}
        promoted, verdict = _measure(running, version, before)
        if not promoted:
            return {"message": f"{verdict}; the pre-labels stay as they are"}
        new = pre_label_batch(
            batch=round_.batch,
            version=version,
            on_progress=lambda done, total: running.report(
                SHARES["evaluation"] + (1 - SHARES["evaluation"]) * done / total, f"{done} of {total} tiles"
            ),
        )
    return {"message": f"{verdict}; new pre-labels on {new} tiles"}


def _made_by(job: Job) -> ModelVersion | None:
    """The version that an earlier attempt of this job has registered."""
    return job.project.model_versions.filter(config__refresh_job=job.pk).first()


def _make(running: RunningJob, round_: Round, before: ModelVersion | None) -> ModelVersion | None:
    """A version with the same finder and a new head; None if there is nothing new to learn."""
    if before is None:
        raise JobError("There is no current model to refresh.")
    snapshot = take_snapshot(project=round_.project, seed=int(round_.settings.get("seed", 0)))
    check_no_locked_patient(snapshot)
    if snapshot.content_hash == before.snapshot_hash:
        return None
    with work_dir(f"refresh-{running.job.pk}") as folder:
        head = _retrain(running, snapshot, before, folder)
        running.report(SHARES["head"], "exporting for OpenVINO, and measuring the export against torch", at_once=True)
        weights = local_path(before.weights, called=f"the weights of {before}")
        image_size = int(before.config["image_size"])
        export = make_export(
            weights=weights,
            folder=folder / "openvino",
            image_size=image_size,
            tiles=list(tiles_of(snapshot)),
            classifier=head.classifier,
        )
        running.check()
        facts = {
            "refreshed_from": before.number,
            "refresh_job": running.job.pk,
            "accuracy": head.accuracy,
            "finder_snapshot": finder_snapshot(before),
        }
        return register_version(
            project=round_.project,
            weights=weights,
            classifier=head.classifier,
            snapshot_hash=snapshot.content_hash,
            config=before.config | facts,
            export=export,
            user=running.job.created_by,
        )


def _retrain(running: RunningJob, snapshot: Snapshot, before: ModelVersion, folder: Path) -> _Head:
    from training.engine.classifier_head import retrain_head

    classes = list(snapshot.project.taxonomy.classes.all())
    running.report(0.0, "cutting out the cells", at_once=True)
    with told(running):
        path, accuracy = retrain_head(
            local_path(before.classifier, called=f"the classifier of {before}"),
            training_tiles(list(rows_of(snapshot).filter(part=Part.TRAIN))),
            training_tiles(list(rows_of(snapshot).filter(part=Part.VALIDATION))),
            [one.name for one in classes],
            folder / "classifier",
            on_progress=lambda done, total: running.report(SHARES["head"] * done / total, f"{done} of {total} cells"),
            should_stop=lambda: running.should_stop,
            ignored=[one.number for one in classes if one.ignored_in_training],
        )
    return _Head(path, accuracy)


def _measure(running: RunningJob, version: ModelVersion, before: ModelVersion | None) -> tuple[bool, str]:
    """Whether the version is current now, and the numbers in words. Both are measured on today's test set."""
    if version.is_current:
        return True, f"{version} is the current model"
    running.report(SHARES["export"], "measuring on the test set", at_once=True)
    snapshot = version.project.snapshots.filter(content_hash=version.snapshot_hash).first()
    try:
        evaluation = evaluate_version(running, version, snapshot)
        known = evaluate_version(running, before, snapshot) if before else None
    except JobError as error:
        if error.code != "no-truth":
            raise
        raise JobError("There is no confirmed tile to test the new head on.") from error
    promoted = promote_if_better(version=version, evaluation=evaluation, user=running.job.created_by)
    new, old = evaluation.metrics["map50"], known.metrics["map50"] if known else None
    shown = " after ".join(f"{value:.3f}" for value in (new, old) if value is not None) or "not known"
    return promoted, f"{version}, mAP@0.5 {shown}"
