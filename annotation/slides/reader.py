"""Whole-slide images through OpenSlide: what a file says of itself, its tiles, and whether it is whole.

Slide label, macro and thumbnail pictures stored beside the scan can carry names, so no function here reads a pixel
of them: every picture is made from the scan's own levels. A SlideReader is not shared between threads or processes;
each opens its own.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from annotation.slides.blocks import BlockError, TiffBlocks

TILE_SIZE = 512
TILE_MPP = 0.25
# Scanners sold as 40x differ a little from 0.25 um/px. Within 2 % a tile takes the slide's own pixels: no resampling
# blurs the chromatin, and a cell of 12 um looks at most 0.24 um larger or smaller than at exactly 0.25 um/px.
NATIVE_TOLERANCE = 0.02
# Pixels further from square than this would distort the shape of a nucleus.
SQUARE_TOLERANCE = 0.02
# No scanner gives less or more. A printing resolution such as 72 dots per inch, which many TIFF writers put in, is
# 353 um/px.
PLAUSIBLE_MPP = (0.02, 5.0)
WHITE = (255, 255, 255)
# Formats of one file, and DICOM (see group_files). MIRAX (.mrxs) and Hamamatsu .vms keep their pixels in further
# files whose names they hold inside; such a slide does not survive being stored under another name.
SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".svslide", ".czi", ".dcm")

_STRIP_PIXELS = 16_000_000
_SAMPLE_SIZE = 64

Pixels = NDArray[np.uint8]


class SlideError(ValueError):
    """A slide that cannot be used. Its text is for the user and names the file and the reason.

    `code` is one of: missing, empty, unreadable, ordinary-tiff, truncated, incomplete, mpp-missing, mpp-implausible,
    mpp-unequal, too-small, too-large, several-pictures, no-tissue, changed.
    """

    # `code` has a default because a pickled exception is rebuilt from its message alone; its attributes are put back
    # afterwards.
    def __init__(self, message: str, *, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class SlideInfo:
    """What a slide says of itself. Lengths in level-0 px; `mpp` in um per level-0 px, None if it is neither
    known nor given.
    """

    vendor: str
    width: int
    height: int
    mpp: float | None
    objective_power: float | None


def tile_extent(mpp: float, *, size: int = TILE_SIZE, tile_mpp: float = TILE_MPP) -> int:
    """Side in level-0 px, whole, of the square that a tile of `size` px at `tile_mpp` um/px covers on a slide of
    `mpp` um/px.

    It is size * tile_mpp / mpp to the nearest px (so that tiles edge to edge share no px and leave none out),
    except within 2 % of the slide's own resolution: there it is `size` itself, the tile is the slide's own pixels,
    and one tile px is one level-0 px. Tile px and level-0 px are therefore always related by exactly extent / size.
    """
    factor = tile_mpp / mpp
    if abs(factor - 1) <= NATIVE_TOLERANCE:
        return size
    return max(1, round(size * factor))


class SlideReader:
    """One open slide; a context manager, to be used by one thread.

    `name` is what messages call the file (the uploader's file name; never used as a path). `mpp`, in um/px, gives
    or overrides the slide's own value, also where that is implausible or differs between x and y. Raises SlideError
    if the file cannot be opened or if `mpp` is implausible.
    """

    def __init__(self, path: Path, *, name: str | None = None, mpp: float | None = None) -> None:
        self.path = path
        self.name = name or path.name
        check_mpp(mpp, self.name)
        self._given_mpp = mpp
        self._slide = _open(path, self.name)
        self._blocks: TiffBlocks | None = None
        self._blocks_asked = False
        self.info = self._read_info()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._slide.close()
        if self._blocks:
            self._blocks.close()

    @property
    def mpp(self) -> float:
        """Microns per level-0 px: the given value, else the mean of the slide's own in x and y.

        Raises SlideError (mpp-missing, mpp-implausible, mpp-unequal). The objective power is never turned into a
        resolution: what it means depends on the camera.
        """
        if self._given_mpp is not None:
            return self._given_mpp
        horizontal, vertical = self._property("openslide.mpp-x"), self._property("openslide.mpp-y")
        if horizontal is None or vertical is None:
            raise SlideError(
                f"{self.name} does not say how many µm one px covers: enter the scanner's value.", code="mpp-missing"
            )
        if not (_plausible(horizontal) and _plausible(vertical)):
            raise SlideError(
                f"{self.name} says that one px covers {horizontal:.4g} µm, which no slide scanner gives "
                "(probably a printing resolution): enter the scanner's value.",
                code="mpp-implausible",
            )
        if abs(horizontal - vertical) > SQUARE_TOLERANCE * min(horizontal, vertical):
            raise SlideError(
                f"{self.name} has px that are not square ({horizontal:.4g} x {vertical:.4g} µm): "
                "cells would look distorted.",
                code="mpp-unequal",
            )
        return (horizontal + vertical) / 2

    def read_tile(self, x: float, y: float, *, size: int = TILE_SIZE, tile_mpp: float = TILE_MPP) -> Pixels:
        """The tile whose top-left corner is at level-0 px (x, y), each rounded to a whole px: uint8 (size, size,
        3), RGB.

        It covers `tile_extent` level-0 px each way. Where that is `size`, these are the slide's own pixels;
        otherwise they are resampled (bicubic, antialiased) from the coarsest level that is at least as fine.
        Transparent parts and parts outside the slide are white. Raises SlideError if the slide's mpp is not known
        or its data cannot be read.
        """
        extent = tile_extent(self.mpp, size=size, tile_mpp=tile_mpp)
        return self.read_area(round(x), round(y), extent, extent, columns=size, rows=size)

    def read_area(self, x: float, y: float, width: float, height: float, *, columns: int, rows: int) -> Pixels:
        """The rectangle (x, y, width, height) of level-0 px, resampled to uint8 (rows, columns, 3), RGB.
        Needs no mpp.
        """
        level = self._level_for(min(width / columns, height / rows))
        downsample = self._slide.level_downsamples[level]
        level_width, level_height = self._slide.level_dimensions[level]
        left, right = _span(x / downsample, width / downsample, columns, level_width)
        top, bottom = _span(y / downsample, height / downsample, rows, level_height)
        corner = (round(left * downsample), round(top * downsample))
        pixels = self._pixels(corner, level, (right - left, bottom - top))
        start_x, start_y = x / downsample - left, y / downsample - top
        box = (
            start_x,
            start_y,
            min(start_x + width / downsample, right - left),
            min(start_y + height / downsample, bottom - top),
        )
        if box == (0, 0, columns, rows):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BICUBIC, box=box))

    def thumbnail(self, max_side: int) -> Pixels:
        """The whole slide, its longer side `max_side` px or its own size if smaller: uint8 (h, w, 3), RGB, from the
        scan's levels.

        It is read in strips, so that a large slide without small levels needs time but not memory.
        """
        scale = max(1.0, max(self.info.width, self.info.height) / max_side)
        columns, rows = max(1, round(self.info.width / scale)), max(1, round(self.info.height / scale))
        row_height = self.info.height / rows
        downsample = self._slide.level_downsamples[self._level_for(scale)]
        pixels_of_row = self.info.width * row_height / downsample**2
        step = max(1, int(_STRIP_PIXELS / pixels_of_row))
        strips = []
        for first in range(0, rows, step):
            count = min(step, rows - first)
            strips.append(
                self.read_area(0, first * row_height, self.info.width, count * row_height, columns=columns, rows=count)
            )
        return np.concatenate(strips)

    def read_samples(self) -> None:
        """Read a 64 px square at the corners and the centre of every level. Raises SlideError if one cannot be read."""
        for level, (width, height) in enumerate(self._slide.level_dimensions):
            downsample = self._slide.level_downsamples[level]
            right, bottom = max(0, width - _SAMPLE_SIZE), max(0, height - _SAMPLE_SIZE)
            for x, y in ((0, 0), (right, 0), (right // 2, bottom // 2), (0, bottom), (right, bottom)):
                self._read_region((int(x * downsample), int(y * downsample)), level, (_SAMPLE_SIZE, _SAMPLE_SIZE))

    def _read_info(self) -> SlideInfo:
        width, height = self._slide.dimensions
        try:
            mpp = self.mpp
        except SlideError:
            mpp = None
        return SlideInfo(
            vendor=self._slide.properties.get("openslide.vendor", "unknown"),
            width=width,
            height=height,
            mpp=mpp,
            objective_power=self._property("openslide.objective-power"),
        )

    def _property(self, key: str) -> float | None:
        """A positive number among the slide's properties, or None."""
        try:
            value = float(self._slide.properties[key])
        except (KeyError, ValueError):
            return None
        return value if math.isfinite(value) and value > 0 else None

    def _level_for(self, downsample: float) -> int:
        # A hair more than asked for: levels of odd sizes have downsamples such as 4.0161.
        return int(self._slide.get_best_level_for_downsample(downsample * 1.01))

    def _pixels(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        """The same as `_read_region`, several times as fast where the first level's blocks can be read themselves."""
        if level == 0 and (blocks := self._trusted_blocks(corner, size)):
            try:
                return blocks.read(*corner, *size)
            except BlockError:
                pass  # OpenSlide knows what lies there, or says why it cannot be read
        return np.asarray(self._read_region(corner, level, size))

    def _trusted_blocks(self, corner: tuple[int, int], size: tuple[int, int]) -> TiffBlocks | None:
        """The first level's blocks, once a square in the middle of an area has shown the same px as OpenSlide."""
        if self._blocks_asked:
            return self._blocks
        blocks = TiffBlocks.of(self.path, self.info.vendor, self.info.width, self.info.height)
        if blocks is None:
            self._blocks_asked = True
            return None
        middle = (corner[0] + (size[0] - _SAMPLE_SIZE) // 2, corner[1] + (size[1] - _SAMPLE_SIZE) // 2)
        sample = (_SAMPLE_SIZE, _SAMPLE_SIZE)
        try:
            same = np.array_equal(blocks.read(*middle, *sample), np.asarray(self._read_region(middle, 0, sample)))
        except BlockError:
            blocks.close()
            return None  # another area may tell
        self._blocks_asked = True
        if same:
            self._blocks = blocks
        else:
            blocks.close()
        return self._blocks

    def _read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """`corner` in level-0 px, `size` in px of the level; transparent px become white."""
        try:
            region = self._slide.read_region(corner, level, size)
        except openslide.OpenSlideError as error:
            reason = _reason(error, self.path, self.name)
            raise SlideError(
                f"{self.name} opens, but a part of its picture cannot be read ({reason}): "
                "the file is probably damaged or cut short; copy it again.",
                code="truncated",
            ) from error
        alpha = region.getchannel("A")
        if alpha.getextrema()[0] == 255:  # nearly always, and ten times as fast
            return region.convert("RGB")
        picture = Image.new("RGB", size, WHITE)
        picture.paste(region, mask=alpha)
        return picture


def check_readable(reader: SlideReader) -> None:
    """Refuse a slide whose file was cut short or cannot be decoded. Reads a few kilobytes per level, whatever the
    file's size.

    For TIFF-based formats the directories say where each block of pixels lies: the file must reach that far. For
    every format a square at the corners and the centre of each level is decoded. Damage inside a file of full
    length is found only where it is sampled. Raises SlideError.
    """
    if ends_early(reader.path):
        raise truncated(reader.name)
    reader.read_samples()


def check_mpp(mpp: float | None, name: str) -> None:
    """Raises SlideError for a stated pixel size that no slide scanner has."""
    if mpp is not None and not _plausible(mpp):
        raise SlideError(f"{name}: {mpp:g} µm per px is not a resolution of a slide scanner.", code="mpp-implausible")


def check_file(path: Path, name: str) -> None:
    """Raises SlideError unless there is a file with something in it that can be read."""
    if not path.is_file():
        raise SlideError(f"{name} is not there, or is not a file.", code="missing")
    if path.stat().st_size == 0:
        raise SlideError(f"{name} is empty (0 bytes): copy it again.", code="empty")
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise SlideError(f"{name} cannot be read: {error.strerror}.", code="unreadable") from error


def truncated(name: str) -> SlideError:
    return SlideError(f"{name} ends early: the file was cut short. Copy it again.", code="truncated")


def group_files(paths: Sequence[Path]) -> list[list[Path]]:
    """Put the files of one slide together: DICOM files of one series; every other file is a slide by itself.

    The first path of a group is the one to open; the others must lie in the same folder, where OpenSlide finds
    them. The order of `paths` is kept. A DICOM file that OpenSlide cannot open is a group of its own, so that
    opening it tells the user why. Callers choose the files first, by SLIDE_SUFFIXES.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_series(path) or f"file {path}", []).append(path)
    return list(groups.values())


def _series(path: Path) -> str | None:
    """The DICOM series that a file belongs to, None if it is not DICOM or cannot be opened."""
    if path.suffix.lower() != ".dcm":
        return None
    try:
        with openslide.OpenSlide(path) as slide:
            return slide.properties.get("dicom.SeriesInstanceUID")
    except (openslide.OpenSlideError, OSError):
        return None


def _plausible(mpp: float) -> bool:
    return PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]


def _span(start: float, length: float, outputs: int, level_length: int) -> tuple[int, int]:
    """First and last px (exclusive) of a level to read along one axis so that [start, start + length) resamples
    without a seam.

    The kernel reaches two output px past the ends; it must not reach past the slide's edge into the white beyond,
    though.
    """
    first, last = math.floor(start), math.ceil(start + length - 1e-6)
    if length == outputs and start == first:
        return first, last
    margin = math.ceil(2 * max(1.0, length / outputs)) + 1
    return max(first - margin, min(first, 0)), min(last + margin, max(last, level_length))


def _open(path: Path, name: str) -> openslide.OpenSlide:
    check_file(path, name)
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        _refuse(path, name, error)


def _refuse(path: Path, name: str, error: openslide.OpenSlideError) -> NoReturn:
    """Say in the user's words why OpenSlide did not open the file."""
    reason = _reason(error, path, name)
    if ends_early(path) or "end of filehandle" in reason:
        raise truncated(name) from error
    if "No pyramid levels" in reason:
        raise SlideError(
            f"{name} holds no scan by itself: choose all files of its DICOM series together.", code="incomplete"
        ) from error
    if not isinstance(error, openslide.OpenSlideUnsupportedFormatError):
        raise SlideError(f"{name} cannot be read as a slide: {reason}.", code="unreadable") from error
    code = "unreadable"
    if path.suffix.lower() == ".dcm":
        kind = "not a DICOM whole-slide image (it may come from another kind of examination)"
    elif _tiff_header(path):
        kind, code = "an ordinary TIFF picture, not a tiled whole-slide image", "ordinary-tiff"
    else:
        kind = "not a whole-slide image in a format that OpenSlide reads"
    raise SlideError(f"{name} is {kind}.", code=code) from error


def _reason(error: Exception, path: Path, name: str) -> str:
    # OpenSlide names files by their place in storage, which is nothing to a user.
    return str(error).replace(str(path), name).replace(f"{path.parent}/", "").rstrip(".")


# What follows walks the directories of a TIFF file (TIFF 6.0 specification, section 2; BigTIFF design of libtiff)
# only to learn how far the file must reach. OpenSlide cannot tell: it opens a file whose last pixels are missing.

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_OFFSETS, _BYTE_COUNTS = (273, 324), (279, 325)
_CLASSIC_LIMIT = 2**32


@dataclass(frozen=True)
class _TiffHeader:
    order: str  # "<" or ">", as struct has it
    big: bool
    first_directory: int


@dataclass(frozen=True)
class _TiffTag:
    code: int
    kind: int
    count: int
    offset: int  # of the tag's values in the file

    @property
    def end(self) -> int:
        return self.offset + self.count * _TYPE_SIZES.get(self.kind, 0)


def _tiff_header(path: Path) -> _TiffHeader | None:
    with path.open("rb") as file:
        head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return None
    version = struct.unpack(f"{order}H", head[2:4])[0]
    if version == 43:
        return _TiffHeader(order, True, struct.unpack(f"{order}Q", head[8:16])[0])
    return _TiffHeader(order, False, struct.unpack(f"{order}I", head[4:8])[0]) if version == 42 else None


def ends_early(path: Path) -> bool:
    """Whether a TIFF file is shorter than its directories say. False for other files."""
    header, length = _tiff_header(path), path.stat().st_size
    # Only Hamamatsu writes classic TIFF beyond 4 GiB, with offsets in a form of its own: left to the samples.
    if header is None or (not header.big and length >= _CLASSIC_LIMIT):
        return False
    with path.open("rb") as file:
        try:
            return any(end > length for end in _directory_ends(file, header, length))
        except struct.error:  # a directory itself is cut
            return True


def _directory_ends(file: BinaryIO, header: _TiffHeader, length: int) -> Iterator[int]:
    """For each directory: where it starts, where its tags' values end, and where its last block of pixels ends."""
    offset, seen = header.first_directory, set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        yield offset + 1
        tags, offset = _read_directory(file, header, offset)
        yield from (tag.end for tag in tags)
        offsets = _values(file, header, tags, _OFFSETS, length)
        counts = _values(file, header, tags, _BYTE_COUNTS, length)
        if len(offsets) == len(counts) and len(offsets):
            yield int((offsets + counts).max())


def _read_directory(file: BinaryIO, header: _TiffHeader, offset: int) -> tuple[list[_TiffTag], int]:
    """The tags of the directory at `offset`, and the offset of the next one (0 after the last). Raises
    struct.error if cut.
    """
    count_format, entry_format, next_format = ("Q", "HHQ8s", "Q") if header.big else ("H", "HHI4s", "I")
    count_format, entry_format = header.order + count_format, header.order + entry_format
    entry_size, value_size = struct.calcsize(entry_format), 8 if header.big else 4
    file.seek(offset)
    (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
    first = file.tell()
    tags = []
    for entry in range(count):
        code, kind, values, inline = struct.unpack(entry_format, file.read(entry_size))
        place = first + (entry + 1) * entry_size - value_size
        if values * _TYPE_SIZES.get(kind, 0) > value_size:
            (place,) = struct.unpack(header.order + next_format, inline)
        tags.append(_TiffTag(code, kind, values, place))
    (following,) = struct.unpack(header.order + next_format, file.read(value_size))
    return tags, following


def _values(
    file: BinaryIO, header: _TiffHeader, tags: list[_TiffTag], codes: tuple[int, ...], length: int
) -> NDArray[np.uint64]:
    """The whole numbers of the first tag that has one of `codes`; empty if there is none or it is cut."""
    kinds = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
    for tag in tags:
        if tag.code in codes and tag.kind in kinds and tag.end <= length:
            file.seek(tag.offset)
            data = file.read(tag.end - tag.offset)
            return np.frombuffer(data, dtype=header.order + kinds[tag.kind]).astype(np.uint64)
    return np.empty(0, dtype=np.uint64)
