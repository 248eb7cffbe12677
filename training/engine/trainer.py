"""Training of a YOLO detector with ultralytics: offline, cancellable at every batch, resumable after every epoch."""

# mypy: disable-error-code="no-untyped-call"

import errno
import hashlib
import io
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from inference.engine.runtime import Cores, bfloat16_is_fast, quiet_ultralytics, torch_device
from inference.engine.torch_detector import load_model

quiet_ultralytics()  # before ultralytics is imported: its import looks for the network

from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils import YAML  # noqa: E402

MODEL_NAME = re.compile(r"yolo(v8|11)[nsmlx]")
VALIDATION_SHARE = 0.15  # of the training time, about; validation costs a third of a training step per tile
NO_MEMORY = re.compile("out of memory|can't allocate memory|(not enough|insufficient) memory", re.IGNORECASE)
STATE_NAME = "last.pt"
WEIGHTS_NAME = "weights.pt"


class Cancelled(Exception):
    """`should_stop` asked for an end. The state of the last whole epoch stays in the folder."""


class TrainingError(RuntimeError):
    """Training cannot go on, for a reason that its message explains to whoever started it."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    model: yolo11n (fast on a processor) to yolo11x, or yolov8n to yolov8x, trained from scratch.
    epochs: turns over all training tiles.
    batch_size: tiles per step. Small sets want many steps: 80 tiles x 20 epochs in batches of 8 gave a better detector
    than 60 tiles x 80 epochs in batches of 16, in a quarter of the time.
    image_size: tiles are resized so that the longer side has this many px; a multiple of 32.
    learning_rate: of AdamW, at its highest; it rises over the first 3 epochs and then falls to 1 % linearly.
    patience: epochs without a better validation after which training ends early; 0 never ends it early.
    device: auto, cpu, cuda or cuda:1.
    start_weights: weights of another round; layers that match are taken over, and classes by name.
    validate_every: epochs between validations; None chooses so that they take a small share of the time.
    threads: of the processor; None takes the cores that other processes leave, and then two trainings with the same
    seed can differ in the last bits.
    """

    epochs: int
    model: str = "yolo11n"
    image_size: int = 320
    batch_size: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    patience: int = 0
    device: str = "auto"
    start_weights: Path | None = None
    validate_every: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Progress:
    """Where training is after an epoch (the first is 1); `map50` is that of the last validation, if there was one."""

    epoch: int
    epochs: int
    losses: dict[str, float]
    map50: float | None
    seconds_left: float


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
    epoch is safe on disk. `should_stop` is asked before every batch.

    The weights are an ordinary ultralytics checkpoint (the moving average of the weights, float16) without any path.
    Raises Cancelled, TrainingError, ValueError for an impossible configuration, WeightsError for bad start weights.
    """
    _check_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(data_yaml, config)
    state = _load_state(folder / STATE_NAME, identity)
    if state is not None and state["finished"]:
        return folder / WEIGHTS_NAME
    if state is None:
        (folder / WEIGHTS_NAME).unlink(missing_ok=True)
    if should_stop():
        raise Cancelled
    with _explained_errors(folder, config):
        _check_images(data_yaml.parent)
        training = _CellTraining(data_yaml, config, folder, identity, state, on_progress, should_stop)
        training.train()
        training.write_state(finished=True)
    return folder / WEIGHTS_NAME


class _CellModel(DetectionModel):
    """A detection model that computes in bfloat16 where that is fast, and its loss in float32.

    Only for training: the class of a saved model is the plain one, so that the file loads without this project.
    """

    reduced_precision: bool = False

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, dict):
            return self.loss(x)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.reduced_precision):
            output = super().forward(x, *args, **kwargs)
        return _to_float32(output)


class _CellTraining(DetectionTrainer):
    """The ultralytics trainer without its files, plots, call-backs and integrations, and with a state of our own.

    (Its name does not contain "Trainer" on purpose: ultralytics attaches its integrations to classes that do.)
    """

    model: Any
    ema: Any
    optimizer: Any
    tloss: Any

    def __init__(
        self,
        data_yaml: Path,
        config: TrainingConfig,
        folder: Path,
        identity: str,
        state: dict[str, Any] | None,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._config = config
        self._folder = folder
        self._identity = identity
        self._state = state
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._validate_every = config.validate_every or 1
        self._map50: float | None = None
        self._started = time.monotonic()
        super().__init__(overrides=_overrides(data_yaml, config, folder), _callbacks=defaultdict(list))
        self._cores = Cores(config.threads)  # after ultralytics has set its own number

    # Ultralytics calls these in this order.

    def get_dataset(self) -> dict[str, Any]:
        """The contents of data.yaml, without ultralytics' check of them: that one fetches a font from the network."""
        folder = Path(self.args.data).parent
        data = YAML.load(self.args.data)
        names = dict(enumerate(data["names"]))
        paths = {part: str(folder / data[part]) for part in ("train", "val")}
        return {**paths, "path": folder, "names": names, "nc": len(names), "channels": 3}

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> _CellModel:
        """A model for the classes of the data set, with the start weights where they fit."""
        model = _CellModel(cfg, nc=self.data["nc"], ch=3, verbose=False)
        model.names = self.data["names"]
        if self._config.start_weights is not None and self._state is None:
            model.load(load_model(self._config.start_weights), verbose=False)
            model.pt_path = None
        model.reduced_precision = bfloat16_is_fast(self.device)
        return model.to(memory_format=torch.channels_last)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """The data set, after a check that ultralytics could read each of its images (it drops those it cannot)."""
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress bars
            dataset = super().build_dataset(img_path, mode, batch)
        unread = {path.name for path in Path(img_path).iterdir()} - {Path(path).name for path in dataset.im_files}
        if unread:
            raise TrainingError(f"The training image {min(unread)} or its label file is damaged.")
        return dataset

    def resume_training(self, ckpt: Any) -> None:
        """Take up the state that an earlier run left, if there is one."""
        batches = len(self.train_loader.dataset), len(self.test_loader.dataset)
        if self._config.validate_every is None:
            self._validate_every = max(1, round(batches[1] / 3 / (VALIDATION_SHARE * batches[0])))
        if self._state is None:
            return
        self.model.load_state_dict(self._state["model"])
        self.ema.ema.load_state_dict(self._state["ema"])
        self.ema.updates = self._state["updates"]
        self.optimizer.load_state_dict(self._state["optimizer"])
        self.best_fitness = self._state["best_fitness"]
        self.stopper.__dict__.update(self._state["stopper"])
        self.start_epoch = self._state["epoch"]
        self._state = None  # frees the memory

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device, with images whose channels lie together: convolutions run faster so."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def run_callbacks(self, event: str) -> None:
        """Nothing but our own: a look at `should_stop` before every batch, the report after every epoch."""
        if event == "on_train_batch_start":
            self._stop_if_asked()
            self._cores.share()
        elif event == "on_fit_epoch_end":
            self._report()

    def get_validator(self) -> Any:
        """The ultralytics validator, with no call-back but the look at `should_stop`."""
        validator = super().get_validator()
        validator.callbacks = defaultdict(list, on_val_batch_start=[lambda _: self._stop_if_asked()])
        return validator

    def validate(self) -> tuple[Any, Any]:
        """Validate every few epochs and at the end; in between there is no fitness."""
        last = self.epoch + 1 >= self.epochs
        if not last and (self.epoch + 1) % self._validate_every:
            return self.metrics, None
        metrics, fitness = super().validate()
        self._map50 = float(metrics["metrics/mAP50(B)"])
        return metrics, fitness

    def save_model(self) -> bool:
        """Write the weights if they are the best so far, then the state."""
        best = self.fitness is not None and self.fitness == self.best_fitness
        if best or not (self._folder / WEIGHTS_NAME).exists():
            self._write_weights()
        self.write_state(finished=False)
        return True

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if self.loss is not None and not self.loss.isfinite():
            raise TrainingError(f"Training diverged in epoch {epoch + 1}: choose a lower learning rate.")
        return False

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Ultralytics' table of results is not wanted."""

    def final_eval(self) -> None:
        """The best weights are on disk already, and `metrics.evaluate` judges them."""

    def write_state(self, *, finished: bool) -> None:
        """Everything that the next epoch needs, exact; of a finished training only that it is."""
        state: dict[str, Any] = {"identity": self._identity, "finished": finished, "epoch": self.epoch + 1}
        if not finished:
            state |= {
                "model": self.model.state_dict(),
                "ema": self.ema.ema.state_dict(),
                "updates": self.ema.updates,
                "optimizer": self.optimizer.state_dict(),
                "best_fitness": None if self.best_fitness is None else float(self.best_fitness),
                "stopper": {
                    "best_fitness": float(self.stopper.best_fitness),
                    "best_epoch": self.stopper.best_epoch,
                },
            }
        _save(state, self._folder / STATE_NAME)

    def _write_weights(self) -> None:
        model = deepcopy(self.ema.ema).half().to(memory_format=torch.contiguous_format)
        model.__class__ = DetectionModel
        model.__dict__.pop("reduced_precision", None)
        model.criterion = None
        model.args = {"task": "detect", "imgsz": self._config.image_size}
        for value in model.state_dict().values():
            if value.is_floating_point():
                torch.nan_to_num_(value)  # float16 ends at 65504
        arguments = {"task": "detect", "imgsz": self._config.image_size, "model": f"{self._config.model}.yaml"}
        _save({"model": model, "epoch": self.epoch + 1, "train_args": arguments}, self._folder / WEIGHTS_NAME)

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise Cancelled

    def _report(self) -> None:
        done = self.epoch + 1
        seconds = (time.monotonic() - self._started) / (done - self.start_epoch)
        ended = self.stop or done >= self.epochs
        self._on_progress(
            Progress(
                epoch=done,
                epochs=self.epochs,
                losses={name: float(value) for name, value in self.tloss.items()},
                map50=self._map50,
                seconds_left=0.0 if ended else seconds * (self.epochs - done),
            )
        )


