"""RT-DETR networks (Zhao et al. 2024, "DETRs Beat YOLOs on Real-time Object Detection"), which see by queries."""

from typing import Any

import torch


class QueryNetwork:
    """An RT-DETR in float32: it refines the places of its boxes from layer to layer.

    Each of its 300 queries tells a box and a score of every class. Ultralytics gives only the best (query, class)
    pairs; here the whole class vectors are taken from the last layer of the decoder.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self._network = model.fuse().to(device).eval()
        self._network.model[-1].shapes = []  # its anchors for an image size, perhaps kept in float16: made anew

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Float (N, 3, S, S), 0 to 1, to float32 (N, 4 + classes, queries): centre x, y, width, height in px."""
        _, (boxes, scores, *_) = self._network(images)
        return torch.cat([boxes[-1] * images.shape[-1], scores[-1].sigmoid()], dim=2).transpose(1, 2)
