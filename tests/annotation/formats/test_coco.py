import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faster_coco_eval import COCO

from annotation.formats import coco
from annotation.formats.coco import read_coco, write_coco
from annotation.formats.records import FormatError, LabelledBox, LabelledTile, Problem
from tests.annotation.formats.made_tiles import CLASSES, assert_same_tiles, some_tiles

Document = dict[str, Any]


def a_document() -> Document:
    return {
        "images": [{"id": 7, "file_name": "fields/a.png", "width": 100, "height": 80}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "iscrowd": 0}],
        "categories": [{"id": 9, "name": "monocyte"}, {"id": 3, "name": "blast"}],
    }


def saved(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "labels.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")
    return path


def problems_of(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(FormatError) as caught:
        read_coco(path)
    return caught.value.problems


def test_an_independent_coco_reader_finds_the_same_tiles(tmp_path: Path) -> None:
    write_coco(tmp_path, some_tiles(), CLASSES)
    found, image_ids, annotation_ids = [], [], []
    for split in ("train", "val", "test"):
        index = COCO(str(tmp_path / f"annotations/instances_{split}.json"))
        assert {category["id"]: category["name"] for category in index.loadCats(index.getCatIds())} == dict(
            enumerate(CLASSES)
        )
        for image in index.loadImgs(index.getImgIds()):
            annotations = index.loadAnns(index.getAnnIds(imgIds=[image["id"]]))
            assert all(entry["area"] == pytest.approx(entry["bbox"][2] * entry["bbox"][3]) for entry in annotations)
            assert all(entry["iscrowd"] == 0 for entry in annotations)
            boxes = tuple(LabelledBox(entry["category_id"], *entry["bbox"]) for entry in annotations)
            path = Path(image["file_name"])
            found.append(LabelledTile(path.stem, image["width"], image["height"], boxes, split, path.suffix))
            image_ids.append(image["id"])
            annotation_ids += [entry["id"] for entry in annotations]
    assert_same_tiles(found, some_tiles())
    assert sorted(image_ids) == [1, 2, 3, 4, 5]
    assert sorted(annotation_ids) == [1, 2, 3, 4, 5]


def test_scores_and_extra_fields_travel(tmp_path: Path) -> None:
    boxes = (LabelledBox(0, 1, 2, 3, 4, score=0.123456789), LabelledBox(0, 1, 2, 3, 4))
    tile = LabelledTile("a", 64, 64, boxes, extra={"slide": "P01", "origin": [1024, 512.5], "note": "é"})
    write_coco(tmp_path, [tile], CLASSES)
    (read,) = read_coco(tmp_path).tiles
    assert dict(read.extra) == dict(tile.extra)
    assert [box.score for box in read.boxes] == [0.123456789, None]
    (document,) = [json.loads(path.read_text("utf-8")) for path in tmp_path.rglob("*.json")]
    assert "score" not in document["annotations"][1]
    assert document["images"][0]["slide"] == "P01"


def test_the_order_of_extra_fields_does_not_change_the_bytes(tmp_path: Path) -> None:
    write_coco(tmp_path / "one", [LabelledTile("a", 64, 64, (), extra={"b": 1, "a": 2})], CLASSES)
    write_coco(tmp_path / "two", [LabelledTile("a", 64, 64, (), extra={"a": 2, "b": 1})], CLASSES)
    name = "annotations/instances_train.json"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [({"id": 3}, "cannot be named id"), ({"x": object()}, "as JSON"), ({"x": float("nan")}, "as JSON")],
)
def test_extra_fields_that_cannot_be_written_are_named(tmp_path: Path, extra: dict[str, object], reason: str) -> None:
    with pytest.raises(FormatError, match=f"a: .*{reason}"):
        write_coco(tmp_path, [LabelledTile("a", 64, 64, (), extra=extra)], CLASSES)


def test_it_reads_one_file_with_category_ids_of_another_tool(tmp_path: Path) -> None:
    dataset = read_coco(saved(tmp_path, a_document()))
    assert dataset.classes == ("blast", "monocyte")
    assert dataset.tiles == (LabelledTile("a", 100, 80, (LabelledBox(0, 10, 10, 20, 20),), suffix=".png"),)


