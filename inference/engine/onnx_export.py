"""ONNX files of our detectors, for other programs: what ultralytics would write, checked by running them.

We do not compute with them: OpenVINO runs its own export, which has no box arithmetic in reduced precision.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.comparison import Difference, Pixels, compare
from inference.engine.detector import Detections, WeightsError
from inference.engine.letterbox import check_image_size, check_tiles, letterbox, to_tile
from inference.engine.suppression import suppress
from inference.engine.two_stage import Classifier, TwoStageDetector

OPSET = 18  # of 2022: what runs ONNX anywhere knows it
MOST_AT_ONCE = 64  # tiles or crops in one call of an exported network


def export_onnx(weights: Path, path: Path, *, image_size: int) -> Path:
    """Write the detector in a weights file as one ONNX file.

    Its input "images" is float32 (n, 3, size, size), RGB from 0 to 1, the tile scaled and letterboxed; its output
    "output0" float32 (n, 4 + classes, anchors): centre x, y, width, height in px of the input, then the class scores,
    before suppression. Class names and size stand in its metadata, under the keys that ultralytics uses.
    Raises WeightsError (for an RT-DETR too), ValueError for an impossible image size.
    """

    from inference.engine.torch_detector import load_model

    check_image_size(image_size)
    network = load_model(weights)
    head = network.model[-1]
    if type(head).__name__ == "RTDETRDecoder":
        raise WeightsError(
            f"{weights.name} is an RT-DETR, of which no ONNX file can be made yet; YOLO models have one."
        )
    network.end2end = False  # the one-to-many head, as in TorchDetector
    head.export, head.format = True, "onnx"  # gives boxes and scores alone
    facts = {
        "task": "detect",
        "names": {index: str(network.names[index]) for index in sorted(network.names)},
        "imgsz": [image_size, image_size],
        "stride": int(max(head.stride)),
        "batch": 1,
        "channels": 3,
        "args": {"batch": 1, "dynamic": False, "half": False, "nms": False},  # dynamic would mean any image size
    }
    return _write(network.fuse(), image_size, "images", "output0", facts, path)


def export_classifier_onnx(classifier: Path, path: Path) -> Path:
    """Write the classifier of a two-stage detector as one ONNX file.

    Its input "crops" is float32 (n, 3, size, size), RGB from 0 to 1: squares around the finder's boxes (see
    `inference.engine.crops`); its output "probabilities" float32 (n, classes). Class names, the size in px of the input
    ("imgsz") and the side of a square in tile px ("side") stand in its metadata. Raises WeightsError.
    """
    import torch

    from inference.engine.classifier import load_classifier, normalised

    model, facts = load_classifier(classifier)

    class Exported(torch.nn.Module):
        """From crops of 0 to 1 to probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            probabilities: torch.Tensor = self.network(normalised(crops, facts)).softmax(dim=1)
            return probabilities

    told = {
        "task": "classify",
        "names": dict(enumerate(facts.classes)),
        "imgsz": [facts.size, facts.size],
        "side": facts.side,
    }
    return _write(Exported().eval(), facts.size, "crops", "probabilities", told, path)


def _write(network: Any, size: int, input_name: str, output_name: str, facts: dict[str, Any], path: Path) -> Path:
    """Write a network that takes float32 (n, 3, size, size), with its facts: whole or not at all."""
    import torch

    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, size, size),),
        input_names=[input_name],
        output_names=[output_name],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MOST_AT_ONCE)},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch made no ONNX program.")
    program.model.metadata_props.update({key: str(value) for key, value in facts.items()})
    growing = path.with_name(f"{path.name}.writing")
    growing.parent.mkdir(parents=True, exist_ok=True)
    program.save(growing)
    os.replace(growing, path)
    return path


def compare_onnx(
    weights: Path,
    path: Path,
    tiles: Sequence[Pixels],
    *,
    image_size: int,
    classifier: Path | None = None,
    classifier_path: Path | None = None,
) -> Difference:
    """How far an ONNX file lies from its weights as torch computes them in float32.

    classifier, classifier_path: of a two-stage detector, the weights and the ONNX file. Raises WeightsError.
    """
    from inference.engine.torch_detector import TorchDetector

    exact = TorchDetector(weights, image_size=image_size, device="cpu", exact=True)
    found = _OnnxDetector(path, image_size=image_size, classes=exact.classes)
    if classifier is None or classifier_path is None:
        return compare(exact, found, tiles)
    from inference.engine.classifier import TorchClassifier

    named = TorchClassifier(classifier, device="cpu")
    first = TwoStageDetector(exact, named)
    return compare(first, TwoStageDetector(found, _OnnxClassifier(classifier_path, like=named)), tiles)


class _OnnxDetector:
    """An ONNX file as a detector, read and computed in float32 by OpenVINO."""

    def __init__(self, path: Path, *, image_size: int, classes: tuple[str, ...]) -> None:
        from inference.engine.openvino_runtime import Requests

        self.classes = classes
        self._image_size = image_size
        self._requests = Requests(path, exact=True)

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """Detections of each tile; see `inference.engine.detector.Detector.detect`."""
        from inference.engine.openvino_runtime import output_of

        check_tiles(tiles)
        height, width = tiles.shape[1:3]
        scale = self._image_size / max(height, width)
        found = []
        for request in self._requests.answers(tiles, lambda tile: _as_input(letterbox(tile, self._image_size, scale))):
            kept = suppress(output_of(request, 0), min_score=min_score, iou=iou, max_detections=max_detections)
            found.append(to_tile(kept, scale, height, width))
        return found


class _OnnxClassifier:
    """An ONNX file as a classifier, in the same way; what is known of it beside its weights is that of another."""

    def __init__(self, path: Path, *, like: Classifier) -> None:
        from inference.engine.openvino_runtime import Requests

        self.classes, self.side, self.size = like.classes, like.side, like.size
        self._requests = Requests(path, exact=True)

    def look(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `inference.engine.two_stage.Classifier.look`; the file does not tell its features."""
        return self.classify(crops), np.empty((len(crops), 0), np.float32)

    def classify(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities alone."""
        from inference.engine.openvino_runtime import output_of

        rows = [output_of(request, 0).copy() for request in self._requests.answers(crops, _as_input)]
        return np.array(rows, np.float32).reshape(len(crops), len(self.classes))


def _as_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An image, uint8 (H, W, 3), as float32 (1, 3, H, W) from 0 to 1."""
    return np.asarray((image.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None], np.float32)
