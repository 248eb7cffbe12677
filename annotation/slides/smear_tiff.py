"""Writes a pyramidal TIFF that OpenSlide reads as a generic tiled slide.

Written by hand (TIFF 6.0 with JPEG tiles, technical note 2): tifffile takes JPEG only through imagecodecs, which this
project does without, and a file written here holds no date, so the same picture gives the same bytes.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

TILE = 256  # px
REDUCTIONS = (1, 4, 16)
PIXELS_PER_CENTIMETRE = 40_000  # 0.25 um per px
QUALITY = 88
SHORT, LONG, RATIONAL, ASCII = 3, 4, 5, 2  # TIFF field types
Tag = tuple[int, int, list[int] | bytes]  # number, field type, values


def write_pyramid(path: Path, picture: Image.Image) -> None:
    """Write an RGB picture as JPEG tiles of 256 px in levels 1, 4 and 16, at 0.25 um/px.

    The file appears only when it is complete. Raises OSError when the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(struct.pack("<2sHI", b"II", 42, 0))
            pointer = 4  # where the offset of the next level's directory goes
            for reduction in REDUCTIONS:
                level = picture.reduce(reduction) if reduction > 1 else picture
                pointer = _write_level(file, level, reduction, pointer)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_level(file: BinaryIO, level: Image.Image, reduction: int, pointer: int) -> int:
    """Append a level's tiles and directory, link it at `pointer`, return the place of the next link."""
    offsets, sizes = [], []
    for tile in _jpeg_tiles(level):
        offsets.append(file.tell())
        sizes.append(len(tile))
        file.write(tile + b"\0" * (len(tile) % 2))
    resolution = [PIXELS_PER_CENTIMETRE // reduction, 1]
    tags: list[Tag] = [
        (254, LONG, [0 if reduction == 1 else 1]),  # NewSubfileType: 1 is a reduced picture
        (256, LONG, [level.width]),
        (257, LONG, [level.height]),
        (258, SHORT, [8, 8, 8]),  # BitsPerSample
        (259, SHORT, [7]),  # Compression: JPEG
        (262, SHORT, [6]),  # PhotometricInterpretation: YCbCr
        (277, SHORT, [3]),  # SamplesPerPixel
        (282, RATIONAL, resolution),
        (283, RATIONAL, resolution),
        (284, SHORT, [1]),  # PlanarConfiguration: together
        (296, SHORT, [3]),  # ResolutionUnit: centimetre
        (305, ASCII, b"Marrowloop\0"),  # Software
        (322, LONG, [TILE]),
        (323, LONG, [TILE]),
        (324, LONG, offsets),
        (325, LONG, sizes),
        (530, SHORT, [1, 1]),  # YCbCrSubSampling: none
        (532, RATIONAL, [v for pair in ((0, 255), (128, 255), (128, 255)) for v in (pair[0], 1, pair[1], 1)]),
    ]
    return _write_directory(file, tags, pointer)


def _write_directory(file: BinaryIO, tags: list[Tag], pointer: int) -> int:
    start = file.tell()
    spill = start + 2 + 12 * len(tags) + 4  # values that do not fit into an entry follow the directory
    entries, later = [], b""
    for number, kind, values in tags:
        data = (
            values
            if isinstance(values, bytes)
            else struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        )
        count = len(values) // 2 if kind == RATIONAL else len(values)
        if len(data) > 4:
            data, later = struct.pack("<I", spill + len(later)), later + data + b"\0" * (len(data) % 2)
        entries.append(struct.pack("<HHI", number, kind, count) + data.ljust(4, b"\0"))
    file.write(struct.pack("<H", len(tags)) + b"".join(entries) + struct.pack("<I", 0) + later)
    end = file.tell()
    file.seek(pointer)
    file.write(struct.pack("<I", start))
    file.seek(end)
    return start + 2 + 12 * len(tags)


def _jpeg_tiles(level: Image.Image) -> Iterator[bytes]:
    for row in range(math.ceil(level.height / TILE)):
        for column in range(math.ceil(level.width / TILE)):
            left, top = column * TILE, row * TILE
            tile = level.crop((left, top, left + TILE, top + TILE))  # beyond the edge: black, never shown
            target = io.BytesIO()
            tile.save(target, "JPEG", quality=QUALITY, subsampling=0)
            yield target.getvalue()
