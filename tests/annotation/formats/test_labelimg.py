import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from annotation.formats.labelimg import read_labelimg, write_labelimg
from annotation.formats.records import FormatError, LabelledBox, LabelledTile
from tests.annotation.formats.made_tiles import CLASSES, SHARED_DATA, some_tiles

TILE = LabelledTile("a", 512, 384, (LabelledBox(2, 10, 20.5, 30, 40),))


def test_the_voc_flavour_counts_pixels_from_0(tmp_path: Path) -> None:
    write_labelimg(tmp_path, [TILE], CLASSES, flavour="voc")
    root = ElementTree.parse(tmp_path / "train/a.xml").getroot()
    corners = [root.findtext(f"object/bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    assert corners == ["10", "20.5", "40", "60.5"]
    assert root.findtext("object/name") == CLASSES[2]
    assert root.findtext("filename") == "a.jpg"


@pytest.mark.parametrize("flavour", ["voc", "yolo"])
def test_the_class_list_is_in_the_frozen_order(tmp_path: Path, flavour: str) -> None:
    write_labelimg(tmp_path, some_tiles(), CLASSES, flavour=flavour)  # type: ignore[arg-type]
    assert (tmp_path / "classes.txt").read_text("utf-8").splitlines() == list(CLASSES)


def test_the_yolo_flavour_has_the_class_list_beside_the_labels(tmp_path: Path) -> None:
    write_labelimg(tmp_path, some_tiles(), CLASSES, flavour="yolo")
    for split in ("train", "val", "test"):
        # LabelImg's own way: strip the ends, then one name a line.
        text = (tmp_path / split / "classes.txt").read_text("utf-8")
        assert text.strip("\n").split("\n") == list(CLASSES)
    # ... and one space between exactly five fields of every line.
    for path in (tmp_path / "train").glob("S*.txt"):
        assert all(len(line.strip().split(" ")) == 5 for line in path.read_text().splitlines())


def test_it_reads_one_flat_folder_as_labelimg_saves_it(tmp_path: Path) -> None:
    write_labelimg(tmp_path / "out", [TILE], CLASSES, flavour="yolo")
    flat = tmp_path / "out/train"
    assert read_labelimg(flat, flavour="yolo", size=(512, 384)).tiles[0].boxes[0].y == pytest.approx(20.5, abs=0.01)
    with pytest.raises(FormatError, match=r"a\.txt: missing image size"):
        read_labelimg(flat, flavour="yolo")


def test_the_yolo_flavour_needs_a_class_list(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(FormatError, match=r"there is no class list \(classes.txt\)"):
        read_labelimg(tmp_path, flavour="yolo", size=(100, 100))
    assert read_labelimg(tmp_path, flavour="yolo", size=(100, 100), classes=("blast",)).classes == ("blast",)


@pytest.mark.parametrize(
    ("lines", "reason"), [("blast\n\nmonocyte\n", "printable"), ("a\na\n", "twice"), ("", "empty")]
)
def test_a_bad_class_list_is_named(tmp_path: Path, lines: str, reason: str) -> None:
    (tmp_path / "classes.txt").write_text(lines)
    with pytest.raises(FormatError, match=f"classes.txt: .*{reason}"):
        read_labelimg(tmp_path, flavour="yolo")


def test_a_class_beyond_the_list_is_named_by_line(tmp_path: Path) -> None:
    write_labelimg(tmp_path, [TILE], CLASSES, flavour="yolo")
    (tmp_path / "train/a.txt").write_text("0 0.5 0.5 0.1 0.1\n5 0.5 0.5 0.1 0.1\n")
    with pytest.raises(FormatError, match=r"train/a.txt, line 2: class 5 is not in the class list \(0 to 4\)"):
        read_labelimg(tmp_path, flavour="yolo")


def test_a_degenerate_box_is_named(tmp_path: Path) -> None:
    write_labelimg(tmp_path, [TILE], CLASSES, flavour="voc")
    path = tmp_path / "train/a.xml"
    path.write_text(path.read_text("utf-8").replace("<xmax>40<", "<xmax>10<"), "utf-8")
    with pytest.raises(FormatError, match=r"train/a\.xml: object 1: degenerate box from 10, 20\.5 to 10, 60\.5"):
        read_labelimg(tmp_path, flavour="voc")


def test_it_reads_real_files_that_labelimg_saved(tmp_path: Path) -> None:
    for name in ("BloodImage_00001", "BloodImage_00338"):
        shutil.copy(SHARED_DATA / f"bccd/annotations/{name}.xml", tmp_path)
    dataset = read_labelimg(tmp_path, flavour="voc", leave_out_bad_boxes=True)
    assert dataset.tiles[0].boxes[0] == LabelledBox(0, 68, 315, 218, 165)
    assert [problem.file for problem in dataset.left_out] == ["BloodImage_00338.xml"]
