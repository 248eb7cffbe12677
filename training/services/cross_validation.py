"""Cross-validation at patient level: each fold's detector is measured on patients that it has not seen.

One job trains all folds, one after the other. What a fold found is written the moment it is known, so that a job that
was killed, or failed, goes on with the fold that it was in.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from django.db import transaction

from annotation.models import JobKind, Project, User
from annotation.services.events import record
from annotation.services.exports import truth_tiles
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.projects import NotAllowed
from annotation.services.storage import work_dir
from inference.engine.detector import Detections, load_detector
from inference.services.pre_labels import detect_tiles
from training.engine.splits import Indices, TooFewPatients, split_by_patient, validation_split
from training.models import CrossValidation, SnapshotTile
from training.services.evaluations import EVALUATION_SCORE, box_array, figures_of
from training.services.runs import Trained, rows_of, train_tiles
from training.services.snapshots import TILES_OF_ONE_PATIENT, check_no_locked_patient, take_snapshot
from training.services.training_settings import TrainingSettings
from training.services.yolo import Report

MEASURING_SHARE = 0.05  # of a fold's time, about


@transaction.atomic
def start_cross_validation(
    *, project: Project, folds: int, settings: TrainingSettings, user: User | None
) -> CrossValidation:
    """Queue a cross-validation of today's truth. Raises NotAllowed if there are fewer patients than folds."""
    tiles = truth_tiles(project).filter(slide__patient__locked=False)
    patients = tiles.order_by().values("slide__patient").distinct().count()
    if patients < folds:
        fewer = f"choose at most {patients}" if patients >= 2 else "confirm tiles of more patients"
        raise NotAllowed(
            f"{folds} folds need confirmed tiles of at least {folds} patients outside the locked test set; there are "
            f"tiles of {patients}: {fewer}."
        )
    if settings.from_previous:
        raise NotAllowed("The current model has seen these patients: start from scratch or from a weights file.")
    made = CrossValidation.objects.create(project=project, fold_count=folds, settings=asdict(settings))
    made.job = create_job(
        project=project,
        kind=JobKind.CROSS_VALIDATE,
        subject=f"{folds} folds",
        created_by=user,
        cross_validation=made.pk,
    )
    made.save(update_fields=["job"])
    record(project=project, user=user, verb="started", subject=made)
    return made


def run_cross_validation(running: RunningJob) -> dict[str, Any]:
    """The job. Raises JobError with a text for the user, LockedPatient, JobCancelled."""
    found = CrossValidation.objects.select_related("project__taxonomy", "snapshot").get(
        pk=running.job.arguments["cross_validation"]
    )
    with running.alone("detector"):
        rows = _split(running, found)
        for number, fold in enumerate(found.folds):
            if not fold.get("metrics"):
                fold |= _run_fold(running, found, rows, number)
                _keep(running, found)
    values = [fold["metrics"]["map50"] for fold in found.folds if fold["metrics"]["map50"] is not None]
    shown = f"mAP@0.5 {np.mean(values):.3f} on average" if values else "no boxes to test on"
    return {"message": f"{len(found.folds)} folds; {shown}"}


def _split(running: RunningJob, found: CrossValidation) -> list[SnapshotTile]:
    """Freeze the truth and give each patient to a fold, unless an earlier attempt has; returns the snapshot's tiles."""
    settings = settings_of(found)
    snapshot = found.snapshot or take_snapshot(project=found.project, seed=settings.seed)
    check_no_locked_patient(snapshot)
    rows = list(rows_of(snapshot))
    if found.folds:
        return rows
    patients, counts = _facts(rows, found.project.taxonomy.classes.count())
    parts = split_by_patient(patients, counts, folds=found.fold_count, seed=settings.seed)
    if not all(len(part) for part in parts):  # scikit-learn can do that where classes and patients are few
        raise JobError("The patients cannot be spread over so many folds: choose fewer.")
    found.snapshot = snapshot
    found.folds = [
        {
            "patients": sorted({patients[index] for index in part}),
            "tiles": [rows[index].tile_id for index in part.tolist()],
            "boxes": int(counts[part].sum()),
        }
        for part in parts
    ]
    _keep(running, found)
    return rows


def _keep(running: RunningJob, found: CrossValidation) -> None:
    """Write what is known so far, unless another attempt has taken the job over."""
    running.check()
    found.save(update_fields=["snapshot", "folds"])


