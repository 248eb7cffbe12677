import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.formats.boxes import fit_box
from annotation.formats.records import LabelledBox, LabelledTile
from annotation.formats.slide_pixels import in_slide_px, whole_slides
from tests.annotation.formats.made_tiles import boxes

PLACE = {"slide_number": 1, "slide_width": 5000, "slide_height": 4000, "slide": "S", "patient": "P"}


def tile(name: str, *found: LabelledBox, x: float = 0, y: float = 0, scale: float = 1.0, **fields) -> LabelledTile:
    extra = PLACE | {"slide_x": x, "slide_y": y, "slide_px_per_tile_px": scale, "author": "anna", "round": 2, "tile": 9}
    return LabelledTile(name, 512, 512, found, extra=extra | fields.pop("extra", {}), **fields)


@given(box=boxes(512, 512), x=st.integers(0, 200_000), y=st.integers(0, 200_000), scale=st.floats(0.25, 4))
def test_a_box_comes_back_from_its_slide(box: LabelledBox, x: int, y: int, scale: float) -> None:
    found = in_slide_px(box, tile("a", x=x, y=y, scale=scale))
    back = ((found.x - x) / scale, (found.y - y) / scale, found.width / scale, found.height / scale)
    assert back == pytest.approx((box.x, box.y, box.width, box.height), abs=0.01)


@given(box=boxes(512, 512), x=st.integers(0, 6000), scale=st.floats(0.25, 4))
def test_a_box_is_always_inside_its_slides_image(box: LabelledBox, x: int, scale: float) -> None:
    (slide,) = whole_slides([tile("a", box, x=x, scale=scale)])
    fit_box(slide.boxes[0], slide.width, slide.height)


def test_tiles_of_a_slide_become_one_record_for_each_split_and_reader() -> None:
    box = LabelledBox(0, 1, 2, 30, 40)
    tiles = [
        tile("slide0001_x000000_y000000", box),
        tile("slide0001_x000512_y000000", box, x=512, split="val"),
        tile("slide0001_x001024_y000000", x=1024),
        tile("slide0001_x000000_y000000_r007", box),
        tile("slide0002_x000000_y000000", extra={"slide_number": 2}),
    ]
    records = {record.name: record for record in whole_slides(tiles)}
    assert list(records) == ["slide0001_train", "slide0001_val", "slide0001_r007_train", "slide0002_train"]
    first = records["slide0001_train"]
    assert (first.width, first.height, len(first.boxes)) == (5000, 4000, 1)
    assert first.extra["tiles"] == [
        {"bbox": [x, 0, 512, 512], "tile": 9, "author": "anna", "round": 2} for x in (0.0, 1024.0)
    ]
