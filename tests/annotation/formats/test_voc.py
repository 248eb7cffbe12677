import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import pytest

from annotation.formats import reading
from annotation.formats.records import FormatError, LabelledBox, LabelledTile, Problem
from annotation.formats.voc import read_voc, write_voc
from tests.annotation.formats.made_tiles import CLASSES, SHARED_DATA, assert_same_tiles, some_tiles

SIZE = "<size><width>100</width><height>80</height><depth>3</depth></size>"
read_real = partial(read_voc, SHARED_DATA / "bccd", annotations="annotations", images="images")


def an_object(xmin: object, ymin: object, xmax: object, ymax: object, name: str = "blast") -> str:
    corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"


def folder_with(tmp_path: Path, text: str | bytes, name: str = "a") -> Path:
    (tmp_path / "Annotations").mkdir(exist_ok=True)
    (tmp_path / f"Annotations/{name}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path


def problems_of(folder: Path) -> tuple[Problem, ...]:
    with pytest.raises(FormatError) as caught:
        read_voc(folder)
    return caught.value.problems


def test_an_independent_xml_reader_finds_the_devkits_pixels(tmp_path: Path) -> None:
    """Corners as the development kit counts them: from 1, both included."""
    write_voc(tmp_path, some_tiles(), CLASSES)
    found = []
    for split in ("train", "val", "test"):
        for name in (tmp_path / f"ImageSets/Main/{split}.txt").read_text("utf-8").splitlines():
            root = ElementTree.parse(tmp_path / f"Annotations/{name}.xml").getroot()
            width, height = int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
            boxes = []
            for element in root.iter("object"):
                corners = (float(element.findtext(f"bndbox/{c}", "")) for c in ("xmin", "ymin", "xmax", "ymax"))
                left, top, right, bottom = corners
                class_id = CLASSES.index(element.findtext("name", ""))
                boxes.append(LabelledBox(class_id, left - 1, top - 1, right - left + 1, bottom - top + 1))
            suffix = Path(root.findtext("filename", "")).suffix
            found.append(LabelledTile(name, width, height, tuple(boxes), split, suffix))
    assert_same_tiles(found, some_tiles())


def test_a_whole_tile_is_written_from_pixel_1_to_the_last(tmp_path: Path) -> None:
    write_voc(tmp_path, [LabelledTile("a", 512, 384, (LabelledBox(0, 0, 0, 512, 384),))], CLASSES)
    text = (tmp_path / "Annotations/a.xml").read_text()
    assert "<xmin>1</xmin>\n\t\t\t<ymin>1</ymin>\n\t\t\t<xmax>512</xmax>\n\t\t\t<ymax>384</ymax>" in text


def test_a_box_of_one_pixel_is_refused_because_voc_cannot_tell_it_from_a_slip(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="box 1: degenerate box of 1 x 9 px"):
        write_voc(tmp_path, [LabelledTile("a", 64, 64, (LabelledBox(0, 5, 5, 1, 9),))], CLASSES)


def test_without_a_class_list_classes_come_in_order_of_appearance(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path, f"<annotation>{SIZE}{an_object(1, 1, 9, 9, 'b')}{an_object(1, 1, 9, 9, 'a')}</annotation>"
    )
    dataset = read_voc(folder)
    assert dataset.classes == ("b", "a")
    assert [box.class_id for box in dataset.tiles[0].boxes] == [0, 1]


def test_files_that_count_from_0_are_read_as_such(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, f"<annotation>{SIZE}{an_object(0, 0, 100, 80)}</annotation>")
    with pytest.raises(FormatError, match=r"object 1: the box reaches 1\.00 px outside the tile of 100 x 80 px"):
        read_voc(folder)
    (tile,) = read_voc(folder, first_pixel=0).tiles
    assert tile.boxes == (LabelledBox(0, 0, 0, 100, 80),)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"{SIZE}{an_object(50, 30, 50, 30)}", "object 1: degenerate box from 50, 30 to 50, 30"),
        (f"{SIZE}{an_object(1, 1, 9, 9)}{an_object(50, 30, 40, 60)}", "object 2: degenerate box"),
        (f"{SIZE}{an_object(90, 1, 120, 9)}", "object 1: the box reaches 20.00 px outside"),
        (f"{SIZE}{an_object('nan', 1, 9, 9)}", "object 1: a <name> and finite <xmin>"),
        (f"{SIZE}{an_object('', 1, 9, 9)}", "object 1: a <name> and finite <xmin>"),
        (f"{SIZE}{an_object(1, 1, 9, 9, '')}", "object 1: a <name> and finite <xmin>"),
        (f"{SIZE}<object><name>blast</name></object>", "object 1: a <name> and finite <xmin>"),
        ("", "missing image size"),
        ("<size><width>0</width><height>80</height></size>", "missing image size"),
        ("<size><width>wide</width><height>80</height></size>", "missing image size"),
    ],
)
def test_it_names_the_file_and_what_is_wrong_in_it(tmp_path: Path, content: str, reason: str) -> None:
    (problem,) = problems_of(folder_with(tmp_path, f"<annotation>{content}</annotation>"))
    assert problem.file == "Annotations/a.xml"
    assert reason in problem.reason


