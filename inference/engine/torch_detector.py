"""The torch back end over ultralytics weights: every detector of its, whatever its head."""

# mypy: disable-error-code="no-untyped-call"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engine.detector import Detections, WeightsError
from inference.engine.letterbox import check_image_size, check_tiles, letterbox, to_tile
from inference.engine.rtdetr import QueryNetwork
from inference.engine.runtime import Cores, bfloat16_is_fast, quiet_ultralytics, torch_device
from inference.engine.suppression import suppress

BATCH = 16  # tiles per forward pass; more gains nothing on a processor and costs memory
HEADS = ("Detect", "v10Detect", "RTDETRDecoder")


class TorchDetector:
    """A detector whose convolutions run in bfloat16 where the hardware does that, its box arithmetic in float32.

    exact: everything in float32, which is slower: what another back end is measured against.
    """

    def __init__(self, weights: Path, *, image_size: int = 320, device: str = "auto", exact: bool = False) -> None:
        check_image_size(image_size)
        self._device = torch_device(device)
        self._image_size = image_size
        model = load_model(weights)
        stride = int(model.stride.max())
        if image_size % stride:
            raise ValueError(f"The image size of {weights.name} must be a multiple of {stride} px, not {image_size}.")
        self.classes: tuple[str, ...] = tuple(str(model.names[index]) for index in sorted(model.names))
        self._network = _network(model, self._device, exact)
        self._cores = Cores()

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """Detections of each tile; see `inference.engine.detector.Detector.detect`."""
        check_tiles(tiles)
        found: list[Detections] = []
        for batch in _batches(tiles):
            self._cores.share()
            scale = self._image_size / max(batch.shape[1:3])
            for output in self._forward(batch, scale).numpy():
                detections = suppress(output, min_score=min_score, iou=iou, max_detections=max_detections)
                found.append(to_tile(detections, scale, batch.shape[1], batch.shape[2]))
        return found

    def _forward(self, tiles: NDArray[np.uint8], scale: float) -> torch.Tensor:
        """The decoded output, float32 (N, 4 + classes, boxes): centre x, y, width, height in network px."""
        squares = np.stack([letterbox(tile, self._image_size, scale) for tile in tiles])
        images = torch.from_numpy(squares).to(self._device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            decoded = self._network(images.float().div_(255))  # NHWC in memory is channels_last
        return decoded.float().cpu()


class _AnchorNetwork:
    """A YOLO. Where it has a one-to-one head too (YOLOv10, YOLO26), its one-to-many head is the one that is asked.

    Both are trained together, and the backbone by the one-to-many head alone; a one-to-one head spares suppression, but
    suppression is ours for every detector, and costs nothing here.
    """

    def __init__(self, model: Any, device: torch.device, reduced: bool) -> None:
        self._device, self._reduced = device, reduced
        model.end2end = False  # before fusing, which keeps the head that is asked
        self._head = model.model[-1]
        self._network = model.fuse().to(device).to(memory_format=torch.channels_last).eval()
        # The head returns its raw maps when its own flag says "training" (its layers stay in evaluation mode), so that
        # we decode them in float32: bfloat16 has 8 bits, too few for the place of a box.
        self._head.training = True

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Float (N, 3, S, S), 0 to 1, to float32 (N, 4 + classes, anchors): centre x, y, width, height in px."""
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._reduced):
            raw: dict[str, Any] = self._network(images)
        raw = {"boxes": raw["boxes"].float(), "scores": raw["scores"].float(), "feats": raw["feats"]}
        decoded: torch.Tensor = self._head._inference(raw)
        decoded[:, 2:4].clamp_(min=0)  # a head without a distribution over distances can say less than nothing
        return decoded


def _network(model: Any, device: torch.device, exact: bool) -> QueryNetwork | _AnchorNetwork:
    if type(model.model[-1]).__name__ == "RTDETRDecoder":
        return QueryNetwork(model, device)
    return _AnchorNetwork(model, device, not exact and bfloat16_is_fast(device))


def load_model(weights: Path) -> Any:
    """The ultralytics model in a weights file, float32, in evaluation mode, loaded without running code from the file.

    Raises WeightsError.
    """
    weights = Path(weights)
    if not weights.is_file():  # ultralytics would look for a missing file on the network
        raise WeightsError(f"The weights file {weights.name} does not exist.")
    if weights.suffix != ".pt":
        raise WeightsError(f"The weights file {weights.name} is not a .pt file.")
    quiet_ultralytics()
    from ultralytics.nn.tasks import torch_safe_load

    try:
        checkpoint, _ = torch_safe_load(str(weights.resolve()), safe_only=True)
        model = (checkpoint.get("ema") or checkpoint["model"]).float().eval()
        head = model.model[-1]
        names = model.names
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are files
        raise WeightsError(
            f"The weights file {weights.name} is damaged or is not a detector saved by ultralytics."
        ) from error
    kind = type(head).__name__
    if kind not in HEADS:
        raise WeightsError(
            f"The weights file {weights.name} holds a model with a {kind} head of another kind; "
            f"only detectors ({', '.join(HEADS)}) are supported."
        )
    if getattr(head, "cv2", head) is None:
        raise WeightsError(
            f"The weights file {weights.name} was stripped for use without suppression; give it as it was trained."
        )
    if not isinstance(names, dict) or len(names) != head.nc:
        raise WeightsError(f"The weights file {weights.name} does not name its {head.nc} classes.")
    return model


def has_plain_head(model: Any) -> bool:
    """Whether its head is that of YOLOv8 and YOLO11: one-to-many only, with a distribution over each distance."""
    head = model.model[-1]
    alone = getattr(head, "one2one_cv2", None) is None
    return type(head).__name__ == "Detect" and alone and bool(head.reg_max > 1)


def _batches(tiles: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(tiles), BATCH):
        yield tiles[start : start + BATCH]
