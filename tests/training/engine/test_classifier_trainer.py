import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inference.engine.classifier import TorchClassifier, load_classifier
from inference.engine.crops import crop_cells
from tests.training.engine.cells import CLASSES, draw_tile, training_tile
from training.engine.classifier_head import retrain_head
from training.engine.classifier_trainer import (
    Cells,
    ClassifierConfig,
    ClassifierProgress,
    class_weights,
    rate_at,
    train_classifier,
    vary,
)
from training.engine.dataset import TrainingTile
from training.engine.progress import Cancelled, TrainingError

SMALL = ClassifierConfig(epochs=4, batch_size=8, device="cpu", threads=1)
TRAIN = [training_tile(seed) for seed in range(16)]
HELD_OUT = [training_tile(seed) for seed in range(100, 104)]


class Killed(BaseException):
    """Stands for the end of the process."""


def run(
    config: ClassifierConfig,
    folder: Path,
    *,
    train: list[TrainingTile] = TRAIN,
    kill_after: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    ignored: tuple[int, ...] = (),
) -> tuple[Path, list[ClassifierProgress]]:
    """Train; with `kill_after`, stop dead once that epoch is reported."""
    seen: list[ClassifierProgress] = []

    def note(progress: ClassifierProgress) -> None:
        seen.append(progress)
        if progress.epoch == kill_after:
            raise Killed

    path = train_classifier(
        train, HELD_OUT, CLASSES, config, folder, on_progress=note, should_stop=should_stop, ignored=ignored
    )
    return path, seen


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_classifier(path)[0].state_dict())


def same(first: Path, second: Path) -> bool:
    one, other = tensors(first), tensors(second)
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ClassifierProgress]]:
    return run(SMALL, tmp_path_factory.mktemp("trained"))


