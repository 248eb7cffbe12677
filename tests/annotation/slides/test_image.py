"""Plain images: real files of every kind that people save, written here and read back."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotation.slides.image import LEAST_SIDE, MOST_SIDE, ImageReader, open_reader
from annotation.slides.reader import SlideError, SlideReader

SHARED_DATA = Path(__file__).resolve().parents[3] / "../shared/data"
RGB = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def save(path, pixels=RGB, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def whole(path):
    with open_reader(path) as reader:
        width, height = reader.info.width, reader.info.height
        return reader.read_area(0, 0, width, height, columns=width, rows=height)


def refusal(path, name=None):
    with pytest.raises(SlideError) as refused:
        open_reader(path, name=name)
    return refused.value


# Kinds of files


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff"])
def test_a_lossless_image_keeps_its_px(tmp_path, suffix):
    assert (whole(save(tmp_path / f"a{suffix}")) == RGB).all()


def test_a_lossless_webp_keeps_its_px(tmp_path):
    assert (whole(save(tmp_path / "a.webp", lossless=True)) == RGB).all()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_a_jpeg_is_read_as_pillow_decodes_it(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}")
    with Image.open(path) as image:
        assert (whole(path) == np.asarray(image)).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_a_compressed_tiff_is_read(tmp_path, compression):
    found = whole(save(tmp_path / "a.tif", compression=compression))
    assert found.shape == RGB.shape
    assert abs(found.mean() - RGB.mean()) < 1


def test_what_it_says_of_itself(tmp_path):
    with open_reader(save(tmp_path / "a.png", dpi=(72, 72)), mpp=None) as reader:
        assert (reader.info.vendor, reader.info.width, reader.info.height) == ("image", 90, 60)
        assert reader.mpp is None  # a screen resolution is no pixel size
        assert reader.info.objective_power is None
    with open_reader(tmp_path / "a.png", mpp=0.1) as reader:
        assert reader.mpp == reader.info.mpp == 0.1


def test_a_pixel_size_that_no_scanner_has_is_refused(tmp_path):
    with pytest.raises(SlideError, match=r"a\.png: 72") as refused:
        open_reader(save(tmp_path / "a.png"), mpp=72)
    assert refused.value.code == "mpp-implausible"


# Colours


def test_grey_bilevel_and_palette_become_rgb(tmp_path):
    image = Image.fromarray(GREY)
    image.save(tmp_path / "grey.png")
    image.convert("1").save(tmp_path / "bilevel.png")
    Image.fromarray(RGB).quantize(256).save(tmp_path / "palette.png")
    assert (whole(tmp_path / "grey.png") == GREY[..., None]).all()
    assert set(np.unique(whole(tmp_path / "bilevel.png"))) == {0, 255}
    assert (whole(tmp_path / "palette.png") == np.asarray(Image.fromarray(RGB).quantize(256).convert("RGB"))).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_becomes_8_bit(tmp_path, suffix):
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), RGB[..., ::-1].astype(np.uint16) * 257)
    assert (whole(path) == RGB).all()


def test_12_bit_colour_written_into_16_is_refused_because_it_would_be_black(tmp_path):
    path = tmp_path / "camera.tif"
    cv2.imwrite(str(path), RGB[..., ::-1].astype(np.uint16) * 16)
    assert "camera.tif has 16 bits per colour" in str(refusal(path))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_grey_is_scaled_by_the_bits_that_it_uses(tmp_path, bits, suffix):
    values = GREY.astype(np.uint16) << (bits - 8)
    values[0, 0] = 2**bits - 1
    path = save(tmp_path / f"deep{suffix}", values)
    assert (whole(path)[1:] == GREY[1:, :, None]).all()


def test_numbers_of_32_bits_are_no_picture(tmp_path):
    path = save(tmp_path / "measured.tif", np.random.default_rng(0).random((60, 90), dtype=np.float32))
    assert "measured.tif holds numbers of 32 bits" in str(refusal(path))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_transparent_px_are_white_and_half_transparent_ones_paler(tmp_path, suffix):
    pixels = np.zeros((60, 90, 4), np.uint8)
    pixels[..., 0] = 100
    pixels[:30, :, 3], pixels[30:, :45, 3] = 255, 51
    options = {"lossless": True} if suffix == ".webp" else {}
    found = whole(save(tmp_path / f"a{suffix}", pixels, **options))
    assert found[0, 0].tolist() == [100, 0, 0]
    assert found[40, 0].tolist() == [224, 204, 204]
    assert found[40, 80].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_is_laid_on_white(tmp_path):
    image = Image.new("P", (90, 60), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(1, (45, 0, 90, 60))
    image.save(tmp_path / "a.png", transparency=0)
    found = whole(tmp_path / "a.png")
    assert (found[0, 0].tolist(), found[0, 80].tolist()) == ([255, 255, 255], [40, 50, 60])


def test_cmyk_becomes_rgb(tmp_path):
    image = Image.new("CMYK", (90, 60), (0, 255, 0, 0))
    image.save(tmp_path / "a.jpg", quality=100)
    assert np.abs(whole(tmp_path / "a.jpg").astype(int) - [255, 0, 255]).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_picture_taken_sideways_is_upright(tmp_path, suffix):
    pixels = np.full((60, 90, 3), 255, np.uint8)
    pixels[:20, :20] = 0  # at the camera's top left, which orientation 6 turns to the top right
    turned = Image.Exif()
    turned[0x0112] = 6
    found = whole(save(tmp_path / f"a{suffix}", pixels, exif=turned))
    assert found.shape == (90, 60, 3)
    assert found[5, 55].max() < 10
    assert found[5, 5].min() > 245


# Areas


@pytest.fixture
def reader(tmp_path):
    with ImageReader(save(tmp_path / "a.png")) as reader:
        yield reader


@pytest.fixture(scope="module")
def one_reader(tmp_path_factory):
    with ImageReader(save(tmp_path_factory.mktemp("images") / "a.png")) as reader:
        yield reader


def test_an_area_is_pixel_exact_and_white_outside(reader):
    area = reader.read_area(-10, 40, 30, 30, columns=30, rows=30)
    assert (area[:20, 10:] == RGB[40:60, :20]).all()
    assert (area[20:] == 255).all()
    assert (area[:, :10] == 255).all()


def test_an_area_beyond_the_image_is_white(reader):
    assert (reader.read_area(200, 200, 50, 50, columns=10, rows=20) == 255).all()
    assert reader.read_area(200, 200, 50, 50, columns=10, rows=20).shape == (20, 10, 3)


@given(
    st.floats(-120, 120),
    st.floats(-120, 120),
    st.floats(1, 300),
    st.floats(1, 300),
    st.integers(1, 64),
    st.integers(1, 64),
)
def test_any_area_has_the_size_that_was_asked_for(one_reader, x, y, width, height, columns, rows):
    assert one_reader.read_area(x, y, width, height, columns=columns, rows=rows).shape == (rows, columns, 3)


def test_an_area_around_the_image_shows_it_in_its_place(reader):
    """As the neighbourhood of a tile does: three times its size, at a third of the resolution."""
    area = reader.read_area(-90, -60, 270, 180, columns=90, rows=60)
    assert (area[:20] == 255).all()
    assert (area[:, :30] == 255).all()
    assert (area[:, 60:] == 255).all()
    assert area[20:40, 30:60].mean() == pytest.approx(RGB.mean(), abs=2)


def test_a_thumbnail_keeps_the_shape_and_is_never_enlarged(reader):
    assert reader.thumbnail(45).shape == (30, 45, 3)
    assert (reader.thumbnail(500) == RGB).all()
    assert reader.thumbnail(30).mean() == pytest.approx(RGB.mean(), abs=2)


# Which reader


def test_a_whole_slide_is_read_as_one_whatever_its_size(smear):
    with open_reader(smear) as reader:
        assert isinstance(reader, SlideReader)


def test_a_tiff_that_openslide_opens_stays_a_slide():
    with open_reader(SHARED_DATA / "wsi/boxes.tiff") as reader:
        assert isinstance(reader, SlideReader)


def test_a_tiff_with_the_suffix_of_a_scanner_is_no_image(tmp_path):
    path = save(tmp_path / "a.png").rename(tmp_path / "a.svs")
    assert refusal(path).code == "unreadable"
    Image.fromarray(RGB).save(path, format="TIFF")
    assert refusal(path).code == "ordinary-tiff"


def test_an_image_is_read_by_what_it_is_when_its_name_says_another_kind(tmp_path):
    path = save(tmp_path / "a.bmp").rename(tmp_path / "a.png")
    assert (whole(path) == RGB).all()


# What is refused


@pytest.mark.parametrize("size", [(MOST_SIDE + 1, 40), (40, MOST_SIDE + 1)])
def test_a_large_image_is_refused_and_told_what_it_should_be(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "wide.png")
    error = refusal(tmp_path / "wide.png")
    assert error.code == "too-large"
    assert f"wide.png is too large for a plain image ({size[0]} x {size[1]} px; at most 4096" in str(error)
    assert "Import it as a whole slide" in str(error)


def test_the_largest_and_the_smallest_are_taken(tmp_path):
    Image.new("L", (MOST_SIDE, LEAST_SIDE)).save(tmp_path / "a.png")
    assert whole(tmp_path / "a.png").shape == (LEAST_SIDE, MOST_SIDE, 3)


@pytest.mark.parametrize("size", [(31, 200), (200, 31), (1, 1)])
def test_a_tiny_image_is_refused(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "icon.png")
    error = refusal(tmp_path / "icon.png")
    assert error.code == "too-small"
    assert f"icon.png is {size[0]} x {size[1]} px" in str(error)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000])  # below and beyond what Pillow itself takes for a bomb
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch, side):
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    error = refusal(tmp_path / "bomb.png")
    assert error.code == "too-large"
    assert "bomb.png" in str(error)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_an_animation_or_several_pages_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(np.roll(RGB, step, axis=0)) for step in range(3)]
    frames[0].save(tmp_path / f"many{suffix}", save_all=True, append_images=frames[1:])
    error = refusal(tmp_path / f"many{suffix}")
    assert error.code == "several-pictures"
    assert f"many{suffix} holds 3 pictures" in str(error)


def test_the_preview_behind_a_photograph_does_not_matter(tmp_path):
    first = Image.fromarray(RGB)
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[first.resize((45, 30))])
    assert whole(tmp_path / "phone.jpg").shape == RGB.shape


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_was_cut_short_is_refused(tmp_path, suffix, share):
    data = save(tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * share)])
    error = refusal(tmp_path / f"cut{suffix}")
    assert error.code in ("truncated", "unreadable")
    assert str(error).startswith(f"cut{suffix} ")
    assert "copy it again" in str(error).lower()


def test_a_damaged_file_is_refused(tmp_path):
    data = bytearray(save(tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "hit.png").write_bytes(data)
    assert "hit.png cannot be decoded" in str(refusal(tmp_path / "hit.png"))


@pytest.mark.parametrize("content", [b"Dear colleague, " * 50, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF0000WEBP"])
def test_a_file_that_only_has_the_name_of_an_image_is_refused(tmp_path, content):
    (tmp_path / "letter.png").write_bytes(content)
    assert str(refusal(tmp_path / "letter.png")).startswith("letter.png ")


def test_another_format_is_refused_whatever_its_name(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", format="GIF")
    assert "a.png is not an image that Marrowloop reads" in str(refusal(tmp_path / "a.png"))


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "none.png").touch()
    assert refusal(tmp_path / "none.png").code == "empty"
    assert refusal(tmp_path / "absent.jpg").code == "missing"
    (tmp_path / "folder.png").mkdir()
    assert refusal(tmp_path / "folder.png").code == "missing"


def test_messages_use_the_given_name_and_never_show_where_a_file_is_stored(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    error = refusal(tmp_path / "0.png", name="Müller 7.png")
    assert str(error).startswith("Müller 7.png is 20 x 20 px")
    assert str(tmp_path) not in str(error)


@pytest.mark.parametrize(("folder", "shape"), [("bccd", (480, 640, 3)), ("pbc_boxes", (363, 360, 3))])
def test_every_real_image_is_read(folder, shape):
    for path in sorted((SHARED_DATA / folder / "images").iterdir())[::10]:
        found = whole(path)
        assert found.shape[2] == 3
        assert np.abs(np.subtract(found.shape, shape)).max() <= 10, path.name
        assert found.std() > 10
