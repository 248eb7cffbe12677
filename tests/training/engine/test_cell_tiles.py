from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.engine.cells import CLASSES, SIDE, small_dataset
from training.engine.cell_tiles import CellTiles, free_memory
from training.engine.config import TrainingConfig
from training.engine.training_run import overrides

TILE_BYTES = SIDE * SIDE * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data") / "set").parent


def tiles(folder: Path, *, cache_bytes: int = 10**9, **settings: Any) -> CellTiles:
    from ultralytics.cfg import get_cfg

    config = TrainingConfig(epochs=1, image_size=SIDE, device="cpu", **settings)
    hyper = get_cfg(overrides=overrides(folder / "data.yaml", config, folder))
    data = {"names": dict(enumerate(CLASSES)), "nc": len(CLASSES), "channels": 3}
    path = str(folder / "images/train")
    return CellTiles(
        img_path=path, imgsz=SIDE, batch_size=4, augment=True, hyp=hyper, data=data, cache_bytes=cache_bytes
    )


@pytest.mark.parametrize(("bound", "kept"), [(0, 0), (TILE_BYTES - 1, 0), (3 * TILE_BYTES + 5, 3), (10**9, 8)])
def test_as_many_tiles_are_kept_as_the_bound_lets(folder: Path, bound: int, kept: int) -> None:
    found = tiles(folder, cache_bytes=bound)
    assert found.cached_bytes == kept * TILE_BYTES <= max(bound, 0)
    assert sum(pixels is not None for pixels in found.ims) == kept


def test_tiles_from_disk_are_the_tiles_from_memory(folder: Path) -> None:
    kept, read = tiles(folder), tiles(folder, cache_bytes=0)
    for index in range(8):
        first, second = kept.load_image(index), read.load_image(index)
        assert (first[0] == second[0]).all()
        assert first[1:] == second[1:]
    assert all(pixels is None for pixels in read.ims), "what does not fit is not kept after all"


@pytest.mark.parametrize("mix", [{}, {"mosaic": 0.0, "shift": 0.0, "scale": 0.0}, {"cutmix": 1.0, "mixup": 1.0}])
def test_turning_and_colouring_never_touches_what_is_kept(folder: Path, mix: dict[str, float]) -> None:
    found = tiles(folder, hue=0.5, saturation=1.0, brightness=1.0, **mix)
    before = [pixels.copy() for pixels in found.ims]
    for index in range(8):
        assert found[index]["img"].shape == (3, SIDE, SIDE)
    assert all((pixels == copy).all() for pixels, copy in zip(found.ims, before, strict=True))


def test_it_counts_the_boxes_of_each_class(folder: Path) -> None:
    counts = tiles(folder).class_counts()
    assert counts.shape == (8, 2)
    assert sorted(counts.sum(axis=1).tolist()) == [0, *[3] * 7]


def test_a_repeated_tile_is_the_same_array_and_the_epoch_grows(folder: Path) -> None:
    found = tiles(folder)
    found.show(np.array([0, 1, 1, 2, 2, 2]))
    assert len(found) == 6
    shown = Counter(Path(found.get_image_and_label(index)["im_file"]).name for index in range(6))
    assert sorted(shown.values()) == [1, 2, 3]
    assert found.get_image_and_label(1)["img"] is found.get_image_and_label(2)["img"]
    assert found.cached_bytes == 8 * TILE_BYTES


def test_mosaic_takes_its_tiles_from_the_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tiles(folder)
    found.show(np.array([5, 5, 5]))
    loaded: list[int] = []
    load = CellTiles.load_image
    monkeypatch.setattr(
        CellTiles, "load_image", lambda self, index, **options: (loaded.append(index), load(self, index, **options))[1]
    )
    found[0]
    assert set(loaded) == {5}
    assert len(loaded) == 4


def test_half_of_the_free_memory_is_the_bound_where_none_is_set() -> None:
    assert free_memory() > 10**6
