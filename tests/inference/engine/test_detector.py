import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.engine.detector import WeightsError, load_detector
from inference.engine.openvino_detector import export_openvino
from inference.engine.runtime import DeviceError, bfloat16_is_fast, quiet_ultralytics, torch_device
from inference.engine.torch_detector import BATCH, TorchDetector, load_model
from tests.inference.engine.made_weights import CLASSES, untrained_weights

quiet_ultralytics()

from ultralytics.nn.tasks import (  # noqa: E402
    ClassificationModel,
    DetectionModel,
    RTDETRDetectionModel,
    SegmentationModel,
)

ROOT = Path(__file__).resolve().parents[3]


def save(model: Any, path: Path) -> Path:
    torch.save({"model": model, "train_args": {}}, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("weights") / "untrained.pt")


@pytest.fixture(scope="module")
def detector(weights: Path) -> TorchDetector:
    return TorchDetector(weights, image_size=64, device="cpu")


def tiles(count: int = 2, height: int = 128, width: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


class TestDetecting:
    def test_it_answers_boxes_scores_classes_and_whole_class_vectors(self, detector: TorchDetector) -> None:
        found = detector.detect(tiles(), min_score=0.01)
        assert len(found) == 2
        for item in found:
            count = len(item)
            assert count > 0
            assert (item.boxes.shape, item.boxes.dtype) == ((count, 4), np.float32)
            assert (item.scores.shape, item.scores.dtype) == ((count,), np.float32)
            assert (item.class_ids.shape, item.class_ids.dtype) == ((count,), np.int64)
            assert (item.class_scores.shape, item.class_scores.dtype) == ((count, 3), np.float32)
            assert (item.class_scores.max(axis=1) == item.scores).all()
            assert (item.class_scores.argmax(axis=1) == item.class_ids).all()
            assert (np.diff(item.scores) <= 0).all()

    def test_it_names_the_classes_in_order(self, weights: Path) -> None:
        assert load_detector(weights, image_size=64).classes == CLASSES

    def test_boxes_stay_inside_a_tile_that_is_not_square(self, detector: TorchDetector) -> None:
        for item in detector.detect(tiles(height=90, width=140), min_score=0.01):
            assert (item.boxes[:, :2] >= 0).all()
            assert (item.boxes[:, 0] + item.boxes[:, 2] <= 140 + 1e-3).all()
            assert (item.boxes[:, 1] + item.boxes[:, 3] <= 90 + 1e-3).all()

    def test_a_tile_of_twice_the_size_gives_boxes_of_twice_the_size(self, detector: TorchDetector) -> None:
        small = np.full((1, 64, 64, 3), 200, np.uint8)
        small[:, 16:40, 20:44] = (90, 40, 140)
        large = small.repeat(2, axis=1).repeat(2, axis=2)
        first, second = (detector.detect(pixels, min_score=0.01)[0] for pixels in (small, large))
        # Resizing by exactly one half gives the same image again (nearest or not, the pixels come in equal fours).
        assert second.boxes == pytest.approx(first.boxes * 2, abs=1e-3)

    def test_a_tile_gets_the_same_boxes_whatever_tiles_come_with_it(self, detector: TorchDetector) -> None:
        many = tiles(BATCH + 3)
        together = detector.detect(many, min_score=0.01)
        assert len(together) == BATCH + 3
        alone = detector.detect(many[-1:], min_score=0.01)[0]
        assert alone.scores[:5] == pytest.approx(together[-1].scores[:5], abs=0.02)

    def test_min_score_and_max_detections_cut_the_list(self, detector: TorchDetector) -> None:
        whole = detector.detect(tiles(1), min_score=0.0, iou=1.0)[0]
        middle = float(np.median(whole.scores))
        assert detector.detect(tiles(1), min_score=middle, iou=1.0)[0].scores.min() >= middle
        assert len(detector.detect(tiles(1), min_score=0.0, max_detections=3)[0]) == 3
        assert len(detector.detect(tiles(1), min_score=1.1)[0]) == 0

    def test_no_tiles_give_no_answers(self, detector: TorchDetector) -> None:
        assert detector.detect(np.zeros((0, 64, 64, 3), np.uint8)) == []

    @pytest.mark.parametrize(
        "wrong",
        [np.zeros((1, 64, 64, 3), np.float32), np.zeros((64, 64, 3), np.uint8), np.zeros((1, 3, 64, 64), np.uint8)],
    )
    def test_it_refuses_other_arrays(self, detector: TorchDetector, wrong: np.ndarray) -> None:
        with pytest.raises(ValueError, match="uint8"):
            detector.detect(wrong)

    def test_it_decodes_what_the_model_itself_decodes(self, weights: Path) -> None:
        detector = TorchDetector(weights, image_size=64, device="cpu", exact=True)
        pixels = tiles(2, 64, 64)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            theirs = load_model(weights)(images)[0]
        ours = detector._forward(pixels, 1.0)
        assert torch.allclose(ours, theirs, atol=1e-3)

    @pytest.mark.skipif(not bfloat16_is_fast(torch.device("cpu")), reason="this processor has no bfloat16")
    def test_bfloat16_keeps_the_boxes(self, weights: Path) -> None:
        reduced = TorchDetector(weights, image_size=64, device="cpu")._forward(tiles(2, 64, 64), 1.0)
        exact = TorchDetector(weights, image_size=64, device="cpu", exact=True)._forward(tiles(2, 64, 64), 1.0)
        assert not torch.equal(reduced, exact)
        assert (reduced[:, :4] - exact[:, :4]).abs().max() < 1.0  # px
        assert (reduced[:, 4:] - exact[:, 4:]).abs().max() < 0.05


@pytest.fixture(scope="module", params=["yolov10n", "yolo26n"])
def two_heads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("weights") / "w.pt", model=request.param)


