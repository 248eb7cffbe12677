from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector that learned drawn cells, its OpenVINO export (for tiles of 96 px) beside it."""
    from inference.engine.detector import export_folder
    from inference.engine.openvino_detector import export_openvino
    from tests.inference.engine.made_weights import SIDE, learned_weights

    weights = learned_weights(tmp_path_factory.mktemp("learned"))
    assert export_openvino(weights, export_folder(weights), image_size=SIDE) == export_folder(weights) / "model.xml"
    return weights
