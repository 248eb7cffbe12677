"""What a detector is and what it answers. The back ends are imported only when one is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class WeightsError(ValueError):
    """A weights file is missing, damaged or of a kind this project does not run."""


@dataclass(frozen=True)
class Detections:
    """The cells found on one tile, best score first.

    boxes: float32 (n, 4), x, y, width, height in tile px, top-left origin.
    scores: float32 (n,), the highest class score of each box, 0 to 1.
    class_ids: int64 (n,), the class of that score.
    class_scores: float32 (n, classes), every class's score; independent of each other, they do not sum to 1.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    class_scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds and names cells."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the class ids."""

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """Detections of each tile.

        tiles: uint8 (N, H, W, 3), RGB.
        min_score: boxes whose best class score is lower are dropped.
        iou: of two boxes that overlap more than this, whatever their classes, the one with the lower score is dropped.
        max_detections: at most this many boxes per tile.
        Raises ValueError for an array of another shape or dtype.
        """


def load_detector(weights: Path, *, image_size: int = 320, device: str = "auto") -> Detector:
    """The detector in a weights file that ultralytics (or a round of this project) wrote.

    image_size: the longer side of a tile is resized to this many px, a multiple of 32; use the size it was trained at.
    device: auto, cpu, cuda or cuda:1.
    Raises WeightsError, or DeviceError for a device this machine does not have.
    """
    from inference.engine.torch_detector import TorchDetector

    return TorchDetector(weights, image_size=image_size, device=device)
