"""The network that is trained: any of ultralytics' detectors, from scratch or from the weights of another one."""

# mypy: disable-error-code="no-untyped-call"

from pathlib import Path
from typing import Any

import torch

from inference.engine.runtime import bfloat16_is_fast, quiet_ultralytics
from inference.engine.torch_detector import load_model
from training.engine.architectures import architecture
from training.engine.progress import TrainingError

quiet_ultralytics()  # before ultralytics is imported: its import looks for the network

from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel  # noqa: E402


class CellModel(DetectionModel):
    """A detection model that computes in bfloat16 where that is fast, and its loss in float32.

    Only for training: the class of a saved model is the plain one, so that the file loads without this project.
    """

    reduced_precision: bool = False

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, dict):
            return self.loss(x)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.reduced_precision):
            output = super().forward(x, *args, **kwargs)
        return _to_float32(output)


def build_network(name: str, classes: dict[int, str], device: torch.device) -> Any:
    """The network of this name for these classes, with weights by chance.

    An RT-DETR computes in float32: it refines the places of its boxes from layer to layer, for which the 8 bits of
    bfloat16 are too few.
    """
    model: Any
    if architecture(name).is_transformer:
        model = RTDETRDetectionModel(f"{name}.yaml", nc=len(classes), ch=3, verbose=False)
    else:
        model = CellModel(f"{name}.yaml", nc=len(classes), ch=3, verbose=False)
        model.reduced_precision = bfloat16_is_fast(device)
        # Where there is a one-to-one head too, both are trained; what we detect with, and so validate with, is the
        # one-to-many one with our suppression: see TorchDetector.
        model.end2end = False
    model.names = classes
    return model.to(memory_format=torch.channels_last)


def plain(model: Any) -> Any:
    """The same network as ultralytics' own class, ready to be saved."""
    if isinstance(model, CellModel):
        model.__class__ = DetectionModel  # type: ignore[assignment]
        model.__dict__.pop("reduced_precision", None)
    else:
        model.model[-1].shapes = []  # its anchors, kept in float16, would be used again
    model.criterion = None
    return model


def take_over(model: Any, weights: Path, name: str) -> tuple[int, int]:
    """Take over what matches of a weights file: how many of the network's layers, and how many learn.

    Layers match by place and shape, rows of the last layer by the names of classes. Raises WeightsError for a file that
    is gone, damaged or holds no detector, TrainingError for one of which no layer fits.
    """
    source = load_model(weights)
    shapes = {key: value.shape for key, value in source.state_dict().items()}
    model.load(source, verbose=False)
    model.pt_path = None
    layers: dict[str, bool] = {}
    for key, value in model.named_parameters():
        if value.requires_grad:
            layer = key.rpartition(".")[0]
            layers[layer] = layers.get(layer, True) and shapes.get(key) == value.shape
    taken = sum(layers.values())
    if not taken:
        raise TrainingError(f"No layer of {weights.name} fits {name}: choose the model that these weights are of.")
    return taken, len(layers)


def _to_float32(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: _to_float32(value) for name, value in output.items()}
    if isinstance(output, list | tuple):
        return type(output)(_to_float32(value) for value in output)
    return output
