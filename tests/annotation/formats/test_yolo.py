import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from annotation.formats import reading
from annotation.formats.records import FormatError, LabelledBox, LabelledTile, Problem
from annotation.formats.yolo import read_yolo, write_yolo
from tests.annotation.formats.made_tiles import CLASSES, SHARED_DATA, assert_same_tiles, encoded_image, some_tiles

# Run apart: ultralytics writes settings where it is told to, and finds its font there instead of fetching one.
ULTRALYTICS_READS = """
import json, sys
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset(sys.argv[1])
found = {}
for split in ("train", "val", "test"):
    dataset = YOLODataset(img_path=data[split], data=data, task="detect", imgsz=64, augment=False)
    for label in dataset.labels:
        rows = [[int(c), *map(float, b)] for c, b in zip(label["cls"][:, 0], label["bboxes"])]
        found[label["im_file"].rsplit("/", 1)[1]] = [split, *label["shape"], rows]
print(json.dumps({"names": data["names"], "found": found}))
"""


def folder_with(tmp_path: Path, text: str | bytes, name: str = "a") -> Path:
    (tmp_path / "labels").mkdir(exist_ok=True)
    (tmp_path / "classes.txt").write_text("blast\nmonocyte\n")
    (tmp_path / f"labels/{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path


def problems_of(folder: Path, size: tuple[int, int] | None = (100, 100)) -> tuple[Problem, ...]:
    with pytest.raises(FormatError) as caught:
        read_yolo(folder, size=size)
    return caught.value.problems


def test_ultralytics_own_loader_reads_the_same_labels_from_any_working_folder(tmp_path: Path) -> None:
    write_yolo(tmp_path / "export", some_tiles(), (*CLASSES[:3], "erythroblast", "no"), image=encoded_image)
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/Arial.ttf").touch()
    result = subprocess.run(
        [sys.executable, "-c", ULTRALYTICS_READS, str(tmp_path / "export/data.yaml")],
        env=os.environ | {"YOLO_CONFIG_DIR": str(tmp_path / "settings"), "YOLO_OFFLINE": "1", "YOLO_VERBOSE": "0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = json.loads(result.stdout.splitlines()[-1])
    assert list(loaded["names"].values()) == [*CLASSES[:3], "erythroblast", "no"]
    tiles = []
    for file, (split, height, width, rows) in loaded["found"].items():
        stem, dot, ending = file.rpartition(".")
        boxes = [
            LabelledBox(c, (x - w / 2) * width, (y - h / 2) * height, w * width, h * height) for c, x, y, w, h in rows
        ]
        tiles.append(LabelledTile(stem, width, height, tuple(boxes), split, dot + ending))
    assert_same_tiles(tiles, some_tiles())


def test_the_layout_is_that_of_ultralytics(tmp_path: Path) -> None:
    write_yolo(tmp_path, some_tiles()[:2], CLASSES)
    data = yaml.safe_load((tmp_path / "data.yaml").read_text("utf-8"))
    assert data == {"train": "images/train", "val": "images/val", "names": dict(enumerate(CLASSES))}
    assert (tmp_path / "labels/train/S1_empty.txt").read_bytes() == b""
    assert (tmp_path / "images/val").is_dir()
    first = (tmp_path / "labels/train/S1.tile (1).txt").read_text()
    assert first.splitlines()[0] == "0 0.50000000 0.50000000 1.00000000 1.00000000"


def test_a_score_is_read_but_never_written(tmp_path: Path) -> None:
    write_yolo(tmp_path / "out", [LabelledTile("a", 100, 100, (LabelledBox(0, 10, 10, 20, 20, score=0.9),))], CLASSES)
    assert len((tmp_path / "out/labels/train/a.txt").read_text().split()) == 5
    dataset = read_yolo(folder_with(tmp_path, "1 0.5 0.5 0.2 0.2 0.875\n"), size=(100, 100))
    assert dataset.tiles[0].boxes[0].score == 0.875


@pytest.mark.parametrize(
    "line",
    ["0 0.5 0.5 0.1", "0 0.5 0.5 0.1 0.1 0.9 7", "x 0.5 0.5 0.1 0.1", "0 nan 0.5 0.1 0.1", "0 inf 0.5 0.1 0.1",
     "0.5 0.5 0.5 0.1 0.1", "0 0,5 0.5 0.1 0.1", "0 0_1 0.5 0.1 0.1", "0 1e999 0.5 0.1 0.1"],
)  # fmt: skip
def test_it_names_file_and_line_of_a_malformed_line(tmp_path: Path, line: str) -> None:
    folder = folder_with(tmp_path, f"0 0.5 0.5 0.1 0.1\n\n{line}\n1 0.5 0.5 0.1 0.1\n")
    (problem,) = problems_of(folder)
    assert (problem.file, problem.line) == ("labels/a.txt", 3)
    assert "expected `class x_centre y_centre width height`" in problem.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0 0.1", "degenerate box of 0 x 10 px"),
        ("0 0.5 0.5 -0.1 0.1", "degenerate"),
        ("0 0.99 0.5 0.1 0.1", "reaches 4.00 px outside"),
        ("0 50 50 10 10", "outside"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is not in the class list (0 to 1)"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is not in the class list"),
    ],
)
def test_it_names_file_and_line_of_a_bad_box(tmp_path: Path, line: str, reason: str) -> None:
    (problem,) = problems_of(folder_with(tmp_path, f"0 0.5 0.5 0.1 0.1\n{line}\n"))
    assert (problem.file, problem.line) == ("labels/a.txt", 2)
    assert reason in problem.reason


def test_it_gathers_the_problems_of_all_files(tmp_path: Path) -> None:
    folder_with(tmp_path, "rubbish\n0 0.5 0.5 0 0\n")
    folder_with(tmp_path, b"\xff\xfe\x00", name="b")
    problems = problems_of(folder_with(tmp_path, "0 0.5", name="c"))
    assert [(problem.file, problem.line) for problem in problems] == [
        ("labels/a.txt", 1), ("labels/a.txt", 2), ("labels/b.txt", None), ("labels/c.txt", 1),
    ]  # fmt: skip


def test_bad_boxes_are_left_out_and_listed_when_asked(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "0 0.5 0.5 0 0\n1 0.5 0.5 0.1 0.1\n0 2 2 0.1 0.1\n")
    dataset = read_yolo(folder, size=(100, 100), leave_out_bad_boxes=True)
    assert [box.class_id for box in dataset.tiles[0].boxes] == [1]
    assert [(problem.file, problem.line) for problem in dataset.left_out] == [("labels/a.txt", 1), ("labels/a.txt", 3)]


def test_a_malformed_line_is_an_error_even_when_bad_boxes_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="line 1"):
        read_yolo(folder_with(tmp_path, "0 0.5 0.5\n"), size=(100, 100), leave_out_bad_boxes=True)