class TestOtherHeads:
    """Heads that answer without suppression say only the best class; we want them all."""

    def test_of_two_heads_it_decodes_what_the_one_to_many_head_says(self, two_heads: Path) -> None:
        pixels = tiles(2, 64, 64)
        model = load_model(two_heads)
        model.end2end = False
        with torch.inference_mode():
            theirs = model(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[0]
            theirs[:, 2:4].clamp_(min=0)
        ours = TorchDetector(two_heads, image_size=64, device="cpu", exact=True)._forward(pixels, 1.0)
        assert ours.shape == (2, 4 + len(CLASSES), 84)
        assert torch.allclose(ours, theirs, atol=1e-3)

    def test_they_are_not_exported(self, two_heads: Path, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="no OpenVINO export for models of this kind"):
            export_openvino(two_heads, tmp_path / "export", image_size=64)
        assert not (tmp_path / "export").exists()

    def test_their_boxes_have_no_negative_sides(self, two_heads: Path) -> None:
        for found in TorchDetector(two_heads, image_size=64, device="cpu").detect(tiles(), min_score=0.0):
            assert (found.boxes[:, 2:] >= 0).all()

    def test_an_rt_detr_gives_every_class_of_its_queries(self, tmp_path: Path) -> None:
        model = RTDETRDetectionModel("yolov8n-rtdetr.yaml", nc=3, verbose=False)
        model.names = dict(enumerate(CLASSES))
        path = save(model, tmp_path / "w.pt")
        pixels = tiles(2, 64, 64)
        with torch.inference_mode():
            best = load_model(path)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[0]
        ours = TorchDetector(path, image_size=64, device="cpu")._forward(pixels, 1.0)
        assert ours.shape == (2, 4 + 3, 84)
        # Ultralytics lists the best (query, class) pairs: centre, width and height as shares, score, class.
        for mine, theirs in zip(ours, best, strict=True):
            assert mine[4:].max() == pytest.approx(float(theirs[0, 4]), abs=1e-4)
            query = int(mine[4:].max(dim=0).values.argmax())
            assert mine[:4, query] == pytest.approx(theirs[0, :4] * 64, abs=1e-2)
            assert int(mine[4:, query].argmax()) == int(theirs[0, 5])

    def test_a_coarser_map_needs_another_image_size(self, tmp_path: Path) -> None:
        path = untrained_weights(tmp_path / "w.pt", model="yolov8n-p6")
        assert TorchDetector(path, image_size=128, device="cpu").detect(tiles(1), min_score=0.01)
        with pytest.raises(ValueError, match="multiple of 64"):
            TorchDetector(path, image_size=96, device="cpu")


class RunsWhenRead:
    """A pickle of this makes a folder when a careless reader loads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


class TestWeightsFiles:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"yolo11n\.pt does not exist"):
            load_detector(tmp_path / "yolo11n.pt")

    @pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"model": 1})])
    def test_a_file_of_something_else_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"w\.pt is damaged or is not a detector"):
            load_detector(tmp_path / "w.pt")

    def test_a_truncated_file_is_refused(self, weights: Path, tmp_path: Path) -> None:
        (tmp_path / "w.pt").write_bytes(weights.read_bytes()[:-2000])
        with pytest.raises(WeightsError, match="damaged"):
            load_detector(tmp_path / "w.pt")

    def test_a_file_without_a_model_is_refused(self, tmp_path: Path) -> None:
        torch.save({"epoch": 1}, tmp_path / "w.pt")
        with pytest.raises(WeightsError, match="damaged"):
            load_detector(tmp_path / "w.pt")

    def test_another_ending_is_refused(self, weights: Path, tmp_path: Path) -> None:
        (tmp_path / "w.onnx").write_bytes(weights.read_bytes())
        with pytest.raises(WeightsError, match=r"not a \.pt file"):
            load_detector(tmp_path / "w.onnx")

    def test_code_inside_a_file_does_not_run(self, tmp_path: Path) -> None:
        torch.save({"model": RunsWhenRead(tmp_path / "made")}, tmp_path / "w.pt")
        with pytest.raises(WeightsError, match="damaged"):
            load_detector(tmp_path / "w.pt")
        assert not (tmp_path / "made").exists()

    def test_a_head_it_cannot_run_is_named(self, tmp_path: Path) -> None:
        model = SegmentationModel("yolo11n-seg.yaml", nc=2, verbose=False)
        with pytest.raises(WeightsError, match="Segment head of another kind"):
            load_detector(save(model, tmp_path / "w.pt"))

    def test_weights_stripped_of_the_head_that_is_asked_are_refused(self, tmp_path: Path) -> None:
        model = DetectionModel("yolo26n.yaml", nc=2, verbose=False)
        model.end2end = True
        with pytest.raises(WeightsError, match="stripped"):
            load_detector(save(model.eval().fuse(), tmp_path / "w.pt"))

    def test_a_published_name_does_not_fetch_published_weights(self, tmp_path: Path) -> None:
        """Ultralytics would look for yolov5nu.pt on the network instead."""
        path = untrained_weights(tmp_path / "yolov5n.pt")
        assert load_detector(path, image_size=64).classes == CLASSES

    def test_a_classifier_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"w\.pt"):
            load_detector(save(ClassificationModel("yolo11n-cls.yaml", nc=2, verbose=False), tmp_path / "w.pt"))


class TestSettings:
    @pytest.mark.parametrize("image_size", [0, -32, 100])
    def test_an_impossible_image_size_is_refused(self, weights: Path, image_size: int) -> None:
        with pytest.raises(ValueError, match="multiple of 32"):
            load_detector(weights, image_size=image_size)

    @pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", ""])
    def test_a_device_that_is_not_there_is_refused(self, weights: Path, name: str) -> None:
        with pytest.raises(DeviceError, match="auto"):
            load_detector(weights, device=name)

    def test_auto_takes_the_processor_where_there_is_no_gpu(self) -> None:
        assert torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")

    def test_the_words_of_a_detector_can_be_imported_without_torch(self) -> None:
        program = "import sys, inference.engine.detector; print('torch' in sys.modules, 'ultralytics' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False", "False"]
