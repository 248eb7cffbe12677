"""Demo slides: bone-marrow smears drawn in code, with exact boxes of every countable cell.

They stand in for patients' slides wherever none may be used: the demo, the browser tests, a first look at the app. The
truth file has the keys of the shared virtual smears, and the classes are the 19 of Tayebi et al. 2022.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from annotation.slides.smear_cells import CLASS_NAMES, draw_cell
from annotation.slides.smear_shapes import FloatArray, Sheet, Sprite, cover, smooth_noise
from annotation.slides.smear_stain import Stain, choose_stain
from annotation.slides.smear_tiff import write_pyramid
from annotation.slides.smear_zones import FIELD, ZoneGrid, ZoneMap, lay_out_zones

__all__ = ["CLASS_NAMES", "draw_cell", "draw_smear"]

MICRONS_PER_PIXEL = 0.25
BOXES_PER_FIELD = 0.66
SMALLEST_WHOLE_DIFFERENTIAL = 200  # from this many boxes on, every class occurs at least once
# Parts of 1000 boxes: a normal marrow's differential, with the artefacts and platelets that the paper counts beside it.
FREQUENCIES = {
    "neutrophil": 205,
    "metamyelocyte": 85,
    "myelocyte": 100,
    "promyelocyte": 32,
    "blast": 24,
    "erythroblast": 220,
    "megakaryocyte nucleus": 7,
    "lymphocyte": 112,
    "monocyte": 30,
    "plasma cell": 20,
    "eosinophil": 30,
    "basophil": 3,
    "megakaryocyte": 5,
    "debris": 28,
    "histiocyte": 9,
    "mast cell": 2,
    "platelet": 90,
    "platelet clump": 16,
    "other cell": 10,
}
Canvas = NDArray[np.uint8]


@dataclass(frozen=True)
class Ink:
    """A stained sprite ready to be laid down: transmission (height, width, 3) and alpha (height, width, 1), uint8."""

    class_name: str
    transmission: Canvas
    alpha: Canvas
    extent: tuple[int, int, int, int]


@dataclass(frozen=True)
class Placed:
    """An ink and where the corner of its array goes (px)."""

    ink: Ink
    left: int
    top: int

    def box(self) -> list[Any]:
        """Truth of this cell: [class name, x, y, width, height] in level-0 px."""
        x, y, width, height = self.ink.extent
        return [self.ink.class_name, float(self.left + x), float(self.top + y), float(width), float(height)]


def draw_smear(folder: Path, *, patient: str, seed: int, width: int = 5888, height: int = 5120) -> Path:
    """Draw one patient's smear: write `<patient>.tif` and its truth `<patient>.json` into `folder`, return the TIFF.

    `width` and `height` are level-0 px of 0.25 um. The same patient, seed and size give the same bytes. Stain and
    differential differ by patient. Raises ValueError when the size is under one tile (512 px) or the pseudonym is no
    plain file name, OSError when the folder cannot be written.
    """
    if min(width, height) < 512:
        raise ValueError(f"A smear of {width} x {height} px is too small: it must hold at least one tile of 512 px.")
    if not patient or Path(patient).name != patient:
        raise ValueError(f"The patient's pseudonym {patient!r} cannot be used as a file name.")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{patient}".encode()).digest()[:8], "big"))
    site, stain = str(rng.choice(list("ABC"))), choose_stain(rng)
    zones = lay_out_zones(width, height, rng)
    cells = _place_cells(_countable_cells(zones, stain, rng), ZoneMap(zones), width, height, rng)
    picture = _paint(zones, cells, stain, width, height, rng)
    path = folder / f"{patient}.tif"
    _write_truth(path, patient, site, zones, cells, width, height)
    write_pyramid(path, Image.fromarray(picture))
    return path


def _write_truth(
    path: Path, patient: str, site: str, zones: ZoneGrid, cells: list[Placed], width: int, height: int
) -> None:
    boxes = sorted((cell.box() for cell in cells), key=lambda box: (box[2] // 512, box[1] // 512, box[2], box[1]))
    counts = Counter(box[0] for box in boxes)
    truth = {
        "slide": path.name,
        "patient": patient,
        "site": site,
        "preparation": "push",
        "width": width,
        "height": height,
        "mpp": MICRONS_PER_PIXEL,
        "field": FIELD,
        "classes": list(CLASS_NAMES),
        "zones": ["".join(row) for row in zones],
        "row_shift": [0] * len(zones),
        "counts": {name: counts[name] for name in CLASS_NAMES if counts[name]},
        "boxes": boxes,
    }
    part = path.with_name(f".{path.stem}.json.part")
    part.write_text(json.dumps(truth), encoding="utf-8")
    part.replace(path.with_suffix(".json"))


# Cells


def _countable_cells(zones: ZoneGrid, stain: Stain, rng: np.random.Generator) -> list[Ink]:
    """Draw every cell that will carry a box, each a drawing of its own."""
    total = round(BOXES_PER_FIELD * float((zones == "m").sum()))
    parts = np.asarray([FREQUENCIES[name] for name in CLASS_NAMES]) * rng.lognormal(0, 0.18, len(CLASS_NAMES))
    counts = rng.multinomial(total, parts / parts.sum())
    if total >= SMALLEST_WHOLE_DIFFERENTIAL:
        counts = np.maximum(counts, 1)
    most = int(0.14 * counts.sum())
    counts[CLASS_NAMES.index("platelet")] = min(counts[CLASS_NAMES.index("platelet")], most)
    names = np.repeat(np.arange(len(CLASS_NAMES)), counts)
    return [_ink(CLASS_NAMES[i], draw_cell(CLASS_NAMES[i], rng), stain) for i in names]


def _ink(class_name: str, sprite: Sprite, stain: Stain) -> Ink:
    stained = stain.apply(sprite.transmission) * stain.background
    return Ink(class_name, _bytes(stained), _bytes(sprite.alpha[..., None]), sprite.extent())


def _bytes(values: FloatArray) -> Canvas:
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255), dtype=np.uint8)


def _place_cells(inks: list[Ink], zone_map: ZoneMap, width: int, height: int, rng: np.random.Generator) -> list[Placed]:
    """Put each cell, largest first, wholly into monolayer and clear of the others; one without room is left out."""
    inks = sorted(inks, key=lambda ink: -max(ink.extent[2:]))
    placed: list[Placed] = []
    circles = np.zeros((len(inks), 3))  # centre and half size of those placed
    for ink in inks:
        tall, wide = ink.alpha.shape[:2]
        if wide >= width or tall >= height:
            continue
        left, top = rng.integers(0, width - wide, 60), rng.integers(0, height - tall, 60)
        half = max(ink.extent[2:]) / 2
        x, y = left + wide / 2, top + tall / 2
        near = circles[: len(placed)]
        gaps = np.hypot(x[:, None] - near[:, 0], y[:, None] - near[:, 1]) - near[:, 2] - half
        gap = gaps.min(axis=1) if len(placed) else np.full(60, np.inf)
        fits = np.flatnonzero(zone_map.holds("m", left, top, wide, tall) & (gap > 2))[:3]
        if not len(fits):
            continue
        best = fits[np.argmax(gap[fits])]  # the loneliest of three: an even spread with the odd pair
        circles[len(placed)] = x[best], y[best], half
        placed.append(Placed(ink, int(left[best]), int(top[best])))
    return placed


# The slide


def _paint(
    zones: ZoneGrid, cells: list[Placed], stain: Stain, width: int, height: int, rng: np.random.Generator
) -> Canvas:
    canvas = _glass(zones, stain, width, height, rng)
    zone_map = ZoneMap(zones)
    _lay_red_cells(canvas, zone_map, cells, stain, rng)
    _lay_unread_cells(canvas, zone_map, stain, rng)
    for cell in cells:
        _lay_over(canvas, cell.ink, cell.left, cell.top)
    _add_grain(canvas, rng)
    return canvas


def _glass(zones: ZoneGrid, stain: Stain, width: int, height: int, rng: np.random.Generator) -> Canvas:
    """Empty glass with uneven light, brown where the smear is thick, lilac where it is debris."""
    eighth = (height // 8 + 1, width // 8 + 1)
    light = 1 + 0.008 * smooth_noise(*eighth, 60, rng) + 0.004 * smooth_noise(*eighth, 9, rng)
    shade = np.repeat(light[..., None], 3, axis=2) * stain.background
    for letter, tint in (("t", (0.90, 0.74, 0.64)), ("d", (0.97, 0.92, 0.965))):
        patch = Image.fromarray((zones == letter).astype(np.float32)).resize(
            (zones.shape[1] * FIELD // 8, zones.shape[0] * FIELD // 8), Image.Resampling.BICUBIC
        )
        mask = np.asarray(patch)[: eighth[0], : eighth[1]]
        mask = np.pad(mask, ((0, eighth[0] - mask.shape[0]), (0, eighth[1] - mask.shape[1])), mode="edge")
        mask = cover(np.asarray(mask - 0.5 + 0.06 * smooth_noise(*eighth, 7, rng), dtype=np.float32), 0.1)
        shade *= 1 - mask[..., None] * (1 - np.asarray(tint, dtype=np.float32))
    small = Image.fromarray(_bytes(shade))
    return np.array(small.resize((width, height), Image.Resampling.BILINEAR))


def _lay_red_cells(
    canvas: Canvas, zone_map: ZoneMap, cells: list[Placed], stain: Stain, rng: np.random.Generator
) -> None:
    bank = [_bytes(_red_cell(stain, rng)) for _ in range(96)]
    height, width = canvas.shape[:2]
    crowd = smooth_noise(zone_map.zones.shape[0], zone_map.zones.shape[1], 2.5, rng)
    taken = _cell_mask(cells, width, height)
    for pitch, chances in (
        (31, {"m": 0.66, "t": 0.0, "d": 0.3, "b": 0.012}),
        (19, {"m": 0.0, "t": 0.85, "d": 0.0, "b": 0.0}),
    ):
        lattice = np.meshgrid(np.arange(-10, width, pitch), np.arange(-10, height, pitch))
        x, y = (line.ravel() + rng.normal(0, pitch * 0.3, line.size) for line in lattice)
        letters = zone_map.at(x + rng.normal(0, 34, x.size), y + rng.normal(0, 34, x.size))
        row = np.clip(y // FIELD, 0, crowd.shape[0] - 1).astype(int)
        column = np.clip(x // FIELD, 0, crowd.shape[1] - 1).astype(int)
        chance = np.vectorize(chances.__getitem__)(letters) * (1 + 0.25 * crowd[row, column])
        inside = taken[
            np.clip(y // 8, 0, taken.shape[0] - 1).astype(int), np.clip(x // 8, 0, taken.shape[1] - 1).astype(int)
        ]
        kept = np.flatnonzero((rng.random(x.size) < chance) & ~inside)
        kinds, flips = rng.integers(0, len(bank), kept.size), rng.integers(0, 4, kept.size)
        for i, kind, flip in zip(kept, kinds, flips, strict=True):
            _lay_through(canvas, bank[kind][:: 1 - 2 * (flip & 1), :: 1 - (flip & 2)], int(x[i]), int(y[i]))


def _cell_mask(cells: list[Placed], width: int, height: int) -> NDArray[np.bool_]:
    """Where (in steps of 8 px) a red cell's centre would lie under a nucleated cell: they push each other aside."""
    mask = np.zeros((height // 8 + 1, width // 8 + 1), dtype=bool)
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for cell in cells:
        _, x, y, wide, tall = cell.box()
        if cell.ink.class_name == "platelet":
            continue
        top, left = int(max(y - 16, 0)) // 8, int(max(x - 16, 0)) // 8
        window = np.s_[top : int(y + tall + 16) // 8 + 1, left : int(x + wide + 16) // 8 + 1]
        dy = (rows[window[0]] * 8 + 4 - y - tall / 2) / (tall / 2 + 9)
        dx = (columns[:, window[1]] * 8 + 4 - x - wide / 2) / (wide / 2 + 9)
        mask[window] |= dx * dx + dy * dy < 1
    return mask


def _red_cell(stain: Stain, rng: np.random.Generator) -> FloatArray:
    """Transmission of one red cell: a pale pink disc, thinner in the middle."""
    radius = float(np.clip(rng.normal(15, 1.1), 12, 18))
    sheet = Sheet(radius, rng, warp=0.4)
    stretch, angle = (rng.uniform(1, 1.14) if rng.random() < 0.85 else rng.uniform(1.2, 1.5)), rng.uniform(0, 3.14)
    depth = sheet.blob(radius, stretch=stretch, angle=angle, wobble=0.022)
    centre = tuple(rng.normal(0, 1.2, 2))
    middle = sheet.blob(radius * rng.uniform(0.34, 0.55), (centre[0], centre[1]), stretch=stretch, angle=angle)
    pallor = rng.uniform(0.5, 0.95) if rng.random() < 0.8 else rng.uniform(0, 0.25)
    thickness = cover(depth, 1.0) * (1 - pallor * cover(middle, rng.uniform(1.4, 2.8)))
    thickness = thickness * (1 + 0.10 * np.exp(-np.square((depth - 1.5) / 1.4)) + 0.03 * sheet.noise(4))
    density = rng.uniform(0.75, 1.2) * np.asarray((0.10, 0.235, 0.20))
    if rng.random() < 0.03:  # a young one, bluish and without pallor
        density = np.asarray((0.19, 0.29, 0.19))
    return stain.apply(np.asarray(np.exp(-thickness[..., None] * density), dtype=np.float32))


def _lay_unread_cells(canvas: Canvas, zone_map: ZoneMap, stain: Stain, rng: np.random.Generator) -> None:
    """Cells of the thick part (crowded, smudged) and rags of the debris: drawn, but nobody could count them."""
    crowd = ("neutrophil", "myelocyte", "metamyelocyte", "erythroblast", "erythroblast", "lymphocyte", "promyelocyte")
    for letter, names, strength, per_field in (("t", crowd * 6, 1.35, 1.6), ("d", ("debris",) * 24, 0.9, 5.0)):
        rows, columns = np.nonzero(zone_map.zones == letter)
        if not len(rows):
            continue
        bank = [_smudged(draw_cell(name, rng), stain, strength) for name in names]
        chosen = rng.integers(0, len(rows), round(per_field * len(rows)))
        for field in chosen:
            stamp = bank[int(rng.integers(len(bank)))]
            x, y = (int(v[field] * FIELD + rng.integers(FIELD)) for v in (columns, rows))
            left, top = x - stamp.shape[1] // 2, y - stamp.shape[0] // 2
            corner = np.asarray([left]), np.asarray([top])
            if zone_map.holds("td", *corner, stamp.shape[1], stamp.shape[0])[0]:
                _lay_through(canvas, np.rot90(stamp, int(rng.integers(4))), left, top)


def _smudged(sprite: Sprite, stain: Stain, strength: float) -> Canvas:
    ink = 1 - sprite.alpha[..., None] * (1 - stain.apply(sprite.transmission))
    padded = np.pad(_bytes(np.asarray(ink**strength, dtype=np.float32)), ((6, 6), (6, 6), (0, 0)), constant_values=255)
    return np.asarray(Image.fromarray(padded).filter(ImageFilter.GaussianBlur(1.6)))


def _lay_through(canvas: Canvas, transmission: Canvas, left: int, top: int) -> None:
    """Lay something clear down: what lies below shines through."""
    target, source = _overlap(canvas, transmission.shape, left, top)
    below = canvas[target]
    canvas[target] = (below.astype(np.uint16) * transmission[source] + 127) // 255


def _lay_over(canvas: Canvas, ink: Ink, left: int, top: int) -> None:
    """Lay a cell down so that it hides what lies below."""
    target, source = _overlap(canvas, ink.alpha.shape, left, top)
    alpha = ink.alpha[source].astype(np.uint32)
    canvas[target] = (canvas[target] * (255 - alpha) + ink.transmission[source] * alpha + 127) // 255


def _overlap(
    canvas: Canvas, shape: tuple[int, ...], left: int, top: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = max(min(left + shape[1], canvas.shape[1]), x1), max(min(top + shape[0], canvas.shape[0]), y1)
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))


def _add_grain(canvas: Canvas, rng: np.random.Generator) -> None:
    """Camera noise, mostly in brightness: one square of it, shifted from block to block."""
    side = 512
    bright = 1.5 * rng.standard_normal((side, side, 1)) + 1.2 * smooth_noise(side, side, 2, rng)[..., None]
    grain = np.rint(bright + 0.8 * rng.standard_normal((side, side, 3))).astype(np.int16)
    for top in range(0, canvas.shape[0], side):
        for left in range(0, canvas.shape[1], side):
            block = canvas[top : top + side, left : left + side]
            moved = np.roll(grain, tuple(rng.integers(0, side, 2)), axis=(0, 1))[: block.shape[0], : block.shape[1]]
            block[:] = np.clip(block + moved, 0, 255)
