"""Training on several GPUs: one process for each, which ultralytics' own DDP keeps in step.

Ultralytics would start these processes itself, from a pickle of its trainer: that cannot carry our call-backs, and it
empties the folder with the state of an earlier attempt. So we start them, and inside them everything is ultralytics'
own: the process group, the samplers, the model's wrapper, the exchange of validation results.

Tested with two processes on a processor (gloo), so far not on GPUs.
"""

# mypy: disable-error-code="no-untyped-call"

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from inference.engine.runtime import DeviceError
from training.engine.config import TrainingConfig
from training.engine.progress import Cancelled, Progress, TrainingError

ROOT = Path(__file__).resolve().parents[2]
WORKER = "training.engine.gpu_worker"
JOB_NAME, TOLD_NAME, LOG_NAME = "job.json", "told.jsonl", "workers.log"
LOOK_SECONDS = 0.2
END_SECONDS = 10.0  # that the processes have to end by themselves


def check_gpus(config: TrainingConfig) -> None:
    """Raises DeviceError if one of the GPUs is not on this machine."""
    there = torch.cuda.device_count()
    if any(gpu >= there for gpu in config.gpus):
        raise DeviceError(f"Of the GPUs {config.device} this machine has {there}: use auto or cpu.")


def train_on_gpus(
    data_yaml: Path,
    config: TrainingConfig,
    folder: Path,
    identity: str,
    *,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    worker: str = WORKER,
) -> None:
    """Train as `train` does, in as many processes as `config.device` names GPUs; the folder then holds what it left.

    `should_stop` is asked every 0.2 s. worker: the module that each process runs.
    Raises Cancelled, TrainingError, and what else went wrong in the processes, as the same kind of error.
    """
    job = {"data": str(data_yaml), "folder": str(folder), "identity": identity, "config": asdict(config)}
    (folder / JOB_NAME).write_text(json.dumps(job | {"starter": starter()}, default=str), encoding="utf-8")
    told = folder / TOLD_NAME
    told.write_bytes(b"")
    with _processes(command(config, folder / JOB_NAME, worker), folder / LOG_NAME) as process, told.open() as lines:
        while process.poll() is None:
            if should_stop():
                raise Cancelled
            _pass_on(lines, on_progress)
            time.sleep(LOOK_SECONDS)
        _pass_on(lines, on_progress)
    if process.returncode:
        log = (folder / LOG_NAME).read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"A process of the training ended: {log.strip()[-500:]}")


def command(config: TrainingConfig, job: Path, worker: str = WORKER) -> list[str]:
    """What starts the processes, on this machine alone."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={len(config.gpus)}"]
    return [*launcher, "-m", worker, str(job)]


def starter() -> tuple[int, float]:
    """This process, so that its workers can see when it is gone: its number and the time it started."""
    return os.getpid(), psutil.Process().create_time()


def is_gone(process: tuple[int, float]) -> bool:
    """Whether such a process has ended; another one may have its number since."""
    number, started = process
    try:
        return bool(psutil.Process(number).create_time() != started)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def _processes(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The running launcher in a session of its own, ended with all its processes when the block is left."""
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)  # noqa: S603
    try:
        yield process
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, sign)
                try:
                    process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    continue


def _pass_on(lines: Any, on_progress: Callable[[Progress], None]) -> None:
    """What the processes have told since the last look: epochs, or what went wrong."""
    for line in lines:
        told = json.loads(line)
        if "error" not in told:
            on_progress(Progress(**told))
        elif told["kind"] == "TrainingError":
            raise TrainingError(told["error"])
        elif told["number"] is not None:
            raise OSError(told["number"], told["error"])
        else:
            raise RuntimeError(told["error"])
