import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotation.slides import reader as reader_module
from annotation.slides.reader import SlideError, SlideReader, check_readable, group_files, tile_extent

DATA = Path(__file__).resolve().parents[3] / "../shared/data"
WSI = DATA / "wsi"
SMEARS = sorted((DATA / "smears").glob("*.svs")) + sorted((DATA / "smears").glob("*.tif"))
UNREADABLE = sorted((WSI / "unreadable").iterdir())


def write_slide(path, pixels, *, mpp=(0.25, 0.25), levels=1, bigtiff=False):
    """A tiled, uncompressed TIFF of exactly these pixels, each further level half the size of the one before."""
    resolution = None if mpp is None else (10000 / mpp[0], 10000 / mpp[1])
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for level in range(levels):
            picture = Image.fromarray(pixels).reduce(2**level) if level else pixels
            writer.write(
                np.asarray(picture),
                tile=(256, 256),
                photometric="rgb",
                resolution=resolution,
                resolutionunit="CENTIMETER" if mpp else "NONE",
                subfiletype=1 if level else 0,
                metadata=None,
            )
    return path


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width, height):
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    wave = 127 + 60 * np.sin(x) + 60 * np.cos(y)
    return np.stack([wave, 255 - wave, wave], axis=2).astype(np.uint8)


def cut(source, folder, *, share=None, missing=0):
    """A copy of `source` that ends early."""
    length = source.stat().st_size
    data = source.read_bytes()[: int(length * share) if share else length - missing]
    copy = folder / f"cut{source.suffix}"
    copy.write_bytes(data)
    return copy


def refusal(path, **options):
    """The SlideError of opening and checking a file."""
    with pytest.raises(SlideError) as caught, SlideReader(path, **options) as reader:
        check_readable(reader)
    return caught.value


@pytest.mark.parametrize("path", SMEARS, ids=lambda path: path.name)
def test_every_smear_is_readable_and_says_what_it_is(path):
    with SlideReader(path) as reader:
        check_readable(reader)
        assert (reader.info.width, reader.info.height, reader.info.mpp) == (5888, 5120, 0.25)
        assert reader.info.vendor == ("aperio" if path.suffix == ".svs" else "generic-tiff")
        assert reader.info.objective_power == (40 if path.suffix == ".svs" else None)


@pytest.mark.parametrize(
    "name", ["cmu-1-small-region.svs", "small.svs", "dapi.ndpi", "dicom/boxes_0.dcm", "boxes.tiff"]
)
def test_every_vendor_file_is_readable(name):
    with SlideReader(WSI / name) as reader:
        check_readable(reader)


@pytest.mark.parametrize("path", UNREADABLE, ids=lambda path: path.name)
def test_it_refuses_what_openslide_refuses_and_names_the_file(path):
    error = refusal(path, name="Müller 12.svs")
    assert error.code == ("ordinary-tiff" if path.name == "plain.tif" else "unreadable")
    assert str(error).startswith("Müller 12.svs is ")
    assert path.name not in str(error)


def test_it_says_that_an_ordinary_tiff_is_not_a_slide():
    assert "ordinary TIFF" in str(refusal(WSI / "unreadable" / "plain.tif"))


def test_it_refuses_an_empty_file(tmp_path):
    (tmp_path / "P01.svs").touch()
    error = refusal(tmp_path / "P01.svs")
    assert error.code == "empty"
    assert "P01.svs is empty" in str(error)


@pytest.mark.parametrize("content", [b"name,age\nnobody,40\n" * 100, b"I", b"II*\0", b"MM"])
def test_it_refuses_a_file_that_only_has_the_suffix_of_a_slide(tmp_path, content):
    path = tmp_path / "notes.svs"
    path.write_bytes(content)
    assert str(refusal(path)).startswith("notes.svs ")


def test_it_refuses_a_missing_file_and_a_folder(tmp_path):
    assert refusal(tmp_path / "gone.svs").code == "missing"
    assert refusal(tmp_path).code == "missing"


