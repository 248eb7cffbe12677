"""Training of a two-stage detector: the finder when it is worth it, the classifier always."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from annotation.services.jobs import JobError, RunningJob
from annotation.services.storage import local_path
from inference.models import DetectorKind, ModelVersion
from training.models import Snapshot, SnapshotTile
from training.services.training_settings import Start, TrainingSettings, backbone_path
from training.services.yolo import Data, Report, told, train_yolo

if TYPE_CHECKING:
    from training.engine.classifier_trainer import ClassifierConfig, ClassifierProgress
    from training.engine.trainer import Outcome

MOST_CHANGED = 0.1  # of the boxes on new tiles, below which a finder need not be trained again
FINDER_SHARE = 0.4  # of the time, about, where the finder is trained


@dataclass(frozen=True)
class Stages:
    """Both weights files in a folder that will go away.

    outcome: of the finder's training; None if the one that was is kept. accuracy: of the classifier, the mean over the
    validation part's classes of the share of their cells named rightly. changed: the share of the new tiles' boxes that
    experts added, moved or deleted; None where nothing is known of it.
    """

    finder: Path
    outcome: "Outcome | None"
    classifier: Path
    accuracy: float | None
    changed: float | None

    def in_words(self) -> list[str]:
        """What a job's message adds to what it says of the finder's training, in parts of a sentence."""
        kept = f"finder kept: {self.changed or 0:.0%} of the boxes on new tiles were added, moved or deleted"
        named = "" if self.accuracy is None else f": {self.accuracy:.0%} of cells named rightly, mean over the classes"
        return [*([kept] if self.outcome is None else []), f"classifier trained{named}"]


def train_stages(
    running: RunningJob,
    data: Data,
    settings: TrainingSettings,
    start: Start,
    *,
    rows: Sequence[SnapshotTile],
    folder: Path,
    report: Report,
) -> Stages:
    """Train on the data, which are of the snapshot's `rows`. Raises JobError, JobCancelled."""
    changed = changed_share(start.version, rows) if start.version else None
    if start.version and changed is not None and changed <= MOST_CHANGED and finds_alike(start.version, settings):
        finder, outcome, done = _weights_of(start.version), None, 0.0
    else:
        finder, outcome = _train_finder(running, data, settings, start, folder, report)
        done = FINDER_SHARE

    def later(share: float, text: str, seconds_left: float | None) -> None:
        report(done + (1 - done) * share, text, seconds_left)

    classifier, accuracy = _train_classifier(running, data, settings, start, folder, later)
    return Stages(finder, outcome, classifier, accuracy, changed)


def changed_share(version: ModelVersion, rows: Sequence[SnapshotTile]) -> float | None:
    """How much of what was drawn on the tiles that are new since the version's finder was trained a better one would
    spare.

    Boxes that were added, moved or deleted, as a share of all boxes kept, renamed, added, moved or deleted. None if the
    finder's snapshot is not known, 0 if there is no new tile.
    """
    snapshot = Snapshot.objects.filter(project=version.project_id, content_hash=finder_snapshot(version)).first()
    if snapshot is None:
        return None
    known = set(snapshot.tiles.values_list("annotation_id", flat=True))
    counts: Counter[str] = Counter()
    for row in rows:
        if row.annotation_id not in known:
            effort = row.annotation.effort
            counts.update({name: effort.get(name, 0) for name in ("kept", "moved", "reclassified", "added", "deleted")})
    total = counts.total()
    return (counts["added"] + counts["moved"] + counts["deleted"]) / total if total else 0.0


def finder_snapshot(version: ModelVersion) -> str:
    """The hash of the snapshot that the version's finder was trained on: of one that was kept, an earlier one."""
    return str(version.config.get("finder_snapshot", version.snapshot_hash))


def finds_alike(version: ModelVersion, settings: TrainingSettings) -> bool:
    """Whether the version's finder is what these settings would train."""
    return version.kind == DetectorKind.TWO_STAGE and all(
        version.config.get(name) == getattr(settings, name) for name in ("model", "image_size")
    )


def _weights_of(version: ModelVersion) -> Path:
    try:
        return local_path(version.weights, called=f"the weights of {version}")
    except FileNotFoundError as error:
        raise JobError(f"The weights of {version} are gone from storage.") from error


def _train_finder(
    running: RunningJob, data: Data, settings: TrainingSettings, start: Start, folder: Path, report: Report
) -> "tuple[Path, Outcome]":
    from inference.engine.two_stage import FINDER_CLASSES
    from training.engine.stages import as_cells

    cells = Data(
        train=[as_cells(tile, data.ignored) for tile in data.train],
        validation=[as_cells(tile, data.ignored) for tile in data.validation],
        classes=list(FINDER_CLASSES),
        ignored=[],
    )

    def first(share: float, text: str, seconds_left: float | None) -> None:
        report(FINDER_SHARE * share, f"finder: {text}", seconds_left)

    return train_yolo(running, cells, settings, start, folder=folder, report=first)


def _train_classifier(
    running: RunningJob, data: Data, settings: TrainingSettings, start: Start, folder: Path, report: Report
) -> tuple[Path, float | None]:
    from training.engine.classifier_trainer import train_classifier

    last: list[float | None] = [None]

    def show(progress: "ClassifierProgress") -> None:
        last[0] = progress.accuracy
        named = "" if progress.accuracy is None else f", {progress.accuracy:.0%} named rightly"
        text = f"classifier: epoch {progress.epoch} of {progress.epochs}, loss {progress.loss:.2f}{named}"
        report(progress.epoch / progress.epochs, text, progress.seconds_left)

    report(0.0, "cutting out the cells", None)
    with told(running):
        path = train_classifier(
            data.train,
            data.validation,
            data.classes,
            classifier_config(settings, start),
            folder / "classifier",
            on_progress=show,
            should_stop=lambda: running.should_stop,
            ignored=data.ignored,
        )
    return path, last[0]


def classifier_config(settings: TrainingSettings, start: Start) -> "ClassifierConfig":
    """As the settings say; from the classifier of the version to start from, if it has one of the same backbone."""
    from training.engine.classifier_trainer import ClassifierConfig

    first, *others = settings.device.split(",")
    config = ClassifierConfig(
        epochs=settings.classifier_epochs,
        seed=settings.seed,
        threads=settings.threads,
        device=f"cuda:{first}" if others else first,  # of several GPUs the first: a classifier is small
    )
    if settings.backbone:
        config = replace(config, backbone=settings.backbone, backbone_weights=backbone_path(settings))
    version = start.version
    if version is None or not version.classifier or version.config.get("backbone", "") != settings.backbone:
        return config
    return replace(config, start=local_path(version.classifier, called=f"the classifier of {version}"))