BOMB = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>'
OUTSIDER = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("<annotation>\n<size>\n</annotation>", "not valid XML", 3),
        ("", "not valid XML", 1),
        (b"\x00\x01\x02", "not valid XML", 1),
        ("<html></html>", "expected <annotation>, found <html>", None),
        (BOMB, "an entity or an encoding that is not allowed", None),
        (OUTSIDER, "an entity or an encoding that is not allowed", None),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not", None),
    ],
)
def test_bad_xml_is_named(tmp_path: Path, text: str | bytes, reason: str, line: int | None) -> None:
    (problem,) = problems_of(folder_with(tmp_path, text))
    assert problem.file == "Annotations/a.xml"
    assert reason in problem.reason
    assert line is None or problem.line == line


def test_deeply_nested_xml_is_survived(tmp_path: Path) -> None:
    (problem,) = problems_of(folder_with(tmp_path, "<annotation>" * 100_000 + "</annotation>" * 100_000))
    assert "missing image size" in problem.reason


def test_an_xml_file_beyond_the_size_bound_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, f"<annotation>{SIZE}</annotation>")
    with (folder / "Annotations/a.xml").open("r+b") as handle:
        handle.truncate(reading.LABEL_FILE_BYTES + 1)
    (problem,) = problems_of(folder)
    assert str(problem) == "Annotations/a.xml: the file is larger than 8 MB"


def test_the_file_name_inside_the_xml_is_never_used_as_a_path(tmp_path: Path) -> None:
    text = f"<annotation><filename>../../etc/x.png</filename><path>/home/doe/x.png</path>{SIZE}</annotation>"
    (tile,) = read_voc(folder_with(tmp_path, text)).tiles
    assert (tile.name, tile.suffix, dict(tile.extra)) == ("a", ".png", {})


def test_a_tile_in_two_splits_is_named(tmp_path: Path) -> None:
    write_voc(tmp_path, some_tiles(), CLASSES)
    with (tmp_path / "ImageSets/Main/val.txt").open("a") as handle:
        handle.write("S1_empty\n")
    (problem,) = problems_of(tmp_path)
    assert str(problem) == "ImageSets/Main/val.txt, line 2: 'S1_empty' is in the split train already"


def test_a_listed_tile_without_an_annotation_is_named(tmp_path: Path) -> None:
    write_voc(tmp_path, some_tiles(), CLASSES)
    (tmp_path / "Annotations/S2_a.xml").unlink()
    (problem,) = problems_of(tmp_path)
    assert str(problem) == "ImageSets/Main/val.txt: 'S2_a' has no file in Annotations"


def test_it_lists_the_degenerate_box_of_the_real_set() -> None:
    with pytest.raises(FormatError) as caught:
        read_real()
    assert [str(problem) for problem in caught.value.problems] == [
        "annotations/BloodImage_00338.xml: object 13: degenerate box from 504, 337 to 504, 337"
    ]


def test_it_reads_the_rest_of_the_real_set_when_asked() -> None:
    dataset = read_real(classes=("WBC", "RBC", "Platelets"), leave_out_bad_boxes=True)
    counts = [sum(box.class_id == i for tile in dataset.tiles for box in tile.boxes) for i in range(3)]
    assert (len(dataset.tiles), counts, len(dataset.left_out)) == (250, [256, 2806, 253], 1)


def test_it_lists_all_classes_of_the_real_set_that_the_project_lacks() -> None:
    with pytest.raises(FormatError, match=r"unknown classes: 'Platelets', 'RBC' \(known classes: 'WBC'\)"):
        read_real(classes=("WBC",), leave_out_bad_boxes=True)
