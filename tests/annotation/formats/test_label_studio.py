import json
from pathlib import Path
from typing import Any

import pytest

from annotation.formats.label_studio import read_label_studio
from annotation.formats.reading import BadBoxes
from annotation.formats.records import FormatError, LabelledBox

Json = dict[str, Any]


def region(
    x: float = 10, y: float = 20, width: float = 30, height: float = 40, label: str = "blast", **fields: Any
) -> Json:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    value |= fields.pop("value", {})
    sizes = {"original_width": 200, "original_height": 100}
    return sizes | {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value} | fields


def task(*results: Json, image: str = "/data/upload/3/1a2b3c4d-field%201.png", **fields: Any) -> Json:
    return {"id": 7, "data": {"image": image}, "annotations": [{"id": 1, "result": list(results)} | fields]}


def saved(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "export.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), "utf-8")
    return path


def refusal(tmp_path: Path, data: object) -> str:
    with pytest.raises(FormatError) as caught:
        read_label_studio(saved(tmp_path, data))
    return str(caught.value)


def test_percent_become_pixels_and_the_upload_number_leaves_the_name(tmp_path: Path) -> None:
    data = read_label_studio(saved(tmp_path, [task(region(), region(50, 50, 50, 50, "monocyte", score=0.5))]))
    (tile,) = data.tiles
    assert data.classes == ("blast", "monocyte")
    assert (tile.name, tile.suffix, tile.width, tile.height) == ("field 1", ".png", 200, 100)
    assert tile.boxes == (LabelledBox(0, 20, 20, 60, 40), LabelledBox(1, 100, 50, 100, 50, 0.5))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/data/local-files/?d=fields/P1/a.jpg", "a"),
        ("s3://bucket/fields/b.jpg", "b"),
        ("https:/images/c.d.jpg", "c.d"),
        ("e.jpg", "e"),
    ],
)
def test_a_tile_is_named_by_the_last_part_of_the_address(tmp_path: Path, image: str, name: str) -> None:
    assert read_label_studio(saved(tmp_path, [task(region(), image=image)])).tiles[0].name == name


def test_what_nobody_annotated_is_no_tile_and_what_is_empty_is_one(tmp_path: Path) -> None:
    tasks = [
        task(image="empty.png"),
        task(region(), image="cancelled.png", was_cancelled=True),
        {"id": 9, "data": {"image": "untouched.png"}, "annotations": []},
    ]
    data = read_label_studio(saved(tmp_path, tasks), known_size=lambda name: (64, 32))
    assert [(tile.name, tile.width, tile.boxes) for tile in data.tiles] == [("empty", 64, ())]


def test_of_several_annotations_the_ground_truth_counts(tmp_path: Path) -> None:
    one = task(region())
    one["annotations"].append({"id": 2, "ground_truth": True, "result": [region(label="monocyte")]})
    assert read_label_studio(saved(tmp_path, [one])).classes == ("monocyte",)
    del one["annotations"][1]["ground_truth"]
    assert "task 7: 2 annotations: mark the one" in refusal(tmp_path, [one])


def test_tasks_that_nobody_annotated_are_counted_and_their_predictions_listed(tmp_path: Path) -> None:
    nobody: Json = {"id": 1, "data": {"image": "a.png"}, "annotations": []}
    cancelled = task(region(), image="b.png", was_cancelled=True)
    predicted = nobody | {"id": 3, "data": {"image": "c.png"}, "predictions": [{"result": [region()]}]}
    annotated = task(region(), image="d.png") | {"predictions": [{"result": [region()]}]}
    data = read_label_studio(saved(tmp_path, [nobody, cancelled, predicted, annotated]))
    assert ([tile.name for tile in data.tiles], data.unlabelled) == (["d"], ("a.png", "b.png", "c.png"))
    assert [str(one) for one in data.passed_over] == [
        "export.json: task 3: predictions are not read, and nobody has annotated it"
    ]


def test_other_shapes_are_refused_or_left_out(tmp_path: Path) -> None:
    turned = region(value={"rotation": 30})
    polygon = {"type": "polygonlabels", "value": {"points": [], "polygonlabels": ["blast"]}} | {
        "original_width": 200,
        "original_height": 100,
    }
    rating = {"type": "choices", "value": {"choices": ["good"]}}
    data = [task(region(), turned, polygon, rating)]
    assert "task 7: region 2: a turned rectangle is not upright" in refusal(tmp_path, data)
    kept = read_label_studio(saved(tmp_path, data), bad_boxes=BadBoxes(leave_out=True))
    assert (len(kept.tiles[0].boxes), len(kept.left_out)) == (1, 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("[\n{", "export.json, line 2: the file is not valid JSON"),
        ("[" * 100_000, "the file is not valid JSON"),
        ({"tasks": []}, "expected a list of tasks"),
        ([task(region(float("nan")))], "task 7: region 1: x, y, width, height and a score must be finite"),
        ([task(region(value={"rectanglelabels": []}))], "task 7: region 1: a rectangle needs one label"),
        ([task(region(80))], "region 1: the box reaches 20.00 px outside the tile"),
        ([task(region(width=0))], "region 1: degenerate box"),
        ([task(region(), region(original_width=300))], "task 7: missing image size, or more than one"),
        ([task()], "task 7: missing image size"),
        ([{"id": 1, "image": "a.png", "label": []}], "task 1: `annotations` must be a list; export as JSON, not as"),
        ([task(region(), image="")], "task 7: `data` must name one image"),
        ([{"id": 1, "data": {"image": "a"}, "annotations": [{"result": 5}]}], "task 1: `result` must be a list"),
        ([task(region()), task(region())], "two tiles have the name 'field 1'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, data: object, reason: str) -> None:
    assert reason in refusal(tmp_path, data)
