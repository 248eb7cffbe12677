import subprocess
import sys
from pathlib import Path

import pytest

from training.engine.architectures import UnknownModel, architecture, architectures

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "family", "head", "stride"),
    [
        ("yolo11n", "yolo11", "Detect", 32),
        ("yolov8x", "yolov8", "Detect", 32),
        ("yolov8s-p6", "yolov8-p6", "Detect", 64),
        ("yolov9t", "yolov9", "Detect", 32),
        ("yolov10b", "yolov10", "v10Detect", 32),
        ("yolo26m", "yolo26", "Detect", 32),
        ("rtdetr-l", "rtdetr", "RTDETRDecoder", 32),
        ("yolov8n-rtdetr", "yolov8-rtdetr", "RTDETRDecoder", 32),
    ],
)
def test_a_name_says_what_it_is(name: str, family: str, head: str, stride: int) -> None:
    found = architecture(name)
    assert (found.family, found.head, found.stride) == (family, head, stride)
    assert found.is_transformer == (head == "RTDETRDecoder")


def test_every_size_of_a_family_is_there_in_its_order() -> None:
    names = [one.name for one in architectures().values() if one.family == "yolo11"]
    assert names == ["yolo11n", "yolo11s", "yolo11m", "yolo11l", "yolo11x"]


def test_a_family_stands_together_the_newest_first() -> None:
    families = [one.family for one in architectures().values()]
    order = list(dict.fromkeys(families))
    assert families == sorted(families, key=order.index)
    assert order.index("yolo26") < order.index("yolo11") < order.index("yolov8") < order.index("rtdetr")


@pytest.mark.parametrize("word", ["seg", "pose", "cls", "obb", "world", "yoloe", "sem", "depth"])
def test_what_does_not_detect_by_itself_is_left_out(word: str) -> None:
    assert not [name for name in architectures() if word in name]


@pytest.mark.parametrize(
    ("wrong", "near"), [("yolo11", "yolo11n"), ("YOLO11N", "yolo11n"), ("rtdetr", "rtdetr-l"), ("yolov26s", "yolo26s")]
)
def test_a_wrong_name_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UnknownModel, match=f"no model called '{wrong}'.*{near}"):
        architecture(wrong)


def test_a_name_like_no_other_is_answered_all_the_same() -> None:
    with pytest.raises(UnknownModel, match="yolo11n"):
        architecture("§§")


def test_the_list_is_made_without_torch() -> None:
    program = (
        "import sys; from training.engine.architectures import architectures; from training.engine import config;"
        "print(len(architectures()), 'torch' in sys.modules, 'ultralytics' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    count, *loaded = done.stdout.split()
    assert int(count) == len(architectures())
    assert loaded == ["False", "False"]
