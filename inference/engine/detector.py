"""What a detector is and what it answers. The back ends are imported only when one is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from inference.engine.two_stage import Classifier

MODEL_FILES = ("model.xml", "model.bin")  # of an OpenVINO export
GPU_FILES = ("nvidia[0-9]*", "dxg")  # in /dev, one of them at least where CUDA can be: dxg on Windows' Linux

Runtime = Literal["auto", "torch", "openvino"]


class WeightsError(ValueError):
    """A weights file is missing, damaged or of a kind this project does not run."""


@dataclass(frozen=True)
class Detections:
    """The cells found on one tile, best score first.

    boxes: float32 (n, 4), x, y, width, height in tile px, top-left origin.
    scores: float32 (n,), the highest class score of each box, 0 to 1.
    class_ids: int64 (n,), the class of that score.
    class_scores: float32 (n, classes), every class's score. Those of a one-stage detector are independent of each other
    and do not sum to 1; those of a two-stage detector sum to the finder's score.
    embeddings: float32 (n, 64), what each cell looks like (`inference.engine.embeddings`), of detectors that tell it.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    class_scores: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None

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
        min_score: boxes whose best class score (two-stage: whose finder's score) is lower are dropped.
        iou: of two boxes that overlap more than this, whatever their classes, the one with the lower score is dropped.
        max_detections: at most this many boxes per tile.
        Raises ValueError for an array of another shape or dtype.
        """


def load_detector(
    weights: Path,
    *,
    classifier: Path | None = None,
    image_size: int = 320,
    device: str = "auto",
    runtime: Runtime = "auto",
) -> Detector:
    """The detector in a weights file that ultralytics (or a round of this project) wrote.

    classifier: of a two-stage detector, whose weights are the finder's.
    image_size: the longer side of a tile is resized to this many px, a multiple of 32; use the size it was trained at.
    device: auto, cpu, cuda or cuda:1.
    runtime: what computes. auto: OpenVINO on a processor if the weights have an export beside them (`export_folder`);
    on a GPU, and without an export, torch. With OpenVINO, torch is not even imported, which takes seconds.
    Raises WeightsError (for an export of another image size too), DeviceError for a device this machine does not have.
    """
    if classifier is not None:
        from inference.engine.two_stage import TwoStageDetector

        finder = load_detector(weights, image_size=image_size, device=device, runtime=runtime)
        return TwoStageDetector(finder, _load_classifier(classifier, device, runtime))
    if _uses_export(weights, device, runtime):
        from inference.engine.openvino_detector import OpenvinoDetector

        folder = export_folder(weights)
        detector = OpenvinoDetector(folder)
        if detector.image_size != image_size:
            raise WeightsError(
                f"The export {folder.name} takes images of {detector.image_size} px, not of {image_size} px."
            )
        return detector
    from inference.engine.torch_detector import TorchDetector

    return TorchDetector(weights, image_size=image_size, device=device)


def _load_classifier(classifier: Path, device: str, runtime: Runtime) -> "Classifier":
    if _uses_export(classifier, device, runtime):
        from inference.engine.openvino_classifier import OpenvinoClassifier

        return OpenvinoClassifier(export_folder(classifier))
    from inference.engine.classifier import TorchClassifier

    return TorchClassifier(classifier, device=device)


def _uses_export(weights: Path, device: str, runtime: Runtime) -> bool:
    return runtime == "openvino" or (runtime == "auto" and export_folder(weights).is_dir() and _is_processor(device))


def export_folder(weights: Path) -> Path:
    """Where the OpenVINO export of a weights file lies: beside it, in a folder of its name."""
    return weights.with_suffix(".openvino")


def _is_processor(device: str) -> bool:
    if device == "auto" and not any(next(Path("/dev").glob(pattern), None) for pattern in GPU_FILES):
        return True  # without asking torch
    from inference.engine.runtime import torch_device

    return torch_device(device).type == "cpu"
