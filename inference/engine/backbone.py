"""Embeddings for a detector that has none of its own: crops of its cells, seen by the backbone learned on ImageNet."""

# mypy: disable-error-code="no-untyped-call"

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from inference.engine.classifier import make_classifier, to_input
from inference.engine.crops import crop_cells
from inference.engine.detector import Detections, Detector
from inference.engine.embeddings import MOST_CELLS, embed
from inference.engine.openvino_runtime import Requests, converted, output_of
from inference.engine.runtime import torch_device

SIDE = 96.0  # tile px of a crop: 24 um at 0.25 um/px, which holds a cell and some of what lies around it
BATCH = 64  # crops at a time on a GPU


class Backbone:
    """EfficientNet-Lite0 with the weights that its package brings: features of crops.

    On a processor it runs with OpenVINO, in bfloat16 where the processor multiplies that; on a GPU with torch.
    """

    def __init__(self, *, device: str = "auto") -> None:
        model, facts = make_classifier(("cell",), side=SIDE)

        class Features(torch.nn.Module):
            """From uint8 (n, size, size, 3) to float32 (n, features)."""

            def __init__(self) -> None:
                super().__init__()
                self.network = model

            def forward(self, crops: torch.Tensor) -> torch.Tensor:
                network = self.network
                features: torch.Tensor = network.forward_head(
                    network.forward_features(to_input(crops, facts)), pre_logits=True
                )
                return features

        self.size = facts.size
        self.length = int(model.num_features)
        self._device = torch_device(device)
        self._network = Features().eval().to(self._device)
        self._requests: Requests | None = None
        if self._device.type == "cpu":
            shape = [1, self.size, self.size, 3]
            with torch.no_grad():
                program = torch.export.export(self._network, (torch.zeros(shape, dtype=torch.uint8),))
            self._requests = Requests(converted(program, shape, {}))

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (n, features) of crops, uint8 (n, size, size, 3), RGB."""
        rows = [np.empty((0, self.length), np.float32)]
        if self._requests is not None:
            answers = self._requests.answers(crops, lambda crop: crop[None])
            rows += [output_of(request, 0)[None].copy() for request in answers]
        else:
            for start in range(0, len(crops), BATCH):
                with torch.inference_mode():
                    some = torch.from_numpy(crops[start : start + BATCH]).to(self._device)
                    rows.append(self._network(some).cpu().numpy())
        return np.concatenate([row.reshape(-1, self.length) for row in rows])


class DescribedDetector:
    """A detector together with the backbone that describes the best of its cells on each tile; the others get zeros."""

    def __init__(self, detector: Detector, backbone: Backbone) -> None:
        self.detector = detector
        self.backbone = backbone
        self.classes = detector.classes

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """See `inference.engine.detector.Detector.detect`; with embeddings."""
        found = self.detector.detect(tiles, min_score=min_score, iou=iou, max_detections=max_detections)
        crops = [self._crops(tile, one.boxes[:MOST_CELLS]) for tile, one in zip(tiles, found, strict=True)]
        seen = embed(self.backbone.features(np.concatenate(crops)))
        ends = np.cumsum([len(some) for some in crops])[:-1]
        return [_with(one, some) for one, some in zip(found, np.split(seen, ends), strict=True)]

    def describe(self, tile: NDArray[np.uint8], boxes: ArrayLike) -> NDArray[np.float32]:
        """See `inference.engine.embeddings.Describing.describe`."""
        return embed(self.backbone.features(self._crops(tile, boxes)))

    def _crops(self, tile: NDArray[np.uint8], boxes: ArrayLike) -> NDArray[np.uint8]:
        return crop_cells(tile, boxes, side=SIDE, size=self.backbone.size)


def _with(found: Detections, embeddings: NDArray[np.float32]) -> Detections:
    whole = np.zeros((len(found), embeddings.shape[1]), np.float32)
    whole[: len(embeddings)] = embeddings
    return replace(found, embeddings=whole)
