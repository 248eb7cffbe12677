"""Our files as others read them: LabelImg's own readers, and supervision's of YOLO, Pascal VOC and COCO.

ultralytics' loader is in test_yolo.py, faster-coco-eval's in test_coco.py.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import supervision
from hypothesis import given, settings
from libs.pascal_voc_io import PascalVocReader
from libs.yolo_io import YoloReader

from annotation.formats.labelimg import write_labelimg
from annotation.formats.records import SPLITS, LabelledBox, LabelledTile
from tests.annotation.formats.made_tiles import CLASSES, FORMATS, datasets, edges, encoded_image, some_tiles

Corners = tuple[float, float, float, float]
Shape = tuple[str, list[tuple[int, int]], None, None, bool]


@dataclass(frozen=True)
class ImageSize:
    """What LabelImg's YOLO reader asks the open image, a QImage, for."""

    tile: LabelledTile

    def height(self) -> int:
        return self.tile.height

    def width(self) -> int:
        return self.tile.width

    def isGrayscale(self) -> bool:  # noqa: N802  # Qt's name
        return False


def named(shapes: list[Shape]) -> list[tuple[str, Corners]]:
    return [(name, (*points[0], *points[2])) for name, points, *_ in shapes]


def wanted(tile: LabelledTile, rounding: Callable[[float], float]) -> list[tuple[str, Corners]]:
    left_top_right_bottom = [(CLASSES[box.class_id], edges(box)) for box in tile.boxes]
    return [(name, tuple(rounding(value) for value in sides)) for name, sides in left_top_right_bottom]  # type: ignore[misc]


@given(tiles=datasets())
@settings(max_examples=25, deadline=None)
def test_labelimg_reads_our_voc_flavour_in_whole_pixels(tiles: list[LabelledTile]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_labelimg(Path(folder) / "out", tiles, CLASSES, flavour="voc")
        for tile in tiles:
            reader = PascalVocReader(str(Path(folder) / "out" / tile.split / f"{tile.name}.xml"))
            # It cuts decimals off; the fourth of ours may have been rounded up to the next pixel.
            assert named(reader.get_shapes()) == wanted(tile, lambda value: int(round(value, 4)))


@given(tiles=datasets())
@settings(max_examples=25, deadline=None)
def test_labelimg_reads_our_yolo_flavour_to_half_a_pixel(tiles: list[LabelledTile]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_labelimg(Path(folder) / "out", tiles, CLASSES, flavour="yolo")
        for tile in tiles:
            reader = YoloReader(str(Path(folder) / "out" / tile.split / f"{tile.name}.txt"), ImageSize(tile))
            found, expected = named(reader.get_shapes()), wanted(tile, float)
            assert reader.classes == list(CLASSES)
            assert [name for name, _ in found] == [name for name, _ in expected]
            for (_, sides), (_, others) in zip(found, expected, strict=True):
                assert max(abs(one - other) for one, other in zip(sides, others, strict=True)) <= 0.5001


@pytest.mark.parametrize("flavour", ["voc", "yolo"])
def test_labelimg_reads_a_tile_without_boxes(tmp_path: Path, flavour: str) -> None:
    tile = LabelledTile("a", 64, 48, ())
    write_labelimg(tmp_path, [tile], CLASSES, flavour=flavour)  # type: ignore[arg-type]
    if flavour == "voc":
        reader = PascalVocReader(str(tmp_path / "train/a.xml"))
        reader.parse_xml()  # it hides what goes wrong when it is made
    else:
        reader = YoloReader(str(tmp_path / "train/a.txt"), ImageSize(tile))
    assert reader.get_shapes() == []


def of_yolo(folder: Path, split: str) -> supervision.DetectionDataset:
    places = str(folder / f"images/{split}"), str(folder / f"labels/{split}"), str(folder / "data.yaml")
    return supervision.DetectionDataset.from_yolo(*places)


def of_voc(folder: Path, split: str) -> supervision.DetectionDataset:
    return supervision.DetectionDataset.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations"))


def of_coco(folder: Path, split: str) -> supervision.DetectionDataset:
    places = str(folder / f"images/{split}"), str(folder / f"annotations/instances_{split}.json")
    return supervision.DetectionDataset.from_coco(*places)


@pytest.mark.parametrize(
    ("name", "load", "tolerance"), [("yolo", of_yolo, 0.01), ("voc", of_voc, 1.0), ("coco", of_coco, 0.01)]
)
def test_supervision_reads_the_same_boxes(
    tmp_path: Path, name: str, load: Callable[[Path, str], supervision.DetectionDataset], tolerance: float
) -> None:
    tiles = {tile.name: tile for tile in [*some_tiles(), LabelledTile("val_empty", 64, 64, (), split="val")]}
    FORMATS[name].write(tmp_path, list(tiles.values()), CLASSES, image=encoded_image)
    seen = set()
    for split in SPLITS:
        data = load(tmp_path, split)
        for path, found in data.annotations.items():
            tile = tiles[os.path.splitext(os.path.basename(path))[0]]  # noqa: PTH119, PTH122  # names with dots
            seen.add(tile.name)
            classes = [] if found.class_id is None else [data.classes[number] for number in found.class_id]
            assert classes == [CLASSES[box.class_id] for box in tile.boxes]
            assert [tuple(sides) for sides in found.xyxy] == [
                pytest.approx(edges(box), abs=tolerance) for box in tile.boxes
            ]
    assert seen == set(tiles)


def test_a_box_at_the_edge_is_where_supervision_has_it(tmp_path: Path) -> None:
    """The development kit's way to count: whole pixels come through supervision as they are."""
    tile = LabelledTile("a", 64, 48, (LabelledBox(0, 0, 0, 64, 48), LabelledBox(1, 10, 20, 30, 8)))
    FORMATS["voc"].write(tmp_path, [tile], CLASSES, image=encoded_image)
    (found,) = of_voc(tmp_path, "train").annotations.values()
    assert found.xyxy.tolist() == [list(edges(box)) for box in tile.boxes]
