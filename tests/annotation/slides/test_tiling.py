import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.geometry import centre_inside
from annotation.slides.reader import SlideError, SlideReader
from annotation.slides.tiling import find_tiles, is_near_black, is_near_blank, tile_extent, tile_grid
from tests.annotation.slides.test_reader import write_slide

DATA = Path(__file__).resolve().parents[3] / "../shared/data"
WSI = DATA / "wsi"
SMEARS = sorted((DATA / "smears").glob("*.json"))


@cache
def smear(path):
    """(truth of one smear, the tiles found on it)."""
    truth = json.loads(path.read_text())
    with SlideReader(path.parent / truth["slide"]) as reader:
        return truth, find_tiles(reader)


def zones_under(truth, tile):
    """The zone letters of the fields that a tile of 512 level-0 px touches."""
    letters = set()
    for row, (fields, shift) in enumerate(zip(truth["zones"], truth["row_shift"], strict=True)):
        if row * 128 < tile.y + 512 and tile.y < (row + 1) * 128:
            for column, letter in enumerate(fields):
                left = column * 128 + shift
                if left < tile.x + 512 and tile.x < left + 128:
                    letters.add(letter)
    return letters


def test_the_papers_grid_has_one_tile_at_each_grid_cells_centre():
    grid = tile_grid(40_000, 30_000, 0.25)
    assert len(grid) == 300
    assert (max(tile.row for tile in grid), max(tile.column for tile in grid)) == (14, 19)
    for tile in grid:
        assert tile.x + 256 == (tile.column + 0.5) * 2000
        assert tile.y + 256 == (tile.row + 0.5) * 2000