def change(part: str, **fields: object) -> Callable[[Document], None]:
    return lambda document: document[part][0].update(fields)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (change("annotations", bbox=[10, 10, 0, 20]), "annotation 1: degenerate box of 0 x 20 px"),
        (change("annotations", bbox=[90, 10, 20, 20]), "annotation 1: the box reaches 10.00 px outside"),
        (change("annotations", bbox=[float("nan"), 10, 20, 20]), "`bbox` must be four finite numbers"),
        (change("annotations", bbox=[10, 10, 20]), "`bbox` must be four finite numbers"),
        (change("annotations", bbox=[10, 10, True, 20]), "`bbox` must be four finite numbers"),
        (change("annotations", bbox=None), "`bbox` must be four finite numbers"),
        (change("annotations", bbox=[10**400, 10, 20, 20]), "`bbox` must be four finite numbers"),
        (change("annotations", score="high"), "a score a finite number"),
        (change("annotations", category_id=4), "annotation 1: category 4 is not in `categories`"),
        (change("annotations", category_id=None), "annotation 1: category None is not in `categories`"),
        (change("annotations", image_id=8), "annotation 1: its image is not in `images`"),
        (change("annotations", image_id=[]), "annotation 1: its image is not in `images`"),
        (change("annotations", iscrowd=1), "annotation 1: a crowd region"),
        (change("images", width=None), "image 7: missing image size"),
        (change("images", height=0), "image 7: missing image size"),
        (change("images", id="x"), "image 1: an id of its own and a file name are needed"),
        (change("images", file_name=None), "image 1: an id of its own and a file name are needed"),
        (change("images", file_name="..\\..\\a.png"), "not a safe file name"),
        (change("images", file_name=""), "a tile's name must have"),
        (change("categories", name=None), "category 1: an id of its own and a name are needed"),
        (change("categories", id=3), "category 2: an id of its own and a name are needed"),
        (change("categories", name="blast"), "classes named twice: 'blast'"),
        (lambda document: document.pop("images"), "`images` must be a list of objects"),
        (lambda document: document.update(annotations=[1]), "`annotations` must be a list of objects"),
        (lambda document: document.update(categories={}), "`categories` must be a list of objects"),
        (lambda document: document["images"].append(document["images"][0]), "image 2: an id of its own"),
    ],
)
def test_it_names_what_is_wrong(tmp_path: Path, edit: Callable[[Document], None], reason: str) -> None:
    document = a_document()
    edit(document)
    problems = problems_of(saved(tmp_path, document))
    assert problems[0].file.startswith("labels.json")
    assert reason in " ".join(problem.reason for problem in problems)


@pytest.mark.parametrize(
    ("text", "line"),
    [('{"images": [\n}', 2), ("", 1), ("[" * 200_000, None), ('{"images": [' + "9" * 5000 + "]}", None)],
)
def test_bad_json_is_named(tmp_path: Path, text: str, line: int | None) -> None:
    (problem,) = problems_of(saved(tmp_path, text))
    assert (problem.file, problem.line) == ("labels.json", line)
    assert "not valid JSON" in problem.reason


def test_a_file_beyond_the_size_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "COCO_FILE_BYTES", 3 << 20)
    path = saved(tmp_path, json.dumps(a_document()) + " " * (3 << 20))
    (problem,) = problems_of(path)
    assert str(problem) == "labels.json: the file is larger than 3 MB"


def test_bad_boxes_are_left_out_and_listed_when_asked(tmp_path: Path) -> None:
    document = a_document()
    document["annotations"] += [
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [10, 10, 0, 0]},
        {"id": 3, "image_id": 7, "category_id": 9, "bbox": [1, 1, 9, 9], "iscrowd": 1},
    ]
    dataset = read_coco(saved(tmp_path, document), leave_out_bad_boxes=True)
    assert len(dataset.tiles[0].boxes) == 1
    assert [problem.reason.split(":")[0] for problem in dataset.left_out] == ["annotation 2", "annotation 3"]


def test_an_export_of_no_tiles_is_still_a_data_set(tmp_path: Path) -> None:
    write_coco(tmp_path, [], CLASSES)
    assert (read_coco(tmp_path).tiles, read_coco(tmp_path).classes) == ((), CLASSES)


def test_a_folder_without_instances_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path)
    assert "there is no annotations/instances_train.json" in problem.reason
