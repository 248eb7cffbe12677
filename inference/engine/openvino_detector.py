"""The OpenVINO back end, for processors: the same weights exported once, run without torch."""

import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.detector import MODEL_FILES, Detections, WeightsError
from inference.engine.letterbox import check_image_size, check_tiles, letterbox, to_tile
from inference.engine.suppression import suppress

# OpenVINO sends statistics when it is imported, unless the package that does so is not to be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

SPARE = 2  # tiles prepared while others are computed
FACTS = ["marrowloop", "facts"]  # where the model's file says what this module has to know of it

Floats = NDArray[np.float32]


class OpenvinoDetector:
    """A detector that looks at one tile per core at a time, in bfloat16 where the processor multiplies that.

    The network gives its raw maps, and the boxes are worked out of them in float32: bfloat16 has 8 bits, too few for
    the place of a box. Every tile is computed by one thread, so that no thread waits for another one: on a core that
    another process holds, a tile only takes longer.
    """

    def __init__(self, folder: Path) -> None:
        core = openvino.Core()
        model, facts = _read(core, folder)
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.image_size: int = facts["image_size"]
        self._head = _Head(self.image_size, facts["strides"], facts["bins"])
        fast = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",  # as many tiles at once as pay
                "INFERENCE_NUM_THREADS": os.cpu_count() or 1,
                "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
                "ENABLE_CPU_PINNING": False,  # a thread may leave a core that another process holds
            },
        )
        wanted = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + SPARE
        self._requests = [compiled.create_infer_request() for _ in range(wanted)]

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """Detections of each tile; see `inference.engine.detector.Detector.detect`."""
        check_tiles(tiles)
        height, width = tiles.shape[1:3]
        scale = self.image_size / max(height, width)
        found: list[Detections] = []
        for boxes, scores in self._maps(tiles, scale):
            decoded = self._head.decode(boxes, scores, min_score)
            kept = suppress(decoded, min_score=min_score, iou=iou, max_detections=max_detections)
            found.append(to_tile(kept, scale, height, width))
        return found

    def _maps(self, tiles: NDArray[np.uint8], scale: float) -> Iterator[tuple[Floats, Floats]]:
        """The raw maps of each tile in turn, valid until the next are asked for; further tiles are under way.

        A queue with a call-back would do the same, but a mistake in an OpenVINO call-back ends the whole process.
        """
        running: deque[Any] = deque()
        try:
            for index, tile in enumerate(tiles):
                request = self._requests[index % len(self._requests)]
                if len(running) == len(self._requests):
                    yield _outputs(running.popleft())  # of this very request
                request.start_async([letterbox(tile, self.image_size, scale)[None]])
                running.append(request)
            while running:
                yield _outputs(running.popleft())
        finally:
            for request in running:  # somebody stopped half-way
                request.wait()


def _outputs(request: Any) -> tuple[Floats, Floats]:
    request.wait()
    return request.get_output_tensor(0).data[0], request.get_output_tensor(1).data[0]


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

    from inference.engine.torch_detector import load_model

    check_image_size(image_size)
    network = load_model(weights)
    head = network.model[-1]
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
    model = openvino.convert_model(program)
    model.reshape(shape)
    model.set_rt_info(json.dumps(facts), FACTS)
    return _write(model, folder)


def _write(model: Any, folder: Path) -> Path:
    growing = folder.with_name(folder.name + ".writing")
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    openvino.save_model(model, growing / MODEL_FILES[0], compress_to_fp16=False)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(growing, folder)
    return folder / MODEL_FILES[0]


def _read(core: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model in a folder, and what its file says of it. Raises WeightsError."""
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"The export {folder.name} has no {missing[0]}.")
    try:
        model = core.read_model(folder / MODEL_FILES[0])
        facts = json.loads(model.get_rt_info(FACTS).astype(str))
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are files
        raise WeightsError(f"The export {folder.name} is damaged, or was not made by this program.") from error
    return model, facts
