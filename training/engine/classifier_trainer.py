"""Training of the crop classifier of a two-stage detector: cancellable at every batch, resumable after every epoch."""

# mypy: disable-error-code="no-untyped-call"

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference.engine.classifier import (
    DEFAULT_BACKBONE,
    ClassifierFacts,
    load_classifier,
    make_classifier,
    save_classifier,
    to_input,
)
from inference.engine.crops import crop_cells, crop_side
from inference.engine.runtime import Cores, torch_device
from training.engine.dataset import TrainingTile
from training.engine.progress import Cancelled, TrainingError, shortages_told
from training.engine.stages import wanted_boxes
from training.engine.state_files import load_state, save

MARGIN = 1.5  # of the stored crops, so that a turned one has no empty corners
LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 0.02
WARM_UP = 0.2  # share of the steps in which the learning rate rises
STATE_NAME = "classifier-state.pt"
WEIGHTS_NAME = "classifier.pt"

Integers = NDArray[np.int64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ClassifierConfig:
    """How to train.

    epochs: turns over as many crops as there are. learning_rate: of AdamW, at its highest; see `rate_at`.
    backbone, backbone_weights: see `inference.engine.classifier.make_classifier`.
    start: a classifier of the same classes to go on from; its backbone stays.
    balance: crops of a class are drawn in proportion to its number of crops to the power of 1 - balance: 0 as they
    come, 1 all classes alike.
    stain: standard deviation of the relative change of each channel's optical density. scale: crops are scaled by
    e^-scale to e^scale. shift: standard deviation of the shift, in sides of the crop.
    device, seed, threads: as in `training.engine.trainer.TrainingConfig`.
    """

    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 32
    seed: int = 0
    backbone: str = DEFAULT_BACKBONE
    backbone_weights: Path | None = None
    start: Path | None = None
    balance: float = 0.5
    stain: float = 0.1
    scale: float = 0.1
    shift: float = 0.02
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class ClassifierProgress:
    """Where training is after an epoch (the first is 1).

    accuracy: of the crops to validate with, the mean over their classes of the share named rightly; None if there are
    none.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None
    seconds_left: float


@dataclass(frozen=True)
class Cells:
    """Crops with their classes. crops: uint8 (n, side, side, 3); class_ids: int64 (n,)."""

    crops: Pixels
    class_ids: Integers

    def __len__(self) -> int:
        return len(self.class_ids)


def train_classifier(
    train: Sequence[TrainingTile],
    validation: Sequence[TrainingTile],
    classes: Sequence[str],
    config: ClassifierConfig,
    folder: Path,
    *,
    on_progress: Callable[[ClassifierProgress], None],
    should_stop: Callable[[], bool],
    ignored: Collection[int] = (),
) -> Path:
    """Train on the cells of tiles and return the path of the classifier, folder / "classifier.pt".

    Boxes of `ignored` class ids are left out. Called again with the same cells, configuration and folder it goes on
    after the last whole epoch; a finished training returns at once. The weights are those of the last epoch: the
    learning rate has fallen to nothing by then. `should_stop` is asked before every batch.
    Raises Cancelled, TrainingError if there is no cell or too little memory or disk, WeightsError for weights that do
    not fit, ValueError for an impossible configuration.
    """
    check_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    with shortages_told(folder, _no_memory(config)):
        model, facts = _begin(train, classes, config, ignored)
        cells = cut_cells(train, facts, folder / "train", ignored, margin=MARGIN, should_stop=should_stop)
        held_out = cut_cells(validation, facts, folder / "validation", ignored, should_stop=should_stop)
        run = _Run(model, facts, cells, held_out, config, folder, on_progress, should_stop)
        return run.train()


def _no_memory(config: ClassifierConfig) -> str:
    return (
        f"There is not enough memory to train a classifier on the backbone {config.backbone} with {config.batch_size} "
        "cells at once: free some, or choose a smaller backbone."
    )


def check_config(config: ClassifierConfig) -> None:
    """Raises ValueError for a configuration that cannot be trained with."""
    if config.epochs < 1 or config.batch_size < 2:
        raise ValueError("A classifier needs at least 1 epoch, and at least 2 crops a step.")
    if not (0 < config.learning_rate < 1):
        raise ValueError(f"The learning rate must lie between 0 and 1, not {config.learning_rate}.")
    if not 0 <= config.balance <= 1:
        raise ValueError(f"The balance of the classes must lie between 0 and 1, not {config.balance}.")


def cut_cells(
    tiles: Sequence[TrainingTile],
    facts: ClassifierFacts,
    path: Path,
    ignored: Collection[int] = (),
    *,
    margin: float = 1.0,
    should_stop: Callable[[], bool],
) -> Cells:
    """The crops of all cells, cut once and kept in a file, so that memory does not grow with their number.

    margin: how many times larger than the classifier's crops they are. path: without suffix. Raises Cancelled.
    """
    boxes = [wanted_boxes(tile, ignored) for tile in tiles]
    class_ids = np.concatenate([np.empty(0, np.int64), *(some[:, 0].astype(np.int64) for some in boxes)])
    size = round(facts.size * margin)
    if not len(class_ids):
        return Cells(np.empty((0, size, size, 3), np.uint8), class_ids)
    crops = _array_on_disk(path.with_suffix(".npy"), (len(class_ids), size, size, 3))
    start = 0
    for tile, some in zip(tiles, boxes, strict=True):
        if should_stop():
            raise Cancelled
        if len(some):
            cut = crop_cells(tile.read(), some[:, 1:], side=facts.side, size=size, margin=margin)
            crops[start : start + len(some)] = cut
            start += len(some)
    return Cells(crops, class_ids)


def _array_on_disk(path: Path, shape: tuple[int, ...]) -> Pixels:
    """A new uint8 array in a file that has all its room on disk, or an OSError that says there is none.

    A file that is mapped takes its room when it is written to; where the disk is full by then, that ends the process.
    """
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("rb+") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _begin(
    train: Sequence[TrainingTile], classes: Sequence[str], config: ClassifierConfig, ignored: Collection[int]
) -> tuple[Any, ClassifierFacts]:
    boxes = np.concatenate([np.empty((0, 5)), *(wanted_boxes(tile, ignored) for tile in train)])
    if not len(boxes):
        raise TrainingError("There is not a single box to train on: confirm some boxes first.")
    if config.start is None:
        side = crop_side(boxes[:, 1:])
        return make_classifier(tuple(classes), side=side, backbone=config.backbone, weights=config.backbone_weights)
    model, facts = load_classifier(config.start)
    if facts.classes != tuple(classes):
        raise TrainingError(
            f"The classifier to start from names {', '.join(facts.classes)}, not the taxonomy's classes."
        )
    return model, facts


class _Run:
    """One training: what it has, and a loop over epochs."""

    def __init__(
        self,
        model: Any,
        facts: ClassifierFacts,
        cells: Cells,
        held_out: Cells,
        config: ClassifierConfig,
        folder: Path,
        on_progress: Callable[[ClassifierProgress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._device = torch_device(config.device)
        self._model = model.to(self._device).to(memory_format=torch.channels_last)
        self._facts, self._cells, self._held_out = facts, cells, held_out
        self._config, self._folder = config, folder
        self._on_progress, self._should_stop = on_progress, should_stop
        self._steps = max(1, round(len(cells) / config.batch_size))
        self._weights = class_weights(cells.class_ids, config.balance)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY
        )
        steps = self._steps * config.epochs
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: rate_at(step, steps))
        self._identity = identity_of(facts, cells, config)
        self._cores = Cores(config.threads)

    def train(self) -> Path:
        done = self._resume()
        started = time.monotonic()
        for epoch in range(done, self._config.epochs):
            loss = self._epoch(epoch)
            accuracy = balanced_accuracy(self._model, self._facts, self._held_out, self._device)
            if epoch + 1 == self._config.epochs:
                save_classifier(self._model, self._facts, self._folder / WEIGHTS_NAME)
            self._save(epoch + 1)
            seconds = (time.monotonic() - started) / (epoch + 1 - done) * (self._config.epochs - epoch - 1)
            self._on_progress(ClassifierProgress(epoch + 1, self._config.epochs, loss, accuracy, seconds))
        return self._folder / WEIGHTS_NAME

    def _epoch(self, epoch: int) -> float:
        """The mean loss of an epoch, whose chance depends on the seed and its number alone."""
        generator = np.random.default_rng([self._config.seed, epoch])
        torch.manual_seed(int(generator.integers(2**31)))
        self._model.train()
        losses = 0.0
        for _ in range(self._steps):
            if self._should_stop():
                raise Cancelled
            self._cores.share()
            losses += self._step(generator)
        return losses / self._steps

    def _step(self, generator: np.random.Generator) -> float:
        chosen = generator.choice(len(self._cells), self._config.batch_size, p=self._weights)
        size = self._facts.size
        crops = np.stack([vary(self._cells.crops[index], size, self._config, generator) for index in chosen])
        target = torch.from_numpy(self._cells.class_ids[chosen]).to(self._device)
        scores = self._model(to_input(torch.from_numpy(crops).to(self._device), self._facts))
        loss = torch.nn.functional.cross_entropy(scores, target, label_smoothing=LABEL_SMOOTHING)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingError("Training of the classifier diverged: choose a lower learning rate.")
        return value

    def _resume(self) -> int:
        """Take up the state that an earlier run left; returns the number of epochs done."""
        state = load_state(self._folder / STATE_NAME, self._identity)
        if state is None:
            return 0
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        return int(state["epoch"])

    def _save(self, epoch: int) -> None:
        state = {
            "identity": self._identity,
            "epoch": epoch,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        save(state, self._folder / STATE_NAME)


def rate_at(step: int, steps: int) -> float:
    """The share of the highest learning rate: a line up in the first fifth of the steps, then half a cosine to 0."""
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def class_weights(class_ids: Integers, balance: float) -> NDArray[np.float64]:
    """The probability of each crop to be drawn, float64 (n,), summing to 1; see `ClassifierConfig.balance`."""
    counts = np.bincount(class_ids)
    weights = counts[class_ids] ** -balance
    return np.asarray(weights / weights.sum(), np.float64)


def vary(crop: Pixels, size: int, config: ClassifierConfig, generator: np.random.Generator) -> Pixels:
    """A crop turned by any angle, mirrored, scaled, shifted and stained otherwise: uint8 (size, size, 3).

    A smear has no up or down. Stain changes the optical density, -log of the light let through (Beer-Lambert), by a
    factor for each channel, common and its own.
    """
    middle = len(crop) / 2
    scale = np.exp(generator.uniform(-config.scale, config.scale))
    turn = cv2.getRotationMatrix2D((middle, middle), generator.uniform(0, 360), scale)
    turn[:, 2] = turn[:, 2] + size / 2 - middle + generator.normal(0, config.shift * size, 2)
    if generator.random() < 0.5:
        turn[0] = -turn[0]
        turn[0, 2] += size - 1
    turned = cv2.warpAffine(crop, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    density = -np.log(np.maximum(np.arange(256), 1) / 255)[:, None]
    factors = np.exp(generator.normal(0, config.stain, 3) + generator.normal(0, config.stain))
    table = (255 * np.exp(-density * factors)).round().astype(np.uint8)
    return np.asarray(cv2.LUT(turned, table[:, None, :]), np.uint8)


def balanced_accuracy(model: Any, facts: ClassifierFacts, cells: Cells, device: torch.device) -> float | None:
    """The mean over the classes that occur of the share of their crops that are named rightly; None without crops."""
    if not len(cells):
        return None
    named = np.concatenate([scores.argmax(dim=1).cpu().numpy() for scores in _scores(model, facts, cells, device)])
    right = named == cells.class_ids
    return float(np.mean([right[cells.class_ids == one].mean() for one in np.unique(cells.class_ids)]))


def _scores(
    model: Any, facts: ClassifierFacts, cells: Cells, device: torch.device, batch: int = 64
) -> Iterator[torch.Tensor]:
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(cells), batch):
            yield model(to_input(torch.tensor(cells.crops[start : start + batch], device=device), facts))


def identity_of(facts: ClassifierFacts, cells: Cells, config: ClassifierConfig) -> str:
    """A digest of all that the training depends on: the same one means the same training."""
    digest = hashlib.sha256(json.dumps([asdict(facts), asdict(config)], default=str, sort_keys=True).encode())
    digest.update(cells.class_ids.tobytes())
    for crop in cells.crops:
        digest.update(crop.tobytes())
    return digest.hexdigest()
