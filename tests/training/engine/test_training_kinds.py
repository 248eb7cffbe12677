"""Every kind of network that can be trained: one tiny epoch, then its weights as a detector."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.engine.detector import load_detector
from tests.training.engine.cells import CLASSES, SIDE, draw_tile, small_dataset
from training.engine.config import TrainingConfig
from training.engine.progress import Outcome, Progress
from training.engine.trainer import outcome, train

ONE = TrainingConfig(epochs=1, image_size=SIDE, batch_size=4, device="cpu", threads=1)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data") / "set")


def run(data_yaml: Path, config: TrainingConfig, folder: Path, kill_after: int = 0) -> list[Progress]:
    seen: list[Progress] = []

    def note(progress: Progress) -> None:
        seen.append(progress)
        if progress.epoch == kill_after:
            raise Killed

    train(data_yaml, config, folder, on_progress=note, should_stop=lambda: False)
    return seen


@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolov10n", "yolo26n", "rtdetr-l"])
def test_it_trains_and_its_weights_detect(data_yaml: Path, tmp_path: Path, name: str) -> None:
    (progress,) = run(data_yaml, replace(ONE, model=name), tmp_path)
    assert len(progress.losses) == 3
    assert np.isfinite(list(progress.losses.values())).all()
    detector = load_detector(tmp_path / "weights.pt", image_size=SIDE, runtime="torch")
    assert detector.classes == CLASSES
    (found,) = detector.detect(draw_tile(1)[0][None], min_score=0.0)
    assert len(found) > 0
    assert found.class_scores.shape == (len(found), 2)
    assert (found.class_scores.max(axis=1) == found.scores).all()
    assert ((found.boxes >= 0) & (found.boxes <= SIDE)).all()


def test_the_two_heads_share_the_loss_of_a_resumed_training_as_if_it_had_never_stopped(
    data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils.loss import E2ELoss

    ages: list[int] = []
    update = E2ELoss.update
    monkeypatch.setattr(E2ELoss, "update", lambda self: (update(self), ages.append(self.updates))[0])
    config = replace(ONE, model="yolo26n", epochs=3)
    with pytest.raises(Killed):
        run(data_yaml, config, tmp_path, kill_after=2)
    assert ages == [1, 2]
    run(data_yaml, config, tmp_path)
    assert ages == [1, 2, 1, 2, 3]


class TestRecipe:
    def test_memory_changes_nothing_but_time(self, data_yaml: Path, tmp_path: Path) -> None:
        for bound in (0, 100):
            run(data_yaml, replace(ONE, cache_megabytes=bound), tmp_path / str(bound))
        first, second = (
            torch.load(tmp_path / str(bound) / "weights.pt", weights_only=False)["model"].state_dict()
            for bound in (0, 100)
        )
        assert all(torch.equal(value, second[name]) for name, value in first.items())

    def test_repeated_tiles_make_more_steps(self, tmp_path: Path) -> None:
        data = small_dataset(tmp_path / "set")
        labels = tmp_path / "set/labels/train"
        for path in labels.glob("*.txt"):  # class 1 on one tile of eight: shown sqrt(0.5 / 0.125) times
            path.write_text("0 0.5 0.5 0.2 0.2\n")
        (labels / "tile0.txt").write_text("1 0.5 0.5 0.2 0.2\n")
        config = replace(ONE, epochs=2, batch_size=1, rare_classes="repeat", repeat_threshold=0.5)
        with pytest.raises(Killed):
            run(data, config, tmp_path / "run", kill_after=1)
        steps = torch.load(tmp_path / "run/last.pt", weights_only=True)["updates"]
        assert steps == 9  # seven others once, and tile0 twice

    @pytest.mark.parametrize("change", [{"rotation": 20.0}, {"rare_classes": "repeat"}, {"patience": 3}])
    def test_another_recipe_is_another_training(
        self, data_yaml: Path, tmp_path: Path, change: dict[str, object]
    ) -> None:
        run(data_yaml, ONE, tmp_path)
        changed = replace(ONE, **change)  # type: ignore[arg-type]
        assert [progress.epoch for progress in run(data_yaml, changed, tmp_path)] == [1]

    def test_every_way_of_mixing_tiles_runs(self, data_yaml: Path, tmp_path: Path) -> None:
        config = replace(ONE, rotation=30.0, cutmix=1.0, mixup=1.0, mosaic=0.5, scale=0.5, shift=0.3)
        assert run(data_yaml, config, tmp_path)


class TestOutcome:
    def test_it_tells_how_a_training_ended(self, data_yaml: Path, tmp_path: Path) -> None:
        (progress,) = run(data_yaml, ONE, tmp_path)
        ended = outcome(data_yaml, ONE, tmp_path)
        assert ended == Outcome(epochs=1, last_epoch=1, best_epoch=1, map50=progress.map50, taken=0, layers=0)
        assert not ended.stopped_early

    def test_what_was_taken_over_is_still_known_after_a_kill(self, data_yaml: Path, tmp_path: Path) -> None:
        run(data_yaml, ONE, tmp_path / "first")
        config = replace(ONE, epochs=2, start_weights=tmp_path / "first/weights.pt")
        with pytest.raises(Killed):
            run(data_yaml, config, tmp_path / "second", kill_after=1)
        run(data_yaml, config, tmp_path / "second")
        ended = outcome(data_yaml, config, tmp_path / "second")
        assert ended.taken == ended.layers > 100

    def test_one_that_has_not_ended_has_none(self, data_yaml: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="No training has ended"):
            outcome(data_yaml, ONE, tmp_path)
