"""The first level of a tiled TIFF, block by block: several times as fast as through OpenSlide, which composites each
block as a picture with transparency.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Self

import numpy as np
import tifffile
from numpy.typing import NDArray

# What OpenSlide calls the formats whose first page is their first level, in blocks edge to edge.
VENDORS = ("aperio", "generic-tiff")
CACHED_BYTES = 32_000_000  # of decoded blocks, as many as OpenSlide keeps

Pixels = NDArray[np.uint8]


class BlockError(Exception):
    """An area, or the whole file, that this reader leaves to OpenSlide."""


class TiffBlocks:
    """The open first page of a TIFF file; to be used by one thread.

    Raises BlockError unless the page is cut into blocks of 8-bit RGB and `width` x `height` px large.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        try:
            self._file = tifffile.TiffFile(path)
        except (tifffile.TiffFileError, OSError) as error:
            raise BlockError(str(error)) from error
        try:
            self._page = self._first_page(width, height)
        except BaseException:
            self._file.close()
            raise
        self._columns = -(-width // self._page.tilewidth)
        self._decoded: OrderedDict[int, Pixels] = OrderedDict()
        self._most = max(1, CACHED_BYTES // (self._page.tilewidth * self._page.tilelength * 3))

    @classmethod
    def of(cls, path: Path, vendor: str, width: int, height: int) -> Self | None:
        """The blocks of a slide's first level, or None if it is not of a kind that can be read so."""
        try:
            return cls(path, width, height) if vendor in VENDORS else None
        except BlockError:
            return None

    def _first_page(self, width: int, height: int) -> tifffile.TiffPage:
        page = self._file.pages.first
        rgb = page.shape == (height, width, 3) and page.dtype == np.uint8 and page.planarconfig == 1
        if not (rgb and page.is_tiled and isinstance(page, tifffile.TiffPage)):
            raise BlockError("not blocks of 8-bit RGB")
        return page

    def close(self) -> None:
        self._file.close()

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """The area of these px: uint8 (height, width, 3), RGB.

        Raises BlockError if it reaches outside the picture, or if one of its blocks is missing or damaged.
        """
        page = self._page
        if left < 0 or top < 0 or left + width > page.imagewidth or top + height > page.imagelength:
            raise BlockError("outside the picture")
        area = np.empty((height, width, 3), np.uint8)
        for row in range(top // page.tilelength, -(-(top + height) // page.tilelength)):
            for column in range(left // page.tilewidth, -(-(left + width) // page.tilewidth)):
                y, x = row * page.tilelength - top, column * page.tilewidth - left
                block = self._block(row * self._columns + column)[max(0, -y) : height - y, max(0, -x) : width - x]
                area[max(0, y) : y + page.tilelength, max(0, x) : x + page.tilewidth] = block
        return area

    def _block(self, index: int) -> Pixels:
        if index in self._decoded:
            self._decoded.move_to_end(index)
            return self._decoded[index]
        page = self._page
        self._file.filehandle.seek(page.dataoffsets[index])
        data = self._file.filehandle.read(page.databytecounts[index])
        try:
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # each codec has errors of its own
            raise BlockError(str(error)) from error
        if decoded is None or decoded.ndim != 4:
            raise BlockError("a missing block")
        self._decoded[index] = decoded[0]
        if len(self._decoded) > self._most:
            self._decoded.popitem(last=False)
        return self._decoded[index]
