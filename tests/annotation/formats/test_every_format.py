"""What holds for YOLO, Pascal VOC, both flavours of LabelImg, and COCO alike."""

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from annotation.formats.records import FormatError, LabelledBox, LabelledTile
from tests.annotation.formats.made_tiles import (
    CLASSES,
    FORMATS,
    Format,
    assert_same_tiles,
    datasets,
    encoded_image,
    snapshot,
    some_tiles,
)


@pytest.fixture(params=list(FORMATS))
def fmt(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


@pytest.mark.parametrize("name", list(FORMATS))
@given(tiles=datasets())
@settings(max_examples=40, deadline=None)
def test_reading_what_was_written_gives_the_same_tiles(name: str, tiles: list[LabelledTile]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        FORMATS[name].write(Path(folder) / "export", tiles, CLASSES)
        dataset = FORMATS[name].read(Path(folder) / "export")
    assert_same_tiles(dataset.tiles, tiles)
    assert not tiles or dataset.classes == CLASSES


def test_images_are_written_beside_labels_and_read_back(fmt: Format, tmp_path: Path) -> None:
    written = fmt.write(tmp_path / "export", some_tiles(), CLASSES, image=encoded_image)
    names = [path.name for path in written]
    assert {f"{tile.name}{tile.suffix}" for tile in some_tiles()} <= set(names)
    dataset = fmt.read(tmp_path / "export")
    assert_same_tiles(dataset.tiles, some_tiles())
    assert dataset.unlabelled == ()


def test_it_returns_exactly_the_files_that_are_there(fmt: Format, tmp_path: Path) -> None:
    written = fmt.write(tmp_path / "export", some_tiles(), CLASSES, image=encoded_image)
    assert len(written) == len(set(written))
    assert {path.relative_to(tmp_path / "export").as_posix() for path in written} == set(snapshot(tmp_path / "export"))


def test_a_tile_without_boxes_is_kept(fmt: Format, tmp_path: Path) -> None:
    fmt.write(tmp_path, [LabelledTile("empty", 512, 512, ())], CLASSES)
    (tile,) = fmt.read(tmp_path).tiles
    assert (tile.name, tile.boxes, tile.width) == ("empty", (), 512)


def test_the_same_tiles_give_the_same_bytes(fmt: Format, tmp_path: Path) -> None:
    fmt.write(tmp_path / "one", some_tiles(), CLASSES)
    fmt.write(tmp_path / "two", some_tiles(), CLASSES)
    first = snapshot(tmp_path / "one")
    for path in (tmp_path / "one").rglob("*"):
        os.utime(path, (0, 0))
    assert first == snapshot(tmp_path / "two")
    assert len(first) > 1 or "annotations/instances_train.json" in first
    assert not any(str(tmp_path).encode() in content or b"\r" in content for content in first.values())


def test_tiles_are_taken_one_at_a_time(fmt: Format, tmp_path: Path) -> None:
    """The image of a tile is asked for before the next tile is made, so only one is in memory."""
    events: list[str] = []

    def tiles() -> Iterator[LabelledTile]:
        for name in ("a", "b", "c"):
            events.append(f"tile {name}")
            yield LabelledTile(name, 64, 64, ())

    def image(tile: LabelledTile) -> bytes:
        events.append(f"image {tile.name}")
        return b"image"

    fmt.write(tmp_path, tiles(), CLASSES, image=image)
    assert events == ["tile a", "image a", "tile b", "image b", "tile c", "image c"]


def test_it_names_every_box_that_cannot_be_written_and_leaves_the_folder_empty(fmt: Format, tmp_path: Path) -> None:
    bad = (
        LabelledBox(0, 10, 10, 0, 5),
        LabelledBox(0, math.nan, 10, 5, 5),
        LabelledBox(0, 500, 10, 20, 5),
        LabelledBox(len(CLASSES), 10, 10, 5, 5),
        LabelledBox(-1, 10, 10, 5, 5),
        LabelledBox(0, 10, 10, 5, 5),
    )
    tiles = [*some_tiles(), LabelledTile("bad", 512, 512, bad), LabelledTile("worse", 512, 512, bad[:1])]
    with pytest.raises(FormatError) as caught:
        fmt.write(tmp_path / "export", tiles, CLASSES, image=encoded_image)
    assert [problem.file for problem in caught.value.problems] == ["bad"] * 5 + ["worse"]
    for words in (
        "box 1: degenerate",
        "box 2: a number",
        "box 3: the box reaches 8.00 px outside",
        "class id 5",
        "id -1",
    ):
        assert words in str(caught.value)
    assert list((tmp_path / "export").iterdir()) == []


def test_no_image_is_made_once_a_tile_cannot_be_written(fmt: Format, tmp_path: Path) -> None:
    """Cutting tiles out of slides is the slow part; the rest of the tiles is only checked."""
    asked: list[str] = []

    def image(tile: LabelledTile) -> bytes:
        asked.append(tile.name)
        return b"image"

    empty = [LabelledTile(name, 64, 64, ()) for name in ("a", "b")]
    bad = LabelledTile("bad", 64, 64, (LabelledBox(0, 1, 1, 0, 0),))
    with pytest.raises(FormatError):
        fmt.write(tmp_path, [empty[0], bad, empty[1]], CLASSES, image=image)
    assert asked == ["a"]


def test_a_failing_image_leaves_the_folder_empty(fmt: Format, tmp_path: Path) -> None:
    def image(tile: LabelledTile) -> bytes:
        if tile.name == "S2_a":
            raise OSError("the slide is gone")
        return encoded_image(tile)

    with pytest.raises(OSError, match="the slide is gone"):
        fmt.write(tmp_path / "export", some_tiles(), CLASSES, image=image)
    assert list((tmp_path / "export").iterdir()) == []


def test_it_refuses_a_folder_with_an_older_export(fmt: Format, tmp_path: Path) -> None:
    fmt.write(tmp_path, some_tiles(), CLASSES)
    before = snapshot(tmp_path)
    with pytest.raises(FormatError, match="new or empty folder"):
        fmt.write(tmp_path, some_tiles(), CLASSES)
    assert snapshot(tmp_path) == before


def test_it_refuses_two_tiles_of_one_name_in_different_letter_case(fmt: Format, tmp_path: Path) -> None:
    tiles = [LabelledTile("Tile", 64, 64, ()), LabelledTile("tile", 64, 64, (), split="val")]
    with pytest.raises(FormatError, match="two tiles have this name"):
        fmt.write(tmp_path, tiles, CLASSES)


@pytest.mark.parametrize("classes", [(), ("blast", "blast"), ("a\nb",), (" blast",), ("",)])
def test_it_refuses_a_class_list_that_no_file_could_hold(fmt: Format, tmp_path: Path, classes: tuple[str, ...]) -> None:
    with pytest.raises(FormatError, match="class"):
        fmt.write(tmp_path, [LabelledTile("a", 64, 64, ())], classes)


def test_rounding_at_the_edge_is_cut_off_when_writing(fmt: Format, tmp_path: Path) -> None:
    fmt.write(tmp_path, [LabelledTile("a", 64, 64, (LabelledBox(0, -0.4, 60, 10, 4.3),))], CLASSES)
    expected = LabelledTile("a", 64, 64, (LabelledBox(0, 0, 60, 9.6, 4),))
    assert_same_tiles(fmt.read(tmp_path).tiles, [expected])


def test_classes_are_looked_up_by_name_in_the_projects_list(fmt: Format, tmp_path: Path) -> None:
    fmt.write(tmp_path, some_tiles(), CLASSES)
    frozen = tuple(reversed(CLASSES))
    dataset = fmt.read(tmp_path, classes=frozen)
    assert dataset.classes == frozen
    named = {tile.name: [CLASSES[box.class_id] for box in tile.boxes] for tile in some_tiles()}
    assert {tile.name: [frozen[box.class_id] for box in tile.boxes] for tile in dataset.tiles} == named


def test_unknown_classes_are_an_error_that_lists_them_all(fmt: Format, tmp_path: Path) -> None:
    fmt.write(tmp_path, some_tiles(), CLASSES)
    with pytest.raises(FormatError, match="unknown classes: 'band & <segmented>', 'no', 'érythroblaste'") as caught:
        fmt.read(tmp_path, classes=("blast", "promyelocyte", "monocyte"))
    assert len(caught.value.problems) == 1


def test_it_says_that_a_folder_is_missing(fmt: Format, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nowhere: there is no such folder"):
        fmt.read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["yolo", "voc", "labelimg voc", "labelimg yolo"])
def test_an_image_without_a_label_file_is_named_not_taken_for_an_empty_tile(name: str, tmp_path: Path) -> None:
    fmt = FORMATS[name]
    fmt.write(tmp_path, some_tiles(), CLASSES, image=encoded_image)
    (label,) = [path for path in tmp_path.rglob("S1_empty.*") if path.suffix != ".jpg"]
    label.unlink()
    listed = tmp_path / "ImageSets/Main/train.txt"
    if listed.is_file():
        listed.write_text(listed.read_text("utf-8").replace("S1_empty\n", ""), "utf-8")
    dataset = fmt.read(tmp_path)
    assert dataset.unlabelled == ("S1_empty.jpg",)
    assert "S1_empty" not in {tile.name for tile in dataset.tiles}