def _overrides(data_yaml: Path, config: TrainingConfig, folder: Path) -> dict[str, Any]:
    """The settings of ultralytics. What differs from its defaults suits small sets of cells."""
    return {
        "model": f"{config.model}.yaml",
        "data": str(data_yaml.resolve()),
        "save_dir": str(folder),
        "exist_ok": True,
        "epochs": config.epochs,
        "imgsz": config.image_size,
        "batch": config.batch_size,
        "device": str(torch_device(config.device)),
        "seed": config.seed,
        "deterministic": True,
        "patience": config.patience or config.epochs + 1,
        "workers": 0,
        "cache": "ram",
        "amp": False,  # we autocast ourselves; ultralytics' check would download a model
        "plots": False,
        "verbose": False,
        "optimizer": "AdamW",
        "lr0": config.learning_rate,
        "momentum": 0.9,
        "nbs": config.batch_size,  # a step per batch: with 60 tiles, the default 64 makes one step per epoch
        "warmup_bias_lr": 0.0,  # the default 0.1 is meant for SGD
        "close_mosaic": max(1, config.epochs // 8),
        # A smear has no up or down. Flips are exact; a turn by another angle would blow the boxes up.
        "flipud": 0.5,
        "fliplr": 0.5,
        "degrees": 0.0,
        "scale": 0.3,  # cell size tells classes apart, and the magnification is known
        "translate": 0.1,
        "hsv_h": 0.015,
        "hsv_s": 0.4,  # stain varies, but saturation and hue also carry the diagnosis
        "hsv_v": 0.3,
        "mosaic": 1.0,
    }


def _check_config(config: TrainingConfig) -> None:
    if not MODEL_NAME.fullmatch(config.model):
        raise ValueError(
            f"There is no model called {config.model!r}: use yolo11n, yolo11s, yolo11m, yolo11l or yolo11x."
        )
    if config.epochs < 1 or config.batch_size < 1 or config.patience < 0:
        raise ValueError("Epochs and batch size must be at least 1, patience at least 0.")
    if config.image_size < 64 or config.image_size % 32:
        raise ValueError(f"The image size must be a multiple of 32 px and at least 64, not {config.image_size}.")
    if not (0 < config.learning_rate < 1):
        raise ValueError(f"The learning rate must lie between 0 and 1, not {config.learning_rate}.")


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


def _load_state(path: Path, identity: str) -> dict[str, Any] | None:
    """The state in a file, if it belongs to this very training."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # written atomically, so damaged by other means: start anew rather than never again
        return None
    return state if state.get("identity") == identity else None


def _save(content: dict[str, Any], path: Path) -> None:
    """Write a file that is either the old one or the whole new one, whenever the process is killed."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    growing = path.with_suffix(".writing")
    with growing.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    growing.replace(path)


def _to_float32(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: _to_float32(value) for name, value in output.items()}
    if isinstance(output, list | tuple):
        return type(output)(_to_float32(value) for value in output)
    return output


@contextmanager
def _explained_errors(folder: Path, config: TrainingConfig) -> Iterator[None]:
    """Turn what a user can mend into a TrainingError; let everything else through as it is."""
    try:
        yield
    except Exception as error:
        # RuntimeError of torch, cv2.error of OpenCV, MemoryError of Python
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            raise TrainingError(
                f"There is not enough memory to train {config.model} with {config.batch_size} tiles of "
                f"{config.image_size} px at once: choose a smaller batch size, image size or model."
            ) from error
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TrainingError(f"The disk is full: nothing more can be written to {folder.name}.") from error
        raise
