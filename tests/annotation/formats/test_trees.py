"""Every layout that people's data sets come in, and the formats by what the files hold."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.formats.crops import write_crops
from annotation.formats.files import FileTree
from annotation.formats.reading import BadBoxes
from annotation.formats.records import FormatError, LabelledBox, LabelledTile
from annotation.formats.trees import find_format, images_of, propose_first_pixel, read_tree, slides_of_exports
from tests.annotation.formats.made_tiles import (
    CLASSES,
    CSV,
    FORMATS,
    assert_same_tiles,
    datasets,
    encoded_image,
    some_tiles,
)

FORMAT_OF = {"yolo": "yolo", "labelimg yolo": "yolo", "voc": "voc", "labelimg voc": "voc", "coco": "coco"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("images", [True, False])
def test_an_export_is_recognised_and_read(tmp_path: Path, name: str, images: bool) -> None:
    FORMATS[name].write(tmp_path / "set", some_tiles(), CLASSES, image=encoded_image if images else None)
    root = FileTree.of_folder(tmp_path / "set")
    assert find_format(root) == FORMAT_OF[name]
    first_pixel = propose_first_pixel(root).first_pixel if FORMAT_OF[name] == "voc" else 1
    data = read_tree(root, FORMAT_OF[name], first_pixel=first_pixel)
    assert data.classes == CLASSES
    assert data.unlabelled == ()
    assert set(data.sources) == {tile.name for tile in some_tiles()}
    assert_same_tiles(data.tiles, some_tiles())


@given(tiles=datasets())
def test_the_layout_makes_no_difference_to_the_boxes(
    tmp_path_factory: pytest.TempPathFactory, tiles: list[LabelledTile]
) -> None:
    root = tmp_path_factory.mktemp("set") / "yolo"
    FORMATS["yolo"].write(root, tiles, CLASSES)
    assert_same_tiles(read_tree(FileTree.of_folder(root), "yolo").tiles, tiles)


def test_labels_beside_folders_of_other_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "my labels").mkdir()
    (tmp_path / "fields").mkdir()
    (tmp_path / "my labels/a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "my labels/classes.txt").write_text("blast")
    (tmp_path / "readme.txt").write_text("how these were made")
    tile = LabelledTile("a", 90, 60, ())
    (tmp_path / "fields/a.jpg").write_bytes(encoded_image(tile))
    (tmp_path / "fields/b.jpg").write_bytes(encoded_image(tile))
    assert find_format(FileTree.of_folder(tmp_path)) == "yolo"
    data = read_tree(FileTree.of_folder(tmp_path), "yolo")
    assert [(tile.name, tile.width, tile.height, len(tile.boxes)) for tile in data.tiles] == [("a", 90, 60, 1)]
    assert data.unlabelled == ("b.jpg",)


def test_what_is_known_of_a_tile_gives_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("blast")
    (box,) = read_tree(FileTree.of_folder(tmp_path), "yolo", known_size={"a": (100, 40)}.get).tiles[0].boxes
    assert (box.x, box.y, box.width, box.height) == (25, 10, 50, 20)


def test_boxes_are_cut_or_left_out_as_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 1 0.5 0.5 0.5\n0 3 0.5 0.5 0.5\n0 0.5 0.5 0.01 0.5\n")
    (tmp_path / "classes.txt").write_text("blast")
    size = {"a": (100, 40)}.get
    with pytest.raises(FormatError) as caught:
        read_tree(FileTree.of_folder(tmp_path), "yolo", known_size=size, bad_boxes=BadBoxes(minimum_side=2))
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]
    data = read_tree(FileTree.of_folder(tmp_path), "yolo", known_size=size, bad_boxes=BadBoxes(True, True, 2))
    assert [problem.line for problem in data.cut] == [1]
    assert [problem.line for problem in data.left_out] == [2, 3]
    (box,) = data.tiles[0].boxes
    assert (box.x, box.width) == (75, 25)


def test_a_table_of_boxes_is_recognised_and_read(tmp_path: Path) -> None:
    tiles = [replace(tile, suffix=".jpg") for tile in some_tiles()]
    CSV.write(tmp_path, tiles, CLASSES)
    (tmp_path / "tiles.csv").write_text("name,split,suffix,width,height\n")
    (tmp_path / "notes.csv").write_text("who,when\n")
    tree = FileTree.of_folder(tmp_path)
    assert find_format(tree) == "csv"
    data = read_tree(tree, "csv")
    assert (data.classes, data.unlabelled) == (CLASSES, ())
    assert_same_tiles(data.tiles, tiles)


def test_the_list_of_single_cell_crops_is_read_as_the_table_of_boxes_that_it_is(tmp_path: Path) -> None:
    write_crops(tmp_path, some_tiles(), CLASSES, crops=lambda tile: [b"png"] * len(tile.boxes))
    tree = FileTree.of_folder(tmp_path)
    assert find_format(tree) == "csv"
    data = read_tree(tree, "csv")
    assert (data.classes, data.unlabelled) == (CLASSES, ())
    assert_same_tiles(data.tiles, [replace(tile, suffix=".jpg") for tile in some_tiles() if tile.boxes])
    assert len(images_of(tree, "csv")) == 0
    (tmp_path / "boxes.csv").write_text("tile,tile_width,tile_height,class,x,y,width,height\n")
    assert read_tree(FileTree.of_folder(tmp_path), "csv").tiles == ()


def test_the_masks_of_the_voc_development_kit_are_no_images_of_tiles(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, some_tiles(), CLASSES, image=encoded_image)
    for folder in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir()
        for tile in some_tiles():
            (tmp_path / folder / f"{tile.name}.png").write_bytes(b"a mask")
    data = read_tree(FileTree.of_folder(tmp_path), "voc")
    assert data.unlabelled == ()
    assert_same_tiles(data.tiles, some_tiles())


@pytest.mark.parametrize(("name", "first_pixel"), [("voc", 1), ("labelimg-voc", 0)])
def test_an_export_of_ours_says_what_its_corners_are_counted_from(tmp_path: Path, name: str, first_pixel: int) -> None:
    (tmp_path / "a.xml").write_text("<annotation><xmin>0</xmin></annotation>")
    facts = {"made_by": "Marrowloop", "taxonomy": {"classes": ["a"]}, "choice": {"format": name, "images": False}}
    (tmp_path / "manifest.json").write_text(json.dumps(facts, indent=1))
    proposal = propose_first_pixel(FileTree.of_folder(tmp_path))
    assert (proposal.first_pixel, proposal.reason) == (
        first_pixel,
        f"manifest.json says that it is an export as {name}",
    )


def test_tiles_are_handed_on_as_they_are_read(tmp_path: Path) -> None:
    FORMATS["yolo"].write(tmp_path, some_tiles(), CLASSES)
    taken: list[tuple[LabelledTile, str, str]] = []

    def keep(tile: LabelledTile, source: str, names: Sequence[str]) -> None:
        taken.append((tile, source, names[tile.boxes[0].class_id] if tile.boxes else ""))

    data = read_tree(FileTree.of_folder(tmp_path), "yolo", keep=keep)
    assert (data.tiles, data.classes) == ((), CLASSES)
    assert_same_tiles([tile for tile, _, _ in taken], some_tiles())
    assert ("labels/val/S2_a.txt", "band & <segmented>") in [one[1:] for one in taken]


@pytest.mark.parametrize("name", ["coco", "csv"])
def test_a_file_made_of_boxes_is_refused_before_its_end_is_read(tmp_path: Path, name: str) -> None:
    fmt = FORMATS.get(name, CSV)
    many = LabelledTile("a", 64, 64, (LabelledBox(0, 1, 1, 9, 9),) * 50)
    fmt.write(tmp_path, [many], CLASSES)
    (path,) = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".csv")]
    text = path.read_text("utf-8")
    path.write_text(text[: -len(text) // 4] + " this is never looked at", "utf-8")
    with pytest.raises(FormatError, match="more boxes on one tile: at most 20 are taken"):
        read_tree(FileTree.of_folder(tmp_path), name, bad_boxes=BadBoxes(most=20))


def test_a_tree_is_what_lies_below_the_folders_that_hold_it_all(tmp_path: Path) -> None:
    for name in ("set/v1/labels/a.txt", "set/v1/data.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    tree = FileTree.of_folder(tmp_path).without_wrapping()
    assert (tree.names, tree.folder) == (["data.yaml", "labels/a.txt"], tmp_path / "set/v1")
    with tree.file("labels/a.txt").open() as handle:
        assert handle.read() == b"set/v1/labels/a.txt"
    assert FileTree.of_folder(tmp_path / "nowhere").without_wrapping().names == []


@given(st.from_regex(r"[a-z.]{1,6}", fullmatch=True).filter(lambda name: name.strip(".")))
def test_names_are_taken_apart_as_paths_are(name: str) -> None:
    file = FileTree([f"set/{name}"], lambda path: io.BytesIO(), Path()).file(f"set/{name}")
    path = PurePosixPath(f"set/{name}")
    assert (file.name, file.stem, file.suffix, file.folders) == (path.name, path.stem, path.suffix, ["set"])


def test_the_slides_of_exports_are_told_by_their_manifests(tmp_path: Path) -> None:
    told: list[dict[str, object]] = [
        {"made_by": "Marrowloop", "slides": {"1": "aa", "2": "bb"}, "files": []},
        {"made_by": "Marrowloop", "slides": {"2": "cc", "3": "dd"}},
        {"made_by": "Marrowloop"},  # an older one
        {"made_by": "somebody else", "slides": {"1": "ee"}},
    ]
    for place, facts in enumerate(told):
        (tmp_path / str(place)).mkdir()
        (tmp_path / f"{place}/manifest.json").write_text(json.dumps(facts, indent=1))
    assert slides_of_exports(FileTree.of_folder(tmp_path)) == {"1": "aa", "2": "", "3": "dd"}
