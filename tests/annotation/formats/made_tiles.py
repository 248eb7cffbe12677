"""Tiles for the format tests: made by hand, drawn by hypothesis, and how alike two data sets must be."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from annotation.formats.coco import read_coco, write_coco
from annotation.formats.csv_table import read_csv, write_csv
from annotation.formats.labelimg import read_labelimg, write_labelimg
from annotation.formats.records import SPLITS, Dataset, LabelledBox, LabelledTile
from annotation.formats.voc import read_voc, write_voc
from annotation.formats.yolo import read_yolo, write_yolo

CLASSES = ("blast", "promyelocyte", "band & <segmented>", "érythroblaste", "no")
SHARED_DATA = Path(__file__).resolve().parents[3] / "../shared/data"


@dataclass(frozen=True)
class Format:
    write: Callable[..., list[Path]]
    read: Callable[..., Dataset]


FORMATS = {
    "yolo": Format(write_yolo, read_yolo),
    "voc": Format(write_voc, read_voc),
    "labelimg voc": Format(partial(write_labelimg, flavour="voc"), partial(read_labelimg, flavour="voc")),
    "labelimg yolo": Format(partial(write_labelimg, flavour="yolo"), partial(read_labelimg, flavour="yolo")),
    "coco": Format(write_coco, read_coco),
}
# CSV has neither images nor their suffixes, so it is not among those that every test goes through.
CSV = Format(write_csv, read_csv)


def some_tiles() -> list[LabelledTile]:
    """Five tiles over the three splits: touching every edge, with fractions, and one without boxes."""
    return [
        LabelledTile("S1.tile (1)", 512, 512, (LabelledBox(0, 0, 0, 512, 512), LabelledBox(4, 10.25, 20.5, 30.125, 9))),
        LabelledTile("S1_empty", 512, 512, ()),
        LabelledTile("S2_a", 640, 480, (LabelledBox(2, 600.5, 400.01, 39.5, 79.99),), split="val", suffix=".png"),
        LabelledTile("S3_ä", 100, 30, (LabelledBox(3, 0.01, 0.02, 1.5, 1.25),), split="test"),
        LabelledTile("S0_last", 4096, 4096, (LabelledBox(1, 4000.13, 3999.97, 95.87, 96.03),)),
    ]


def encoded_image(tile: LabelledTile) -> bytes:
    """A grey image of the tile's size in the format that its suffix says."""
    content = io.BytesIO()
    Image.new("RGB", (tile.width, tile.height), (90, 90, 90)).save(content, "PNG" if tile.suffix == ".png" else "JPEG")
    return content.getvalue()


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> LabelledBox:
    # Sides above one pixel: shorter ones cannot be said in Pascal VOC.
    box_width = draw(st.floats(1.02, width))
    box_height = draw(st.floats(1.02, height))
    x, y = draw(st.floats(0, width - box_width)), draw(st.floats(0, height - box_height))
    return LabelledBox(draw(st.integers(0, len(CLASSES) - 1)), x, y, box_width, box_height)


@st.composite
def datasets(draw: st.DrawFn) -> list[LabelledTile]:
    names = draw(st.lists(st.from_regex(r"[A-Za-zé0-9_]([A-Za-z0-9._ -]{0,8}[a-z0-9])?", fullmatch=True), max_size=5))
    tiles = {}
    for name in names:
        if name.casefold() in {"classes", "con", "prn", "aux", "nul"} or name[:3].casefold() in {"com", "lpt"}:
            continue
        width, height = draw(st.integers(2, 4096)), draw(st.integers(2, 4096))
        found = tuple(draw(st.lists(boxes(width, height), max_size=5)))
        split, suffix = draw(st.sampled_from(SPLITS)), draw(st.sampled_from([".jpg", ".png"]))
        tiles[name.casefold()] = LabelledTile(name, width, height, found, split, suffix)
    return list(tiles.values())


def assert_same_tiles(found: Iterable[LabelledTile], expected: Sequence[LabelledTile], tolerance: float = 0.01) -> None:
    """The same tiles with the same boxes in the same order, coordinates within `tolerance` px."""
    by_name = {tile.name: tile for tile in found}
    assert by_name.keys() == {tile.name for tile in expected}
    for tile in expected:
        read = by_name[tile.name]
        assert (read.width, read.height) == (tile.width, tile.height)
        assert (read.split, read.suffix) == (tile.split, tile.suffix)
        assert [box.class_id for box in read.boxes] == [box.class_id for box in tile.boxes]
        for box, wanted in zip(read.boxes, tile.boxes, strict=True):
            pairs = zip(edges(box), edges(wanted), strict=True)
            assert max(abs(value - other) for value, other in pairs) <= tolerance


def edges(box: LabelledBox) -> tuple[float, float, float, float]:
    return box.x, box.y, box.x + box.width, box.y + box.height


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