def test_messages_never_show_where_a_file_is_stored(tmp_path):
    path = cut(WSI / "dicom" / "boxes_0.dcm", tmp_path, missing=2000)
    message = str(refusal(path, name="a.dcm"))
    assert message.startswith("a.dcm ")
    assert str(tmp_path) not in message
    assert path.name not in message


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    "source",
    [SMEARS[0], DATA / "smears" / "P04.tif", WSI / "cmu-1-small-region.svs", WSI / "dapi.ndpi"],
    ids=lambda path: path.name,
)
def test_it_rejects_a_truncated_file(tmp_path, source, share):
    error = refusal(cut(source, tmp_path, share=share), name="P01.svs")
    assert error.code == "truncated"
    assert "P01.svs ends early" in str(error)


@pytest.mark.parametrize("source", [SMEARS[0], DATA / "smears" / "P04.tif"], ids=lambda path: path.name)
def test_it_rejects_a_file_that_opens_but_misses_its_last_byte(tmp_path, source):
    path = cut(source, tmp_path, missing=1)
    openslide.OpenSlide(path).close()
    assert refusal(path).code == "truncated"


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("missing", [1, 100_000])
def test_it_rejects_a_truncated_file_whose_directory_comes_first(tmp_path, bigtiff, missing):
    whole = write_slide(tmp_path / "whole.tif", noise(1024, 1024), bigtiff=bigtiff)
    with SlideReader(whole) as reader:
        check_readable(reader)
    assert refusal(cut(whole, tmp_path, missing=missing)).code == "truncated"


def test_it_rejects_a_truncated_dicom_file_that_opens(tmp_path):
    path = cut(WSI / "dicom" / "boxes_0.dcm", tmp_path, missing=500)
    openslide.OpenSlide(path).close()
    assert refusal(path).code == "truncated"


def test_it_rejects_tiles_that_do_not_decode(tmp_path):
    path = tmp_path / "damaged.svs"
    shutil.copyfile(SMEARS[0], path)
    path.chmod(0o600)
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[0].dataoffsets[-1], tiff.pages[0].databytecounts[-1]
    with path.open("r+b") as file:
        file.seek(last[0])
        file.write(bytes(last[1]))
    error = refusal(path)
    assert "damaged.svs opens, but" in str(error)
    assert str(tmp_path) not in str(error)


def test_checking_a_large_file_reads_little_of_it(tmp_path):
    """A slide of 1 GB, almost all of it a hole in the file, is checked through its directory and samples alone."""
    path = write_slide(tmp_path / "large.tif", noise(512, 512))
    os.truncate(path, 1_000_000_000)
    with SlideReader(path) as reader:
        check_readable(reader)


def test_the_given_name_is_used_in_messages_and_never_as_a_path(tmp_path):
    path = write_slide(tmp_path / "stored", noise(512, 512), mpp=None)
    with (
        SlideReader(path, name="../../etc/passwd") as reader,
        pytest.raises(SlideError, match=r"^\.\./\.\./etc/passwd"),
    ):
        _ = reader.mpp


def test_it_never_guesses_a_missing_resolution(tmp_path):
    path = write_slide(tmp_path / "a.tif", noise(512, 512), mpp=None)
    with SlideReader(path) as reader:
        assert reader.info.mpp is None
        with pytest.raises(SlideError) as caught:
            reader.read_tile(0, 0)
    assert caught.value.code == "mpp-missing"


def test_a_given_resolution_fills_in_and_overrides(tmp_path):
    missing = write_slide(tmp_path / "a.tif", noise(512, 512), mpp=None)
    known = write_slide(tmp_path / "b.tif", noise(512, 512))
    for path in (missing, known):
        with SlideReader(path, mpp=0.5) as reader:
            assert (reader.mpp, reader.info.mpp) == (0.5, 0.5)


@pytest.mark.parametrize("mpp", [0, -0.25, 353, float("nan"), float("inf")])
def test_it_refuses_a_given_resolution_that_no_scanner_has(mpp):
    assert refusal(WSI / "small.svs", mpp=mpp).code == "mpp-implausible"


