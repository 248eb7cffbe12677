"""The OpenVINO back end of the crop classifier, for processors."""

from dataclasses import asdict
from pathlib import Path

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
        # Measured: bfloat16 moves the probabilities of this small network by up to 0.12, and is 1.8 times as fast.
        self._requests = Requests(model, exact=True)

    def classify(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `inference.engine.two_stage.Classifier.classify`."""
        rows = [output_of(request, 0).copy() for request in self._requests.answers(crops, lambda crop: crop[None])]
        return np.array(rows, np.float32).reshape(len(crops), len(self.classes))


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
