"""ONNX files of our detectors, for other programs: what ultralytics would write, checked by running them.

We do not compute with them: OpenVINO runs its own export, which has no box arithmetic in reduced precision.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.engine.comparison import Difference, Pixels, compare
from inference.engine.detector import Detections, WeightsError
from inference.engine.letterbox import check_image_size, check_tiles, letterbox, to_tile
from inference.engine.suppression import suppress

OPSET = 18  # of 2022: what runs ONNX anywhere knows it
MOST_TILES = 64  # in one call of the exported network


def export_onnx(weights: Path, path: Path, *, image_size: int) -> Path:
    """Write the detector in a weights file as one ONNX file.

    Its input "images" is float32 (n, 3, size, size), RGB from 0 to 1, the tile scaled and letterboxed; its output
    "output0" float32 (n, 4 + classes, anchors): centre x, y, width, height in px of the input, then the class scores,
    before suppression. Class names and size stand in its metadata, under the keys that ultralytics uses.
    Raises WeightsError (for an RT-DETR too), ValueError for an impossible image size.
    """
    import torch

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
    program = torch.onnx.export(
        network.fuse(),
        (torch.zeros(2, 3, image_size, image_size),),
        input_names=["images"],
        output_names=["output0"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MOST_TILES)},),
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


def compare_onnx(weights: Path, path: Path, tiles: Sequence[Pixels], *, image_size: int) -> Difference:
    """How far an ONNX file lies from its weights as torch computes them in float32. Raises WeightsError."""
    from inference.engine.torch_detector import TorchDetector

    exact = TorchDetector(weights, image_size=image_size, device="cpu", exact=True)
    return compare(exact, _OnnxDetector(path, image_size=image_size, classes=exact.classes), tiles)


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
        for request in self._requests.answers(tiles, lambda tile: self._image(tile, scale)):
            kept = suppress(output_of(request, 0), min_score=min_score, iou=iou, max_detections=max_detections)
            found.append(to_tile(kept, scale, height, width))
        return found

    def _image(self, tile: NDArray[np.uint8], scale: float) -> NDArray[np.float32]:
        image = letterbox(tile, self._image_size, scale).astype(np.float32) / np.float32(255)
        return np.asarray(image.transpose(2, 0, 1)[None], np.float32)
