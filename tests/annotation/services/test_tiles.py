"""Pictures cut from tiles and from around them, kept in the cache folder."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from annotation.models import Box, Slide, Tile
from annotation.services.storage import cache_dir
from annotation.services.tiles import crop_around, crop_jpeg, is_whole_slide, neighbourhood_jpeg, read_tile
from annotation.slides.reader import SlideError, SlideReader
from tests import factories

GREY = (0x3A, 0x3A, 0x3A)
WHITE = (255, 255, 255)


def picture_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def box(x, y, width, height):
    return SimpleNamespace(x=x, y=y, width=width, height=height)


def near(pixel, colour, tolerance=3):
    return np.abs(np.asarray(pixel, dtype=int) - colour).max() <= tolerance


# The crop of a box


def dotted():
    """A black tile, 512 x 512, with one white px at (200, 100)."""
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[100, 200] = 255
    return pixels


def brightest(crop):
    row, column = np.unravel_index(crop.sum(axis=2).argmax(), crop.shape[:2])
    return int(column), int(row)


def test_a_crop_shows_a_square_of_one_and_a_quarter_of_the_larger_side():
    # 76.8 px x 1.25 = 96 px: one px of the tile is one of the crop, and the box's centre is the crop's.
    crop = crop_around(dotted(), box(200.5 - 38.4, 100.5 - 10, 76.8, 20))
    assert (crop.shape, crop.dtype) == ((96, 96, 3), np.uint8)
    assert brightest(crop) in {(47, 47), (48, 48), (47, 48), (48, 47)}


def test_a_tall_box_is_shown_as_large_as_a_wide_one():
    pixels = np.random.default_rng(1).integers(0, 255, (512, 512, 3), np.uint8)
    wide, tall = box(200, 240, 80, 20), box(230, 210, 20, 80)
    assert np.array_equal(crop_around(pixels, wide), crop_around(pixels, tall))


@pytest.mark.parametrize(
    ("place", "outside", "inside"),
    [
        ((0, 200, 40, 40), (2, 48), (30, 48)),
        ((472, 200, 40, 40), (93, 48), (60, 48)),
        ((200, 0, 40, 40), (48, 2), (48, 30)),
        ((200, 472, 40, 40), (48, 93), (48, 60)),
    ],
)
def test_a_crop_at_the_edge_is_grey_where_the_tile_ends(place, outside, inside):
    white = np.full((512, 512, 3), 255, np.uint8)
    crop = crop_around(white, box(*place))
    assert near(crop[outside[1], outside[0]], GREY)
    assert near(crop[inside[1], inside[0]], WHITE)


@pytest.mark.parametrize("place", [(0, 0, 512, 512), (0, 0, 2, 2), (510, 510, 2, 2), (0.3, 511.0, 511.7, 1.0)])
def test_a_box_of_any_size_has_its_crop(place):
    assert crop_around(np.zeros((512, 512, 3), np.uint8), box(*place)).shape == (96, 96, 3)


def test_a_tile_that_is_not_square_has_its_crops():
    crop = crop_around(np.full((120, 640, 3), 255, np.uint8), box(600, 20, 40, 100))
    assert near(crop[48, 40], WHITE)
    assert near(crop[48, 95], GREY)


@pytest.fixture
def slide(smear):
    return factories.make_slide(factories.make_project(), file=smear)


@pytest.fixture
def cell(slide):
    return factories.make_truth(slide.tiles.all()[4], (0, 100, 120, 60, 50)).boxes.get()


@pytest.mark.django_db
def test_a_crop_is_cut_from_the_boxs_own_tile(cell):
    crop = picture_of(crop_jpeg(cell))
    there = crop_around(read_tile(cell.annotation.tile), cell).astype(int)
    elsewhere = crop_around(read_tile(Tile.objects.first()), cell).astype(int)
    assert crop.shape == (96, 96, 3)
    assert np.abs(crop - there).mean() < 3
    assert np.abs(crop - elsewhere).mean() > 10


@pytest.mark.django_db
def test_a_crop_is_kept_and_drawn_again_when_it_was_thrown_away(cell):
    first = crop_jpeg(cell)
    (kept,) = (path for path in (cache_dir() / "crops").rglob("*") if path.is_file())
    kept.write_bytes(b"as it was kept")
    assert crop_jpeg(cell) == b"as it was kept"
    kept.unlink()
    assert crop_jpeg(cell) == first


@pytest.mark.django_db
def test_a_crop_of_a_slide_whose_file_is_gone_says_so_and_leaves_nothing():
    tile = factories.make_tile()
    made = factories.make_truth(tile, (0, 100, 120, 60, 50)).boxes.get()
    factories.lose_files(tile.slide)
    with pytest.raises(SlideError, match="missing from storage"):
        crop_jpeg(Box.objects.get(pk=made.pk))
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


# What lies around a tile


def thirds(picture):
    return picture.reshape(3, 384, 3, 384, 3).mean(axis=(1, 3))


@pytest.mark.django_db
def test_the_tile_is_the_centre_third_of_its_neighbourhood(slide, smear):
    picture = picture_of(neighbourhood_jpeg(slide.tiles.get(row=1, column=1)))
    with SlideReader(smear) as reader:
        whole = reader.read_area(0, 0, 1536, 1536, columns=1152, rows=1152).astype(int)
    assert picture.shape == (1152, 1152, 3)
    assert np.abs(picture - whole).mean() < 3


@pytest.mark.django_db
def test_a_corner_tile_has_white_outside_the_slide(slide):
    around = thirds(picture_of(neighbourhood_jpeg(slide.tiles.get(row=0, column=0))))
    white = [[bool((part > 254).all()) for part in row] for row in around]
    assert white == [[True, True, True], [True, False, False], [True, False, False]]
    around = thirds(picture_of(neighbourhood_jpeg(slide.tiles.get(row=2, column=2))))
    assert bool((around[2, 2] > 254).all())
    assert not bool((around[1, 1] > 254).all())


@pytest.mark.django_db
def test_the_neighbourhood_is_measured_in_the_tiles_extent(smear):
    """A tile at 40x of a slide scanned at 20x covers 256 level-0 px: its neighbours are as large."""
    slide = factories.make_slide(factories.make_project(), file=smear, tiles=1, mpp=0.5)
    Tile.objects.filter(slide=slide).update(x=512, y=512, extent=256)
    with SlideReader(smear) as reader:
        expected = reader.read_area(256, 256, 768, 768, columns=1152, rows=1152).astype(int)
    assert np.abs(picture_of(neighbourhood_jpeg(slide.tiles.get())) - expected).mean() < 3


@pytest.mark.django_db
def test_a_neighbourhood_is_kept(slide):
    tile = slide.tiles.first()
    neighbourhood_jpeg(tile)
    (kept,) = (path for path in (cache_dir() / "neighbourhoods").rglob("*") if path.is_file())
    kept.write_bytes(b"as it was kept")
    assert neighbourhood_jpeg(tile) == b"as it was kept"


@pytest.mark.parametrize(
    ("slide_size", "tile", "whole"),
    [
        ((512, 512), {}, True),
        ((500, 480), {}, True),
        ((640, 480), {"extent": 640, "width": 640, "height": 480}, True),
        ((640, 480), {"extent": 512}, False),
        ((513, 512), {}, False),
        ((512, 513), {}, False),
        ((512, 512), {"x": 1}, False),
        ((512, 512), {"y": 1}, False),
        ((256, 256), {"extent": 256}, True),
    ],
)
def test_a_tile_is_the_whole_slide_where_nothing_lies_around_it(slide_size, tile, whole):
    width, height = slide_size
    values = {"x": 0, "y": 0, "extent": 512, "width": 512, "height": 512} | tile
    assert is_whole_slide(Tile(slide=Slide(width=width, height=height), **values)) is whole
