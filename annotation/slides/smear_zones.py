"""The lie of a push smear: where it is a monolayer, thick, blank or debris, in fields of 128 px."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.slides.smear_shapes import FloatArray, smooth_noise

FIELD = 128  # px
FIELDS_PER_TILE = 4  # a tile of 512 px
MONOLAYER_TILES = 0.6  # part of the whole tiles that must be all monolayer

ZoneGrid = NDArray[np.str_]


def lay_out_zones(width: int, height: int, rng: np.random.Generator) -> ZoneGrid:
    """Return one letter per field, (rows, columns): m monolayer, t thick, b blank, d debris.

    The head of the smear (thick) lies left, the feathered edge (blank) right. Patches shrink until at least
    `MONOLAYER_TILES` of the whole 512 px tiles, laid edge to edge from the corner, are entirely monolayer.
    """
    rows, columns = math.ceil(height / FIELD), math.ceil(width / FIELD)
    across = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    grain = max(3.0, max(rows, columns) / 5)
    thick = smooth_noise(rows, columns, grain, rng) - 1.1 * across
    blank = smooth_noise(rows, columns, grain, rng) + 1.1 * across
    debris = smooth_noise(rows, columns, grain * 0.85, rng)
    share = 1.0
    while True:
        zones = np.full((rows, columns), "m")
        zones[_highest(debris, 0.05 * share)] = "d"
        zones[_highest(blank, 0.12 * share)] = "b"
        zones[_highest(thick, 0.17 * share)] = "t"
        _drop_specks(zones)
        if monolayer_tiles(zones) >= MONOLAYER_TILES or share < 0.05:
            return zones
        share *= 0.92


def _highest(values: FloatArray, part: float) -> NDArray[np.bool_]:
    return np.asarray(values > np.quantile(values, 1 - part))


def _drop_specks(zones: ZoneGrid) -> None:
    """Give fields with fewer than 4 of their kind in the 3 x 3 round them back to the monolayer, in place."""
    rows, columns = zones.shape
    for letter in "tbd":
        alike = np.pad(zones == letter, 1, mode="edge")
        company = sum(alike[i : i + rows, j : j + columns].astype(int) for i in range(3) for j in range(3))
        zones[(zones == letter) & (company < 4)] = "m"


def monolayer_tiles(zones: ZoneGrid) -> float:
    """Part (0..1) of the whole 512 px tiles, edge to edge from the corner, that are entirely monolayer."""
    rows, columns = (n // FIELDS_PER_TILE for n in zones.shape)
    if not rows * columns:
        return 1.0
    whole = zones[: rows * FIELDS_PER_TILE, : columns * FIELDS_PER_TILE] == "m"
    return float(whole.reshape(rows, FIELDS_PER_TILE, columns, FIELDS_PER_TILE).all(axis=(1, 3)).mean())


class ZoneMap:
    """Asks which zone a point or a box lies in."""

    def __init__(self, zones: ZoneGrid) -> None:
        self.zones = zones
        self._sums = {
            letters: np.pad(np.isin(zones, list(letters)), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
            for letters in ("m", "td")
        }

    def at(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.str_]:
        """Letter of the field under each point (px); points outside count as the nearest field."""
        rows, columns = self.zones.shape
        row = np.clip(np.asarray(y) // FIELD, 0, rows - 1).astype(int)
        column = np.clip(np.asarray(x) // FIELD, 0, columns - 1).astype(int)
        return np.asarray(self.zones[row, column])

    def holds(
        self, letters: str, left: NDArray[Any], top: NDArray[Any], width: float, height: float
    ) -> NDArray[np.bool_]:
        """Tell of each box (px) whether every field it touches has one of `letters` ("m" or "td")."""
        sums = self._sums[letters]
        x1, y1 = (np.asarray(v // FIELD, dtype=int) for v in (left, top))
        x2, y2 = (np.asarray((v - 1) // FIELD, dtype=int) + 1 for v in (left + width, top + height))
        inside = (x1 >= 0) & (y1 >= 0) & (y2 < sums.shape[0]) & (x2 < sums.shape[1])
        x1, x2, y1, y2 = (np.where(inside, v, 0) for v in (x1, x2, y1, y2))
        held = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
        return np.asarray(inside & (held == (x2 - x1) * (y2 - y1)))
