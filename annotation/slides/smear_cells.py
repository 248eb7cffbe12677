"""The 19 cell classes of the demo smears, each drawn by the signs an expert knows it by (Wright-Giemsa, 0.25 um/px).

The classes and their order are those of Tayebi et al. 2022. Shapes and sizes follow the usual atlas descriptions:
nuclear outline, chromatin, nucleoli, colour of the cytoplasm, granules, vacuoles. Radii are in px (4 px = 1 um).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from annotation.slides.smear_shapes import Colour, FloatArray, Sheet, Sprite, cover, union, without

Point = tuple[float, float]

LARGEST_CELL = 320  # px, so that one tile holds it

CHROMATIN_DARK: Colour = (58, 32, 122)
CHROMATIN_LIGHT: Colour = (138, 84, 178)
PINK_TAN: Colour = (247, 226, 232)


def draw_cell(class_name: str, rng: np.random.Generator) -> Sprite:
    """Draw one cell of a class as a new sprite, never twice the same.

    Raises KeyError when the class is not one of the 19.
    """
    return _PAINTERS[class_name](rng)


def _polar(distance: float, angle: float) -> Point:
    return distance * math.cos(angle), distance * math.sin(angle)


def _turn(rng: np.random.Generator) -> float:
    return float(rng.uniform(0, 2 * math.pi))


def _radius(rng: np.random.Generator, mean: float, spread: float = 0.06) -> float:
    return float(mean * np.clip(rng.normal(1, spread), 1 - 2 * spread, 1 + 2 * spread))


def _lobes(sheet: Sheet, radius: float, count: int, *, thread: float) -> FloatArray:
    """Lobes on an arc, each joined to the next by a thread of chromatin."""
    rng = sheet.rng
    size = radius * {2: 0.39, 3: 0.325, 4: 0.285, 5: 0.255}[count]
    start, spacing = _turn(rng), {2: 2.3, 3: 1.55, 4: 1.3, 5: 1.12}[count] * rng.uniform(0.85, 1.1)
    angles = [start + i * spacing + rng.normal(0, 0.12) for i in range(count)]
    centres = [_polar(radius * rng.uniform(0.4, 0.52), angle) for angle in angles]
    parts = [
        sheet.blob(
            size * rng.uniform(0.85, 1.15),
            centre,
            stretch=rng.uniform(1.05, 1.45),
            angle=angle + math.pi / 2 + rng.normal(0, 0.4),
            wobble=0.07,
        )
        for centre, angle in zip(centres, angles, strict=True)
    ]
    return union(*parts, sheet.chain(centres, thread), blend=0.9)


def _band(sheet: Sheet, radius: float) -> FloatArray:
    """A horseshoe of even width."""
    start, sweep = _turn(sheet.rng), sheet.rng.uniform(2.6, 3.9)
    points = [_polar(radius * sheet.rng.uniform(0.42, 0.5), start + sweep * i / 6) for i in range(7)]
    return sheet.chain(points, radius * sheet.rng.uniform(0.19, 0.25))


def _kidney(sheet: Sheet, radius: float, angle: float, *, size: float, dent: float) -> FloatArray:
    """An oval pushed to one side (towards `angle`) and dented from the other; `dent` 0..1 is how deep."""
    whole = sheet.blob(
        radius * size, _polar(radius * 0.24, angle), stretch=1.22, angle=angle + math.pi / 2, wobble=0.04
    )
    bite = sheet.blob(radius * 0.4, _polar(radius * (size + 0.02 - dent * 0.55), angle + math.pi), wobble=0.05)
    return without(whole, bite, blend=2.5)


def _nucleoli(sheet: Sheet, radius: float, centre: Point, count: int, size: tuple[float, float], ink: Colour) -> None:
    """Pale bluish round spots with a condensed rim."""
    for _ in range(count):
        dx, dy = _polar(radius * sheet.rng.uniform(0.1, 0.6), _turn(sheet.rng))
        spot = sheet.blob(sheet.rng.uniform(*size), (centre[0] + dx, centre[1] + dy), stretch=1.15, wobble=0.08)
        sheet.paint(0.35 * cover(spot + 1.6, 0.8), CHROMATIN_DARK)
        sheet.paint(0.8 * cover(spot, 0.9), ink)


def _neutrophil(rng: np.random.Generator) -> Sprite:
    radius = _radius(rng, 26)
    sheet = Sheet(radius, rng)
    body = sheet.cytoplasm(
        sheet.blob(radius, stretch=rng.uniform(1, 1.12), angle=_turn(rng)), PINK_TAN, (238, 212, 224)
    )
    sheet.granules(body, int(rng.integers(220, 420)), (0.35, 0.75), (172, 112, 182), 0.5)
    if rng.random() < 0.22:
        nucleus = _band(sheet, radius)
    else:
        nucleus = _lobes(
            sheet, radius, int(rng.choice([2, 3, 4, 5], p=[0.14, 0.46, 0.3, 0.1])), thread=rng.uniform(1, 1.8)
        )
    sheet.chromatin(nucleus, CHROMATIN_DARK, (128, 76, 168), grain=3.2, contrast=0.24, clumped=0.6)
    return sheet.sprite()


def _metamyelocyte(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 29), _turn(rng)
    sheet = Sheet(radius, rng)
    body = sheet.cytoplasm(sheet.blob(radius, stretch=1.06, angle=angle), (240, 210, 222), (226, 196, 220))
    sheet.granules(body, int(rng.integers(250, 420)), (0.4, 0.85), (156, 92, 176), 0.55)
    nucleus = _kidney(sheet, radius, angle, size=rng.uniform(0.62, 0.68), dent=rng.uniform(0.45, 0.75))
    sheet.chromatin(nucleus, (64, 36, 128), (140, 86, 178), grain=3.2, contrast=0.27, clumped=0.4)
    return sheet.sprite()


def _myelocyte(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 32), _turn(rng)
    sheet = Sheet(radius, rng)
    body = sheet.cytoplasm(sheet.blob(radius, stretch=1.08, angle=angle), (226, 198, 224), (190, 176, 222), rim=6)
    hof = sheet.blob(radius * 0.42, _polar(radius * 0.42, angle + math.pi))
    sheet.paint(0.6 * cover(hof, 4) * body, (244, 214, 222))
    sheet.granules(body, int(rng.integers(260, 420)), (0.5, 1.1), (138, 66, 160), 0.65)
    centre = _polar(radius * 0.3, angle)
    oval = sheet.blob(radius * 0.6, centre, stretch=rng.uniform(1.05, 1.25), angle=angle + math.pi / 2)
    flat = sheet.blob(radius * 2, _polar(radius * 2.12, angle + math.pi), wobble=0)
    nucleus = without(oval, flat, blend=3)
    sheet.chromatin(nucleus, (68, 38, 134), (146, 90, 184), grain=3, contrast=0.24, clumped=0.3)
    return sheet.sprite()


def _promyelocyte(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 36, 0.05), _turn(rng)
    sheet = Sheet(radius, rng)
    body = sheet.cytoplasm(sheet.blob(radius, stretch=1.1, angle=_turn(rng)), (190, 172, 226), (150, 142, 214), rim=7)
    sheet.paint(0.75 * cover(sheet.blob(radius * 0.3, _polar(radius * 0.52, angle + math.pi)), 4), (232, 208, 230))
    sheet.granules(body, int(rng.integers(190, 290)), (0.6, 1.35), (124, 30, 132), 0.8)
    centre = _polar(radius * 0.26, angle)
    nucleus = sheet.blob(radius * 0.6, centre, stretch=rng.uniform(1, 1.2), angle=_turn(rng))
    inside = sheet.chromatin(nucleus, (88, 48, 148), (160, 102, 192), grain=2.4, contrast=0.2)
    _nucleoli(sheet, radius * 0.5, centre, int(rng.integers(1, 4)), (3.2, 4.8), (166, 132, 206))
    sheet.granules(inside, int(rng.integers(30, 70)), (0.7, 1.25), (104, 24, 124), 0.65)
    return sheet.sprite()


def _blast(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 30, 0.09), _turn(rng)
    sheet = Sheet(radius, rng)
    depth = sheet.blob(radius, stretch=rng.uniform(1, 1.15), angle=angle, wobble=0.035)
    sheet.cytoplasm(depth, (150, 156, 222), (112, 118, 204), rim=4)
    centre = _polar(radius * 0.1, angle)
    nucleus = sheet.blob(radius * rng.uniform(0.76, 0.82), centre, stretch=1.06, angle=angle, wobble=0.04)
    sheet.chromatin(nucleus, (108, 62, 160), (168, 112, 200), grain=1.8, contrast=0.17)
    _nucleoli(sheet, radius * 0.75, centre, int(rng.integers(2, 5)), (3.4, 5.2), (166, 150, 220))
    return sheet.sprite()


def _erythroblast(rng: np.random.Generator) -> Sprite:
    """Basophilic, polychromatic or orthochromatic: smaller, pinker and denser with age."""
    stage = int(rng.choice(3, p=[0.2, 0.5, 0.3]))
    radius = _radius(rng, (25, 20.5, 17.5)[stage])
    inner, edge = (
        ((128, 128, 208), (98, 102, 196)),
        ((190, 180, 216), (168, 162, 212)),
        ((232, 196, 208), (222, 184, 204)),
    )[stage]
    sheet = Sheet(radius, rng, warp=0.7)
    sheet.cytoplasm(sheet.blob(radius, stretch=rng.uniform(1, 1.12), angle=_turn(rng)), inner, edge, rim=4)
    offset = radius * rng.uniform(0.02, (0.1, 0.18, 0.36)[stage])
    nucleus = sheet.blob(radius * (0.74, 0.64, 0.52)[stage], _polar(offset, _turn(rng)), wobble=0.015)
    dark, light = (((74, 36, 136), (150, 92, 184)), ((50, 26, 112), (146, 100, 182)), ((40, 22, 92), (70, 42, 122)))[
        stage
    ]
    halo = cover(nucleus + 2.2, 1.2) * 0.35
    sheet.paint(halo * (0.0 if stage == 2 else 1.0), (226, 214, 238))
    sheet.chromatin(nucleus, dark, light, grain=(3.4, 4.2, 4)[stage], contrast=(0.3, 0.34, 0.2)[stage], clumped=0.8)
    return sheet.sprite()


def _lymphocyte(rng: np.random.Generator) -> Sprite:
    large = rng.random() < 0.2
    radius, angle = _radius(rng, 24 if large else 19.5), _turn(rng)
    sheet = Sheet(radius, rng)
    depth = sheet.blob(radius, stretch=rng.uniform(1, 1.14), angle=_turn(rng), wobble=0.05)
    body = sheet.cytoplasm(depth, (184, 202, 242), (150, 172, 232), rim=4)
    if large:
        sheet.granules(body, int(rng.integers(4, 12)), (0.9, 1.3), (150, 40, 140))
    size = radius * (0.7 if large else rng.uniform(0.8, 0.88))
    nucleus = sheet.blob(size, _polar(radius * 0.12, angle), stretch=1.06, angle=angle)
    if rng.random() < 0.5:
        notch = sheet.blob(radius * 0.3, _polar(radius * 0.9, angle + math.pi), wobble=0)
        nucleus = without(nucleus, notch)
    sheet.chromatin(nucleus, (54, 30, 118), (116, 70, 168), grain=5, contrast=0.3, clumped=0.35)
    return sheet.sprite()


def _monocyte(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 33, 0.07), _turn(rng)
    sheet = Sheet(radius, rng, warp=2)
    depth = sheet.blob(radius, stretch=rng.uniform(1, 1.2), angle=angle, wobble=0.07)
    body = sheet.cytoplasm(depth, (196, 194, 222), (178, 178, 214), mottle=0.25)
    sheet.granules(body, 260, (0.35, 0.6), (150, 104, 178), 0.5)
    sheet.vacuoles(body * cover(depth - 3), int(rng.integers(2, 9)), (1.2, 2.8), (242, 238, 246))
    fold = angle + rng.normal(0, 0.3)
    lobes = [
        sheet.blob(radius * 0.42, _polar(radius * 0.36, fold + turn), stretch=1.2, wobble=0.08)
        for turn in (-1.25, 0, 1.25)
    ]
    nucleus = union(*lobes, blend=3)
    sheet.chromatin(nucleus, (88, 54, 150), (170, 122, 200), grain=3.6, contrast=0.27, clumped=0.15)
    crease = sheet.chain([_polar(radius * r, fold + t) for r, t in ((0.05, 0.3), (0.3, -0.15), (0.6, 0.2))], 0.8)
    sheet.paint(0.45 * cover(crease, 1.1) * cover(nucleus - 2), (70, 40, 132))
    return sheet.sprite()


def _plasma_cell(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 30), _turn(rng)
    sheet = Sheet(radius, rng)
    depth = sheet.blob(radius, stretch=rng.uniform(1.15, 1.35), angle=angle, wobble=0.04)
    body = sheet.cytoplasm(depth, (118, 116, 200), (92, 94, 186), mottle=0.2)
    sheet.paint(0.9 * cover(sheet.blob(radius * 0.3, _polar(radius * 0.02, angle)), 3.5) * body, (216, 204, 234))
    centre, size = _polar(radius * 0.52, angle), radius * 0.46
    nucleus = sheet.blob(size, centre, wobble=0.02)
    around = np.arctan2(sheet.y - centre[1], sheet.x - centre[0])
    outward = np.clip(1.25 - nucleus / size, 0, 1)
    spokes = np.cos(int(rng.integers(6, 8)) * around + _turn(rng) + 0.9 * sheet.noise(6))
    outer = 1 / (1 + np.exp((0.62 - outward) * 14))  # blocks along the membrane, loose chromatin in the middle
    pattern = np.asarray(-1.1 * spokes * outer + (0.9 - 0.4 * outer) * sheet.noise(3.4), dtype=np.float32)
    sheet.chromatin(nucleus, (54, 28, 116), (158, 106, 188), contrast=0.25, clumped=0.3, pattern=pattern, softness=1.0)
    sheet.vacuoles(body * cover(-nucleus - 3), int(rng.integers(0, 4)), (1, 1.8), (214, 208, 236))
    return sheet.sprite()


def _eosinophil(rng: np.random.Generator) -> Sprite:
    radius = _radius(rng, 28)
    sheet = Sheet(radius, rng)
    depth = sheet.blob(radius, stretch=rng.uniform(1, 1.1), angle=_turn(rng))
    body = sheet.cytoplasm(depth, (244, 206, 200), (240, 196, 196))
    inside = cover(depth - 1.5) * body
    sheet.granules(inside, 230, (1.3, 1.9), (206, 92, 98), 0.8)
    sheet.granules(inside, 130, (1.0, 1.5), (238, 138, 122), 0.9)
    sheet.granules(inside, 60, (0.5, 0.8), (250, 206, 186), 0.7)
    nucleus = _lobes(sheet, radius, int(rng.choice([2, 3], p=[0.85, 0.15])), thread=1.8)
    sheet.chromatin(nucleus, CHROMATIN_DARK, (128, 76, 166), grain=3.4, contrast=0.24, clumped=0.5)
    return sheet.sprite()


def _basophil(rng: np.random.Generator) -> Sprite:
    radius = _radius(rng, 25)
    sheet = Sheet(radius, rng)
    depth = sheet.blob(radius, stretch=1.06, angle=_turn(rng))
    body = sheet.cytoplasm(depth, (226, 204, 230), (212, 188, 224))
    nucleus = _lobes(sheet, radius, int(rng.choice([2, 3])), thread=3)
    sheet.chromatin(nucleus, (92, 54, 150), (150, 102, 190), grain=4, contrast=0.2, softness=1.4)
    sheet.granules(body * cover(depth - 1), 90, (0.7, 1.3), (92, 46, 146), 0.7)
    sheet.granules(body * cover(depth - 1), int(rng.integers(60, 95)), (1.3, 2.4), (50, 20, 104), 0.88)
    return sheet.sprite()


def _mast_cell(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 33, 0.08), _turn(rng)
    sheet = Sheet(radius * 1.25, rng, warp=2)
    depth = sheet.blob(radius, stretch=rng.uniform(1.15, 1.75), angle=angle, wobble=0.06)
    body = sheet.cytoplasm(depth, (196, 160, 212), (180, 140, 204))
    nucleus = sheet.blob(radius * 0.4, _polar(radius * 0.1, angle), stretch=1.25, angle=angle)
    inside = sheet.chromatin(nucleus, (112, 66, 160), (168, 114, 196), grain=3, contrast=0.2, softness=1.5)
    sheet.granules(body * (inside < 0.5), 600, (0.9, 1.5), (66, 24, 122), 0.85)
    sheet.granules(body, 90, (0.9, 1.4), (88, 30, 132), 0.8)
    spilt = sheet.granules(cover(depth + 5) * (body < 0.3), int(rng.integers(8, 22)), (0.9, 1.4), (70, 26, 124))
    sheet.alpha = np.maximum(sheet.alpha, spilt)
    return sheet.sprite()


def _lobulated(sheet: Sheet, reach: float, lobe: float, count: int) -> tuple[FloatArray, list[FloatArray]]:
    """A heap of lobes melted together, and its lobes."""
    rng, start = sheet.rng, _turn(sheet.rng)
    lobes = [
        sheet.blob(
            lobe * rng.uniform(0.75, 1.25),
            _polar(reach * rng.uniform(0.45, 1), start + i * 2 * math.pi / count + rng.normal(0, 0.25)),
            stretch=rng.uniform(1, 1.35),
            angle=_turn(rng),
            wobble=0.07,
        )
        for i in range(count)
    ]
    if rng.random() < 0.75:  # else a ring with a gap in the middle
        lobes.append(sheet.blob(reach * 0.62, _polar(reach * 0.12, start), stretch=1.2, angle=start, wobble=0.06))
    return union(*lobes, blend=2.5), lobes


def _megakaryocyte_chromatin(sheet: Sheet, nucleus: FloatArray, lobes: list[FloatArray]) -> None:
    sheet.chromatin(nucleus, (70, 36, 132), (150, 92, 182), grain=4.5, contrast=0.24, clumped=0.4)
    for lobe in lobes:  # creases where a lobe lies over its neighbours
        crease = 0.38 * np.exp(-np.abs(lobe) / np.float32(1.6)) * cover(nucleus - 3)
        sheet.paint(np.asarray(crease, dtype=np.float32), (48, 22, 108))


def _megakaryocyte(rng: np.random.Generator) -> Sprite:
    radius = float(np.clip(rng.normal(122, 14), 98, 142))
    sprite = _whole_megakaryocyte(radius, rng)
    while max(sprite.size) > LARGEST_CELL:
        radius *= 0.98 * LARGEST_CELL / max(sprite.size)
        sprite = _whole_megakaryocyte(radius, rng)
    return sprite


def _whole_megakaryocyte(radius: float, rng: np.random.Generator) -> Sprite:
    sheet = Sheet(radius, rng, warp=3.5)
    outline = sheet.blob(radius, stretch=rng.uniform(1, 1.14), angle=_turn(rng), wobble=0.09)
    depth = outline + 2.2 * sheet.noise(7) + 5 * sheet.noise(26)
    body = sheet.cytoplasm(depth, (228, 184, 214), (214, 190, 230), mottle=0.15, rim=12)
    sheet.paint(0.35 * np.clip(sheet.noise(24), 0, 1) * body, (190, 136, 200))
    clouds = np.asarray(body * cover(depth - 7) * (sheet.noise(9) > -0.5), dtype=np.float32)
    sheet.granules(clouds, 5200, (0.4, 1.0), (152, 74, 158), 0.5)
    sheet.granules(clouds, 800, (0.8, 1.4), (132, 54, 148), 0.5)
    for _ in range(int(rng.integers(2, 7))):  # platelets about to leave
        _one_platelet(sheet, _polar(radius * rng.uniform(0.94, 1.06), _turn(rng)), rng.uniform(5, 8))
    nucleus, lobes = _lobulated(sheet, radius * 0.48, radius * 0.2, int(rng.integers(8, 13)))
    sheet.paint(0.4 * cover(nucleus + 6, 5) * body, (226, 196, 226))
    _megakaryocyte_chromatin(sheet, nucleus, lobes)
    return sheet.sprite()


def _megakaryocyte_nucleus(rng: np.random.Generator) -> Sprite:
    """A naked nucleus: lobes and at most a wisp of cytoplasm."""
    radius = _radius(rng, 56, 0.1)
    sheet = Sheet(radius, rng, warp=2.5)
    nucleus, lobes = _lobulated(sheet, radius * 0.68, radius * 0.34, int(rng.integers(5, 9)))
    wisp = nucleus + 4 * sheet.noise(12)
    sheet.alpha = np.maximum(sheet.alpha, 0.35 * cover(wisp + 2, 3))
    sheet.paint(cover(wisp + 2, 3), (216, 176, 214))
    _megakaryocyte_chromatin(sheet, nucleus, lobes)
    return sheet.sprite()


def _debris(rng: np.random.Generator) -> Sprite:
    """A smudge: a burst nucleus, spread and combed to strands, without an outline."""
    radius, angle = _radius(rng, 27, 0.15), _turn(rng)
    sheet = Sheet(radius * 1.3, rng, warp=6)
    depth = sheet.blob(radius, stretch=rng.uniform(1.1, 1.9), angle=angle, wobble=0.14) + 4 * sheet.noise(9)
    across = sheet.y * math.cos(angle) - sheet.x * math.sin(angle)
    strands = 0.5 * np.sin(across / rng.uniform(1.4, 2.2) + 2 * sheet.noise(14)) + 0.5 * sheet.noise(3)
    holes = np.clip(0.8 + 0.35 * sheet.noise(7) + 0.16 * strands, 0.1, 1)
    sheet.alpha = np.asarray(cover(depth, 3.5) * holes, dtype=np.float32)
    share = np.clip(0.5 + 0.3 * strands - 0.02 * depth, 0, 1)[..., None]
    dark, light = np.asarray((132, 78, 168)) / 255, np.asarray((216, 170, 216)) / 255
    sheet.transmission = np.asarray(dark + share * (light - dark), dtype=np.float32)
    return sheet.sprite()


def _histiocyte(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 46, 0.1), _turn(rng)
    sheet = Sheet(radius, rng, warp=3)
    depth = sheet.blob(radius, stretch=rng.uniform(1, 1.25), angle=angle, wobble=0.07)
    body = sheet.cytoplasm(depth, (222, 214, 232), (212, 204, 228), mottle=0.25)
    inside = cover(depth - 4)
    for radii in ((3.2, 5.0), (1.4, 2.8)):
        sheet.vacuoles(inside, int(rng.integers(55, 90)), radii, (240, 234, 242))
    sheet.granules(body * inside, int(rng.integers(10, 30)), (0.9, 1.7), (146, 96, 164), 0.7)
    for _ in range(int(rng.integers(0, 3))):  # what it has eaten
        meal = sheet.blob(
            rng.uniform(3.5, 6.5),
            _polar(radius * rng.uniform(0.2, 0.6), angle + math.pi + rng.normal(0, 0.8)),
            wobble=0.02,
        )
        sheet.paint(0.85 * cover(meal + 2.5), (240, 236, 244))
        sheet.paint(0.8 * cover(meal), (116, 68, 150) if rng.random() < 0.6 else (222, 150, 150))
    centre = _polar(radius * 0.45, angle)
    nucleus = sheet.blob(radius * 0.32, centre, stretch=1.3, angle=angle + math.pi / 2, wobble=0.05)
    sheet.chromatin(nucleus, (104, 66, 158), (188, 142, 210), grain=2.8, contrast=0.3)
    _nucleoli(sheet, radius * 0.2, centre, 1, (2.4, 3.2), (150, 136, 208))
    return sheet.sprite()


def _one_platelet(sheet: Sheet, centre: Point, radius: float) -> None:
    rng = sheet.rng
    depth = sheet.blob(radius, centre, stretch=rng.uniform(1, 1.5), angle=_turn(rng), wobble=0.12)
    body = sheet.body(depth, 1.0)
    sheet.paint(body, (206, 184, 224))
    core = cover(depth - radius * 0.25)
    sheet.granules(core, int(radius * rng.uniform(2.4, 4)), (0.7, 1.2), (128, 56, 156), 0.85)


def _platelet(rng: np.random.Generator) -> Sprite:
    radius = float(np.clip(rng.lognormal(math.log(7.6), 0.2), 5, 11))
    sheet = Sheet(radius, rng, warp=0.6)
    _one_platelet(sheet, (0, 0), radius)
    return sheet.sprite()


def _platelet_clump(rng: np.random.Generator) -> Sprite:
    count = int(rng.integers(9, 24))
    reach = 4.6 * math.sqrt(count)
    sheet = Sheet(reach + 6, rng, warp=1.5)
    matrix = sheet.blob(reach, wobble=0.15)
    sheet.alpha = 0.35 * cover(matrix, 3)
    sheet.paint(cover(matrix, 3), (216, 198, 228))
    for _ in range(count):
        _one_platelet(sheet, _polar(reach * math.sqrt(rng.uniform(0, 1)), _turn(rng)), rng.uniform(4, 7))
    return sheet.sprite()


def _other_cell(rng: np.random.Generator) -> Sprite:
    """What no other class takes: a cell in mitosis or a dying one."""
    return _mitosis(rng) if rng.random() < 0.5 else _dying_cell(rng)


def _mitosis(rng: np.random.Generator) -> Sprite:
    radius, angle = _radius(rng, 32), _turn(rng)
    sheet = Sheet(radius, rng)
    sheet.cytoplasm(sheet.blob(radius, stretch=1.1, angle=angle), (200, 192, 226), (164, 160, 216), mottle=0.2)
    shift = radius * (0.3 if rng.random() < 0.4 else 0)  # anaphase: two plates; metaphase: one
    plates = []
    for way in (-1, 1):
        along, across = _polar(way * shift, angle), _polar(radius * 0.42, angle + math.pi / 2)
        ends = (along[0] - across[0], along[1] - across[1]), (along[0] + across[0], along[1] + across[1])
        plates.append(sheet.rod(*ends, 4.2))
    ragged = union(*plates) + 1.5 * sheet.noise(3.2)
    sheet.chromatin(ragged, (42, 20, 100), (92, 54, 144), contrast=0.2)
    return sheet.sprite()


def _dying_cell(rng: np.random.Generator) -> Sprite:
    radius = _radius(rng, 21, 0.1)
    sheet = Sheet(radius, rng, warp=1.5)
    depth = sheet.blob(radius, wobble=0.06)
    body = sheet.cytoplasm(depth, (214, 176, 206), (188, 158, 208), mottle=0.25)
    sheet.vacuoles(body * cover(depth - 3), int(rng.integers(2, 6)), (1.5, 3), (240, 230, 240))
    for _ in range(int(rng.integers(2, 6))):
        ball = sheet.blob(rng.uniform(2.5, 6.5), _polar(radius * rng.uniform(0, 0.6), _turn(rng)), wobble=0)
        sheet.chromatin(ball, (40, 20, 94), (74, 42, 124), contrast=0.1)
    return sheet.sprite()


_PAINTERS: dict[str, Callable[[np.random.Generator], Sprite]] = {
    "neutrophil": _neutrophil,
    "metamyelocyte": _metamyelocyte,
    "myelocyte": _myelocyte,
    "promyelocyte": _promyelocyte,
    "blast": _blast,
    "erythroblast": _erythroblast,
    "megakaryocyte nucleus": _megakaryocyte_nucleus,
    "lymphocyte": _lymphocyte,
    "monocyte": _monocyte,
    "plasma cell": _plasma_cell,
    "eosinophil": _eosinophil,
    "basophil": _basophil,
    "megakaryocyte": _megakaryocyte,
    "debris": _debris,
    "histiocyte": _histiocyte,
    "mast cell": _mast_cell,
    "platelet": _platelet,
    "platelet clump": _platelet_clump,
    "other cell": _other_cell,
}
CLASS_NAMES: tuple[str, ...] = tuple(_PAINTERS)