def settings_of(found: CrossValidation) -> TrainingSettings:
    return TrainingSettings(**found.settings)


def _facts(rows: Sequence[SnapshotTile], classes: int) -> tuple[list[str], Indices]:
    """The patient of each tile, and its boxes per class: int (tiles, classes)."""
    counts = np.zeros((len(rows), max(1, classes)), dtype=np.int64)
    for row, numbers in zip(counts, rows, strict=True):
        np.add.at(row, [box.cell_class.number for box in numbers.annotation.boxes.all()], 1)
    return [row.tile.slide.patient.code for row in rows], counts


def _run_fold(running: RunningJob, found: CrossValidation, rows: Sequence[SnapshotTile], number: int) -> dict[str, Any]:
    """Train on the other folds and measure on this one; returns what the fold gains."""
    held_out = set(found.folds[number]["tiles"])
    test = [row for row in rows if row.tile_id in held_out]
    settings = settings_of(found)
    train, validation = _training_parts([row for row in rows if row.tile_id not in held_out], found, settings.seed)
    report = _reporter(running, number, len(found.folds))
    with work_dir(f"cross-validation-{found.pk}-{number}", resumed=True) as folder:
        try:
            trained = train_tiles(
                running, found.project, settings, train=train, validation=validation, folder=folder, report=report
            )
        except JobError as error:
            raise JobError(f"Fold {number + 1}: {error}", code=error.code) from error
        report(1.0, f"measuring on {len(test)} tiles", None)
        metrics = _measure(running, found, trained, test)
    return {
        "validation": sorted({row.tile.slide.patient.code for row in validation}),
        "trained_tiles": len(train),
        "metrics": metrics,
        **_told(trained),
    }


def _reporter(running: RunningJob, number: int, folds: int) -> Report:
    """What turns a fold's progress into the job's; the folds to come will take as long as this one."""
    started = time.monotonic()

    def report(share: float, text: str, seconds_left: float | None) -> None:
        done = (number + (1 - MEASURING_SHARE) * share) / folds
        if seconds_left is not None:
            seconds_left += (time.monotonic() - started + seconds_left) * (folds - number - 1)
        running.report(done, f"fold {number + 1} of {folds}: {text}", seconds_left=seconds_left)

    return report


def _told(trained: Trained) -> dict[str, Any]:
    ended = trained.outcome
    if ended is None:
        raise RuntimeError("a finder was kept that has seen the patients")
    return {"best_epoch": ended.best_epoch, "last_epoch": ended.last_epoch, "without_box": trained.without_box}


def _training_parts(
    rows: list[SnapshotTile], found: CrossValidation, seed: int
) -> tuple[list[SnapshotTile], list[SnapshotTile]]:
    """The tiles to train on and those to choose the best epoch with, by patient wherever there are enough."""
    patients, counts = _facts(rows, found.project.taxonomy.classes.count())
    try:
        _, chosen = validation_split(patients, counts, seed=seed)
        validation = set(chosen.tolist())
    except TooFewPatients:
        validation = set(range(TILES_OF_ONE_PATIENT - 1, len(rows), TILES_OF_ONE_PATIENT)) or {len(rows) - 1}
    return (
        [row for index, row in enumerate(rows) if index not in validation],
        [row for index, row in enumerate(rows) if index in validation],
    )


def _measure(
    running: RunningJob, found: CrossValidation, trained: Trained, rows: Sequence[SnapshotTile]
) -> dict[str, Any]:
    """What the weights find on the held-out tiles, in the figures of the paper; without the curves' points."""
    image_size = settings_of(found).image_size
    detector = load_detector(trained.weights, classifier=trained.classifier, image_size=image_size, runtime="torch")
    seen: list[Detections] = []
    for _, detections in detect_tiles(detector, [row.tile for row in rows], min_score=EVALUATION_SCORE):
        seen += detections
        running.check()
    classes = list(found.project.taxonomy.classes.all())
    metrics = figures_of(
        classes,
        [row.tile.slide.patient.code for row in rows],
        [box_array(list(row.annotation.boxes.all())) for row in rows],
        seen,
        bootstrap=0,
    ).to_json()
    metrics["classes"] = [row | {"curve": None} for row in metrics["classes"]]
    return metrics
