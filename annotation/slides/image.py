"""Plain images (PNG, JPEG, BMP, WebP and TIFFs that are no whole slides) through Pillow, with a slide reader's methods.

A plain image is a slide that is its own single tile: its px are level-0 px, and it is held in memory as a whole.
"""

import math
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from annotation.slides.reader import (
    SLIDE_SUFFIXES,
    WHITE,
    Pixels,
    SlideError,
    SlideInfo,
    SlideReader,
    check_file,
    check_mpp,
    ends_early,
    truncated,
)

VENDOR = "image"
MOST_SIDE = 4096
LEAST_SIDE = 32
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
READABLE_SUFFIXES = SLIDE_SUFFIXES + IMAGE_SUFFIXES
# A file with a scanner's suffix that OpenSlide takes for an ordinary TIFF is a slide it cannot read, and no image.
ORDINARY_TIFF_SUFFIXES = (".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
# Cameras write 10, 12 or 14 bits into 16. A bright-field picture has white in it, so its maximum tells which.
_GREY_BITS = (8, 10, 12, 14, 16)


class ImageReader:
    """One plain image, decoded; a context manager with the methods of SlideReader that tiles are read with.

    The picture is upright (EXIF orientation applied), 8-bit RGB, transparent px on white. `name` is what messages
    call the file. `mpp`, in um/px, is what the lead states: a resolution written in the file is a printing or screen
    resolution and is not read. Raises SlideError if the file is no such image, or larger or smaller than is taken.
    """

    def __init__(self, path: Path, *, name: str | None = None, mpp: float | None = None) -> None:
        self.path = path
        self.name = name or path.name
        check_mpp(mpp, self.name)
        check_file(path, self.name)
        self._picture = _decode(path, self.name)
        self.info = SlideInfo(
            vendor=VENDOR, width=self._picture.width, height=self._picture.height, mpp=mpp, objective_power=None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._picture.close()

    @property
    def mpp(self) -> float | None:
        """Microns per px as the lead stated them; None: not known."""
        return self.info.mpp

    def read_area(self, x: float, y: float, width: float, height: float, *, columns: int, rows: int) -> Pixels:
        """The rectangle (x, y, width, height) of the image's px, resampled to uint8 (rows, columns, 3), RGB.

        Px that do not lie wholly on the image are white. At one to one and whole px nothing is resampled.
        """
        first, last = _inside(x, width, columns, self.info.width)
        top, bottom = _inside(y, height, rows, self.info.height)
        area = np.full((rows, columns, 3), 255, np.uint8)
        if last > first and bottom > top:
            across, down = width / columns, height / rows
            box = (x + first * across, y + top * down, x + last * across, y + bottom * down)
            area[top:bottom, first:last] = self._resized((last - first, bottom - top), box)
        return area

    def thumbnail(self, max_side: int) -> Pixels:
        """The whole image, its longer side `max_side` px or its own size if smaller: uint8 (h, w, 3), RGB."""
        width, height = self.info.width, self.info.height
        scale = max(1.0, max(width, height) / max_side)
        columns, rows = max(1, round(width / scale)), max(1, round(height / scale))
        return self.read_area(0, 0, width, height, columns=columns, rows=rows)

    def _resized(self, size: tuple[int, int], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        # A rounding error must not reach past the image's edge: Pillow refuses such a box.
        left, top = max(box[0], 0.0), max(box[1], 0.0)
        right, bottom = min(box[2], float(self.info.width)), min(box[3], float(self.info.height))
        return np.asarray(self._picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom)))


def open_reader(path: Path, *, name: str | None = None, mpp: float | None = None) -> SlideReader | ImageReader:
    """The reader for a file, chosen by what it is: OpenSlide for what it opens, Pillow for images.

    An ordinary TIFF picture, which OpenSlide refuses, is an image. Raises SlideError.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageReader(path, name=name, mpp=mpp)
    try:
        return SlideReader(path, name=name, mpp=mpp)
    except SlideError as error:
        if error.code != "ordinary-tiff" or path.suffix.lower() not in ORDINARY_TIFF_SUFFIXES:
            raise
    return ImageReader(path, name=name, mpp=mpp)


def _decode(path: Path, name: str) -> Image.Image:
    """The picture in a file as upright 8-bit RGB. Raises SlideError; what is too large is refused undecoded."""
    if ends_early(path):
        raise truncated(name)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_header(image, name)
            deep_colour = image.mode in ("RGB", "RGBA") and ";16" in str(image.tile)
            image.load()
            picture = _rgb(ImageOps.exif_transpose(image), name)
    except (SlideError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, "hundreds of millions of px") from error
    except UnidentifiedImageError as error:
        raise SlideError(f"{name} is not an image that Marrowloop reads, whatever its name says.") from error
    except Exception as error:  # a damaged file fails in as many ways as there are files
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise truncated(name) from error
        raise SlideError(f"{name} cannot be decoded: the file is probably damaged; copy it again.") from error
    if deep_colour:
        _check_depth(picture, name)
    return picture


def _check_header(image: Image.Image, name: str) -> None:
    width, height = image.size
    if max(width, height) > MOST_SIDE:
        raise _too_large(name, f"{width} x {height} px")
    if min(width, height) < LEAST_SIDE:
        raise SlideError(
            f"{name} is {width} x {height} px: an image has at least {LEAST_SIDE} px on each side.", code="too-small"
        )
    # Photographs may carry a preview behind the picture ("MPO"); a JPEG's first picture is the photograph.
    pictures = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    if pictures > 1:
        raise SlideError(
            f"{name} holds {pictures} pictures (pages, or an animation): save the one to annotate as its own file.",
            code="several-pictures",
        )


def _too_large(name: str, size: str) -> SlideError:
    return SlideError(
        f"{name} is too large for a plain image ({size}; at most {MOST_SIDE} px on a side). Import it as a whole "
        "slide: save it as a tiled TIFF, which is cut into tiles.",
        code="too-large",
    )


def _check_depth(picture: Image.Image, name: str) -> None:
    """Pillow keeps the upper 8 of 16 bits per colour: of 12 bits written into 16 that leaves a black picture."""
    if np.asarray(picture).max() < 2**6:
        raise SlideError(
            f"{name} has 16 bits per colour and uses only the lower ones, which would look nearly black: "
            "save it with 8 bits per colour."
        )


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image))
    if image.mode in ("I", "F"):
        raise SlideError(
            f"{name} holds numbers of 32 bits per px, which are measurements and no picture: save it with 8 bits."
        )
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        picture = Image.new("RGB", image.size, WHITE)
        picture.paste(coloured, mask=coloured.getchannel("A"))
        return picture
    return image.convert("RGB")


def _grey(values: NDArray[np.uint16]) -> Image.Image:
    """16-bit grey as 8-bit RGB: the upper eight of the bits that the camera used."""
    used = next(bits for bits in _GREY_BITS if int(values.max()) < 2**bits)
    return Image.fromarray((values >> (used - 8)).astype(np.uint8)).convert("RGB")


def _inside(start: float, length: float, outputs: int, limit: int) -> tuple[int, int]:
    """First and last (exclusive) of the px that [start, start + length) resamples to that lie on 0..limit wholly."""
    step = length / outputs
    first = max(0, math.ceil(-start / step - 1e-6))
    return first, min(outputs, math.floor((limit - start) / step + 1e-6))