def test_it_refuses_a_printing_resolution():
    with SlideReader(WSI / "boxes.tiff") as reader:
        assert reader.info.mpp is None
        with pytest.raises(SlideError, match=r"boxes\.tiff says that one px covers 352\.8") as caught:
            _ = reader.mpp
    assert caught.value.code == "mpp-implausible"


def test_pixels_that_are_nearly_square_have_the_mean_resolution(tmp_path):
    path = write_slide(tmp_path / "a.tif", noise(512, 512), mpp=(0.25, 0.254))
    with SlideReader(path) as reader:
        assert reader.mpp == pytest.approx(0.252, abs=1e-5)


def test_it_refuses_pixels_that_are_not_square(tmp_path):
    path = write_slide(tmp_path / "a.tif", noise(512, 512), mpp=(0.25, 0.26))
    with SlideReader(path) as reader, pytest.raises(SlideError, match="not square") as caught:
        _ = reader.mpp
    assert caught.value.code == "mpp-unequal"


@pytest.mark.parametrize(
    ("mpp", "extent"),
    [(0.25, 512), (0.2498, 512), (0.2549, 512), (0.2455, 512), (0.499, 257), (0.5, 256), (0.125, 1024)],
)
def test_a_tile_covers_the_level0_px_of_its_resolution(mpp, extent):
    assert tile_extent(mpp) == extent


@given(st.floats(0.02, 5))
def test_a_tile_is_within_2_percent_or_half_a_px_of_its_stated_size(mpp):
    exact = 512 * 0.25 / mpp
    assert abs(tile_extent(mpp) - exact) <= max(0.02 * 512, 0.5) + 1e-9


@pytest.mark.parametrize("mpp", [0.25, 0.2498, 0.254])
def test_a_tile_near_the_slides_own_resolution_is_pixel_exact(tmp_path, mpp):
    pixels = noise(1300, 900)
    with SlideReader(write_slide(tmp_path / "a.tif", pixels, mpp=(mpp, mpp))) as reader:
        for x, y in ((0, 0), (37, 101), (788, 388), (36.6, 100.7)):
            tile = reader.read_tile(x, y)
            assert tile.dtype == np.uint8
            assert np.array_equal(tile, pixels[round(y) : round(y) + 512, round(x) : round(x) + 512])


def test_a_tile_is_pixel_exact_from_a_level_of_the_pyramid(tmp_path):
    pixels = noise(2048, 2048)
    path = write_slide(tmp_path / "a.tif", pixels, mpp=(0.125, 0.125), levels=2)
    half = np.asarray(Image.fromarray(pixels).reduce(2))
    with SlideReader(path) as reader:
        assert np.array_equal(reader.read_tile(512, 256), half[128:640, 256:768])


@pytest.mark.parametrize("mpp", [0.1, 0.17, 0.36, 0.499])
def test_a_resampled_tile_shows_the_right_place(tmp_path, mpp):
    pixels = smooth(2600, 2200)
    extent = tile_extent(mpp)
    with SlideReader(write_slide(tmp_path / "a.tif", pixels, mpp=(mpp, mpp), levels=3)) as reader:
        tile = reader.read_tile(301, 203).astype(float)
    places = (np.arange(512) + 0.5) * extent / 512 - 0.5
    rows, columns = (203 + places).round().astype(int), (301 + places).round().astype(int)
    expected = pixels[rows][:, columns].astype(float)
    assert tile.shape == (512, 512, 3)
    assert np.abs(tile - expected).max() <= 3


@pytest.mark.parametrize("mpp", [0.17, 0.499])
def test_neighbouring_tiles_meet_without_a_seam(tmp_path, mpp):
    pixels = noise(2200, 2200)
    extent = tile_extent(mpp)
    with SlideReader(write_slide(tmp_path / "a.tif", pixels, mpp=(mpp, mpp))) as reader:
        left, right = reader.read_tile(100, 100), reader.read_tile(100 + extent, 100)
        both = reader.read_area(100, 100, 2 * extent, extent, columns=1024, rows=512)
    assert np.abs(np.hstack([left, right]).astype(int) - both).max() <= 1


