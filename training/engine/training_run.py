"""One run of ultralytics' trainer without its files, plots, call-backs and integrations, with a state of our own."""

# mypy: disable-error-code="no-untyped-call"

import io
import random
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.engine.runtime import Cores, quiet_ultralytics, torch_device
from training.engine.architectures import architecture
from training.engine.cell_tiles import CellTiles, free_memory
from training.engine.config import TrainingConfig
from training.engine.networks import build_network, plain, take_over
from training.engine.progress import Cancelled, Outcome, Progress, TrainingError
from training.engine.repeat_factors import repeated
from training.engine.state_files import STATE_NAME, WEIGHTS_NAME, save

quiet_ultralytics()  # before ultralytics is imported: its import looks for the network

from ultralytics.models.rtdetr.val import RTDETRValidator  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402
from ultralytics.utils import RANK, YAML  # noqa: E402
from ultralytics.utils.torch_utils import unwrap_model  # noqa: E402

VALIDATION_SHARE = 0.15  # of the training time, about; validation costs a third of a training step per tile


def is_first() -> bool:
    """Whether this process is the only one of its training, or the first: the one that writes and reports."""
    return RANK in {-1, 0}


class CellTraining(DetectionTrainer):
    """Trains on one device, or as one of several processes; `train` is ultralytics' own loop, which calls these.

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
        self._transformer = architecture(config.model).is_transformer
        self._folder = folder
        self._identity = identity
        self._state = state
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._validate_every = config.validate_every or 1
        self._map50: float | None = None
        self._kept: dict[str, Any] = {"best_epoch": 0, "best_map50": None, "taken": 0, "layers": 0}
        wanted = config.cache_megabytes
        self._cache_bytes = (free_memory() if wanted is None else wanted * 1_000_000) // max(1, len(config.gpus))
        self._started = time.monotonic()
        super().__init__(overrides=overrides(data_yaml, config, folder), _callbacks=defaultdict(list))
        self._cores = Cores(config.threads)  # after ultralytics has set its own number

    @property
    def _plain_model(self) -> Any:
        """The network itself; as one of several processes, ultralytics has wrapped it."""
        return unwrap_model(self.model)

    # Ultralytics calls these in this order.

    def get_dataset(self) -> dict[str, Any]:
        """The contents of data.yaml, without ultralytics' check of them: that one fetches a font from the network."""
        folder = Path(self.args.data).parent
        data = YAML.load(self.args.data)
        names = dict(enumerate(data["names"]))
        paths = {part: str(folder / data[part]) for part in ("train", "val")}
        return {**paths, "path": folder, "names": names, "nc": len(names), "channels": 3}

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """A network for the classes of the data set, with the start weights where they fit."""
        model = build_network(self._config.model, self.data["names"], self.device)
        start = self._config.start_weights
        if start is not None and self._state is None:
            self._kept["taken"], self._kept["layers"] = take_over(model, start, self._config.model)
        return model

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> CellTiles:
        """The data set, after a check that ultralytics could read each of its images (it drops those it cannot)."""
        train = mode == "train"
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress bars
            dataset = CellTiles(
                img_path=img_path,
                imgsz=self.args.imgsz,
                batch_size=batch,
                augment=train,
                hyp=self.args,
                rect=not train and not self._transformer,  # an RT-DETR takes squares only
                stride=max(int(self._plain_model.stride.max()), 32),
                pad=0.0 if train else 0.5,
                data=self.data,
                cache_bytes=self._cache_bytes,
            )
        unread = {path.name for path in Path(img_path).iterdir()} - {Path(path).name for path in dataset.im_files}
        if unread:
            raise TrainingError(f"The training image {min(unread)} or its label file is damaged.")
        self._cache_bytes = max(0, self._cache_bytes - dataset.cached_bytes)  # what is left for the validation tiles
        if train and self._config.rare_classes == "repeat":
            counts, threshold = dataset.class_counts(), self._config.repeat_threshold
            dataset.show(repeated(counts, threshold, seed=self._config.seed))
        return dataset

    def get_validator(self) -> Any:
        """The ultralytics validator, with no call-back but the look at `should_stop`."""
        if self._transformer:
            validator = RTDETRValidator(self.test_loader, save_dir=self.save_dir, args=copy(self.args))
        else:
            validator = super().get_validator()
        validator.callbacks = defaultdict(list, on_val_batch_start=[lambda _: self._stop_if_asked()])
        return validator

    def resume_training(self, ckpt: Any) -> None:
        """Take up the state that an earlier run left, if there is one."""
        batches = len(self.train_loader.dataset), len(self.test_loader.dataset)
        if self._config.validate_every is None:
            self._validate_every = max(1, round(batches[1] / 3 / (VALIDATION_SHARE * batches[0])))
        if self._state is None:
            return
        self._plain_model.load_state_dict(self._state["model"])
        self.ema.ema.load_state_dict(self._state["ema"])
        self.ema.updates = self._state["updates"]
        self.optimizer.load_state_dict(self._state["optimizer"])
        self.best_fitness = self._state["best_fitness"]
        self.stopper.__dict__.update(self._state["stopper"])
        self.start_epoch = self._state["epoch"]
        self._kept = self._state["kept"]
        self._age_criterion(self.start_epoch)
        self._state = None  # frees the memory

    def _age_criterion(self, epochs: int) -> None:
        """The loss of a network with two heads shifts its weight between them from epoch to epoch."""
        model = self._plain_model
        model.criterion = model.init_criterion()
        for _ in range(epochs if hasattr(model.criterion, "update") else 0):
            model.criterion.update()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device, with images whose channels lie together: convolutions run faster so."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def run_callbacks(self, event: str) -> None:
        """Nothing but our own: chance before every epoch, a look at `should_stop` before every batch, then a report."""
        if event == "on_train_epoch_start":
            self._draw_anew()
        elif event == "on_train_batch_start":
            self._stop_if_asked()
            self._cores.share()
        elif event == "on_fit_epoch_end" and is_first():
            self._report()

    def _draw_anew(self) -> None:
        """Let the chance of an epoch depend on the seed and its number alone: a resumed training then is the same one.

        Each of several processes has its own. The loader keeps one iterator for all epochs, and takes a number from its
        generator when it makes it: made anew in every epoch, the order of the tiles follows the same draws.
        """
        chance = np.random.default_rng([self._config.seed, self.epoch, max(RANK, 0)])
        random.seed(int(chance.integers(2**32)))
        np.random.seed(int(chance.integers(2**32)))
        torch.manual_seed(int(chance.integers(2**32)))
        self.train_loader.generator.manual_seed(int(chance.integers(2**32)))
        self.train_loader.reset()

    def validate(self) -> tuple[Any, Any]:
        """Validate every few epochs and at the end; in between there is no fitness."""
        last = self.epoch + 1 >= self.epochs
        if not last and (self.epoch + 1) % self._validate_every:
            return self.metrics, None
        metrics, fitness = super().validate()
        if metrics is not None:  # the first process has them
            self._map50 = float(metrics["metrics/mAP50(B)"])
        return metrics, fitness

    def save_model(self) -> bool:
        """Write the weights if they are the best so far, then the state."""
        if self.stopper.best_epoch == self.epoch + 1 or not (self._folder / WEIGHTS_NAME).exists():
            self._write_weights()
        self._write_state()
        return True

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if self.loss is not None and not self.loss.isfinite():
            raise TrainingError(f"Training diverged in epoch {epoch + 1}: choose a lower learning rate.")
        return False

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Ultralytics' table of results is not wanted."""

    def final_eval(self) -> None:
        """The best weights are on disk already, and `metrics.evaluate` judges them."""

    def _write_state(self) -> None:
        """Everything that the next epoch needs, exact; where there is none, as training ends, only how it ended."""
        finished = bool(self.stop)
        state: dict[str, Any] = {
            "identity": self._identity,
            "finished": finished,
            "epoch": self.epoch + 1,
            "kept": self._kept,
        }
        if not finished:
            state |= {
                "model": self._plain_model.state_dict(),
                "ema": self.ema.ema.state_dict(),
                "updates": self.ema.updates,
                "optimizer": self.optimizer.state_dict(),
                "best_fitness": None if self.best_fitness is None else float(self.best_fitness),
                "stopper": {
                    "best_fitness": float(self.stopper.best_fitness),
                    "best_epoch": self.stopper.best_epoch,
                },
            }
        save(state, self._folder / STATE_NAME)

    def _write_weights(self) -> None:
        self._kept |= {"best_epoch": self.epoch + 1, "best_map50": self._map50}
        model = plain(deepcopy(self.ema.ema).half().to(memory_format=torch.contiguous_format))
        arguments = {"task": "detect", "imgsz": self._config.image_size}
        model.args = dict(arguments)
        for value in model.state_dict().values():
            if value.is_floating_point():
                torch.nan_to_num_(value)  # float16 ends at 65504
        arguments["model"] = f"{self._config.model}.yaml"
        save({"model": model, "epoch": self.epoch + 1, "train_args": arguments}, self._folder / WEIGHTS_NAME)

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


