from pathlib import Path

import pytest

from annotation.formats.cvat import read_cvat
from annotation.formats.reading import BadBoxes
from annotation.formats.records import FormatError, LabelledBox

BOX = '<box label="blast" source="manual" occluded="0" xtl="10.5" ytl="20" xbr="40" ybr="50.25" z_order="0"></box>'


def image(*shapes: str, name: str = "set/a.png", size: str = 'width="90" height="60"') -> str:
    return f'<image id="0" name="{name}" {size}>{"".join(shapes)}</image>'


def saved(tmp_path: Path, *images: str) -> Path:
    path = tmp_path / "annotations.xml"
    path.write_text(f"<annotations><version>1.1</version><meta/>{''.join(images)}</annotations>", "utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        read_cvat(path)
    return str(caught.value)


def test_boxes_are_read_as_they_stand(tmp_path: Path) -> None:
    empty = image(name="b.png", size='subset="Validation" width="32" height="40"')
    data = read_cvat(saved(tmp_path, image(BOX, '<tag label="blurred"/>'), empty))
    assert data.classes == ("blast",)
    first, second = data.tiles
    assert (first.name, first.suffix, first.width, first.height, first.split) == ("a", ".png", 90, 60, "train")
    assert first.boxes == (LabelledBox(0, 10.5, 20, 29.5, 30.25),)
    assert (second.name, second.split, second.boxes) == ("b", "val", ())


def test_other_shapes_are_refused_or_left_out(tmp_path: Path) -> None:
    turned = BOX.replace("xtl", 'rotation="30" xtl')
    path = saved(tmp_path, image(BOX, '<polygon label="blast" points="1,2;3,4;5,6"/>', turned))
    text = refusal(path)
    assert "annotations.xml: image 'a.png': shape 2: a polygon is not a box" in text
    assert "shape 3: a turned box is not upright" in text
    kept = read_cvat(path, bad_boxes=BadBoxes(leave_out=True))
    assert (len(kept.tiles[0].boxes), len(kept.left_out)) == (1, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (image(BOX, size=""), "image 'a.png': missing image size"),
        (image(BOX.replace("10.5", "nan")), "shape 1: a label and finite xtl, ytl, xbr, ybr are needed"),
        (image(BOX.replace('label="blast"', "")), "shape 1: a label and finite"),
        (image(BOX.replace("40", "400")), "shape 1: the box reaches 310.00 px outside"),
        (image(BOX.replace('xbr="40"', 'xbr="5"')), "shape 1: degenerate box"),
        (image(BOX) + image(BOX), "two tiles have the name 'a'"),
        ("<track/>", "it holds tracks of a video"),
        ("<image>", "the file is not valid XML"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal(saved(tmp_path, text))


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotations>&c;</annotations>', "utf-8")
    assert "the XML uses an entity" in refusal(path)
