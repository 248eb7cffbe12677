from pathlib import Path

import numpy as np
import pytest
import torch

from inference.engine import class_order
from inference.engine.class_order import weights_facts, write_ordered
from inference.engine.detector import WeightsError
from inference.engine.torch_detector import TorchDetector
from tests.inference.engine.made_weights import CLASSES, SIDE, DetectionModel, untrained_weights
from tests.training.engine.cells import CLASSES as CELLS
from tests.training.engine.cells import draw_tile


def scores(weights: Path) -> np.ndarray:
    tiles = np.stack([draw_tile(seed)[0] for seed in range(200, 204)])
    detector = TorchDetector(weights, image_size=SIDE, device="cpu", exact=True)
    return detector._forward(tiles, 1.0).numpy()


def test_a_file_says_its_classes_and_stride(learned: Path) -> None:
    facts = weights_facts(learned)
    assert (facts.classes, facts.stride) == (CELLS, 32)


def test_a_learned_detector_answers_the_same_in_another_order(learned: Path, tmp_path: Path) -> None:
    turned = write_ordered(learned, tmp_path / "turned.pt", order=[1, 0], names=("Eosinophil", "Lymphocyte"))
    assert weights_facts(turned).classes == ("Eosinophil", "Lymphocyte")
    before, after = scores(learned), scores(turned)
    assert after[:, :4] == pytest.approx(before[:, :4], abs=1e-4)
    assert after[:, [5, 4]] == pytest.approx(before[:, 4:], abs=1e-6)
    assert abs(before[:, 4] - before[:, 5]).max() > 0.5  # the order makes a difference


def test_names_alone_can_be_changed(learned: Path, tmp_path: Path) -> None:
    renamed = write_ordered(learned, tmp_path / "renamed.pt", order=[0, 1], names=("a", "b"))
    assert weights_facts(renamed).classes == ("a", "b")
    assert np.array_equal(scores(renamed), scores(learned))


@pytest.mark.parametrize("model", ["yolov8n", "yolov10n", "yolo26n"])
def test_other_yolos_can_be_put_in_order(model: str, tmp_path: Path) -> None:
    weights = untrained_weights(tmp_path / "made.pt", model=model)
    made = torch.load(weights, weights_only=False)["model"]
    for branch in made.model[-1].cv3:  # untrained, all classes answer the same
        branch[-1].bias.data = torch.tensor([-1.0, 0.0, 1.0])
    torch.save({"model": made, "train_args": {}}, weights)
    turned = write_ordered(weights, tmp_path / "turned.pt", order=[2, 0, 1], names=CLASSES)
    before, after = scores(weights), scores(turned)
    assert after[:, 4:] == pytest.approx(before[:, [6, 4, 5]], abs=1e-5)
    assert not np.allclose(after[:, 4:], before[:, 4:], atol=1e-2)


def test_a_head_without_such_layers_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "detr.pt"
    torch.save({"model": DetectionModel("yolov8-rtdetr.yaml", nc=2, verbose=False), "train_args": {}}, weights)
    with pytest.raises(WeightsError, match="its head is not that of a YOLO"):
        write_ordered(weights, tmp_path / "turned.pt", order=[1, 0], names=("a", "b"))
    assert not (tmp_path / "turned.pt").exists()


def test_an_order_that_did_not_come_out_is_not_written(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if there were layers that nobody thought of."""
    last_layers = class_order._last_layers
    monkeypatch.setattr(class_order, "_last_layers", lambda model: last_layers(model)[:1])
    with pytest.raises(WeightsError, match="were not the same after it"):
        write_ordered(learned, tmp_path / "turned.pt", order=[1, 0], names=("a", "b"))
    assert not (tmp_path / "turned.pt").exists()
