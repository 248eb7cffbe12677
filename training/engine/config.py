"""How a detector is trained: what can be set, and what is allowed. No torch, so that a form can ask it too."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.engine.architectures import architecture

RareClasses = Literal["alone", "repeat"]
RARE_CLASSES: tuple[RareClasses, ...] = ("alone", "repeat")
LEARNING_RATE = 2e-3
TRANSFORMER_LEARNING_RATE = 1e-4  # of RT-DETR (Zhao et al. 2024, "DETRs Beat YOLOs on Real-time Object Detection")

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|\d+(,\d+)+")
SEVERAL = re.compile(r"\d+(,\d+)+")

# What each number of a recipe may be: least and most.
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (1e-12, 0.1),
    "patience": (0, 2000),
    "threads": (1, 256),
    "cache_megabytes": (0, 1_000_000),
    "repeat_threshold": (0.001, 1.0),
    "hue": (0.0, 0.5),
    "saturation": (0.0, 1.0),
    "brightness": (0.0, 1.0),
    "flip_vertical": (0.0, 1.0),
    "flip_horizontal": (0.0, 1.0),
    "rotation": (0.0, 180.0),
    "scale": (0.0, 0.9),
    "shift": (0.0, 0.5),
    "mosaic": (0.0, 1.0),
    "cutmix": (0.0, 1.0),
    "mixup": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What can be set of a training beside its size. The defaults suit small sets of cells.

    learning_rate: of AdamW, at its highest; it rises over the first 3 epochs and then falls to 1 % linearly. None is
    2e-3, or 1e-4 for an RT-DETR.
    patience: epochs without a better validation after which training ends early; 0 never ends it early.
    threads: of the processor; None takes the cores that other processes leave, and then two trainings with the same
    seed can differ in the last bits.
    device: auto, cpu, cuda, cuda:1, or several GPUs as 0,1; batches are then shared between them.
    cache_megabytes: of decoded tiles kept in memory; what does not fit is read from disk, every time. None: half of
    what is free when training starts.
    rare_classes: "alone" shows every tile once an epoch; "repeat" shows tiles with rare classes more often, by the
    repeat factors of training.engine.repeat_factors. repeat_threshold: the share of the tiles below which a class is
    rare.

    The other numbers turn tiles into new ones at random. hue, saturation, brightness: by how much at most, as shares.
    flip_vertical, flip_horizontal, mosaic (four tiles laid together, and a window cut out), cutmix (a piece of another
    tile laid in), mixup (two tiles blended): how probable. rotation: degrees at most, either way; boxes then grow.
    scale: a share, larger or smaller; what grows out of the tile is cropped. shift: a share of the side; what moves out
    is cropped. (Ultralytics crops detection tiles in these two ways and in mosaic only.)
    """

    learning_rate: float | None = None
    patience: int = 0
    threads: int | None = None
    device: str = "auto"
    cache_megabytes: int | None = None
    rare_classes: RareClasses = "alone"
    repeat_threshold: float = 0.1
    hue: float = 0.015
    saturation: float = 0.4  # stain varies, but saturation and hue also carry the diagnosis
    brightness: float = 0.3
    # A smear has no up or down. Flips are exact; a turn by another angle blows the boxes up.
    flip_vertical: float = 0.5
    flip_horizontal: float = 0.5
    rotation: float = 0.0
    scale: float = 0.3  # cell size tells classes apart, and the magnification is known
    shift: float = 0.1
    mosaic: float = 1.0
    cutmix: float = 0.0
    mixup: float = 0.0


@dataclass(frozen=True)
class TrainingConfig(Recipe):
    """How to train.

    model: the name of one of training.engine.architectures, trained from scratch: yolo11n is fast on a processor.
    epochs: turns over all training tiles.
    batch_size: tiles per step. Small sets want many steps: 80 tiles x 20 epochs in batches of 8 gave a better detector
    than 60 tiles x 80 epochs in batches of 16, in a quarter of the time.
    image_size: tiles are resized so that the longer side has this many px; a multiple of 32, of 64 for -p6 models.
    start_weights: of another training; layers that match are taken over, and classes by name.
    validate_every: epochs between validations; None chooses so that they take a small share of the time.
    """

    epochs: int
    model: str = "yolo11n"
    image_size: int = 320
    batch_size: int = 8
    seed: int = 0
    start_weights: Path | None = None
    validate_every: int | None = None

    @property
    def gpus(self) -> tuple[int, ...]:
        """The GPUs that share the training; none for one device."""
        return tuple(map(int, self.device.split(","))) if SEVERAL.fullmatch(self.device) else ()

    @property
    def highest_rate(self) -> float:
        """The learning rate that is set, or the model's own."""
        if self.learning_rate is not None:
            return self.learning_rate
        return TRANSFORMER_LEARNING_RATE if architecture(self.model).is_transformer else LEARNING_RATE


def check_config(config: TrainingConfig) -> None:
    """Raises UnknownModel for a name that no model has, ValueError for anything else that cannot be."""
    check_size(config.model, config.image_size)
    if config.epochs < 1 or config.batch_size < 1:
        raise ValueError("Epochs and batch size must be at least 1.")
    if config.batch_size < len(config.gpus) or len(set(config.gpus)) < len(config.gpus):
        raise ValueError(f"The GPUs {config.device} must be different ones, and have a tile each of every batch.")
    if config.rare_classes not in RARE_CLASSES:
        raise ValueError(f"Rare classes can be left alone or repeated, not {config.rare_classes!r}.")
    for name, (least, most) in RANGES.items():
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            raise ValueError(f"{name.replace('_', ' ').capitalize()} must lie between {least} and {most}, not {value}.")


def check_size(model: str, image_size: int) -> None:
    """Raises UnknownModel, or ValueError for an image size that the model cannot have."""
    stride = architecture(model).stride
    if image_size < 2 * stride or image_size % stride:
        raise ValueError(
            f"The image size must be a multiple of {stride} px and at least {2 * stride} for {model}, not {image_size}."
        )