def test_a_resampled_tile_at_the_slides_edge_is_not_mixed_with_the_white_beyond(tmp_path):
    pixels = np.full((1000, 1000, 3), 40, dtype=np.uint8)
    with SlideReader(write_slide(tmp_path / "a.tif", pixels, mpp=(0.5, 0.5))) as reader:
        assert (reader.read_tile(1000 - 256, 0) == 40).all()
        assert (reader.read_tile(0, 1000 - 256) == 40).all()


def test_outside_the_slide_is_white(tmp_path):
    pixels = np.full((600, 600, 3), 40, dtype=np.uint8)
    with SlideReader(write_slide(tmp_path / "a.tif", pixels)) as reader:
        tile = reader.read_tile(-100, 300)
        assert (tile[:, :100] == 255).all()
        assert (tile[300:] == 255).all()
        assert (tile[:300, 100:] == 40).all()
        assert (reader.read_tile(5000, 5000) == 255).all()


def test_a_thumbnail_keeps_the_shape_of_the_slide_and_never_enlarges_it(tmp_path):
    with SlideReader(SMEARS[0]) as reader:
        assert reader.thumbnail(400).shape == (348, 400, 3)
    with SlideReader(WSI / "small.svs") as reader:
        assert reader.thumbnail(400).shape == (16, 16, 3)


def test_a_thumbnail_looks_like_the_slide(tmp_path):
    pixels = smooth(2000, 1500)
    with SlideReader(write_slide(tmp_path / "a.tif", pixels, levels=2)) as reader:
        thumbnail = reader.thumbnail(200)
    expected = np.asarray(Image.fromarray(pixels).reduce(10))
    assert np.abs(thumbnail.astype(int) - expected).max() <= 3


def test_a_thumbnail_read_in_strips_is_the_one_read_at_once(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "a.tif", noise(1100, 1300))
    with SlideReader(path) as reader:
        at_once = reader.thumbnail(300)
        monkeypatch.setattr(reader_module, "_STRIP_PIXELS", 60_000)
        in_strips = reader.thumbnail(300)
    assert at_once.shape == in_strips.shape
    assert np.abs(at_once.astype(int) - in_strips).max() <= 1


def test_label_and_macro_are_never_read(tmp_path):
    """With the associated pictures' data wiped out, everything the reader gives is the same."""
    source = WSI / "cmu-1-small-region.svs"
    wiped = tmp_path / "wiped.svs"
    shutil.copyfile(source, wiped)
    wiped.chmod(0o600)
    with openslide.OpenSlide(source) as slide:
        assert {"label", "macro", "thumbnail"} <= set(slide.associated_images)
    with tifffile.TiffFile(source) as tiff, wiped.open("r+b") as file:
        for page in list(tiff.pages)[1:]:
            for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                file.seek(offset)
                file.write(b"\xff" * length)
    with SlideReader(source) as whole, SlideReader(wiped) as without:
        check_readable(without)
        assert np.array_equal(whole.thumbnail(300), without.thumbnail(300))
        assert np.array_equal(whole.read_tile(900, 900), without.read_tile(900, 900))


def test_the_dicom_pair_is_one_slide_and_other_files_are_one_each():
    dicom = [WSI / "dicom" / "boxes_1.dcm", WSI / "dicom" / "boxes_0.dcm"]
    others = [WSI / "small.svs", WSI / "unreadable" / "colonoscopy.dcm", WSI / "unreadable" / "plain.tif"]
    groups = group_files([dicom[0], others[0], dicom[1], *others[1:]])
    assert groups == [dicom, [others[0]], [others[1]], [others[2]]]
    with SlideReader(groups[0][0]) as reader:
        assert reader.info.vendor == "dicom"


def test_half_of_a_dicom_pair_asks_for_the_other_half(tmp_path):
    path = tmp_path / "boxes_1.dcm"
    shutil.copyfile(WSI / "dicom" / "boxes_1.dcm", path)
    error = refusal(path)
    assert error.code == "incomplete"
    assert "all files of its DICOM series" in str(error)


def test_an_error_survives_pickling_with_its_code():
    error = pickle.loads(pickle.dumps(SlideError("a.svs is empty.", code="empty")))
    assert (str(error), error.code) == ("a.svs is empty.", "empty")