class TestTraining:
    def test_it_learns_to_name_cells_it_has_not_seen(self, trained: tuple[Path, list[ClassifierProgress]]) -> None:
        path, seen = trained
        assert [(one.epoch, one.epochs) for one in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert seen[-1].accuracy == 1.0
        assert seen[-1].loss < seen[0].loss
        assert seen[0].seconds_left > 0 == seen[-1].seconds_left
        pixels, boxes = draw_tile(200)
        classifier = TorchClassifier(path, device="cpu")
        named = classifier.classify(crop_cells(pixels, boxes[:, 1:], side=classifier.side, size=classifier.size))
        assert named.argmax(axis=1).tolist() == boxes[:, 0].tolist()

    def test_killed_it_goes_on_to_the_very_same_weights(
        self, trained: tuple[Path, list[ClassifierProgress]], tmp_path: Path
    ) -> None:
        with pytest.raises(Killed):
            run(SMALL, tmp_path, kill_after=1)
        path, seen = run(SMALL, tmp_path)
        assert [one.epoch for one in seen] == [2, 3, 4]
        assert same(path, trained[0])

    def test_finished_it_is_not_run_again(self, trained: tuple[Path, list[ClassifierProgress]]) -> None:
        path, seen = run(SMALL, trained[0].parent)
        assert (path, seen) == (trained[0], [])

    def test_with_other_cells_it_starts_anew(self, tmp_path: Path) -> None:
        with pytest.raises(Killed):
            run(SMALL, tmp_path, kill_after=1)
        _, seen = run(SMALL, tmp_path, train=TRAIN[:8])
        assert [one.epoch for one in seen] == [1, 2, 3, 4]

    def test_cancelled_it_stops_before_the_next_batch(self, tmp_path: Path) -> None:
        asked: list[int] = []

        def third() -> bool:
            asked.append(1)
            return len(asked) > len(TRAIN) + len(HELD_OUT) + 2

        with pytest.raises(Cancelled):
            run(SMALL, tmp_path, should_stop=third)
        assert not (tmp_path / "classifier.pt").exists()

    def test_a_class_to_be_ignored_is_not_learned(self, tmp_path: Path) -> None:
        path, _ = run(SMALL, tmp_path, ignored=(0,))
        pixels, boxes = draw_tile(200, cells=6)
        assert set(boxes[:, 0]) == {0.0, 1.0}
        classifier = TorchClassifier(path, device="cpu")
        named = classifier.classify(crop_cells(pixels, boxes[:, 1:], side=classifier.side, size=classifier.size))
        assert set(named.argmax(axis=1)) == {1}

    def test_it_goes_on_from_a_classifier_of_the_same_classes_only(
        self, trained: tuple[Path, list[ClassifierProgress]], tmp_path: Path
    ) -> None:
        config = replace(SMALL, epochs=1, start=trained[0], learning_rate=1e-5)
        path, seen = run(config, tmp_path / "on")
        assert seen[0].accuracy == 1.0
        assert load_classifier(path)[1] == load_classifier(trained[0])[1]
        with pytest.raises(TrainingError, match="names lymphocyte, eosinophil"):
            train_classifier(
                TRAIN,
                [],
                ("blast", "basophil"),
                config,
                tmp_path / "other",
                on_progress=lambda progress: None,
                should_stop=lambda: False,
            )

    def test_what_cannot_be_trained_on_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="not a single box"):
            run(SMALL, tmp_path, train=[training_tile(1, cells=0)])
        for wrong in ({"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"balance": 2.0}):
            with pytest.raises(ValueError):
                run(replace(SMALL, **wrong), tmp_path)


class TestHead:
    def test_it_learns_other_names_and_leaves_the_backbone(
        self, trained: tuple[Path, list[ClassifierProgress]], tmp_path: Path
    ) -> None:
        """As if experts had decided that all names were wrong."""
        done: list[tuple[int, int]] = []
        path, accuracy = self.retrain(trained[0], tmp_path, lambda *progress: done.append(progress))
        assert accuracy == 1.0
        before, after = tensors(trained[0]), tensors(path)
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert changed == {"classifier.weight", "classifier.bias"}
        assert done[-1] == (48, 48)

    def test_the_same_cells_give_the_same_head(
        self, trained: tuple[Path, list[ClassifierProgress]], tmp_path: Path
    ) -> None:
        first, _ = self.retrain(trained[0], tmp_path / "first")
        second, _ = self.retrain(trained[0], tmp_path / "second")
        assert same(first, second)

    def test_it_can_be_cancelled_and_needs_a_box(
        self, trained: tuple[Path, list[ClassifierProgress]], tmp_path: Path
    ) -> None:
        quiet = {"on_progress": lambda done, total: None}
        with pytest.raises(Cancelled):
            retrain_head(trained[0], TRAIN, [], CLASSES, tmp_path, should_stop=lambda: True, **quiet)
        empty = [training_tile(1, cells=0)]
        with pytest.raises(TrainingError, match="not a single box"):
            retrain_head(trained[0], empty, [], CLASSES, tmp_path, should_stop=lambda: False, **quiet)
        with pytest.raises(TrainingError, match="names lymphocyte, eosinophil"):
            retrain_head(trained[0], TRAIN, [], ("a", "b"), tmp_path, should_stop=lambda: False, **quiet)

    def retrain(
        self, start: Path, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Path, float | None]:
        return retrain_head(
            start,
            [renamed(tile) for tile in TRAIN],
            [renamed(tile) for tile in HELD_OUT],
            CLASSES,
            folder,
            on_progress=on_progress,
            should_stop=lambda: False,
            device="cpu",
            threads=1,
        )


def renamed(tile: TrainingTile) -> TrainingTile:
    """The same tile, each of whose cells is of the other class."""
    boxes = tile.boxes.copy()
    boxes[:, 0] = 1 - boxes[:, 0]
    return replace(tile, boxes=boxes)


class TestShortages:
    """Memory that is short is simulated where the cells are read: an allocation can fail anywhere."""

    def test_cells_have_their_room_on_disk_before_the_first_is_cut(self, tmp_path: Path) -> None:
        """Where there is none when a mapped file is written to, the process is ended."""
        taken: list[int] = []

        def read() -> np.ndarray:
            taken.append((tmp_path / "train.npy").stat().st_blocks * 512)
            return draw_tile(1)[0]

        run(replace(SMALL, epochs=1), tmp_path, train=[replace(training_tile(1), read=read)])
        assert taken == [pytest.approx(3 * 144 * 144 * 3, abs=8192)]

    def test_a_disk_without_that_room_is_called_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(TrainingError, match="disk is full"):
            run(SMALL, tmp_path)

    def test_too_little_memory_names_the_backbone(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r"not enough memory .* backbone tf_efficientnet_lite0 with 8 cells"):
            run(SMALL, tmp_path, train=[unread("CUDA out of memory. Tried to allocate 2.00 GiB.")])

    def test_so_it_is_where_only_the_head_is_trained(
        self, trained: tuple[Path, list[ClassifierProgress]], tmp_path: Path
    ) -> None:
        with pytest.raises(TrainingError, match=r"not enough memory to train a head .* tf_efficientnet_lite0"):
            retrain_head(
                trained[0],
                [unread("[Errno 12] Cannot allocate memory")],
                [],
                CLASSES,
                tmp_path,
                on_progress=lambda done, total: None,
                should_stop=lambda: False,
            )

    def test_any_other_error_stays_as_it_is(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match=r"^a pipe has broken$"):
            run(SMALL, tmp_path, train=[unread("a pipe has broken")])


def unread(reason: str) -> TrainingTile:
    """A tile whose pixels cannot be read."""

    def read() -> np.ndarray:
        raise RuntimeError(reason)

    return replace(training_tile(1), read=read)


class TestRate:
    @pytest.mark.parametrize("steps", [1, 2, 5, 100])
    def test_it_rises_to_all_and_falls_towards_nothing(self, steps: int) -> None:
        rates = [rate_at(step, steps) for step in range(steps + 1)]
        top = rates.index(1.0)
        assert top <= 0.2 * steps
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert rates[-1] < 1e-9 or steps == 1


class TestClassWeights:
    def test_with_balance_1_every_class_comes_as_often(self) -> None:
        weights = class_weights(np.array([0, 0, 0, 2]), 1.0)
        assert weights == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])

    def test_with_balance_0_every_crop_does(self) -> None:
        assert class_weights(np.array([0, 0, 0, 2]), 0.0) == pytest.approx([0.25] * 4)

    def test_between_them_a_class_of_a_quarter_comes_half_as_often(self) -> None:
        weights = class_weights(np.array([0, 0, 0, 0, 1]), 0.5)
        assert weights[:4].sum() == pytest.approx(2 * weights[4])


