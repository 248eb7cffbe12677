"""Ultralytics' data set with the tiles decoded once, within a bound, and those with rare classes shown more often."""

# mypy: disable-error-code="no-untyped-call, misc"

from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.engine.runtime import quiet_ultralytics

quiet_ultralytics()

from ultralytics.data.dataset import YOLODataset  # noqa: E402

FREE_SHARE = 0.5  # of the memory that is free, where no bound is set


class CellTiles(YOLODataset):
    """cache_bytes: of decoded tiles that are kept. `order`: the tiles that an epoch shows, by index, once set.

    Tiles are never copied: a tile that is shown twice is the same array, turned and coloured by chance each time.
    """

    cached_bytes: int
    ims: list[Any]
    im_hw0: list[Any]
    im_hw: list[Any]

    def __init__(self, *args: Any, cache_bytes: int, **kwargs: Any) -> None:
        self._cache_bytes = cache_bytes
        self._order: NDArray[np.int64] | None = None
        super().__init__(*args, cache="ram", **kwargs)

    def check_cache_ram(self, safety_margin: float = 1.0) -> bool:
        """Ultralytics keeps all tiles or none; here the bound decides, tile by tile."""
        return True

    def cache_images(self) -> None:
        """Decode tiles, resized, until the bound is reached; `load_image` reads the others whenever it needs them."""
        self.cached_bytes = 0
        for index in range(self.ni):
            pixels, *sizes = self.load_image(index)
            if self.cached_bytes + pixels.nbytes > self._cache_bytes:
                return
            self.ims[index], (self.im_hw0[index], self.im_hw[index]) = pixels, sizes
            self.cached_bytes += pixels.nbytes

    def class_counts(self) -> NDArray[np.int64]:
        """Boxes per tile and class: int (tiles, classes)."""
        counts = np.zeros((self.ni, len(self.data["names"])), np.int64)
        for row, label in zip(counts, self.labels, strict=True):
            np.add.at(row, label["cls"].astype(np.int64).ravel(), 1)
        return counts

    def show(self, order: NDArray[np.int64]) -> None:
        """Let an epoch consist of these tiles."""
        self._order = order

    def __len__(self) -> int:
        return self.ni if self._order is None else len(self._order)

    def get_image_and_label(self, index: int) -> Any:
        """The tile at a place of the epoch; mosaic, cutmix and mixup ask here for their further tiles."""
        return super().get_image_and_label(index if self._order is None else int(self._order[index]))


def free_memory() -> int:
    """Bytes that tiles may take where no bound is set."""
    return int(FREE_SHARE * psutil.virtual_memory().available)
