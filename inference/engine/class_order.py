"""The classes of a weights file made elsewhere: what they are, and in which order, which can be put right."""

# mypy: disable-error-code="no-untyped-call"

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.engine.detector import WeightsError


@dataclass(frozen=True)
class WeightsFacts:
    """classes: names in the order of the class ids. stride: the image size must be a multiple of it, px."""

    classes: tuple[str, ...]
    stride: int


def weights_facts(weights: Path) -> WeightsFacts:
    """What a weights file says of itself, loaded without running code from it. Raises WeightsError."""
    from inference.engine.torch_detector import load_model

    model = load_model(weights)
    names = tuple(str(model.names[index]) for index in sorted(model.names))
    return WeightsFacts(names, int(model.stride.max()))


def write_ordered(weights: Path, path: Path, *, order: Sequence[int], names: Sequence[str]) -> Path:
    """Write a detector whose class i is class order[i] of the given one, and is called names[i].

    The rows of the last layers of the head are put into that order, and both detectors compared on a random image:
    the boxes must be the same, the scores the same in the other order. Raises WeightsError if they are not, or if the
    head has no such layers (RT-DETR), unless the order is that of the file.
    """
    import torch

    from inference.engine.torch_detector import load_model

    model, before = load_model(weights), load_model(weights)
    if list(order) != list(range(len(order))):
        with torch.no_grad():
            for layer in _last_layers(model):
                layer.weight.copy_(layer.weight[list(order)].clone())
                layer.bias.copy_(layer.bias[list(order)].clone())
        if not _same_but_for_the_order(before, model, list(order)):
            raise WeightsError("The order of its classes could not be changed: its answers were not the same after it.")
    model.names = dict(enumerate(names))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "train_args": {}}, path)
    return path


def _last_layers(model: Any) -> list[Any]:
    """The convolutions that give one map per class, of each size of map and, where there are two, of both heads."""
    import torch

    head = model.model[-1]
    branches = [getattr(head, name, None) for name in ("cv3", "one2one_cv3")]
    layers = [branch[-1] for some in branches if some is not None for branch in some]
    if not layers or any(not isinstance(one, torch.nn.Conv2d) or one.out_channels != head.nc for one in layers):
        raise WeightsError("The order of its classes cannot be changed: its head is not that of a YOLO.")
    return layers


def _same_but_for_the_order(before: Any, after: Any, order: list[int]) -> bool:
    import torch

    side = 4 * int(before.stride.max())
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for model in (before, after):
            model.end2end = False  # all boxes in their places, before any is picked
        first, second = before(image)[0], after(image)[0]
    same_boxes = torch.allclose(first[:, :4], second[:, :4], atol=1e-3)
    return same_boxes and torch.allclose(first[:, 4:][:, order], second[:, 4:], atol=1e-5)
