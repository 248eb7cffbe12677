"""Training of a detector with ultralytics: offline, cancellable at every batch, resumable after every epoch."""

# mypy: disable-error-code="no-untyped-call"

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from training.engine.config import TrainingConfig, check_config
from training.engine.progress import Cancelled, Outcome, Progress, TrainingError, shortages_told
from training.engine.several_gpus import check_gpus, train_on_gpus
from training.engine.state_files import STATE_NAME, WEIGHTS_NAME, load_state
from training.engine.training_run import CellTraining, outcome_in

__all__ = ["Cancelled", "Outcome", "Progress", "TrainingConfig", "TrainingError", "outcome", "train"]


def train(
    data_yaml: Path,
    config: TrainingConfig,
    folder: Path,
    *,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Path:
    """Train on a data set that `write_dataset` wrote and return the path of the best weights, folder / "weights.pt".

    Called again with the same data, configuration and folder it continues after the last whole epoch; a finished
    training returns at once; with anything else it starts anew. `on_progress` is called after every epoch, once that
    epoch is safe on disk. `should_stop` is asked before every batch. `outcome` says afterwards how it ended.

    The weights are an ordinary ultralytics checkpoint (the moving average of the weights, float16) without any path.
    Raises Cancelled, TrainingError, ValueError for an impossible configuration, WeightsError for bad start weights,
    DeviceError for a device that this machine does not have.
    """
    check_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(data_yaml, config)
    state = load_state(folder / STATE_NAME, identity)
    if state is not None and state["finished"]:
        return folder / WEIGHTS_NAME
    if state is None:
        (folder / WEIGHTS_NAME).unlink(missing_ok=True)
    if should_stop():
        raise Cancelled
    with shortages_told(folder, _no_memory(config)):
        _check_images(data_yaml.parent)
        if config.gpus:
            check_gpus(config)
            train_on_gpus(data_yaml, config, folder, identity, on_progress=on_progress, should_stop=should_stop)
        else:
            CellTraining(data_yaml, config, folder, identity, state, on_progress, should_stop).train()
    return folder / WEIGHTS_NAME


def outcome(data_yaml: Path, config: TrainingConfig, folder: Path) -> Outcome:
    """How the training ended that `train` finished with these arguments. Raises ValueError if it has not."""
    state = load_state(folder / STATE_NAME, _identity(data_yaml, config))
    if state is None or not state["finished"]:
        raise ValueError(f"No training has ended in {folder.name}.")
    return outcome_in(state, config)


def _identity(data_yaml: Path, config: TrainingConfig) -> str:
    """A digest of the configuration and of all labels: the same one means the same training."""
    digest = hashlib.sha256(json.dumps(asdict(config), default=str, sort_keys=True).encode())
    digest.update(data_yaml.read_bytes())
    for path in sorted((data_yaml.parent / "labels").glob("*/*.txt")):
        digest.update(f"{path.parent.name}/{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _check_images(folder: Path) -> None:
    """Refuse a set without boxes, tiles or validation, and JPEG files that stop early (decoders fill those in)."""
    labels = list((folder / "labels" / "train").glob("*.txt"))
    if not any(path.stat().st_size for path in labels):
        raise TrainingError("There is not a single box to train on: confirm some boxes first.")
    images = sorted((folder / "images").glob("*/*.jpg"))
    if not any(path.parent.name == "val" for path in images):
        raise TrainingError("There is no tile to validate with.")
    for path in images:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(-min(2, path.stat().st_size), os.SEEK_END)
            if start != b"\xff\xd8" or file.read(2) != b"\xff\xd9":
                raise TrainingError(f"The training image {path.name} is damaged.")


def _no_memory(config: TrainingConfig) -> str:
    return (
        f"There is not enough memory to train {config.model} with {config.batch_size} tiles of {config.image_size} px "
        "at once: choose a smaller batch size, image size or model."
    )
