"""What every torch back end of this project needs: an offline ultralytics, a device, and all of its processor."""

# mypy: disable-error-code="no-untyped-call"

import atexit
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch


class DeviceError(ValueError):
    """The device named in the settings does not exist on this machine."""


def quiet_ultralytics(config_folder: Path | None = None) -> None:
    """Keep ultralytics from using the network, the home folder and the console. Call before anything of it is used.

    Its online check (a DNS look-up) runs when it is first imported, so the environment is set before that. Usage
    statistics are switched off twice: in its settings and in the object that sends them.

    config_folder: where ultralytics may keep its settings file; a folder that goes away with the process by default.
    """
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_VERBOSE"] = "false"
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))  # ultralytics would set 1
    if config_folder is not None:
        os.environ["YOLO_CONFIG_DIR"] = str(config_folder)
    elif "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = _passing_folder()
    os.environ.setdefault("MPLCONFIGDIR", os.environ["YOLO_CONFIG_DIR"])  # matplotlib comes with ultralytics
    from PIL import Image
    from ultralytics.utils import LOGGER, SETTINGS, downloads, patches
    from ultralytics.utils.events import events

    LOGGER.setLevel(logging.ERROR)
    Image.open = patches._image_open  # theirs wants to install a package when it meets a damaged image
    events.enabled = False
    # It fetches weights that carry the name of published ones, and puts them in the place of a file that is damaged.
    downloads.attempt_download_asset = lambda file, *_, **__: str(file)
    integrations = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
    if any(SETTINGS[name] for name in integrations):  # each update writes the settings file
        SETTINGS.update(dict.fromkeys(integrations, False))


def torch_device(name: str) -> torch.device:
    """The device called "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1". Raises DeviceError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"There is no device called {name!r}: use auto, cpu or cuda.") from error
    if device.type not in {"cpu", "cuda"}:
        raise DeviceError(f"The device {name!r} is not supported: use auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"The device {name!r} is not on this machine: use auto or cpu.")
    return device


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 in hardware; without that, autocast is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


class Cores:
    """Gives torch the cores that other processes leave free, looked at again every few seconds.

    The kernels under torch wait for each other by spinning. When another process holds one of two cores, two threads
    are not a little slower than one but, measured with yolo11n, 8 to 15 times slower; so a thread too few costs little
    and a thread too many costs nearly everything. (Ultralytics leaves one core free for good, and takes 8 at most.)

    threads: a fixed number of threads instead, for results that are the same bit by bit.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._fixed = threads
        self._before = _times()
        torch.set_num_threads(threads or os.cpu_count() or 1)

    def share(self, *, at_least_every: float = 3.0) -> int:
        """Set and return the number of threads, by what the others used since the last look."""
        now = _times()
        seconds = now[0] - self._before[0]
        if self._fixed is None and seconds >= at_least_every:
            others = (now[1] - self._before[1] - (now[2] - self._before[2])) / seconds
            torch.set_num_threads(threads_beside(others, os.cpu_count() or 1))
            self._before = now
        return torch.get_num_threads()


def threads_beside(others: float, cores: int) -> int:
    """How many threads to run when other processes keep that many cores busy: at least one."""
    return min(cores, max(1, round(cores - others)))


def _times() -> tuple[float, float, float]:
    """Now, the seconds all cores of this machine were busy, and the seconds of this process among them.

    What has been set to give way (`nice`) counts as free, unless this process gives way too.
    """
    busy = psutil.cpu_times()
    gives_way = os.getpriority(os.PRIO_PROCESS, 0) > 0
    return time.monotonic(), busy.user + busy.system + busy.nice * gives_way, time.process_time()


def _passing_folder() -> str:
    folder = tempfile.mkdtemp(prefix="marrowloop-ultralytics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
