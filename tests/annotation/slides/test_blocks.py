import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.slides import reader as reader_module
from annotation.slides.blocks import BlockError, TiffBlocks
from annotation.slides.reader import SlideError, SlideReader

DATA = Path(__file__).resolve().parents[3] / "../shared/data"
SMEARS = sorted(path for path in (DATA / "smears").iterdir() if path.suffix in {".svs", ".tif"})
SCANNED = DATA / "wsi" / "cmu-1-small-region.svs"  # a real scanner's file


def through_openslide(path, x, y, width, height):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((x, y), 0, (width, height)).convert("RGB"))


def blocks_of(path):
    with openslide.OpenSlide(path) as slide:
        return TiffBlocks.of(path, slide.properties["openslide.vendor"], *slide.dimensions)


@pytest.mark.parametrize("path", [*SMEARS, SCANNED], ids=lambda path: path.name)
def test_the_px_are_those_of_openslide(path):
    blocks = blocks_of(path)
    for x, y, width, height in ((0, 0, 512, 512), (100, 70, 700, 300), (255, 256, 1, 1), (256, 511, 257, 2)):
        assert np.array_equal(blocks.read(x, y, width, height), through_openslide(path, x, y, width, height))
    blocks.close()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_area_is_put_together_as_openslide_does(data):
    blocks = blocks_of(SCANNED)
    columns, rows = blocks._page.imagewidth, blocks._page.imagelength
    x, y = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    width, height = data.draw(st.integers(1, min(700, columns - x))), data.draw(st.integers(1, min(700, rows - y)))
    assert np.array_equal(blocks.read(x, y, width, height), through_openslide(SCANNED, x, y, width, height))
    blocks.close()


def test_at_most_32_megabytes_of_decoded_blocks_are_kept(monkeypatch):
    monkeypatch.setattr("annotation.slides.blocks.CACHED_BYTES", 3 * 256 * 256 * 3)
    blocks = blocks_of(SMEARS[0])
    first = blocks.read(0, 0, 2048, 256)
    assert len(blocks._decoded) == 3
    assert np.array_equal(blocks.read(0, 0, 2048, 256), first)
    blocks.close()


@pytest.mark.parametrize("area", [(-1, 0, 10, 10), (0, -1, 10, 10), (5880, 0, 10, 10), (0, 5115, 10, 10)])
def test_outside_the_picture_is_left_to_openslide(area):
    blocks = blocks_of(SMEARS[0])
    with pytest.raises(BlockError):
        blocks.read(*area)
    blocks.close()


def test_other_formats_are_left_to_openslide(tmp_path):
    assert TiffBlocks.of(SMEARS[0], "ventana", 5888, 5120) is None
    assert TiffBlocks.of(SMEARS[0], "aperio", 100, 100) is None
    striped, grey = tmp_path / "striped.tif", tmp_path / "grey.tif"
    tifffile.imwrite(striped, np.zeros((512, 512, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(grey, np.zeros((512, 512), np.uint8), tile=(256, 256))
    assert TiffBlocks.of(striped, "generic-tiff", 512, 512) is None
    assert TiffBlocks.of(grey, "generic-tiff", 512, 512) is None
    (tmp_path / "text.tif").write_text("text")
    assert TiffBlocks.of(tmp_path / "text.tif", "generic-tiff", 512, 512) is None


def test_a_file_that_reads_otherwise_than_through_openslide_is_left_to_it(monkeypatch):
    true = through_openslide(SMEARS[0], 600, 600, 512, 512)
    read = TiffBlocks.read
    monkeypatch.setattr(TiffBlocks, "read", lambda self, *area: 255 - read(self, *area))
    with SlideReader(SMEARS[0]) as reader:
        assert np.array_equal(reader.read_area(600, 600, 512, 512, columns=512, rows=512), true)
        assert np.array_equal(reader.read_area(600, 600, 512, 512, columns=512, rows=512), true)


def test_a_readers_tiles_come_from_the_blocks(monkeypatch):
    asked = []
    read_region = SlideReader._read_region
    monkeypatch.setattr(
        SlideReader, "_read_region", lambda self, *area: asked.append(area[2]) or read_region(self, *area)
    )
    with SlideReader(SMEARS[0]) as reader:
        for x in (0, 512, 1024):
            tile = reader.read_tile(x, 512)
            assert np.array_equal(tile, through_openslide(SMEARS[0], x, 512, 512, 512))
    assert asked == [(reader_module._SAMPLE_SIZE,) * 2]


def test_a_tile_that_reaches_over_the_edge_comes_from_openslide_and_its_outside_is_white():
    with SlideReader(SMEARS[0]) as reader:
        tile = reader.read_tile(5888 - 256, 0)
        assert (tile[:, 256:] == 255).all()
        assert np.array_equal(tile[:, :256], through_openslide(SMEARS[0], 5888 - 256, 0, 256, 512))
        assert np.array_equal(reader.read_tile(0, 0), through_openslide(SMEARS[0], 0, 0, 512, 512))


def test_a_damaged_block_is_named_as_openslide_names_it(tmp_path):
    path = tmp_path / "damaged.svs"
    shutil.copy(SMEARS[0], path)
    with tifffile.TiffFile(path) as tiff, path.open("r+b") as file:
        file.seek(tiff.pages.first.dataoffsets[3])
        file.write(b"\0" * tiff.pages.first.databytecounts[3])
    with SlideReader(path) as reader:
        reader.read_tile(0, 0)
        with pytest.raises(SlideError, match=r"damaged\.svs opens, but a part of its picture cannot be read"):
            reader.read_tile(600, 0)
