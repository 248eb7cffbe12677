import ast
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from inference.engine.detector import WeightsError
from inference.engine.onnx_export import compare_onnx, export_onnx
from inference.engine.torch_detector import TorchDetector
from tests.inference.engine.made_weights import SIDE, DetectionModel, untrained_weights
from tests.training.engine.cells import CLASSES, draw_tile


@pytest.fixture(scope="module")
def exported(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(learned, tmp_path_factory.mktemp("onnx") / "model.onnx", image_size=SIDE)


def tiles(count: int) -> list[np.ndarray]:
    return [draw_tile(seed)[0] for seed in range(200, 200 + count)]


def test_another_runtime_computes_what_torch_does(learned: Path, exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    images = np.stack(tiles(3)).transpose(0, 3, 1, 2).astype(np.float32) / 255
    (output,) = session.run(None, {"images": images})
    exact = TorchDetector(learned, image_size=SIDE, device="cpu", exact=True)
    expected = exact._forward(np.stack(tiles(3)), 1.0).numpy()
    assert output.shape == (3, 4 + len(CLASSES), 189)
    assert output == pytest.approx(expected, abs=2e-3)
    assert output[:, 4:].max() > 0.5  # there is something to see


def test_it_says_what_a_reader_has_to_know(exported: Path) -> None:
    facts = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"]).get_modelmeta()
    known = {key: facts.custom_metadata_map[key] for key in ("task", "names", "imgsz", "stride")}
    assert known.pop("task") == "detect"
    values = {key: ast.literal_eval(value) for key, value in known.items()}
    assert values == {"names": dict(enumerate(CLASSES)), "imgsz": [SIDE, SIDE], "stride": 32}


def test_it_is_measured_against_torch_on_tiles(learned: Path, exported: Path) -> None:
    difference = compare_onnx(learned, exported, tiles(6), image_size=SIDE)
    assert difference.boxes >= 6
    assert difference.is_small, difference.in_words()
    assert difference.distance < 0.01


def test_other_weights_are_noticed(exported: Path, tmp_path: Path) -> None:
    other = untrained_weights(tmp_path / "other.pt", classes=CLASSES)
    assert not compare_onnx(other, exported, tiles(2), image_size=SIDE).is_small


def test_nothing_is_written_for_an_impossible_size_or_what_is_no_detector(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        export_onnx(learned, tmp_path / "model.onnx", image_size=100)
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"bad\.pt"):
        export_onnx(bad, tmp_path / "model.onnx", image_size=SIDE)
    assert list(tmp_path.iterdir()) == [bad]


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    made = DetectionModel("yolov8-rtdetr.yaml", nc=2, verbose=False)
    weights = tmp_path / "detr.pt"
    torch.save({"model": made, "train_args": {}}, weights)
    with pytest.raises(WeightsError, match="RT-DETR"):
        export_onnx(weights, tmp_path / "model.onnx", image_size=SIDE)
