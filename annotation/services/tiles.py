"""Pixels of tiles, read from their slides."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from annotation.models import Slide, Tile
from annotation.services.storage import cache_dir, local_path, write_whole
from annotation.slides.reader import SlideError, SlideReader

# 4:4:4: a granule's colour is the diagnosis, and chroma subsampling blurs it.
JPEG_QUALITY = 92


def open_slide(slide: Slide) -> SlideReader:
    """A reader of the slide's file. Raises SlideError when the file is gone or can no longer be read."""
    try:
        paths = [local_path(name) for name in slide.files]
    except FileNotFoundError as error:
        raise SlideError(f"{slide.name}: the slide's file is missing from storage.", code="missing") from error
    return SlideReader(paths[0], name=slide.name, mpp=slide.mpp)


def read_tiles(tiles: Iterable[Tile]) -> Iterator[tuple[Tile, np.ndarray]]:
    """Each tile with its pixels, uint8 (height, width, 3) RGB; a slide stays open for as long as its tiles follow."""
    with ExitStack() as stack:
        reader, opened = None, None
        for tile in tiles:
            if reader is None or opened != tile.slide_id:
                stack.close()
                reader, opened = stack.enter_context(open_slide(tile.slide)), tile.slide_id
            yield tile, reader.read_tile(tile.x, tile.y, size=tile.width)


def read_tile(tile: Tile) -> np.ndarray:
    """The tile's pixels, uint8 (height, width, 3) RGB."""
    return next(pixels for _, pixels in read_tiles([tile]))


def tile_jpeg(tile: Tile) -> bytes:
    """The tile as the browser gets it, kept in the cache folder."""
    path = cache_dir() / "tiles" / str(tile.slide_id) / f"{tile.pk}.jpg"
    return _cached(path, lambda: encode_jpeg(read_tile(tile)))


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


def _cached(path: Path, draw: Callable[[], bytes]) -> bytes:
    if not path.exists():
        write_whole(path, draw())
    return path.read_bytes()
