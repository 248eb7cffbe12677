"""Which tiles of a slide are worth reading: the grid of Tayebi et al. 2022, or edge to edge, without
near-blank and black tiles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from annotation.slides.reader import TILE_MPP, TILE_SIZE, SlideError, SlideReader, tile_extent

__all__ = [
    "GRID_COLUMNS",
    "GRID_ROWS",
    "TILE_MPP",
    "TILE_SIZE",
    "TilePosition",
    "Tiling",
    "find_tiles",
    "is_near_black",
    "is_near_blank",
    "tile_extent",
    "tile_grid",
]

GRID_ROWS = 15
GRID_COLUMNS = 20

# Blank and black are judged on the whole tile at 64 x 64 px (2 um/px), where a red cell is 3 to 4 px wide.
THUMBNAIL_SIZE = 64
# The stains of a Wright or Giemsa smear absorb green. Ghosts of cells on blank glass are mostly less than 30 levels of
# 255 darker than the glass around them.
STAINED_LEVELS = 40
# 16 px of 4096: the nucleus of one small lymphocyte. Seen on 16 smears: at most 0.34 % on blank glass, at least 10 %
# in monolayer.
STAINED_SHARE = 0.004
# Median luminance of 255. The darkest bright-field tiles seen (thick skin, H&E) reach 69, fluorescence (DAPI) 7.
BLACK_LUMINANCE = 32
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

Tiling = Literal["paper", "edge"]


@dataclass(frozen=True)
class TilePosition:
    """A tile's cell in its grid (from 0), and its top-left corner in level-0 px."""

    row: int
    column: int
    x: int
    y: int


def tile_grid(
    width: int, height: int, mpp: float, *, tiling: Tiling = "paper", name: str = "The slide"
) -> list[TilePosition]:
    """All tiles of a slide of `width` x `height` level-0 px at `mpp` um/px, row by row, each wholly inside the slide.

    "paper": 15 rows x 20 columns, one tile at each grid cell's centre (Tayebi et al. 2022, Methods, ROI detection).
    Where a cell of that grid is smaller than a tile, and for "edge": tiles edge to edge, the margin that is left
    shared by opposite sides. Raises SlideError (too-small), naming the slide by `name`, if not one tile fits.
    """
    if tiling not in get_args(Tiling):
        raise ValueError(f"tiling is one of {', '.join(get_args(Tiling))}, not {tiling!r}")
    extent = tile_extent(mpp)
    if min(width, height) < extent:
        raise SlideError(
            f"{name} is {width} x {height} px at {mpp:.4g} µm/px; a tile needs {TILE_SIZE} x {TILE_SIZE} px "
            f"at {TILE_MPP} µm/px, that is {extent} x {extent} px of this slide.",
            code="too-small",
        )
    if tiling == "paper" and extent <= min(width / GRID_COLUMNS, height / GRID_ROWS):
        lefts, tops = _cell_centres(width, GRID_COLUMNS, extent), _cell_centres(height, GRID_ROWS, extent)
    else:
        lefts, tops = _edge_to_edge(width, extent), _edge_to_edge(height, extent)
    return [TilePosition(row, column, x, y) for row, y in enumerate(tops) for column, x in enumerate(lefts)]


def is_near_blank(rgb: NDArray[np.uint8]) -> bool:
    """Whether a tile, as a thumbnail of about 64 x 64 px (h, w, 3), shows no stained cell.

    The rule: at most 0.4 % of its pixels are 40 or more levels darker in green than its own background, which is
    the 90th percentile of green. Being relative, it bears yellowed, dim and bluish glass.
    """
    green = rgb[..., 1].astype(np.float64)
    stained = np.percentile(green, 90) - green >= STAINED_LEVELS
    return bool(stained.mean() <= STAINED_SHARE)


def is_near_black(rgb: NDArray[np.uint8]) -> bool:
    """Whether a picture (h, w, 3) has a median luminance below 32 of 255: fluorescence, or a part that was
    never scanned.
    """
    return bool(np.median(rgb @ _LUMINANCE) < BLACK_LUMINANCE)


def find_tiles(
    reader: SlideReader, *, tiling: Tiling = "paper", on_progress: Callable[[float], None] | None = None
) -> list[TilePosition]:
    """The tiles of the slide's grid that are neither near blank nor near black, row by row.

    Each is looked at as a 64 px thumbnail from a coarse level, so 300 tiles take about a second. `on_progress` is
    called with the share done, 0..1, after each tile. Raises SlideError: too-small, no-tissue (nothing stained, or
    nearly black), or what the reader raises.
    """
    grid = tile_grid(reader.info.width, reader.info.height, reader.mpp, tiling=tiling, name=reader.name)
    extent = tile_extent(reader.mpp)
    found, black = [], 0
    for done, tile in enumerate(grid, start=1):
        thumbnail = reader.read_area(tile.x, tile.y, extent, extent, columns=THUMBNAIL_SIZE, rows=THUMBNAIL_SIZE)
        if is_near_black(thumbnail):
            black += 1
        elif not is_near_blank(thumbnail):
            found.append(tile)
        if on_progress is not None:
            on_progress(done / len(grid))
    if not found:
        raise _no_tissue(reader.name, len(grid), black)
    return found


def _no_tissue(name: str, tiles: int, black: int) -> SlideError:
    if black > tiles / 2:
        reason = "is nearly black: it looks like fluorescence, and Marrowloop reads bright-field smears"
    else:
        reason = f"shows no stained cells: all of its {tiles} tiles are blank"
    return SlideError(f"{name} {reason}.", code="no-tissue")


def _cell_centres(length: int, cells: int, extent: int) -> list[int]:
    return [int((cell + 0.5) * length / cells - extent / 2) for cell in range(cells)]


def _edge_to_edge(length: int, extent: int) -> list[int]:
    count = length // extent
    margin = (length - count * extent) // 2
    return [margin + index * extent for index in range(count)]
