"""What a lead sets for a training, and how it reaches the trainer."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings as django_settings

from annotation.models import Project
from annotation.services.jobs import JobError
from annotation.services.storage import local_path
from inference.models import DetectorKind, ModelVersion
from inference.services.registry import current_version
from training.engine.config import Recipe

if TYPE_CHECKING:
    from training.engine.trainer import TrainingConfig

BACKBONE_SUFFIXES = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class TrainingSettings(Recipe):
    """kind: one-stage, or two-stage, whose finder has the settings of the model and whose classifier has three more.

    model: a name of training.engine.architectures. image_size: px. weights_file: a name in the weights folder.
    backbone: a name of timm, or the default if empty; backbone_file: its weights, a name in the weights folder.

    Training starts from scratch, unless from the project's current model or from a weights file.
    """

    kind: str = DetectorKind.TWO_STAGE
    model: str = "yolo11n"
    epochs: int = 60
    image_size: int = 320
    batch_size: int = 8
    seed: int = 0
    from_previous: bool = False
    weights_file: str = ""
    classifier_epochs: int = 20
    backbone: str = ""
    backbone_file: str = ""


@dataclass(frozen=True)
class Start:
    """The weights that a training starts from, what they are called, and the version that they are of, if of one."""

    path: Path | None = None
    name: str = "scratch"
    version: ModelVersion | None = None


def weights_files(*suffixes: str) -> list[str]:
    """The names of the files that the lab has put into the weights folder: .pt files, or those of these suffixes."""
    folder = Path(django_settings.START_WEIGHTS_DIR)
    wanted = suffixes or (".pt",)
    found = [path for path in folder.iterdir() if path.suffix in wanted and path.is_file()] if folder.is_dir() else []
    return sorted(path.name for path in found)


def backbone_files() -> list[str]:
    """The files in the weights folder that may hold a backbone."""
    return weights_files(*BACKBONE_SUFFIXES)


def backbone_path(settings: TrainingSettings) -> Path | None:
    """The file of the backbone's weights, if one is set. Raises JobError if it is gone."""
    if not settings.backbone_file:
        return None
    if settings.backbone_file not in backbone_files():
        raise JobError(f"The weights file {settings.backbone_file} is no longer in the folder of start weights.")
    return Path(django_settings.START_WEIGHTS_DIR) / settings.backbone_file


def start_of(settings: TrainingSettings, project: Project) -> Start:
    """What a training with these settings starts from. Raises JobError if that is gone."""
    if settings.weights_file:
        if settings.weights_file not in weights_files():
            raise JobError(f"The weights file {settings.weights_file} is no longer in the folder of start weights.")
        return Start(Path(django_settings.START_WEIGHTS_DIR) / settings.weights_file, settings.weights_file)
    current = current_version(project) if settings.from_previous else None
    if current is None:
        return Start()
    try:
        return Start(local_path(current.weights, called=f"the weights of {current}"), str(current), current)
    except FileNotFoundError as error:
        raise JobError(f"The weights of {current}, to start from, are gone from storage.") from error


def config_of(settings: TrainingSettings, start: Start) -> "TrainingConfig":
    """The trainer's configuration; only a worker asks for it."""
    from training.engine.trainer import TrainingConfig

    recipe = {field.name: getattr(settings, field.name) for field in fields(Recipe)}
    return TrainingConfig(
        **recipe,
        model=settings.model,
        epochs=settings.epochs,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start_weights=start.path,
    )
