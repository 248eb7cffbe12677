"""Training a snapshot."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation.models import Box, CellClass, Project, Tile
from annotation.services.exports import tile_name
from annotation.services.jobs import RunningJob
from annotation.services.storage import work_dir
from annotation.services.tiles import read_tile
from inference.models import DetectorKind, ModelVersion
from inference.services.model_exports import make_export
from inference.services.pre_labels import PRE_LABEL_SCORE
from inference.services.registry import register_version
from training.models import Part, Snapshot, SnapshotTile
from training.services.evaluations import box_array
from training.services.snapshots import check_no_locked_patient
from training.services.stages import Stages, finder_snapshot, train_stages
from training.services.training_settings import Start, TrainingSettings, start_of
from training.services.yolo import Data, Report, train_yolo

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from training.engine.dataset import TrainingTile
    from training.engine.trainer import Outcome

LEAST_SHOWN = 0.03  # below, everything looks like a cell to a detector that has just begun
MOST_SHOWN = 64  # tiles of the validation part that say from which score boxes are shown


@dataclass(frozen=True)
class Trained:
    """Weights in a folder that will go away, and what is to be told of their training.

    outcome: None if the finder of the version to start from was kept. stages: of a two-stage detector.
    """

    weights: Path
    outcome: "Outcome | None"
    start: Start
    without_box: list[str]
    stages: Stages | None = None

    @property
    def classifier(self) -> Path | None:
        return self.stages.classifier if self.stages else None

    def facts(self, snapshot: Snapshot) -> dict[str, str]:
        """What the version's configuration says beside the settings."""
        before = self.start.version if self.stages and self.outcome is None else None
        kept = finder_snapshot(before) if before else snapshot.content_hash
        return {"started_from": self.start.name, **({"finder_snapshot": kept} if self.stages else {})}

    def in_words(self) -> str:
        """The job's message: how good, which epoch, whether it ended early, what it started from, what was missing."""
        parts = outcome_in_words(self.outcome, self.start) if self.outcome else []
        if self.stages:
            parts = [f"finder: {parts[0]}", *parts[1:]] if parts else []
            parts += self.stages.in_words()
        if self.without_box:
            parts.append(f"no box to train on: {', '.join(self.without_box)}")
        return "; ".join(parts)


def outcome_in_words(ended: "Outcome", start: Start) -> list[str]:
    """How a YOLO's training ended, in parts of a sentence."""
    map50 = "" if ended.map50 is None else f"mAP@0.5 {ended.map50:.2f} on the validation part, "
    parts = [f"{map50}best epoch {ended.best_epoch} of {ended.epochs}"]
    if ended.stopped_early:
        parts.append(f"stopped early after epoch {ended.last_epoch}, as it got no better")
    if start.path is not None:
        parts.append(f"{ended.taken} of {ended.layers} layers taken over from {start.name}")
    return parts


def train_snapshot(
    running: RunningJob,
    snapshot: Snapshot,
    settings: TrainingSettings,
    *,
    key: str,
    on_version: Callable[[ModelVersion], object],
) -> tuple[ModelVersion, str]:
    """Train on a snapshot and register the weights; returns the version and, in words, how its training ended.

    `key` names the work folder: a training that was killed goes on from its last epoch when it is called again with
    the same key. `on_version` is called in the transaction that registers the version: both happen or neither.
    Raises JobError with a text for the user, LockedPatient, JobCancelled.
    """
    check_no_locked_patient(snapshot)
    project = snapshot.project

    def report(share: float, text: str, seconds_left: float | None) -> None:
        running.report(share, text, seconds_left=seconds_left)

    with work_dir(f"train-{key}", resumed=True) as folder:
        trained = train_tiles(
            running,
            project,
            settings,
            train=_rows(snapshot, Part.TRAIN),
            validation=_rows(snapshot, Part.VALIDATION),
            folder=folder,
            report=report,
        )
        running.report(1.0, "exporting for OpenVINO, and measuring the export against torch", at_once=True)
        tiles = list(tiles_of(snapshot))
        export = make_export(
            weights=trained.weights,
            folder=folder / "openvino",
            image_size=settings.image_size,
            tiles=tiles,
            classifier=trained.classifier,
        )
        running.check()
        seen_from = shown_from(running, trained.weights, settings, _rows(snapshot, Part.VALIDATION))
        version = register_version(
            project=project,
            weights=trained.weights,
            classifier=trained.classifier,
            snapshot_hash=snapshot.content_hash,
            config=asdict(settings) | trained.facts(snapshot) | {"shown_from": seen_from},
            export=export,
            user=running.job.created_by,
            on_version=on_version,
        )
    return version, trained.in_words()