def test_it_stops_gathering_at_a_thousand_problems(tmp_path: Path) -> None:
    assert len(problems_of(folder_with(tmp_path, "rubbish\n" * 5000))) == 1000


def test_a_missing_image_size_is_named(tmp_path: Path) -> None:
    (problem,) = problems_of(folder_with(tmp_path, "0 0.5 0.5 0.1 0.1\n"), size=None)
    assert problem.file == "labels/a.txt"
    assert "missing image size" in problem.reason


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(b"not an image")
    (problem,) = problems_of(folder_with(tmp_path, "0 0.5 0.5 0.1 0.1\n"), size=None)
    assert str(problem) == "a.jpg: the image cannot be read"


def test_the_image_says_the_size_before_anything_else(tmp_path: Path) -> None:
    write_yolo(tmp_path, [LabelledTile("a", 100, 50, (LabelledBox(0, 10, 10, 20, 20),))], CLASSES)
    (tmp_path / "images/train/a.png").write_bytes(encoded_image(LabelledTile("a", 200, 100, (), suffix=".png")))
    (tile,) = read_yolo(tmp_path, size=(7, 7)).tiles
    assert (tile.width, tile.height, tile.suffix) == (200, 100, ".png")
    assert tile.boxes[0].width == pytest.approx(40, abs=0.01)


def test_a_label_file_beyond_the_size_bound_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "0 0.5 0.5 0.1 0.1\n")
    with (folder / "labels/a.txt").open("r+b") as handle:
        handle.truncate(reading.LABEL_FILE_BYTES + 1)
    (problem,) = problems_of(folder)
    assert str(problem) == "labels/a.txt: the file is larger than 8 MB"


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    dataset = read_yolo(
        folder_with(tmp_path, b"\xef\xbb\xbf1 0.5 0.5 0.2 0.2\r\n0 0.5 0.5 0.1 0.1\r\n"), size=(100, 100)
    )
    assert [box.class_id for box in dataset.tiles[0].boxes] == [1, 0]


def test_an_unknown_split_folder_is_not_passed_over(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "")
    (folder / "labels/holdout").mkdir()
    (folder / "labels/holdout/b.txt").touch()
    (problem,) = problems_of(folder)
    assert str(problem) == "holdout: the splits are train, val and test"


def test_one_name_in_two_splits_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").touch()
    (tmp_path / "classes.txt").write_text("blast\n")
    (problem,) = problems_of(tmp_path)
    assert "two tiles have the name 'a'" in problem.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [a, b", "not valid YAML"),
        ("[" * 20000, "not valid YAML"),
        ("just text", "`names` must list"),
        ("names: {0: a, 2: b}", "`names` must list"),
        ("names: [[a], b]", "`names` must list"),
        ("names: [a, a]", "named twice"),
        ("names: !!python/object/apply:os.getcwd []", "the class list is empty"),
    ],
)
def test_a_bad_data_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text(text)
    (problem,) = problems_of(tmp_path)
    assert problem.file == "data.yaml"
    assert reason in problem.reason


def test_a_list_of_names_keeps_a_class_that_yaml_takes_for_something_else(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("names: [no, 1, 2024-01-01]\n")
    assert read_yolo(tmp_path).classes == ("no", "1", "2024-01-01")


def test_a_malformed_tile_table_is_named_by_line(tmp_path: Path) -> None:
    write_yolo(tmp_path, some_tiles(), CLASSES)
    with (tmp_path / "tiles.csv").open("a") as handle:
        handle.write("x,train,.jpg,wide,3\n")
    (problem,) = problems_of(tmp_path)
    assert (problem.file, problem.line) == ("tiles.csv", 7)


def test_without_a_class_list_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (problem,) = problems_of(tmp_path)
    assert "there is no class list" in problem.reason


def test_it_reads_real_fields_without_splits() -> None:
    dataset = read_yolo(SHARED_DATA / "pbc_boxes")
    assert len(dataset.tiles) == 475
    assert sum(len(tile.boxes) for tile in dataset.tiles) == 8668
    assert dataset.classes[5:] == ("red blood cell", "platelet")
    assert {(tile.width, tile.height, tile.split) for tile in dataset.tiles} == {
        (360, 363, "train"),
        (366, 369, "train"),
    }
    assert (dataset.left_out, dataset.unlabelled) == ((), ())
