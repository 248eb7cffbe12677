"""Boxes in the px of the whole slide (level 0) instead of the tile's.

A tile says in its extra fields where it lies: `slide_x` and `slide_y` (its top-left corner, level-0 px),
`slide_px_per_tile_px`, `slide_number`, `slide_width` and `slide_height`.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from annotation.formats.records import LabelledBox, LabelledTile

_PLACE_IN_NAME = re.compile(r"_x\d+_y\d+")
_OF_THE_SLIDE = ("slide", "patient", "mpp")
_OF_THE_TILE = ("tile", "author", "round")


def in_slide_px(box: LabelledBox, tile: LabelledTile) -> LabelledBox:
    """The tile's box in level-0 px of its slide."""
    place: Any = tile.extra
    scale = place["slide_px_per_tile_px"]
    x, y = place["slide_x"] + box.x * scale, place["slide_y"] + box.y * scale
    return LabelledBox(box.class_id, x, y, box.width * scale, box.height * scale, box.score)


def whole_slides(tiles: Iterable[LabelledTile]) -> Iterator[LabelledTile]:
    """Each slide as one record, with the boxes of all its tiles; the tiles of a slide must follow each other.

    A slide whose tiles are in two splits, or come from several readers (their number ends the tiles' names), becomes a
    record for each. The extra field `tiles` lists what was looked at, tiles without boxes too: its `bbox` in level-0 px
    with the tile's number, author and round.
    """
    number: object = None
    gathered: dict[str, list[LabelledTile]] = {}
    for tile in tiles:
        if tile.extra["slide_number"] != number:
            yield from map(_merged, gathered.items())
            number, gathered = tile.extra["slide_number"], {}
        gathered.setdefault(f"{_PLACE_IN_NAME.sub('', tile.name)}_{tile.split}", []).append(tile)
    yield from map(_merged, gathered.items())


def _merged(named: tuple[str, list[LabelledTile]]) -> LabelledTile:
    name, tiles = named
    places = [in_slide_px(LabelledBox(0, 0, 0, tile.width, tile.height), tile) for tile in tiles]
    extra: Any = tiles[0].extra
    # The outermost tiles may stand out of the slide, and a box on them with them.
    width = math.ceil(max(extra["slide_width"], *(place.x + place.width for place in places)))
    height = math.ceil(max(extra["slide_height"], *(place.y + place.height for place in places)))
    listed = [
        {"bbox": [round(value, 4) for value in (place.x, place.y, place.width, place.height)]}
        | {key: tile.extra[key] for key in _OF_THE_TILE if key in tile.extra}
        for tile, place in zip(tiles, places, strict=True)
    ]
    return replace(
        tiles[0],
        name=name,
        width=width,
        height=height,
        boxes=tuple(in_slide_px(box, tile) for tile in tiles for box in tile.boxes),
        extra={key: extra[key] for key in _OF_THE_SLIDE if key in extra} | {"tiles": listed},
    )