class TestVarying:
    def test_a_disc_in_the_middle_stays_that_disc(self) -> None:
        """However it is turned and mirrored."""
        crop = np.full((144, 144, 3), 220, np.uint8)
        cv2.circle(crop, (72, 72), 30, (90, 40, 140), -1)
        still = replace(SMALL, stain=0.0, scale=0.0, shift=0.0)
        generator = np.random.default_rng(0)
        wanted = crop[24:120, 24:120].astype(int)
        for _ in range(10):
            found = vary(crop, 96, still, generator)
            assert found.shape == (96, 96, 3)
            assert (np.abs(found - wanted).max(axis=2) > 40).mean() < 0.03  # its rim

    def test_stain_changes_density_and_leaves_clear_glass_clear(self) -> None:
        crop = np.full((144, 144, 3), 255, np.uint8)
        crop[60:84, 60:84] = (90, 40, 140)
        generator = np.random.default_rng(0)
        found = [vary(crop, 96, replace(SMALL, stain=0.2), generator) for _ in range(10)]
        assert all((one[:5] == 255).all() for one in found)
        assert len({tuple(one[48, 48]) for one in found}) == 10

    def test_the_same_chance_gives_the_same_crop(self) -> None:
        crop = np.random.default_rng(1).integers(0, 256, (144, 144, 3), np.uint8)
        one, other = (vary(crop, 96, SMALL, np.random.default_rng(7)) for _ in range(2))
        assert np.array_equal(one, other)


def test_cells_know_how_many_they_are() -> None:
    assert len(Cells(np.zeros((3, 4, 4, 3), np.uint8), np.zeros(3, np.int64))) == 3
