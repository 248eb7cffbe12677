from pathlib import Path

import pytest
import torch

from inference.engine.detector import WeightsError
from tests.inference.engine.made_weights import untrained_weights
from training.engine.networks import build_network, plain, take_over
from training.engine.progress import TrainingError

CLASSES = {0: "lymphocyte", 1: "eosinophil"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("weights") / "lab.pt", classes=("eosinophil", "blast", "monocyte"))


def test_all_layers_but_those_of_other_classes_are_taken_over(weights: Path) -> None:
    model = build_network("yolo11n", CLASSES, CPU)
    taken, layers = take_over(model, weights, "yolo11n")
    assert layers - taken == 3  # the last layer of the class branch, one for each map
    theirs = torch.load(weights, weights_only=False)["model"].state_dict()
    name = "model.10.m.0.attn.qkv.conv.weight"
    assert torch.equal(model.state_dict()[name], theirs[name])


def test_of_another_size_few_layers_are_taken_over(weights: Path) -> None:
    taken, layers = take_over(build_network("yolo11s", CLASSES, CPU), weights, "yolo11s")
    assert 0 < taken < layers / 2


def test_weights_of_which_nothing_fits_are_refused_by_name(tmp_path: Path) -> None:
    other = untrained_weights(tmp_path / "other.pt", model="yolo11s")
    with pytest.raises(TrainingError, match=r"No layer of other\.pt fits yolo26n: choose the model"):
        take_over(build_network("yolo26n", CLASSES, CPU), other, "yolo26n")


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lab.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"lab\.pt is damaged"):
        take_over(build_network("yolo11n", CLASSES, CPU), tmp_path / "lab.pt", "yolo11n")


@pytest.mark.parametrize(("name", "kind"), [("yolo11n", "DetectionModel"), ("yolov8n-rtdetr", "RTDETRDetectionModel")])
def test_what_is_saved_is_of_ultralytics_own_class(name: str, kind: str) -> None:
    model = plain(build_network(name, CLASSES, CPU))
    assert type(model).__name__ == kind
    assert type(model).__module__ == "ultralytics.nn.tasks"
    assert model.names == CLASSES
