"""The drawing board of the demo smears: soft shapes, textures and granules on a small square of glass.

Everything is an array in pixels of 0.25 um. Shapes are depths (px inside their outline, negative outside), turned into
a soft cover of 0..1; colours are transmissions (1 = clear glass), so a stain can be changed after the drawing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.float32]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Sprite:
    """One drawn cell, cut to its ink: transmission (height, width, 3) and alpha (height, width), float32 in 0..1."""

    transmission: FloatArray
    alpha: FloatArray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.alpha.shape[0], self.alpha.shape[1]

    def extent(self) -> tuple[int, int, int, int]:
        """Tight box (x, y, width, height) in px of the sprite around everything that an eye would call the cell."""
        rows = np.flatnonzero((self.alpha > 0.4).any(axis=1))
        columns = np.flatnonzero((self.alpha > 0.4).any(axis=0))
        return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def smooth_noise(height: int, width: int, grain: float, rng: np.random.Generator) -> FloatArray:
    """Return (height, width) float32 noise of mean 0 and standard deviation 1 whose blotches are about `grain` px."""
    rows, columns = math.ceil(height / grain) + 3, math.ceil(width / grain) + 3
    coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    wide = coarse.resize(
        (max(width, round(columns * grain)), max(height, round(rows * grain))), Image.Resampling.BICUBIC
    )
    noise = np.asarray(wide, dtype=np.float32)
    top, left = (noise.shape[0] - height) // 2, (noise.shape[1] - width) // 2
    noise = noise[top : top + height, left : left + width]
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), dtype=np.float32)


def cover(depth: FloatArray, softness: float = 0.75) -> FloatArray:
    """Turn a depth in px into a cover of 0..1 with an edge of about 2 * `softness` px, as a lens would blur it."""
    return np.asarray(0.5 + 0.5 * np.tanh(depth / (1.4 * softness)), dtype=np.float32)


def union(*depths: FloatArray, blend: float = 2.0) -> FloatArray:
    """Join shapes; outlines closer than `blend` px melt into one another."""
    joined = depths[0] / blend
    for depth in depths[1:]:
        joined = np.logaddexp(joined, depth / blend)
    return np.asarray(joined * blend, dtype=np.float32)


def without(depth: FloatArray, hole: FloatArray, blend: float = 2.0) -> FloatArray:
    """Cut `hole` out of a shape, rounding the cut by `blend` px."""
    return -union(-depth, hole, blend=blend)


class Sheet:
    """A square of glass on which one cell is painted, layer over layer."""

    def __init__(self, radius: float, rng: np.random.Generator, *, warp: float = 1.0) -> None:
        """Open a sheet for a cell of `radius` px; `warp` px of smooth displacement make every outline uneven."""
        self.rng = rng
        self.side = 2 * math.ceil(radius * 1.45 + 6)
        axis = np.arange(self.side, dtype=np.float32) - np.float32(self.side / 2 - 0.5)
        grain = max(8.0, radius * 0.7)
        self.x = axis[None, :] + warp * self.noise(grain)
        self.y = axis[:, None] + warp * self.noise(grain)
        self.transmission = np.ones((self.side, self.side, 3), dtype=np.float32)
        self.alpha = np.zeros((self.side, self.side), dtype=np.float32)

    def noise(self, grain: float) -> FloatArray:
        """Noise of the sheet's size, standard deviation 1, blotches of `grain` px."""
        return smooth_noise(self.side, self.side, grain, self.rng)

    def blob(
        self,
        radius: float,
        centre: tuple[float, float] = (0.0, 0.0),
        *,
        stretch: float = 1.0,
        angle: float = 0.0,
        wobble: float = 0.03,
    ) -> FloatArray:
        """Depth of a round or, with `stretch` > 1, oval outline; `wobble` is its unevenness as part of the radius."""
        dx, dy = self.x - centre[0], self.y - centre[1]
        along = (dx * math.cos(angle) + dy * math.sin(angle)) / math.sqrt(stretch)
        across = (dy * math.cos(angle) - dx * math.sin(angle)) * math.sqrt(stretch)
        edge: FloatArray | float = radius
        if wobble:
            turn = np.arctan2(across, along)
            waves = sum(
                self.rng.normal() / (k - 1) * np.cos(k * turn + self.rng.uniform(0, 2 * math.pi)) for k in range(2, 6)
            )
            edge = np.asarray(radius * (1 + wobble * waves), dtype=np.float32)
        return np.asarray(edge - np.hypot(along, across), dtype=np.float32)

    def rod(self, start: tuple[float, float], end: tuple[float, float], radius: float) -> FloatArray:
        """Depth of a straight rod with round ends."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = max(dx * dx + dy * dy, 1e-6)
        part = np.clip(((self.x - start[0]) * dx + (self.y - start[1]) * dy) / length, 0, 1)
        return np.asarray(
            radius - np.hypot(self.x - start[0] - part * dx, self.y - start[1] - part * dy), dtype=np.float32
        )

    def chain(self, points: list[tuple[float, float]], radius: float) -> FloatArray:
        """Depth of a bent rod through `points`."""
        return union(*(self.rod(a, b, radius) for a, b in pairwise(points)), blend=1.0)

    def body(self, depth: FloatArray, softness: float = 0.9) -> FloatArray:
        """Make `depth` part of what hides the glass behind the cell; return its cover."""
        covered = cover(depth, softness)
        self.alpha = np.maximum(self.alpha, covered)
        return covered

    def paint(self, covered: FloatArray, colour: Colour | FloatArray) -> None:
        """Lay a colour (0..255 on clear glass, or an array of transmissions) over what is there, by `covered`."""
        ink = np.asarray(colour, dtype=np.float32) / 255 if isinstance(colour, tuple) else colour
        self.transmission += covered[..., None] * (ink - self.transmission)

    def cytoplasm(
        self, depth: FloatArray, inner: Colour, edge: Colour, *, mottle: float = 0.12, rim: float = 5.0
    ) -> FloatArray:
        """Paint a cell's body: `inner` colour turning to `edge` in the last `rim` px, mottled. Return its cover."""
        covered = self.body(depth)
        share = np.clip(np.exp(-np.maximum(depth, 0) / rim) + mottle * self.noise(5) + mottle * self.noise(2.2), 0, 1)
        self.paint(covered, _between(inner, edge, share))
        return covered

    def chromatin(
        self,
        depth: FloatArray,
        dark: Colour,
        light: Colour,
        *,
        grain: float = 3.0,
        contrast: float = 0.25,
        clumped: float = 0.0,
        pattern: FloatArray | None = None,
        softness: float = 0.8,
    ) -> FloatArray:
        """Paint a nucleus whose texture runs from `dark` (heterochromatin) to `light`; return its cover.

        `grain` is the size of the blotches in px, `contrast` their strength, `clumped` 0..1 how hard-edged they are,
        `pattern` replaces the blotches (same shape as the sheet, about -1..1, dark where negative).
        """
        covered = self.body(depth, softness)
        texture = 0.75 * self.noise(grain) + 0.5 * self.noise(grain * 2.2) if pattern is None else pattern
        texture = (1 - clumped) * texture + clumped * 1.3 * np.tanh(2.5 * texture)
        membrane = 0.35 * np.exp(-np.maximum(depth, 0) / 1.5)
        share = np.clip(0.42 + contrast * texture + 0.07 * self.noise(1.5) - membrane, 0, 1)
        self.paint(covered, _between(dark, light, np.asarray(share, dtype=np.float32)))
        return covered

    def granules(
        self, where: FloatArray, count: int, radius: tuple[float, float], colour: Colour, strength: float = 0.9
    ) -> FloatArray:
        """Strew `count` granules of a radius (smallest, largest) in px over `where` > 0.5; return their cover."""
        places = np.flatnonzero(where > 0.5)
        if not len(places) or count < 1:
            return np.zeros_like(where)
        spots = self.rng.choice(places, count)
        centre_y = spots // self.side + self.rng.uniform(-0.5, 0.5, count)
        centre_x = spots % self.side + self.rng.uniform(-0.5, 0.5, count)
        dots = self.dots(centre_x, centre_y, self.rng.uniform(*radius, count)) * np.float32(strength)
        self.paint(dots, colour)
        return dots

    def dots(
        self, centre_x: NDArray[np.float64], centre_y: NDArray[np.float64], radii: NDArray[np.float64]
    ) -> FloatArray:
        """Cover of soft discs given by centre (px from the sheet's corner) and radius; overlaps stay within 0..1."""
        reach = math.ceil(float(radii.max())) + 2
        step = np.arange(-reach, reach + 1)
        pixel_x = np.rint(centre_x).astype(int)[:, None, None] + step[None, None, :]
        pixel_y = np.rint(centre_y).astype(int)[:, None, None] + step[None, :, None]
        distance = np.hypot(pixel_x - centre_x[:, None, None], pixel_y - centre_y[:, None, None])
        opacity = 0.97 / (1 + np.exp((distance - radii[:, None, None]) / 0.4))
        inside = (pixel_x >= 0) & (pixel_x < self.side) & (pixel_y >= 0) & (pixel_y < self.side)
        density = np.bincount(
            (pixel_y * self.side + pixel_x)[inside], weights=-np.log1p(-opacity[inside]), minlength=self.side**2
        )
        return np.asarray(1 - np.exp(-density), dtype=np.float32).reshape(self.side, self.side)

    def vacuoles(self, where: FloatArray, count: int, radius: tuple[float, float], colour: Colour) -> None:
        """Punch `count` pale round holes, each with a faint darker ring, into `where` > 0.5."""
        places = np.flatnonzero(where > 0.5)
        if not len(places) or count < 1:
            return
        spots = self.rng.choice(places, count)
        radii = self.rng.uniform(*radius, count)
        across, down = (spots % self.side).astype(float), (spots // self.side).astype(float)
        ring = self.dots(across, down, radii + 1.0)
        self.transmission *= 1 - 0.10 * ring[..., None]
        self.paint(0.85 * self.dots(across, down, radii), colour)

    def sprite(self) -> Sprite:
        """Cut the sheet to its ink."""
        rows = np.flatnonzero((self.alpha > 0.04).any(axis=1))
        columns = np.flatnonzero((self.alpha > 0.04).any(axis=0))
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        alpha = np.clip((self.alpha[window] - 0.04) / 0.96, 0, 1)  # no faint square where a soft edge is cut off
        return Sprite(np.clip(self.transmission[window], 0.02, 1), alpha)


def _between(first: Colour, second: Colour, share: FloatArray) -> FloatArray:
    start = np.asarray(first, dtype=np.float32) / 255
    end = np.asarray(second, dtype=np.float32) / 255
    return np.asarray(start + share[..., None] * (end - start), dtype=np.float32)
