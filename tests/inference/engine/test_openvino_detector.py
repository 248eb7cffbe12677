import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from annotation.geometry import iou_matrix
from inference.engine import openvino_detector, openvino_runtime
from inference.engine.comparison import compare
from inference.engine.detector import Detector, WeightsError, export_folder, load_detector
from inference.engine.openvino_detector import OpenvinoDetector, export_openvino
from inference.engine.runtime import DeviceError
from inference.engine.torch_detector import TorchDetector
from tests.inference.engine.made_weights import SIDE, untrained_weights
from tests.training.engine.cells import CLASSES, draw_tile

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def detector(learned: Path) -> OpenvinoDetector:
    return OpenvinoDetector(export_folder(learned))


@pytest.fixture(scope="module")
def exact(learned: Path) -> TorchDetector:
    return TorchDetector(learned, image_size=SIDE, device="cpu", exact=True)


def tiles(count: int = 2, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Tiles of drawn cells, cut to or repeated up to this size."""
    times = (-(-height // SIDE), -(-width // SIDE), 1)
    return np.stack([np.tile(draw_tile(seed)[0], times)[:height, :width] for seed in range(200, 200 + count)])


class TestDetecting:
    @pytest.mark.parametrize("shape", [(SIDE, SIDE), (2 * SIDE, 2 * SIDE), (80, 96), (110, 60)])
    def test_it_sees_what_torch_sees(
        self, detector: OpenvinoDetector, exact: TorchDetector, shape: tuple[int, int]
    ) -> None:
        difference = compare(exact, detector, list(tiles(8, *shape)))
        assert difference.boxes >= 8
        assert difference.is_small, difference.in_words()

    def test_in_float32_it_gives_torchs_numbers(
        self, learned: Path, exact: TorchDetector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = []
        compile_model = openvino_runtime.openvino.Core.compile_model

        def in_float32(core: object, model: object, device: str, config: dict[str, object]) -> object:
            usual.append(config["INFERENCE_PRECISION_HINT"])
            return compile_model(core, model, device, config | {"INFERENCE_PRECISION_HINT": "f32"})

        monkeypatch.setattr(openvino_runtime.openvino.Core, "compile_model", in_float32)
        detector = OpenvinoDetector(export_folder(learned))
        assert usual[0] in ("bf16", "f32")
        found, expected = (one.detect(tiles(4, 90, 70), min_score=0.01) for one in (detector, exact))
        assert sum(map(len, expected)) > 10
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.boxes == pytest.approx(theirs.boxes, abs=0.01)
            assert ours.class_scores == pytest.approx(theirs.class_scores, abs=1e-4)
            assert ours.class_ids.tolist() == theirs.class_ids.tolist()

    def test_it_finds_the_cells_where_they_are(self, detector: OpenvinoDetector) -> None:
        drawn = [draw_tile(seed) for seed in range(200, 208)]
        right = 0
        for pixels, boxes in drawn:
            found = detector.detect(pixels[None], min_score=0.25)[0]
            overlap = iou_matrix(boxes[:, 1:], found.boxes)
            named = found.class_ids[None, :] == boxes[:, :1]
            right += int(((overlap > 0.5) & named).any(axis=1).sum())
        assert right >= 0.8 * sum(len(boxes) for _, boxes in drawn)

    def test_it_answers_boxes_scores_classes_and_whole_class_vectors(self, detector: OpenvinoDetector) -> None:
        for item in detector.detect(tiles(), min_score=0.01):
            count = len(item)
            assert count > 0
            assert (item.boxes.shape, item.boxes.dtype) == ((count, 4), np.float32)
            assert (item.scores.shape, item.scores.dtype) == ((count,), np.float32)
            assert (item.class_ids.shape, item.class_ids.dtype) == ((count,), np.int64)
            assert (item.class_scores.shape, item.class_scores.dtype) == ((count, 2), np.float32)
            assert (item.class_scores.max(axis=1) == item.scores).all()
            assert (item.class_scores.argmax(axis=1) == item.class_ids).all()
            assert (np.diff(item.scores) <= 0).all()

    def test_boxes_stay_inside_a_tile_that_is_not_square(self, detector: OpenvinoDetector) -> None:
        for item in detector.detect(tiles(height=50, width=90), min_score=0.001):
            assert len(item) > 0
            assert (item.boxes[:, :2] >= 0).all()
            assert (item.boxes[:, 0] + item.boxes[:, 2] <= 90 + 1e-3).all()
            assert (item.boxes[:, 1] + item.boxes[:, 3] <= 50 + 1e-3).all()

    def test_each_of_many_tiles_gets_its_own_boxes_in_order(self, detector: OpenvinoDetector) -> None:
        many = tiles(3 * len(detector._requests._requests) + 1)
        for pixels, found in zip(many, detector.detect(many), strict=True):
            alone = detector.detect(pixels[None])[0]
            assert alone.boxes.tolist() == found.boxes.tolist()
            assert alone.class_scores.tolist() == found.class_scores.tolist()

    def test_min_score_iou_and_max_detections_cut_the_list(self, detector: OpenvinoDetector) -> None:
        whole = detector.detect(tiles(1), min_score=0.0, iou=1.0, max_detections=3000)[0]
        assert len(whole) == sum((SIDE // stride) ** 2 for stride in (8, 16, 32))  # every anchor
        middle = float(np.median(whole.scores))
        assert detector.detect(tiles(1), min_score=middle, iou=1.0)[0].scores.min() >= middle
        assert len(detector.detect(tiles(1), min_score=0.0, max_detections=3)[0]) == 3
        assert len(detector.detect(tiles(1), min_score=1.1)[0]) == 0

    def test_no_tiles_give_no_answers(self, detector: OpenvinoDetector) -> None:
        assert detector.detect(np.zeros((0, 64, 64, 3), np.uint8)) == []

    @pytest.mark.parametrize("wrong", [np.zeros((1, 64, 64, 3), np.float32), np.zeros((64, 64, 3), np.uint8)])
    def test_it_refuses_other_arrays(self, detector: OpenvinoDetector, wrong: np.ndarray) -> None:
        with pytest.raises(ValueError, match="uint8"):
            detector.detect(wrong)

    def test_stopped_half_way_it_can_be_used_again(
        self, detector: OpenvinoDetector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = detector.detect(tiles(1))[0].boxes.tolist()

        def stop(*args: object, **options: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(openvino_detector, "suppress", stop)
            with pytest.raises(KeyboardInterrupt):
                detector.detect(tiles(20))
        assert detector.detect(tiles(1))[0].boxes.tolist() == expected


class TestExporting:
    def test_an_export_can_be_loaded_alone(self, learned: Path, tmp_path: Path, detector: OpenvinoDetector) -> None:
        alone = OpenvinoDetector(Path(shutil.copytree(export_folder(learned), tmp_path / "moved")))
        assert (alone.classes, alone.image_size) == (CLASSES, SIDE)
        assert alone.detect(tiles())[1].boxes.tolist() == detector.detect(tiles())[1].boxes.tolist()

    def test_the_other_family_is_exported_as_well(self, tmp_path: Path) -> None:
        names = ('a cell, "odd"', "ünlike")
        weights = untrained_weights(tmp_path / "v8.pt", model="yolov8n", classes=names)
        export_openvino(weights, tmp_path / "v8", image_size=64)
        exact = TorchDetector(weights, image_size=64, device="cpu", exact=True)
        detector = OpenvinoDetector(tmp_path / "v8")
        assert detector.classes == names
        difference = compare(exact, detector, list(tiles(2, 64, 64)))
        assert difference.is_small, difference.in_words()

    def test_it_is_written_whole_or_not_at_all(
        self, learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fill_the_disk(model: object, path: Path, **options: object) -> None:
            path.write_text("<net>")
            raise OSError("No space left on device")

        folder = Path(shutil.copytree(export_folder(learned), tmp_path / "export"))
        before = (folder / "model.xml").read_bytes()
        monkeypatch.setattr(openvino_runtime.openvino, "save_model", fill_the_disk)
        with pytest.raises(OSError, match="No space"):
            export_openvino(learned, folder, image_size=64)
        assert (folder / "model.xml").read_bytes() == before

    def test_an_older_export_is_replaced(self, learned: Path, tmp_path: Path) -> None:
        folder = tmp_path / "export"
        folder.mkdir()
        (folder / "model.xml").write_text("old")
        export_openvino(learned, folder, image_size=64)
        assert OpenvinoDetector(folder).image_size == 64
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["export", "model.bin", "model.xml"]

    def test_bad_weights_and_sizes_are_refused(self, learned: Path, tmp_path: Path) -> None:
        (tmp_path / "w.pt").write_bytes(b"not weights")
        with pytest.raises(WeightsError, match=r"w\.pt is damaged"):
            export_openvino(tmp_path / "w.pt", tmp_path / "export", image_size=64)
        with pytest.raises(ValueError, match="multiple of 32"):
            export_openvino(learned, tmp_path / "export", image_size=100)
        assert not (tmp_path / "export").exists()

    @pytest.mark.parametrize("damaged", ["model.xml", "model.bin"])
    @pytest.mark.parametrize("how", ["gone", "cut", "other"])
    def test_a_damaged_export_is_named(self, learned: Path, tmp_path: Path, damaged: str, how: str) -> None:
        folder = Path(shutil.copytree(export_folder(learned), tmp_path / "1-abc.openvino"))
        path = folder / damaged
        content = path.read_bytes()
        path.unlink()
        if how == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif how == "other":
            path.write_bytes(b"<?xml version='1.0'?><net/>")
        with pytest.raises(WeightsError, match=r"The export 1-abc\.openvino (is damaged|has no model)"):
            OpenvinoDetector(folder)


class TestChoosing:
    def kind(self, detector: Detector) -> type:
        return type(detector)

    def test_on_a_processor_the_export_is_taken(self, learned: Path) -> None:
        assert self.kind(load_detector(learned, image_size=SIDE, device="cpu")) is OpenvinoDetector

    def test_torch_is_taken_where_it_is_asked_for(self, learned: Path) -> None:
        detector = load_detector(learned, image_size=SIDE, device="cpu", runtime="torch")
        assert self.kind(detector) is TorchDetector

    def test_without_an_export_torch_is_taken(self, learned: Path, tmp_path: Path) -> None:
        alone = Path(shutil.copy(learned, tmp_path / "alone.pt"))
        assert self.kind(load_detector(alone, image_size=SIDE, device="cpu")) is TorchDetector
        with pytest.raises(WeightsError, match=r"alone\.openvino has no model\.xml"):
            load_detector(alone, image_size=SIDE, runtime="openvino")

    def test_an_export_of_another_size_is_refused(self, learned: Path) -> None:
        with pytest.raises(WeightsError, match="takes images of 96 px, not of 64 px"):
            load_detector(learned, image_size=64, device="cpu")

    @pytest.mark.parametrize("name", ["tpu", "cuda:99", ""])
    def test_a_device_that_is_not_there_is_refused(self, learned: Path, name: str) -> None:
        with pytest.raises(DeviceError, match="auto"):
            load_detector(learned, image_size=SIDE, device=name)


# Everything that OpenVINO does here, in a process that can see what it would rather not show: the network and the home.
PROGRAM = """
import socket, sys
from pathlib import Path

def refused(*args, **options):
    print("NETWORK", args[-1:])
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refused
import numpy as np
from inference.engine.detector import load_detector
detector = load_detector(Path(sys.argv[1]), image_size=96)
found = detector.detect(np.zeros((3, 64, 64, 3), np.uint8))
print(type(detector).__name__, len(found), *("torch" in sys.modules, "ultralytics" in sys.modules))
if len(sys.argv) > 2:
    from inference.engine.openvino_detector import export_openvino
    export_openvino(Path(sys.argv[1]), Path(sys.argv[2]), image_size=64)
print(sys.modules["openvino_telemetry"])
"""


class TestKeepingToItself:
    def run(self, home: Path, *arguments: Path) -> list[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("CI", "YOLO_CONFIG_DIR")}
        temporary = {"HOME": str(home), "TMPDIR": str(home.parent / "tmp")}
        (home.parent / "tmp").mkdir(parents=True)
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            cwd=ROOT,
            env=environment | temporary,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def test_an_export_runs_without_torch_telemetry_network_or_files(self, learned: Path, tmp_path: Path) -> None:
        told = self.run(tmp_path / "home", learned)
        assert told == ["OpenvinoDetector 3 False False", "None"]
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_exporting_writes_nothing_but_the_export(self, learned: Path, tmp_path: Path) -> None:
        told = self.run(tmp_path / "place" / "home", learned, tmp_path / "export")
        assert not [line for line in told if "NETWORK" in line]
        written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        assert written == ["export/model.bin", "export/model.xml"]