def shown_from(running: RunningJob, weights: Path, settings: TrainingSettings, rows: Sequence[SnapshotTile]) -> float:
    """The score from which a version's boxes are shown, by those of its weights on the validation part.

    weights: the finder's where there are two stages. Raises JobCancelled.
    """
    from inference.engine.detector import load_detector
    from inference.engine.windows import detect_images
    from training.engine.threshold import finding_score

    some = rows[:: max(1, math.ceil(len(rows) / MOST_SHOWN))]
    detector = load_detector(weights, image_size=settings.image_size, runtime="torch")
    found = []
    for row in some:
        running.check()
        found += detect_images(detector, [read_tile(row.tile)], min_score=LEAST_SHOWN)
    boxes = [list(row.annotation.boxes.all()) for row in some]
    ignored = {box.cell_class.number for one in boxes for box in one if box.cell_class.ignored_in_training}
    best = finding_score([box_array(one) for one in boxes], found, ignored=ignored)
    return round(min(PRE_LABEL_SCORE, max(LEAST_SHOWN, best or PRE_LABEL_SCORE)), 4)


def train_tiles(
    running: RunningJob,
    project: Project,
    settings: TrainingSettings,
    *,
    train: Sequence[SnapshotTile],
    validation: Sequence[SnapshotTile],
    folder: Path,
    report: Report,
) -> Trained:
    """Train in a folder on some tiles of a snapshot, choosing the best epoch with others.

    Called again with the same arguments it goes on from the last whole epoch; a training that has ended is not run
    again. Raises JobError with a text for the user, JobCancelled.
    """
    start = start_of(settings, project)
    classes = list(project.taxonomy.classes.all())
    data = Data(
        train=training_tiles(train),
        validation=training_tiles(validation),
        classes=[one.name for one in classes],
        ignored=[one.number for one in classes if one.ignored_in_training],
    )
    missing = [one.name for one in classes_without_box(project, [row.annotation_id for row in train])]
    if settings.kind == DetectorKind.TWO_STAGE:
        rows = [*train, *validation]
        stages = train_stages(running, data, settings, start, rows=rows, folder=folder, report=report)
        return Trained(stages.finder, stages.outcome, start, missing, stages)
    weights, ended = train_yolo(running, data, settings, start, folder=folder, report=report)
    return Trained(weights, ended, start, missing)


def classes_without_box(project: Project, annotations: "Collection[int] | QuerySet[Any, Any]") -> list[CellClass]:
    """The classes that should be learned but have no box in these annotations."""
    seen = Box.objects.filter(annotation__in=annotations).values("cell_class")
    return list(project.taxonomy.classes.filter(ignored_in_training=False).exclude(pk__in=seen))


def classes_not_trained(snapshot: Snapshot) -> list[CellClass]:
    """The classes that have no box in the snapshot's training part."""
    return classes_without_box(snapshot.project, snapshot.tiles.filter(part=Part.TRAIN).values("annotation"))


def tiles_of(snapshot: Snapshot) -> "QuerySet[Tile]":
    """The snapshot's tiles, neighbours together."""
    keys = snapshot.tiles.values("tile")
    return Tile.objects.filter(pk__in=keys).select_related("slide").order_by("slide_id", "row", "column")


def _rows(snapshot: Snapshot, part: Part) -> list[SnapshotTile]:
    return list(rows_of(snapshot).filter(part=part))


def rows_of(snapshot: Snapshot) -> "QuerySet[SnapshotTile]":
    """The snapshot's tiles with all that training reads of them, in a fixed order, neighbours together."""
    return (
        snapshot.tiles.select_related("tile__slide__patient", "annotation")
        .prefetch_related("annotation__boxes__cell_class")
        .order_by("tile__slide_id", "pk")
    )


def training_tiles(rows: Sequence[SnapshotTile]) -> "list[TrainingTile]":
    """The tiles as the trainer takes them: their pixels are read when they are written."""
    from training.engine.dataset import TrainingTile

    return [
        TrainingTile(
            name=tile_name(row.tile),
            read=partial(read_tile, row.tile),
            boxes=box_array(list(row.annotation.boxes.all())),
        )
        for row in rows
    ]