def test_tiles_lie_edge_to_edge_where_grid_cells_are_smaller_than_a_tile():
    grid = tile_grid(5888, 5120, 0.25)
    assert len(grid) == 11 * 10
    assert (grid[0].x, grid[0].y) == ((5888 - 11 * 512) // 2, 0)
    assert [tile.x for tile in grid[:3]] == [128, 640, 1152]
    assert grid == tile_grid(5888, 5120, 0.25, tiling="edge")


def test_grid_cells_too_narrow_in_one_direction_are_enough_for_edge_to_edge():
    assert len(tile_grid(20 * 512, 15 * 512, 0.25)) == 300
    assert len(tile_grid(20 * 512 - 1, 15 * 512, 0.25)) == 19 * 15
    assert len(tile_grid(20 * 512, 15 * 512 - 1, 0.25)) == 20 * 14


@given(st.integers(1100, 30_000), st.integers(1100, 30_000), st.floats(0.12, 1.0), st.sampled_from(["paper", "edge"]))
def test_every_tile_is_inside_the_slide_and_no_two_overlap(width, height, mpp, tiling):
    extent = tile_extent(mpp)
    grid = tile_grid(width, height, mpp, tiling=tiling)
    lefts, tops = sorted({tile.x for tile in grid}), sorted({tile.y for tile in grid})
    assert len(grid) == len(lefts) * len(tops)
    for places, length in ((lefts, width), (tops, height)):
        assert places[0] >= 0
        assert places[-1] + extent <= length
        assert all(second - first >= extent for first, second in pairwise(places))


@given(st.integers(1100, 9000), st.integers(1100, 9000), st.floats(0.12, 1.0))
def test_edge_to_edge_leaves_less_than_a_tile_uncovered_and_shares_it_between_the_sides(width, height, mpp):
    extent = tile_extent(mpp)
    grid = tile_grid(width, height, mpp, tiling="edge")
    for first, last, length in (
        (grid[0].x, grid[-1].x + extent, width),
        (grid[0].y, grid[-1].y + extent, height),
    ):
        assert 0 <= (length - last) - first <= 1
        assert first + (length - last) < extent


def test_it_refuses_a_slide_smaller_than_a_tile_and_says_what_is_needed():
    with pytest.raises(SlideError) as caught:
        tile_grid(16, 16, 0.499, name="small.svs")
    assert caught.value.code == "too-small"
    assert str(caught.value).startswith("small.svs is 16 x 16 px")
    assert "a tile needs 512 x 512 px at 0.25 µm/px, that is 257 x 257 px of this slide" in str(caught.value)


def test_a_slide_of_exactly_one_tile_is_enough():
    assert [(tile.x, tile.y) for tile in tile_grid(512, 512, 0.25)] == [(0, 0)]
    with pytest.raises(SlideError):
        tile_grid(511, 512, 0.25)


def test_it_rejects_an_unknown_tiling():
    with pytest.raises(ValueError, match="paper, edge"):
        tile_grid(5888, 5120, 0.25, tiling="papre")


@pytest.mark.parametrize("level", [60, 150, 245])
def test_even_glass_is_near_blank_at_any_brightness(level):
    assert is_near_blank(np.full((64, 64, 3), level, dtype=np.uint8))


def test_one_stained_nucleus_is_enough_not_to_be_near_blank():
    picture = np.full((64, 64, 3), 220, dtype=np.uint8)
    picture[30:34, 30:34] = (90, 60, 140)
    assert is_near_blank(picture)
    picture[34, 30] = (90, 60, 140)
    assert not is_near_blank(picture)


def test_ghosts_of_cells_are_near_blank():
    picture = np.full((64, 64, 3), 220, dtype=np.uint8)
    picture[10:30, 10:30] = 220 - 39
    assert is_near_blank(picture)
    picture[10:30, 10:30] = 220 - 40
    assert not is_near_blank(picture)


def test_blue_nuclei_on_black_are_near_black_and_dark_bright_field_is_not():
    fluorescence = np.zeros((64, 64, 3), dtype=np.uint8)
    fluorescence[10:50, 10:50, 2] = 255
    assert is_near_black(fluorescence)
    assert not is_near_black(np.full((64, 64, 3), (110, 50, 90), dtype=np.uint8))


@pytest.mark.parametrize("path", SMEARS, ids=lambda path: path.stem)
def test_on_every_smear_blank_tiles_are_left_out_and_no_countable_cell_is(path):
    truth, found = smear(path)
    grid = tile_grid(truth["width"], truth["height"], truth["mpp"])
    boxes = np.array([box[1:] for box in truth["boxes"]])
    for tile in set(grid) - set(found):
        assert zones_under(truth, tile) != {"m"}
        assert not centre_inside(boxes, tile.x, tile.y, 512, 512).any()
    for tile in found:
        assert zones_under(truth, tile) != {"b"}


def test_the_smears_have_enough_tiles_of_one_zone_to_judge_by():
    kinds = [zones_under(truth, tile) for truth, _ in map(smear, SMEARS) for tile in tile_grid(5888, 5120, 0.25)]
    assert kinds.count({"b"}) >= 150
    assert kinds.count({"m"}) >= 150


def test_tiles_are_found_on_a_slide_of_20x():
    with SlideReader(WSI / "cmu-1-small-region.svs") as reader:
        found = find_tiles(reader)
        assert 40 <= len(found) < len(tile_grid(2220, 2967, 0.499))
        assert reader.read_tile(found[0].x, found[0].y).shape == (512, 512, 3)


def test_it_refuses_fluorescence():
    with SlideReader(WSI / "dapi.ndpi") as reader, pytest.raises(SlideError) as caught:
        find_tiles(reader)
    assert caught.value.code == "no-tissue"
    assert "dapi.ndpi is nearly black: it looks like fluorescence" in str(caught.value)


def test_it_refuses_a_blank_slide(tmp_path):
    glass = np.random.default_rng(0).integers(225, 240, (1100, 1100, 3), dtype=np.uint8)
    path = write_slide(tmp_path / "stored.tif", glass)
    with SlideReader(path, name="empty glass.tif") as reader, pytest.raises(SlideError) as caught:
        find_tiles(reader)
    assert caught.value.code == "no-tissue"
    assert str(caught.value).startswith("empty glass.tif shows no stained cells")


@pytest.mark.parametrize("name", ["small.svs", "dicom/boxes_0.dcm"])
def test_it_refuses_a_slide_of_16_px(name):
    with SlideReader(WSI / name) as reader, pytest.raises(SlideError) as caught:
        find_tiles(reader)
    assert caught.value.code == "too-small"


def test_parts_that_were_never_scanned_are_left_out(tmp_path):
    slide = np.zeros((1024, 1024, 3), dtype=np.uint8)
    slide[:512, :512] = 225
    slide[100:200, 100:200] = (90, 60, 140)
    with SlideReader(write_slide(tmp_path / "a.tif", slide)) as reader:
        assert [(tile.x, tile.y) for tile in find_tiles(reader)] == [(0, 0)]


def test_progress_grows_to_1():
    seen = []
    with SlideReader(WSI / "cmu-1-small-region.svs") as reader:
        find_tiles(reader, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) == len(tile_grid(2220, 2967, 0.499))
