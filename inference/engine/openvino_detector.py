"""The OpenVINO back end, for processors: the same weights exported once, run without torch."""

from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.engine.detector import Detections, WeightsError
from inference.engine.letterbox import check_image_size, check_tiles, letterbox, to_tile
from inference.engine.openvino_runtime import Requests, converted, output_of, read_model, write_model
from inference.engine.suppression import suppress

Floats = NDArray[np.float32]


class OpenvinoDetector:
    """A detector whose network gives its raw maps; the boxes are worked out of them in float32.

    The network may compute in bfloat16, which has 8 bits: too few for the place of a box.
    """

    def __init__(self, folder: Path) -> None:
        model, facts = read_model(folder)
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.image_size: int = facts["image_size"]
        self._head = _Head(self.image_size, facts["strides"], facts["bins"])
        self._requests = Requests(model)

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """Detections of each tile; see `inference.engine.detector.Detector.detect`."""
        check_tiles(tiles)
        height, width = tiles.shape[1:3]
        scale = self.image_size / max(height, width)
        found: list[Detections] = []
        for request in self._requests.answers(tiles, lambda tile: letterbox(tile, self.image_size, scale)[None]):
            decoded = self._head.decode(output_of(request, 0), output_of(request, 1), min_score)
            kept = suppress(decoded, min_score=min_score, iou=iou, max_detections=max_detections)
            found.append(to_tile(kept, scale, height, width))
        return found


class _Head:
    """What turns the raw maps of a YOLOv8 or YOLO11 head into boxes (Li et al. 2020, "Generalized Focal Loss").

    Each anchor (a place on one of the maps) tells the distances to the box's four sides, each as a distribution over
    `bins` whole steps of its map's stride.
    """

    def __init__(self, image_size: int, strides: list[int], bins: int) -> None:
        anchors = [
            (column + 0.5, row + 0.5, stride)
            for stride in strides
            for row, column in product(range(image_size // stride), repeat=2)
        ]
        self._anchors = np.array(anchors, np.float32).T
        self._steps = np.arange(bins, dtype=np.float32)

    def decode(self, boxes: Floats, scores: Floats, min_score: float) -> Floats:
        """Boxes and class scores of the anchors that reach the score: float32 (4 + classes, n), for `suppress`.

        boxes: float32 (4 * bins, anchors). scores: float32 (classes, anchors), before the sigmoid.
        """
        chosen = np.flatnonzero(_sigmoid(scores.max(axis=0)) >= min_score)
        weights = boxes[:, chosen].reshape(4, len(self._steps), len(chosen))
        weights = np.exp(weights - weights.max(axis=1, keepdims=True))
        distances = np.einsum("sbn,b->sn", weights, self._steps) / weights.sum(axis=1)
        first, last = distances[:2], distances[2:]  # left and top, right and bottom
        place, stride = self._anchors[:2, chosen], self._anchors[2, chosen]
        centre, size = place + (last - first) / 2, first + last
        return np.concatenate([centre * stride, size * stride, _sigmoid(scores[:, chosen])])


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-values)), np.float32)


def export_openvino(weights: Path, folder: Path, *, image_size: int) -> Path:
    """Write the detector in a weights file as folder / "model.xml" and "model.bin", and return the path of the first.

    They hold the class names and the image size, so that they can be loaded alone. A folder that is there already is
    replaced; it appears only once it is whole. Raises WeightsError, ValueError for an impossible image size.
    """
    import torch

    from inference.engine.torch_detector import has_plain_head, load_model

    check_image_size(image_size)
    network = load_model(weights)
    head = network.model[-1]
    if not has_plain_head(network):
        raise WeightsError("There is no OpenVINO export for models of this kind (YOLOv10, YOLO26, RT-DETR).")
    facts = {
        "classes": [str(network.names[index]) for index in sorted(network.names)],
        "image_size": image_size,
        "strides": [int(stride) for stride in head.stride],
        "bins": int(head.reg_max),
    }
    network = network.fuse()
    head.training = True  # gives its raw maps: see TorchDetector

    class Exported(torch.nn.Module):
        """From uint8 (1, size, size, 3) to the raw maps of boxes and of scores."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            raw = self.network((images.float() / 255).permute(0, 3, 1, 2))  # the turn last: then it costs nothing
            return raw["boxes"], raw["scores"]

    shape = [1, image_size, image_size, 3]
    with torch.no_grad():
        program = torch.export.export(Exported(), (torch.zeros(shape, dtype=torch.uint8),))
    return write_model(converted(program, shape, facts), folder)
