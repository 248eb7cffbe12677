import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.csv_cells import plain_cell, safe_cell
from annotation.formats.csv_table import read_csv, write_csv
from annotation.formats.records import FormatError, LabelledBox, LabelledTile
from tests.annotation.formats.made_tiles import CLASSES, assert_same_tiles, datasets, snapshot, some_tiles

HEAD = "tile,tile_width,tile_height,class,x,y,width,height\n"
PLACE = {"slide_x": 1000, "slide_y": 2000, "slide_px_per_tile_px": 2.5}


@given(tiles=datasets())
@settings(max_examples=40, deadline=None)
def test_reading_what_was_written_gives_the_same_tiles(tiles: list[LabelledTile]) -> None:
    tiles = [replace(tile, suffix=".jpg") for tile in tiles]
    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder), tiles, CLASSES)
        dataset = read_csv(Path(folder))
    assert_same_tiles(dataset.tiles, tiles)
    assert dataset.classes == CLASSES


@given(st.text().filter(lambda text: not text.startswith("'")))
def test_a_word_comes_back_as_it_was(text: str) -> None:
    assert plain_cell(safe_cell(text)) == text


def test_the_same_tiles_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_csv(tmp_path / name, some_tiles(), CLASSES)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_facts_of_a_tile_come_back(tmp_path: Path) -> None:
    extra = {"patient": "-P1", "slide": "a\nb.svs", "author": '"Anna"', **PLACE}
    write_csv(tmp_path, [LabelledTile("a", 64, 64, (), extra=extra)], CLASSES)
    (tile,) = read_csv(tmp_path).tiles
    assert tile.extra == {"patient": "-P1", "slide": "a\nb.svs", "author": '"Anna"'}


def test_a_box_is_in_tile_px_and_in_slide_px(tmp_path: Path) -> None:
    write_csv(tmp_path, [LabelledTile("a", 64, 64, (LabelledBox(1, 10, 20, 4, 8),), extra=PLACE)], CLASSES)
    row = (tmp_path / "boxes.csv").read_text("utf-8").splitlines()[1]
    assert row.endswith(",1,promyelocyte,10,20,4,8,1025,2050,10,20")


def test_classes_are_looked_up_by_name_in_the_projects_list(tmp_path: Path) -> None:
    write_csv(tmp_path, some_tiles(), CLASSES)
    frozen = tuple(reversed(CLASSES))
    named = {
        tile.name: [frozen[box.class_id] for box in tile.boxes] for tile in read_csv(tmp_path, classes=frozen).tiles
    }
    assert named == {tile.name: [CLASSES[box.class_id] for box in tile.boxes] for tile in some_tiles()}
    with pytest.raises(FormatError, match="unknown classes: 'no'"):
        read_csv(tmp_path, classes=CLASSES[:4])


def test_one_file_of_another_program_is_read(tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    path.write_text(f"\ufeff{HEAD}a,64,32,blast,1,2,3.5,4\nb,64,32,,,,,\n", "utf-8")
    first, second = read_csv(path).tiles
    assert (first.name, first.boxes, second.boxes) == ("a", (LabelledBox(0, 1, 2, 3.5, 4),), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tile,x\n", "line 1: columns are missing: tile_width, tile_height, class, y, width, height"),
        ("", "line 1: columns are missing"),
        (f"{HEAD}a,64,64,blast,1,2,nan,4\n", "line 2: a box needs a class and a finite x, y, width and height"),
        (f"{HEAD}a,64,64,,1,2,3,4\n", "line 2: a box needs a class"),
        (f"{HEAD}a,64,64,blast,1,2,0,4\n", "line 2: degenerate box of 0 x 4 px"),
        (f"{HEAD}a,64,64,blast,60,2,30,4\n", "line 2: the box reaches 26.00 px outside the tile"),
        (f"{HEAD}a,0,64,blast,1,2,3,4\n", "line 2: missing image size"),
        (f"{HEAD}a,64,64,,,,,\na,65,64,blast,1,2,3,4\n", "line 3: 'a' has another size or split above"),
        (f"{HEAD}a,64,64,blast\n", "line 2: the row has another number of cells"),
        (f"{HEAD}a,64,64,blast,1,2,3,4,5\n", "line 2: the row has another number of cells"),
        (f'{HEAD}a,64,64,"blast\n', "the file is not valid CSV"),
        (f"{HEAD}../a,64,64,,,,,\n", "is not a safe file name"),
    ],
)
def test_bad_rows_are_named_with_their_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "boxes.csv").write_text(text, "utf-8")
    with pytest.raises(FormatError, match=r"boxes\.csv") as caught:
        read_csv(tmp_path)
    assert reason in str(caught.value)


def test_bad_boxes_are_left_out_and_listed_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(f"{HEAD}a,64,64,blast,1,2,0,4\na,64,64,blast,1,2,3,4\n", "utf-8")
    dataset = read_csv(tmp_path, leave_out_bad_boxes=True)
    assert [len(tile.boxes) for tile in dataset.tiles] == [1]
    assert [problem.line for problem in dataset.left_out] == [2]


def test_it_says_that_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"there is no boxes\.csv in it"):
        read_csv(tmp_path)
