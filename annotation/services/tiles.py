"""Pixels of tiles, read from their slides."""

import io
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from annotation.formats.records import LabelledBox
from annotation.models import Box, Slide, Tile
from annotation.services.slide_files import slide_paths
from annotation.services.storage import cache_dir, write_whole
from annotation.slides.image import ImageReader
from annotation.slides.reader import SlideReader

logger = logging.getLogger(__name__)

# 4:4:4: a granule's colour is the diagnosis, and chroma subsampling blurs it.
JPEG_QUALITY = 92
CROP_SIDE = 96  # px
CROP_MARGIN = 1.25  # of the box's larger side: some of what lies around a cell belongs to its picture
OUTSIDE_TILE = "#3a3a3a"  # the editor's ground
NEIGHBOURHOOD_SIDE = 1152  # px, for three extents


@contextmanager
def open_slide(slide: Slide) -> Iterator[SlideReader | ImageReader]:
    """A reader of the slide's file, which stays where it is until the reader is closed.

    Raises SlideError when the file is gone, has changed or can no longer be read, StorageError when storage cannot be
    reached. Which reader was settled at import by what the file is; it is not asked again.
    """
    reader = ImageReader if slide.is_image else SlideReader
    with slide_paths(slide) as paths, closing(reader(paths[0], name=slide.name, mpp=slide.mpp)) as opened:
        yield opened


class TileReader:
    """Reads tiles one after the other, as a context manager: a slide stays open for as long as its tiles follow."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._reader: SlideReader | ImageReader | None = None
        self._slide: int | None = None

    def __enter__(self) -> "TileReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def read(self, tile: Tile) -> np.ndarray:
        """The tile's pixels, uint8 (height, width, 3) RGB. Raises SlideError."""
        if self._reader is None or self._slide != tile.slide_id:
            self._stack.close()
            self._reader = None
            self._reader, self._slide = self._stack.enter_context(open_slide(tile.slide)), tile.slide_id
        across, down = tile.extents
        return self._reader.read_area(tile.x, tile.y, across, down, columns=tile.width, rows=tile.height)


def read_tiles(tiles: Iterable[Tile]) -> Iterator[tuple[Tile, np.ndarray]]:
    """Each tile with its pixels, uint8 (height, width, 3) RGB; a slide stays open for as long as its tiles follow."""
    with TileReader() as reader:
        for tile in tiles:
            yield tile, reader.read(tile)


def read_tile(tile: Tile) -> np.ndarray:
    """The tile's pixels, uint8 (height, width, 3) RGB."""
    return next(pixels for _, pixels in read_tiles([tile]))


def tile_jpeg(tile: Tile, read: Callable[[Tile], np.ndarray] = read_tile) -> bytes:
    """The tile as the browser gets it, kept in the cache folder; `read` gives its pixels where it is not there yet."""
    path = cache_dir() / "tiles" / str(tile.slide_id) / f"{tile.pk}.jpg"
    return _cached(path, lambda: encode_jpeg(read(tile)))


def slide_jpeg(slide: Slide, side: int) -> bytes:
    """The whole slide in at most `side` px, from its pyramid; never its label or macro image."""

    def draw() -> bytes:
        with open_slide(slide) as reader:
            return encode_jpeg(reader.thumbnail(side))

    return _cached(cache_dir() / "slides" / f"{slide.pk}-{side}.jpg", draw)


def encode_jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _cached(path: Path, draw: Callable[[], bytes]) -> bytes:
    if path.exists():
        return path.read_bytes()
    data = draw()
    try:
        write_whole(path, data)
    except OSError as error:  # the disk is full: the picture is there all the same
        logger.warning("not kept in the cache folder: %s", error)
    return data


def crop_jpeg(box: Box) -> bytes:
    """The square around a box, 96 x 96 px, cut from its tile and kept in the cache folder. Raises SlideError."""
    tile = box.annotation.tile
    path = cache_dir() / "crops" / str(tile.slide_id) / str(tile.pk) / f"{box.pk}.jpg"
    return _cached(path, lambda: encode_jpeg(crop_around(read_tile(tile), box)))


def place_jpeg(tile: Tile, place: Box) -> bytes:
    """The same around any place of a tile: a box that is in no annotation. Raises SlideError."""
    name = f"at-{place.x:g}-{place.y:g}-{place.width:g}-{place.height:g}.jpg"
    path = cache_dir() / "crops" / str(tile.slide_id) / str(tile.pk) / name
    return _cached(path, lambda: encode_jpeg(crop_around(read_tile(tile), place)))


def crop_around(pixels: np.ndarray, box: Box | LabelledBox) -> np.ndarray:
    """The square around the box's centre of 1.25 x its larger side, uint8 (96, 96, 3); grey outside the tile.

    `pixels` are the tile's, uint8 (height, width, 3); the square is resampled (bicubic) from whole px.
    """
    side = CROP_MARGIN * max(box.width, box.height)
    left, top = box.x + (box.width - side) / 2, box.y + (box.height - side) / 2
    first_x, first_y = math.floor(left), math.floor(top)
    whole = math.ceil(side) + 1
    square = Image.new("RGB", (whole, whole), OUTSIDE_TILE)
    square.paste(Image.fromarray(pixels), (-first_x, -first_y))
    part = (left - first_x, top - first_y, left - first_x + side, top - first_y + side)
    return np.asarray(square.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC, box=part))


def is_whole_slide(tile: Tile) -> bool:
    """Whether the tile shows all that its slide has, as a plain image's tile does: nothing lies around it."""
    across, down = tile.extents
    return tile.x == 0 and tile.y == 0 and across >= tile.slide.width and down >= tile.slide.height


def neighbourhood_jpeg(tile: Tile) -> bytes:
    """The 3 x 3 extents around the tile, 1152 x 1152 px with the tile as the centre third; white outside the slide.

    Kept in the cache folder. Raises SlideError.
    """

    def draw() -> bytes:
        extent = tile.extent
        with open_slide(tile.slide) as reader:
            pixels = reader.read_area(
                tile.x - extent,
                tile.y - extent,
                3 * extent,
                3 * extent,
                columns=NEIGHBOURHOOD_SIDE,
                rows=NEIGHBOURHOOD_SIDE,
            )
        return encode_jpeg(pixels)

    return _cached(cache_dir() / "neighbourhoods" / str(tile.slide_id) / f"{tile.pk}.jpg", draw)
