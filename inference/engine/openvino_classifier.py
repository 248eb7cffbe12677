"""The OpenVINO back end of the crop classifier, for processors."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.openvino_runtime import Requests, converted, output_of, read_model, write_model


class OpenvinoClassifier:
    """The classifier of an export that `export_classifier` wrote; see `inference.engine.two_stage.Classifier`."""

    def __init__(self, folder: Path) -> None:
        model, facts = read_model(folder)
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.side: float = facts["side"]
        self.size: int = facts["size"]
        self._features = int(model.add_outputs([_head_input(model)])[0].get_partial_shape()[1].get_length())
        # Measured: bfloat16 moves the probabilities of this small network by up to 0.12, and is 1.8 times as fast.
        self._requests = Requests(model, exact=True)

    def look(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `inference.engine.two_stage.Classifier.look`."""
        named = np.empty((len(crops), len(self.classes)), np.float32)
        seen = np.empty((len(crops), self._features), np.float32)
        for index, request in enumerate(self._requests.answers(crops, lambda crop: crop[None])):
            named[index], seen[index] = output_of(request, 0), output_of(request, 1)
        return named, seen

    def classify(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities alone."""
        return self.look(crops)[0]


def _head_input(model: Any) -> Any:
    """What the head has its probabilities from: the input of the network's last product of matrices."""
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return products[-1].input_value(0)


def export_classifier(path: Path, folder: Path) -> Path:
    """Write a classifier's file as folder / "model.xml" and "model.bin", and return the path of the first.

    They hold the facts of the classifier, so that they can be loaded alone. Raises WeightsError.
    """
    import torch

    from inference.engine.classifier import load_classifier, to_input

    model, facts = load_classifier(path)

    class Exported(torch.nn.Module):
        """From uint8 (1, size, size, 3) to the probabilities (1, classes)."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            probabilities: torch.Tensor = self.network(to_input(crops, facts)).softmax(dim=1)
            return probabilities

    shape = [1, facts.size, facts.size, 3]
    with torch.no_grad():
        program = torch.export.export(Exported(), (torch.zeros(shape, dtype=torch.uint8),))
    return write_model(converted(program, shape, asdict(facts)), folder)
