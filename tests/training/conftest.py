from pathlib import Path
from typing import NamedTuple

import pytest


class LearnedStages(NamedTuple):
    """The weights of both stages."""

    finder: Path
    classifier: Path


@pytest.fixture(scope="session")
def learned_stages(tmp_path_factory: pytest.TempPathFactory) -> LearnedStages:
    """A finder and a classifier that learned drawn cells, on tiles of 96 px, called as factories.SMALL calls them.

    Their OpenVINO exports lie beside them.
    """
    from inference.engine.detector import export_folder
    from inference.engine.openvino_classifier import export_classifier
    from inference.engine.openvino_detector import export_openvino
    from tests.inference.engine.made_weights import SIDE, learned_finder
    from tests.training.engine.cells import training_tile
    from training.engine.classifier_trainer import ClassifierConfig, train_classifier

    folder = tmp_path_factory.mktemp("stages")
    classifier = train_classifier(
        [training_tile(seed) for seed in range(16)],
        [],
        ("neutrophil", "erythroblast", "other cell"),
        ClassifierConfig(epochs=4, batch_size=8, device="cpu", threads=1),
        folder / "classifier",
        on_progress=lambda progress: None,
        should_stop=lambda: False,
    )
    finder = learned_finder(folder / "finder")
    export_openvino(finder, export_folder(finder), image_size=SIDE)
    export_classifier(classifier, export_folder(classifier))
    return LearnedStages(finder, classifier)
