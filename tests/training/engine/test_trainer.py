import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from inference.engine.detector import WeightsError, load_detector
from tests.training.engine.cells import CLASSES, SIDE, draw_tile, small_dataset, training_tile
from training.engine.cell_tiles import CellTiles
from training.engine.dataset import write_dataset
from training.engine.metrics import evaluate
from training.engine.trainer import Cancelled, Progress, TrainingConfig, TrainingError, outcome, train

ROOT = Path(__file__).resolve().parents[3]
SMALL = TrainingConfig(epochs=2, image_size=SIDE, batch_size=4, device="cpu", threads=1)


class Killed(BaseException):
    """Stands for the end of the process."""


def run(data_yaml: Path, config: TrainingConfig, folder: Path, kill_after: int = 0) -> tuple[Path, list[Progress]]:
    """Train; with `kill_after`, stop dead once that epoch is reported."""
    seen: list[Progress] = []

    def note(progress: Progress) -> None:
        seen.append(progress)
        if progress.epoch == kill_after:
            raise Killed

    return train(data_yaml, config, folder, on_progress=note, should_stop=lambda: False), seen


def tensors(weights: Path) -> dict[str, torch.Tensor]:
    model = torch.load(weights, weights_only=False)["model"]
    return dict(model.state_dict())


def same(first: Path, second: Path) -> bool:
    one, other = tensors(first), tensors(second)
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def trained(data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    return run(data_yaml, SMALL, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """A training long enough to find most cells."""
    folder = tmp_path_factory.mktemp("learned")
    data = write_dataset(folder / "set", [training_tile(seed) for seed in range(24)], [training_tile(100)], CLASSES)
    config = replace(SMALL, epochs=32, learning_rate=4e-3, validate_every=11)
    return run(data, config, folder / "run")


class TestProgress:
    def test_it_reports_every_epoch_with_losses_and_time(self, trained: tuple[Path, list[Progress]]) -> None:
        _, seen = trained
        assert [(progress.epoch, progress.epochs) for progress in seen] == [(1, 2), (2, 2)]
        assert all(set(progress.losses) == {"box_loss", "cls_loss", "dfl_loss"} for progress in seen)
        assert all(np.isfinite(list(progress.losses.values())).all() for progress in seen)
        assert seen[0].seconds_left > 0
        assert seen[1].seconds_left == 0

    def test_the_last_epoch_is_always_validated(self, data_yaml: Path, tmp_path: Path) -> None:
        _, seen = run(data_yaml, replace(SMALL, validate_every=5), tmp_path)
        assert seen[0].map50 is None
        assert seen[1].map50 is not None

    def test_patience_ends_a_training_that_gets_no_better(
        self, learned: tuple[Path, list[Progress]], data_yaml: Path, tmp_path: Path
    ) -> None:
        config = replace(SMALL, epochs=9, patience=1, learning_rate=1e-12, validate_every=1, start_weights=learned[0])
        weights, seen = run(data_yaml, config, tmp_path / "whole")
        assert 2 <= seen[-1].epoch < 9
        assert seen[-1].seconds_left == 0
        with pytest.raises(Killed):
            run(data_yaml, config, tmp_path / "killed", kill_after=seen[-1].epoch)
        for folder in (tmp_path / "whole", tmp_path / "killed"):
            assert run(data_yaml, config, folder) == (folder / "weights.pt", [])
        ended = outcome(data_yaml, config, tmp_path / "killed")
        assert ended.stopped_early
        assert ended.best_epoch < ended.last_epoch == seen[-1].epoch
        assert torch.load(weights, weights_only=False)["epoch"] == ended.best_epoch


class TestWeights:
    def test_they_name_the_classes_and_load_as_a_detector(self, trained: tuple[Path, list[Progress]]) -> None:
        weights, _ = trained
        detector = load_detector(weights, image_size=SIDE)
        assert detector.classes == CLASSES

    def test_they_load_alone_and_hold_no_path(
        self, trained: tuple[Path, list[Progress]], data_yaml: Path, tmp_path: Path
    ) -> None:
        weights, _ = trained
        copy = tmp_path / "copy.pt"
        copy.write_bytes(weights.read_bytes())
        for path in (weights.parent, data_yaml.parent, ROOT):
            assert str(path).encode() not in copy.read_bytes()
        program = f"import torch; print(torch.load({str(copy)!r}, weights_only=False)['model'].names)"
        environment = {**quiet_environment(tmp_path), "YOLO_OFFLINE": "true"}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(dict(enumerate(CLASSES)))

    def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
        self, trained: tuple[Path, list[Progress]], data_yaml: Path, tmp_path: Path
    ) -> None:
        first = tensors(trained[0])
        again = tensors(run(data_yaml, SMALL, tmp_path / "again")[0])
        other = tensors(run(data_yaml, replace(SMALL, seed=1), tmp_path / "other")[0])
        assert all(torch.equal(value, again[name]) for name, value in first.items())
        assert not torch.equal(first["model.0.conv.weight"], other["model.0.conv.weight"])

    def test_start_weights_are_taken_over_with_their_classes_by_name(
        self, trained: tuple[Path, list[Progress]], tmp_path: Path
    ) -> None:
        tiles = [training_tile(seed) for seed in range(4)]
        reversed_classes = (*CLASSES[::-1], "basophil")
        data = write_dataset(tmp_path / "set", tiles, [training_tile(9)], reversed_classes)
        config = replace(SMALL, epochs=1, learning_rate=1e-12, start_weights=trained[0], seed=7)
        start, end = tensors(trained[0]), tensors(run(data, config, tmp_path / "run")[0])
        name = "model.0.conv.weight"
        assert torch.equal(start[name], end[name])
        last = "model.23.cv3.0.2.weight"  # the last layer of the class branch, a row per class
        assert end[last].shape[0] == 3
        assert torch.equal(start[last][0], end[last][1])
        assert torch.equal(start[last][1], end[last][0])

    def test_training_finds_cells_on_tiles_it_has_not_seen(self, learned: tuple[Path, list[Progress]]) -> None:
        weights, seen = learned
        assert seen[-1].losses["box_loss"] < seen[0].losses["box_loss"]
        pictures, truths = zip(*(draw_tile(seed) for seed in range(200, 208)), strict=True)
        found = load_detector(weights, image_size=SIDE).detect(np.stack(pictures))
        result = evaluate(truths, found, CLASSES, ["P01"] * 8, bootstrap=0)
        assert result.map50 is not None
        assert result.map50 > 0.5


class TestResuming:
    def test_a_killed_training_continues_after_its_last_whole_epoch(self, data_yaml: Path, tmp_path: Path) -> None:
        config = replace(SMALL, epochs=4)
        with pytest.raises(Killed):
            run(data_yaml, config, tmp_path, kill_after=2)
        weights, seen = run(data_yaml, config, tmp_path)
        assert [progress.epoch for progress in seen] == [3, 4]
        assert weights.is_file()

    def test_it_comes_to_the_very_same_weights(self, data_yaml: Path, tmp_path: Path) -> None:
        config = replace(SMALL, epochs=4)
        weights, whole = run(data_yaml, config, tmp_path / "whole")
        for epochs in (1, 2):
            with pytest.raises(Killed):
                run(data_yaml, config, tmp_path / "killed", kill_after=epochs)
        resumed, seen = run(data_yaml, config, tmp_path / "killed")
        assert [progress.losses for progress in seen] == [progress.losses for progress in whole[2:]]
        assert same(weights, resumed)

    def test_every_epoch_shows_the_tiles_in_another_order(
        self, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[int] = []
        read = CellTiles.get_image_and_label
        monkeypatch.setattr(CellTiles, "get_image_and_label", lambda self, at: (shown.append(at), read(self, at))[1])
        run(data_yaml, replace(SMALL, epochs=3, mosaic=0.0, validate_every=9), tmp_path)
        orders = [tuple(shown[start : start + 8]) for start in (0, 8, 16)]
        assert all(sorted(order) == list(range(8)) for order in orders)
        assert len(set(orders)) == 3

    def test_the_optimiser_and_the_moving_average_are_taken_up_as_they_were(
        self, data_yaml: Path, tmp_path: Path
    ) -> None:
        config = replace(SMALL, epochs=4)
        with pytest.raises(Killed):
            run(data_yaml, config, tmp_path, kill_after=2)
        before = torch.load(tmp_path / "last.pt", weights_only=True)
        with pytest.raises(Killed):
            run(data_yaml, config, tmp_path, kill_after=3)
        after = torch.load(tmp_path / "last.pt", weights_only=True)
        steps = [{int(entry["step"]) for entry in state["optimizer"]["state"].values()} for state in (before, after)]
        assert steps == [{4}, {6}]  # 8 tiles in batches of 4 make 2 steps per epoch
        assert (before["updates"], after["updates"]) == (4, 6)

    def test_a_finished_training_returns_at_once(self, trained: tuple[Path, list[Progress]], data_yaml: Path) -> None:
        weights, _ = trained
        written = weights.stat().st_mtime_ns
        again, seen = run(data_yaml, SMALL, weights.parent)
        assert (again, seen) == (weights, [])
        assert weights.stat().st_mtime_ns == written

    def test_killed_after_its_last_epoch_it_is_finished(self, data_yaml: Path, tmp_path: Path) -> None:
        config = replace(SMALL, epochs=1)
        with pytest.raises(Killed):
            run(data_yaml, config, tmp_path, kill_after=1)
        assert run(data_yaml, config, tmp_path) == (tmp_path / "weights.pt", [])
        assert outcome(data_yaml, config, tmp_path).last_epoch == 1

    @pytest.mark.parametrize("change", ["configuration", "labels"])
    def test_another_configuration_or_other_boxes_start_anew(self, tmp_path: Path, change: str) -> None:
        data = small_dataset(tmp_path / "set")
        with pytest.raises(Killed):
            run(data, SMALL, tmp_path / "run", kill_after=1)
        config = SMALL
        if change == "configuration":
            config = replace(SMALL, learning_rate=1e-3)
        else:
            (tmp_path / "set/labels/train/tile0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        assert [progress.epoch for progress in run(data, config, tmp_path / "run")[1]] == [1, 2]

    def test_a_damaged_state_starts_anew(self, data_yaml: Path, tmp_path: Path) -> None:
        with pytest.raises(Killed):
            run(data_yaml, SMALL, tmp_path, kill_after=1)
        (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:1000])
        assert [progress.epoch for progress in run(data_yaml, SMALL, tmp_path)[1]] == [1, 2]


class TestCancelling:
    @pytest.mark.parametrize("looks", [1, 2, 4])
    def test_it_ends_at_the_first_batch_after_the_wish(self, data_yaml: Path, tmp_path: Path, looks: int) -> None:
        asked: list[bool] = []

        def should_stop() -> bool:
            asked.append(len(asked) + 1 >= looks)
            return asked[-1]

        with pytest.raises(Cancelled):
            train(data_yaml, SMALL, tmp_path, on_progress=lambda _: None, should_stop=should_stop)
        assert len(asked) == looks

    def test_every_batch_asks(self, data_yaml: Path, tmp_path: Path) -> None:
        asked: list[None] = []

        def should_stop() -> bool:
            asked.append(None)
            return False

        train(data_yaml, SMALL, tmp_path, on_progress=lambda _: None, should_stop=should_stop)
        assert len(asked) >= 1 + 2 * (2 + 1)  # the start, then two epochs of two training and one validation batch


class TestErrors:
    def test_no_box_at_all(self, tmp_path: Path) -> None:
        data = write_dataset(tmp_path / "set", [training_tile(0, cells=0)], [training_tile(1)], CLASSES)
        with pytest.raises(TrainingError, match="not a single box"):
            run(data, SMALL, tmp_path / "run")

    def test_no_tile_to_validate_with(self, tmp_path: Path) -> None:
        data = write_dataset(tmp_path / "set", [training_tile(0)], [], CLASSES)
        with pytest.raises(TrainingError, match="validate"):
            run(data, SMALL, tmp_path / "run")

    @pytest.mark.parametrize(
        "damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"\xff\xd8\xff\xd9"]
    )
    def test_a_damaged_image_is_named(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        data = small_dataset(tmp_path / "set")
        image = tmp_path / "set/images/train/tile3.jpg"
        image.write_bytes(damage(image.read_bytes()))
        with pytest.raises(TrainingError, match=r"tile3\.jpg .*damaged"):
            run(data, SMALL, tmp_path / "run")

    def test_a_full_disk_is_called_that(self, data_yaml: Path, tmp_path: Path) -> None:
        (tmp_path / "weights.writing").symlink_to("/dev/full")
        with pytest.raises(TrainingError, match="disk is full"):
            run(data_yaml, SMALL, tmp_path)

    @pytest.mark.parametrize(
        "failure",
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            cv2.error("(-4:Insufficient memory) Failed to allocate 9 bytes"),
        ],
    )
    def test_too_little_memory_says_what_to_make_smaller(
        self, data_yaml: Path, tmp_path: Path, failure: Exception
    ) -> None:
        def fail(_: Progress) -> None:
            raise failure

        with pytest.raises(TrainingError, match=r"not enough memory.*4 tiles of 96 px.*smaller"):
            train(data_yaml, replace(SMALL, epochs=1), tmp_path, on_progress=fail, should_stop=lambda: False)

    def test_a_process_that_may_take_no_more_memory_says_so_too(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", LITTLE_MEMORY_PROGRAM, str(tmp_path)],
            cwd=ROOT,
            env=quiet_environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "There is not enough memory to train yolo11n with 8 tiles of 640 px" in done.stdout

    def test_a_training_that_diverges_says_so(
        self, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = DetectionModel.loss

        def infinite(model: DetectionModel, *arguments: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, items = whole(model, *arguments)
            return loss * float("inf"), items

        monkeypatch.setattr(DetectionModel, "loss", infinite)
        with pytest.raises(TrainingError, match="diverged in epoch 1: choose a lower learning rate"):
            run(data_yaml, SMALL, tmp_path)

    def test_missing_start_weights_are_named(self, data_yaml: Path, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"round7\.pt does not exist"):
            run(data_yaml, replace(SMALL, start_weights=tmp_path / "round7.pt"), tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "yolo11n.pt"},
            {"model": "../yolo11n"},
            {"epochs": 0},
            {"batch_size": 0},
            {"image_size": 300},
            {"learning_rate": 0.0},
            {"patience": -1},
        ],
    )
    def test_an_impossible_configuration_is_refused(self, tmp_path: Path, change: dict[str, object]) -> None:
        with pytest.raises(ValueError):
            run(tmp_path / "data.yaml", replace(SMALL, **change), tmp_path / "run")  # type: ignore[arg-type]


LITTLE_MEMORY_PROGRAM = """
import resource, sys
from pathlib import Path

import psutil

from tests.training.engine.cells import small_dataset
from training.engine.trainer import TrainingConfig, TrainingError, train

folder = Path(sys.argv[1])
data = small_dataset(folder / "set")

def run(size):
    config = TrainingConfig(epochs=1, image_size=size, batch_size=8, device="cpu", threads=1)
    train(data, config, folder / str(size), on_progress=lambda _: None, should_stop=lambda: False)

run(96)  # all that has to be loaded, is
limit = psutil.Process().memory_info().vms + 200_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    run(640)
except TrainingError as error:
    print(error)
"""


OFFLINE_PROGRAM = """
import json, socket, sys
from pathlib import Path

attempts = []

def refuse(*arguments, **options):
    attempts.append(repr(arguments))
    raise OSError("There is no network in this test.")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse

from tests.training.engine.cells import SIDE, draw_tile, small_dataset
from training.engine.trainer import TrainingConfig, train
from inference.engine.detector import load_detector

folder = Path(sys.argv[1])
config = TrainingConfig(epochs=1, image_size=SIDE, batch_size=4, device="cpu")
weights = train(
    small_dataset(folder / "set"), config, folder / "run", on_progress=lambda _: None, should_stop=lambda: False
)
found = load_detector(weights, image_size=SIDE).detect(draw_tile(1)[0][None], min_score=0.0)
from ultralytics.utils import ONLINE, SETTINGS
from ultralytics.utils.events import events

facts = dict(attempts=attempts, found=len(found), online=ONLINE, sync=SETTINGS["sync"], statistics=bool(events.enabled))
print(json.dumps(facts))
"""


def quiet_environment(home: Path) -> dict[str, str]:
    """This environment with another home folder and nothing of what the test run set for ultralytics or torch."""
    unwanted = ("YOLO_", "OMP_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A whole training and a detection in a fresh process in which every connection and look-up fails."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("offline")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE_PROGRAM, str(folder)],
        cwd=ROOT,
        env=quiet_environment(home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return {**json.loads(lines[-1]), "lines": lines, "home": [path.name for path in home.iterdir()]}


class TestOffline:
    def test_nothing_tries_to_reach_the_network(self, facts: dict[str, object]) -> None:
        assert facts["attempts"] == []
        assert facts["found"] == 1

    def test_usage_statistics_are_off(self, facts: dict[str, object]) -> None:
        assert (facts["online"], facts["sync"], facts["statistics"]) == (False, False, False)

    def test_it_writes_nothing_into_the_home_folder_or_to_the_console(self, facts: dict[str, object]) -> None:
        assert facts["home"] == []
        assert len(facts["lines"]) == 1  # type: ignore[arg-type]