def outcome_in(state: dict[str, Any], config: TrainingConfig) -> Outcome:
    """How a training ended, from the state that it left."""
    kept = state["kept"]
    return Outcome(config.epochs, state["epoch"], kept["best_epoch"], kept["best_map50"], kept["taken"], kept["layers"])


def overrides(data_yaml: Path, config: TrainingConfig, folder: Path) -> dict[str, Any]:
    """The settings of ultralytics for a configuration."""
    return {
        "model": f"{config.model}.yaml",
        "data": str(data_yaml.resolve()),
        "save_dir": str(folder),
        "exist_ok": True,
        "epochs": config.epochs,
        "imgsz": config.image_size,
        "batch": config.batch_size,
        "device": config.device if config.gpus else str(torch_device(config.device)),
        "seed": config.seed,
        "deterministic": True,
        "patience": config.patience or config.epochs + 1,
        "workers": 0,
        "amp": False,  # we autocast ourselves; ultralytics' check would download a model
        "plots": False,
        "verbose": False,
        "optimizer": "AdamW",
        "lr0": config.highest_rate,
        "momentum": 0.9,
        "nbs": config.batch_size,  # a step per batch: with 60 tiles, the default 64 makes one step per epoch
        "warmup_bias_lr": 0.0,  # the default 0.1 is meant for SGD
        "close_mosaic": max(1, config.epochs // 8),
        "flipud": config.flip_vertical,
        "fliplr": config.flip_horizontal,
        "degrees": config.rotation,
        "scale": config.scale,
        "translate": config.shift,
        "hsv_h": config.hue,
        "hsv_s": config.saturation,
        "hsv_v": config.brightness,
        "mosaic": config.mosaic,
        "cutmix": config.cutmix,
        "mixup": config.mixup,
    }
