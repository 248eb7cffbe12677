"""What a model version is worth: measured on the locked test set, kept as a row, decisive for which one is current."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from django.db import IntegrityError, transaction

from annotation.models import CellClass, Job, JobKind, Tile, User
from annotation.services.events import record
from annotation.services.exports import truth_tiles
from annotation.services.jobs import JobError, RunningJob, create_job
from inference.engine.detector import Detections
from inference.models import ModelVersion
from inference.services.pre_labels import detect_tiles
from inference.services.registry import current_version, detector_of, make_current
from training.engine.errors import worst_errors
from training.engine.metrics import Evaluation as Figures
from training.engine.metrics import evaluate, every_class
from training.models import Evaluation, Part, Snapshot
from training.selectors import evaluation_job, snapshot_of
from training.services.snapshots import truth_boxes, truth_hash

EVALUATION_SCORE = 0.01  # low, so that the precision-recall curve has its tail
ERRORS_KEPT = 24  # of each kind
SCORE_DECIMALS = 4


def box_array(boxes: list) -> np.ndarray:  # type: ignore[type-arg]
    """float64 (n, 5): class number, x, y, width, height in tile px."""
    rows = [(box.cell_class.number, box.x, box.y, box.width, box.height) for box in boxes]
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def test_tiles(version: ModelVersion, snapshot: Snapshot | None) -> tuple[Part, list[Tile]]:
    """The locked patients' tiles with truth; while there are none, the validation part of the snapshot."""
    locked = list(truth_tiles(version.project).filter(slide__patient__locked=True))
    if locked or snapshot is None:
        return Part.TEST, locked
    held_out = snapshot.tiles.filter(part=Part.VALIDATION).values("tile")
    return Part.VALIDATION, list(truth_tiles(version.project).filter(pk__in=held_out))


def evaluate_version(running: RunningJob, version: ModelVersion, snapshot: Snapshot | None) -> Evaluation:
    """Measure a version on the locked test set. Raises JobError if there is no tile to measure on."""
    part, tiles = test_tiles(version, snapshot)
    if not tiles:
        raise JobError("There is no confirmed tile to test on.", code="no-truth")
    digest = truth_hash(tiles, [part] * len(tiles))
    known = version.evaluations.filter(part=part, truth_hash=digest).first()
    if known is not None:
        return known
    tiles.sort(key=lambda tile: (tile.slide_id, tile.pk))
    found: list[Detections] = []
    for _, detections in detect_tiles(detector_of(version), tiles, min_score=EVALUATION_SCORE):
        found += detections
        running.report(0.9 * len(found) / len(tiles), f"{len(found)} of {len(tiles)} tiles")
    truths = [box_array(truth_boxes(tile)) for tile in tiles]
    return _keep(
        model_version=version,
        part=part,
        truth_hash=digest,
        tiles=len(tiles),
        boxes=sum(map(len, truths)),
        patients=len({tile.slide.patient_id for tile in tiles}),
        metrics=_metrics(list(version.taxonomy.classes.all()), tiles, truths, found),
    )


def evaluate_to_compare(running: RunningJob, version: ModelVersion, snapshot: Snapshot | None) -> Evaluation:
    """Measure a version and, on the locked test set, the current one too, where that is not yet known.

    On the validation part the current one is not measured: it may have learned from it. Raises JobError as
    `evaluate_version` does.
    """
    evaluation = evaluate_version(running, version, snapshot)
    current = current_version(version.project)
    if current is not None and current.pk != version.pk and evaluation.part == Part.TEST:
        evaluate_version(running, current, snapshot)
    return evaluation


def figures_of(
    classes: Sequence[CellClass],
    patients: Sequence[str],
    truths: Sequence[np.ndarray],
    found: Sequence[Detections],
    *,
    bootstrap: int = 200,
) -> Figures:
    """The figures of `training.engine.metrics` for the detections of tiles, at least EVALUATION_SCORE each."""
    return evaluate(
        truths,
        found,
        [one.name for one in classes],
        patients,
        ranked=[every_class(one.boxes, one.class_scores, floor=EVALUATION_SCORE) for one in found],
        ignored=_ignored(classes),
        bootstrap=bootstrap,
    )


def _ignored(classes: Sequence[CellClass]) -> list[int]:
    return [one.number for one in classes if one.ignored_in_training]


def _metrics(
    classes: list[CellClass], tiles: list[Tile], truths: list[np.ndarray], found: list[Detections]
) -> dict[str, Any]:
    """The figures, and the worst errors with the keys of their tiles."""
    figures = figures_of(classes, [tile.slide.patient.code for tile in tiles], truths, found)
    errors = worst_errors(
        truths, found, len(classes), confidence=figures.confidence, ignored=_ignored(classes), most=ERRORS_KEPT
    )
    kept = {kind: [_error_row(error, tiles) for error in some] for kind, some in asdict(errors).items()}
    return figures.to_json() | {"errors": kept}


def _error_row(error: dict[str, Any], tiles: Sequence[Tile]) -> dict[str, Any]:
    score = error["score"]
    return error | {
        "tile": tiles[error["tile"]].pk,
        "box": list(error["box"]),
        "score": None if score is None else round(score, SCORE_DECIMALS),
    }


def _keep(*, model_version: ModelVersion, part: Part, truth_hash: str, **fields: Any) -> Evaluation:
    key = {"model_version": model_version, "part": part, "truth_hash": truth_hash}
    try:
        with transaction.atomic():
            return Evaluation.objects.create(**key, **fields)
    except IntegrityError:  # an earlier attempt has written it
        return Evaluation.objects.get(**key)


@transaction.atomic
def queue_evaluation(*, version: ModelVersion, user: User | None) -> Job:
    """Measure a version on today's test set, by a job of its own; the one that is under way if there is one."""
    known = evaluation_job(version)
    if known is not None and known.is_active:
        return known
    record(project=version.project, user=user, verb="asked to evaluate", subject=version)
    return create_job(
        project=version.project, kind=JobKind.EVALUATE, subject=str(version), created_by=user, version=version.pk
    )


def evaluate_alone(running: RunningJob) -> dict[str, Any]:
    """The job of `queue_evaluation`. Which version is current does not change by it."""
    versions = ModelVersion.objects.select_related("project", "taxonomy")
    version = versions.get(pk=running.job.arguments["version"])
    with running.alone("detector"):
        evaluation = evaluate_version(running, version, snapshot_of(version))
    map50 = evaluation.metrics["map50"]
    shown = "no boxes to test on" if map50 is None else f"mAP@0.5 {map50:.3f}"
    return {
        "evaluation": evaluation.pk,
        "message": f"{shown} on {evaluation.tiles} {evaluation.get_part_display()} tiles",
    }


def promote_if_better(*, version: ModelVersion, evaluation: Evaluation, user: User | None = None) -> bool:
    """Make the version current unless the current one is better on the very same tiles and boxes.

    Nor while the current one has not been measured on those of the locked test set: they have changed just now, or
    another version has become current. On a validation part, where it seldom has, the newer version takes its place.
    """
    current = current_version(version.project)
    if current is not None and current.pk != version.pk:
        same = current.evaluations.filter(part=evaluation.part, truth_hash=evaluation.truth_hash).first()
        if same is None and evaluation.part == Part.TEST:
            return False
        if same is not None and (same.metrics["map50"] or 0) > (evaluation.metrics["map50"] or 0):
            return False
    make_current(version=version, user=user)
    return True
