"""Training a snapshot, and measuring what came of it."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from django.db import IntegrityError, transaction

from annotation.models import Tile, User
from annotation.services.exports import tile_name, truth_tiles
from annotation.services.jobs import JobCancelled, JobError, RunningJob
from annotation.services.storage import local_path, work_dir
from annotation.services.tiles import read_tile
from inference.engine.detector import Detections
from inference.models import ModelVersion
from inference.services.model_exports import make_export
from inference.services.pre_labels import detect_tiles
from inference.services.registry import current_version, detector_of, make_current, register_version
from training.engine.metrics import evaluate, every_class
from training.models import Evaluation, Part, Snapshot
from training.services.snapshots import check_no_locked_patient, truth_boxes, truth_hash

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from training.engine.dataset import TrainingTile
    from training.engine.trainer import Progress
    from training.services.rounds import RoundSettings

EVALUATION_SCORE = 0.01  # low, so that the precision-recall curve has its tail


def train_snapshot(
    running: RunningJob,
    snapshot: Snapshot,
    settings: "RoundSettings",
    *,
    key: str,
    on_version: Callable[[ModelVersion], object],
) -> tuple[ModelVersion, float | None]:
    """Train on a snapshot and register the weights; returns the version and its mAP@0.5 on the validation part.

    `key` names the work folder: a training that was killed goes on from its last epoch when it is called again with
    the same key. `on_version` is called in the transaction that registers the version: both happen or neither.
    Raises JobError with a text for the user, LockedPatient, JobCancelled.
    """
    check_no_locked_patient(snapshot)

    from training.engine.dataset import write_dataset
    from training.engine.trainer import Cancelled, TrainingConfig, TrainingError, train

    project = snapshot.project
    start = current_version(project) if settings.from_previous else None
    config = TrainingConfig(
        model=settings.model,
        epochs=settings.epochs,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start_weights=local_path(start.weights) if start else None,
    )
    classes = list(project.taxonomy.classes.all())
    newest: list[float] = []

    def show(progress: "Progress") -> None:
        if progress.map50 is not None:
            newest[:] = [progress.map50]
        found = f", validation mAP@0.5 {newest[0]:.3f}" if newest else ""
        loss = sum(progress.losses.values())
        running.report(
            progress.epoch / progress.epochs,
            f"epoch {progress.epoch} of {progress.epochs}, loss {loss:.2f}{found}",
            seconds_left=progress.seconds_left,
        )

    with work_dir(f"train-{key}") as folder:
        running.report(0.0, "writing the tiles", at_once=True)
        try:
            data = write_dataset(
                folder / "dataset",
                _training_tiles(snapshot, Part.TRAIN),
                _training_tiles(snapshot, Part.VALIDATION),
                [one.name for one in classes],
                ignored=[one.number for one in classes if one.ignored_in_training],
            )
            weights = train(data, config, folder / "run", on_progress=show, should_stop=lambda: running.should_stop)
        except Cancelled:
            running.check()  # says whether it was cancelled or lost
            raise JobCancelled from None
        except (TrainingError, ValueError) as error:
            raise JobError(str(error)) from error
        running.report(1.0, "exporting for OpenVINO, and measuring the export against torch", at_once=True)
        tiles = list(_tiles_of(snapshot))
        export = make_export(weights=weights, folder=folder / "openvino", image_size=config.image_size, tiles=tiles)
        running.check()
        with transaction.atomic():
            version = register_version(
                project=project,
                weights=weights,
                snapshot_hash=snapshot.content_hash,
                config=asdict(settings) | {"started_from": str(start) if start else "scratch"},
                export=export,
                user=running.job.created_by,
            )
            on_version(version)
    return version, newest[0] if newest else None


def _tiles_of(snapshot: Snapshot) -> "QuerySet[Tile]":
    keys = snapshot.tiles.values("tile")
    return Tile.objects.filter(pk__in=keys).select_related("slide").order_by("slide_id", "row", "column")


def _training_tiles(snapshot: Snapshot, part: Part) -> "list[TrainingTile]":
    from training.engine.dataset import TrainingTile

    rows = (
        snapshot.tiles.filter(part=part)
        .select_related("tile__slide", "annotation")
        .prefetch_related("annotation__boxes__cell_class")
        .order_by("tile__slide_id", "pk")
    )
    return [
        TrainingTile(
            name=tile_name(row.tile),
            read=partial(read_tile, row.tile),
            boxes=box_array(list(row.annotation.boxes.all())),
        )
        for row in rows
    ]


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
    classes = list(version.taxonomy.classes.all())
    patients = [tile.slide.patient.code for tile in tiles]
    metrics = evaluate(
        truths,
        found,
        [one.name for one in classes],
        patients,
        ranked=[every_class(one.boxes, one.class_scores, floor=EVALUATION_SCORE) for one in found],
        ignored=[one.number for one in classes if one.ignored_in_training],
    )
    return _keep(version, part, digest, len(tiles), sum(map(len, truths)), len(set(patients)), metrics.to_json())


def _keep(
    version: ModelVersion, part: Part, digest: str, tiles: int, boxes: int, patients: int, metrics: dict[str, object]
) -> Evaluation:
    try:
        with transaction.atomic():
            return Evaluation.objects.create(
                model_version=version,
                part=part,
                truth_hash=digest,
                tiles=tiles,
                boxes=boxes,
                patients=patients,
                metrics=metrics,
            )
    except IntegrityError:  # an earlier attempt has written it
        return version.evaluations.get(part=part, truth_hash=digest)


def promote_if_better(*, version: ModelVersion, evaluation: Evaluation, user: User | None = None) -> bool:
    """Make the version current unless the current one is better on the very same tiles and boxes."""
    current = current_version(version.project)
    if current is not None and current.pk != version.pk:
        same = current.evaluations.filter(part=evaluation.part, truth_hash=evaluation.truth_hash).first()
        if same is not None and (same.metrics["map50"] or 0) > (evaluation.metrics["map50"] or 0):
            return False
    make_current(version=version, user=user)
    return True
