"""Weights for the tests of detectors: made at once, or learned in seconds."""

from pathlib import Path

import torch

from inference.engine.runtime import quiet_ultralytics
from inference.engine.two_stage import FINDER_CLASSES
from tests.training.engine.cells import CLASSES as CELLS
from tests.training.engine.cells import SIDE, training_tile
from training.engine.dataset import TrainingTile, write_dataset
from training.engine.stages import as_cells
from training.engine.trainer import TrainingConfig, train

quiet_ultralytics()

from ultralytics.nn.tasks import DetectionModel  # noqa: E402

CLASSES = ("blast", "lymphocyte", "basophil")


def untrained_weights(path: Path, *, model: str = "yolo11n", classes: tuple[str, ...] = CLASSES) -> Path:
    """An untrained model whose last class biases are raised, so that it detects something everywhere."""
    torch.manual_seed(0)
    made = DetectionModel(f"{model}.yaml", nc=len(classes), verbose=False)
    made.names = dict(enumerate(classes))
    for branch in made.model[-1].cv3:
        branch[-1].bias.data += 10.0
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": made, "train_args": {}}, path)
    return path


def learned_weights(folder: Path) -> Path:
    """A model that finds the drawn cells of tests/training/engine/cells.py, on tiles of SIDE px."""
    return _learned(folder, [training_tile(seed) for seed in range(24)], [training_tile(100)], CELLS, epochs=30)


def learned_finder(folder: Path) -> Path:
    """The same of one class: the finder of a two-stage detector."""
    tiles = [as_cells(training_tile(seed)) for seed in range(24)]
    return _learned(folder, tiles, [as_cells(training_tile(100))], FINDER_CLASSES, epochs=24)


def _learned(
    folder: Path, tiles: list[TrainingTile], validation: list[TrainingTile], classes: tuple[str, ...], epochs: int
) -> Path:
    data = write_dataset(folder / "set", tiles, validation, classes)
    config = TrainingConfig(
        epochs=epochs,
        image_size=SIDE,
        batch_size=4,
        learning_rate=4e-3,
        device="cpu",
        threads=1,
        validate_every=epochs // 2,
    )
    return train(data, config, folder / "run", on_progress=lambda progress: None, should_stop=lambda: False)
