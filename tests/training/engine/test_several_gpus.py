"""Two processes on a processor (gloo) in the place of two GPUs, started and followed as the GPUs' would be."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from inference.engine.detector import load_detector
from inference.engine.runtime import DeviceError
from tests.training.engine.cells import CLASSES, SIDE, small_dataset
from training.engine.config import TrainingConfig, check_config
from training.engine.progress import Cancelled, Progress, TrainingError
from training.engine.several_gpus import command, is_gone, starter, train_on_gpus
from training.engine.state_files import STATE_NAME, load_state
from training.engine.trainer import train

CONFIG = TrainingConfig(epochs=2, image_size=SIDE, batch_size=4, device="0,1", threads=1)
WORKER = "tests.training.engine.gloo_worker"


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data") / "set")


def run(data_yaml: Path, folder: Path, config: TrainingConfig = CONFIG) -> list[Progress]:
    seen: list[Progress] = []
    train_on_gpus(
        data_yaml, config, folder, "this one", on_progress=seen.append, should_stop=lambda: False, worker=WORKER
    )
    return seen


def left_running(folder: Path) -> list[int]:
    """Processes that were told of this folder."""
    running = psutil.process_iter(["pid", "cmdline"])
    return [one.info["pid"] for one in running if str(folder / "job.json") in (one.info["cmdline"] or [])]


def test_two_processes_train_one_model_and_go_on_where_they_stopped(data_yaml: Path, tmp_path: Path) -> None:
    def stop_after_one(progress: Progress) -> None:
        if progress.epoch == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        train_on_gpus(
            data_yaml,
            CONFIG,
            tmp_path,
            "this one",
            on_progress=stop_after_one,
            should_stop=lambda: False,
            worker=WORKER,
        )
    assert not left_running(tmp_path)
    state = load_state(tmp_path / STATE_NAME, "this one")
    assert state is not None
    done = state["epoch"]
    assert state["updates"] == 2 * done, "8 tiles in batches of 4 are two steps, shared, not one for each process"
    seen = run(data_yaml, tmp_path)
    assert [progress.epoch for progress in seen] == list(range(done + 1, 3))
    state = load_state(tmp_path / STATE_NAME, "this one")
    assert state is not None
    assert state["finished"]
    assert load_detector(tmp_path / "weights.pt", image_size=SIDE).classes == CLASSES


def test_what_goes_wrong_in_a_process_is_told_by_its_own_words(tmp_path: Path) -> None:
    data = small_dataset(tmp_path / "set")
    image = tmp_path / "set/images/train/tile3.jpg"
    image.write_bytes(b"\xff\xd8\xff\xd9")
    with pytest.raises(TrainingError, match=r"tile3\.jpg .*damaged"):
        run(data, tmp_path)


def test_gpus_that_are_not_there_are_refused(data_yaml: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() > 99:
        pytest.skip("so many GPUs")
    with pytest.raises(DeviceError, match="use auto or cpu"):
        train(
            data_yaml,
            replace(CONFIG, device="0,99"),
            tmp_path,
            on_progress=lambda _: None,
            should_stop=lambda: False,
        )


@pytest.mark.parametrize("change", [{"device": "1,1"}, {"batch_size": 1}])
def test_gpus_must_be_different_and_have_a_tile_each(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="GPUs"):
        check_config(replace(CONFIG, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(("device", "gpus"), [("0,1", (0, 1)), ("0,1,3", (0, 1, 3)), ("cpu", ()), ("cuda:1", ())])
def test_a_list_of_numbers_names_several(device: str, gpus: tuple[int, ...]) -> None:
    assert replace(CONFIG, device=device).gpus == gpus


def test_a_process_is_started_for_each() -> None:
    words = command(replace(CONFIG, device="0,1,3"), Path("job.json"))
    assert words[1:4] == ["-m", "torch.distributed.run", "--standalone"]
    assert "--nproc_per_node=3" in words
    assert words[-3:] == ["-m", "training.engine.gpu_worker", "job.json"]


def test_a_worker_sees_when_its_starter_is_gone() -> None:
    assert not is_gone(starter())
    number, started = starter()
    assert is_gone((number, started - 1)), "another process has its number"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    facts = process.pid, psutil.Process(process.pid).create_time()
    assert not is_gone(facts)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert is_gone(facts)
