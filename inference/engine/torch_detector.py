"""The torch back end over ultralytics weights: YOLO models with a plain detection head (YOLOv8, YOLO11)."""

# mypy: disable-error-code="no-untyped-call"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engine.detector import Detections, WeightsError
from inference.engine.letterbox import check_image_size, check_tiles, letterbox, to_tile
from inference.engine.runtime import Cores, bfloat16_is_fast, quiet_ultralytics, torch_device
from inference.engine.suppression import suppress

BATCH = 16  # tiles per forward pass; more gains nothing on a processor and costs memory


class TorchDetector:
    """A detector whose convolutions run in bfloat16 where the hardware does that, its box arithmetic in float32.

    exact: everything in float32, which is slower: what another back end is measured against.
    """

    def __init__(self, weights: Path, *, image_size: int = 320, device: str = "auto", exact: bool = False) -> None:
        check_image_size(image_size)
        self._device = torch_device(device)
        self._image_size = image_size
        self._autocast = not exact and bfloat16_is_fast(self._device)
        model = load_model(weights)
        self.classes: tuple[str, ...] = tuple(str(model.names[index]) for index in sorted(model.names))
        self._head = model.model[-1]
        self._model = model.fuse().to(self._device).to(memory_format=torch.channels_last).eval()
        # The head returns its raw maps when its own flag says "training" (its layers stay in evaluation mode), so that
        # we decode them in float32: bfloat16 has 8 bits, too few for the place of a box.
        self._head.training = True
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
        """The decoded head output, float32 (N, 4 + classes, anchors): centre x, y, width, height in network px."""
        squares = np.stack([letterbox(tile, self._image_size, scale) for tile in tiles])
        images = torch.from_numpy(squares).to(self._device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast):
                raw: dict[str, Any] = self._model(images.float().div_(255))  # NHWC in memory is channels_last
            raw = {"boxes": raw["boxes"].float(), "scores": raw["scores"].float(), "feats": raw["feats"]}
            decoded: torch.Tensor = self._head._inference(raw)
        return decoded.float().cpu()


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
    from ultralytics.nn.modules.head import Detect
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
    if type(head) is not Detect or getattr(head, "one2one_cv2", None) is not None or head.reg_max < 2:
        raise WeightsError(
            f"The weights file {weights.name} holds a model with a {type(head).__name__} head of another kind; "
            "only detectors of the YOLOv8 and YOLO11 families are supported."
        )
    if not isinstance(names, dict) or len(names) != head.nc:
        raise WeightsError(f"The weights file {weights.name} does not name its {head.nc} classes.")
    return model


def _batches(tiles: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(tiles), BATCH):
        yield tiles[start : start + BATCH]
