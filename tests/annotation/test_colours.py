"""Class colours stay apart for colour-blind readers, and can be seen on a smear and on a white page."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation.taxonomies import PRESETS

Floats = NDArray[np.float64]

# Linear RGB as each reader sees it: Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation
# of color vision deficiency", table of severity 1.0.
VISIONS: dict[str, Floats] = {
    "normal vision": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# IEC 61966-2-1 (sRGB), D65.
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)


def linear_rgb(colours: list[str]) -> Floats:
    """`#rrggbb` as linear RGB, float (n, 3) in 0..1."""
    values = np.array([[int(one[start : start + 2], 16) for start in (1, 3, 5)] for one in colours]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_lab(linear: Floats) -> Floats:
    """CIELAB under D65 of linear RGB, float (n, 3)."""
    ratio = linear @ TO_XYZ.T / WHITE
    cube = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = cube.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def seen_by(colours: list[str], vision: str) -> Floats:
    """CIELAB, float (n, 3), of the colours as a reader with that vision sees them."""
    return to_lab(np.clip(linear_rgb(colours) @ VISIONS[vision].T, 0, 1))


def ciede2000(one: Floats, other: Floats) -> Floats:
    """Colour difference of CIELAB rows, float (n,): Sharma, Wu and Dalal 2005, equations 2 to 22."""
    (l1, a1, b1), (l2, a2, b2) = one.T, other.T
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1 + 0.5 * (1 - np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7)))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    light, chroma = l2 - l1, c2 - c1
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_light, mean_chroma = (l1 + l2) / 2, (c1 + c2) / 2
    half_way = (h1 + h2) / 2 + np.where(np.abs(h1 - h2) > 180, np.where(h1 + h2 < 360, 180, -180), 0)
    mean_hue = np.where(grey, h1 + h2, half_way)
    weight = 1 - 0.17 * _cos(mean_hue - 30) + 0.24 * _cos(2 * mean_hue)
    weight += 0.32 * _cos(3 * mean_hue + 6) - 0.20 * _cos(4 * mean_hue - 63)
    scale_light = 1 + 0.015 * (mean_light - 50) ** 2 / np.sqrt(20 + (mean_light - 50) ** 2)
    scale_chroma, scale_hue = 1 + 0.045 * mean_chroma, 1 + 0.015 * mean_chroma * weight
    blue = 30 * np.exp(-(((mean_hue - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7)) * np.sin(np.radians(2 * blue))
    light, chroma, hue = light / scale_light, chroma / scale_chroma, hue / scale_hue
    return np.sqrt(light**2 + chroma**2 + hue**2 + rotation * chroma * hue)


def _cos(degrees: Floats) -> Floats:
    return np.cos(np.radians(degrees))


# Of the 34 pairs that Sharma, Wu and Dalal publish, those that take a different way through the formulas.
@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1, 2), (50, 0, 0), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_is_that_of_the_published_pairs(one, other, difference):
    assert ciede2000(np.array([one]), np.array([other]))[0] == pytest.approx(difference, abs=5e-5)


# What a reader can still tell apart in lines 2 px wide; 2 to 3 is the least difference that is seen side by side.
LEAST = {"hct": 11.0, "blood-and-marrow": 15.0}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("key", PRESETS)
def test_any_two_classes_stay_apart(key, vision):
    classes = PRESETS[key].classes
    seen = seen_by([one.colour for one in classes], vision)
    near = {
        f"{classes[one].code}, {classes[other].code}": round(float(ciede2000(seen[[one]], seen[[other]])[0]), 2)
        for one, other in combinations(range(len(classes)), 2)
    }
    assert {pair: difference for pair, difference in near.items() if difference < LEAST[key]} == {}


@pytest.mark.parametrize("key", PRESETS)
def test_neighbours_in_maturation_differ_in_lightness(key):
    """They are taken for each other most often, and lightness is what every reader sees."""
    series = sorted((one for one in PRESETS[key].classes if one.maturation), key=lambda one: -one.maturation)
    lightness = seen_by([one.colour for one in series], "normal vision")[:, 0]
    assert (np.diff(lightness) <= -7).all()


# The editor draws a box over black at 62 %; this is the darkest nucleus of the shared smears, the others are the means
# of their pixels in clusters: background, red cells, cytoplasm, nuclei.
DARKEST_NUCLEUS, OUTLINE_OPACITY = "#371448", 0.62
SMEAR = ["#ebd2c6", "#e1c2b9", "#d3afad", "#c39da4", "#c28f76", "#9e655b", "#a47ca4", "#774a96", "#4c2275"]


@pytest.mark.parametrize("key", PRESETS)
def test_a_box_stands_out_from_its_outline_over_the_darkest_nucleus(key):
    """Contrast 3:1, as the Web Content Accessibility Guidelines 2.2 (1.4.11) ask of graphics."""
    nucleus = np.array([[int(DARKEST_NUCLEUS[start : start + 2], 16) for start in (1, 3, 5)]])
    outline = "#" + "".join(f"{round(value * (1 - OUTLINE_OPACITY)):02x}" for value in nucleus[0])
    contrast = (luminance([one.colour for one in PRESETS[key].classes]) + 0.05) / (luminance([outline]) + 0.05)
    assert contrast.min() >= 3


def luminance(colours: list[str]) -> Floats:
    return linear_rgb(colours) @ TO_XYZ[1]


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("key", PRESETS)
def test_every_colour_can_be_told_from_a_white_page(key, vision):
    seen = seen_by([one.colour for one in PRESETS[key].classes], vision)
    assert ciede2000(seen, np.repeat(seen_by(["#ffffff"], vision), len(seen), axis=0)).min() >= 10


@pytest.mark.parametrize("key", PRESETS)
def test_no_colour_is_lost_in_the_stain(key):
    seen = seen_by([one.colour for one in PRESETS[key].classes], "normal vision")
    for stain in seen_by(SMEAR, "normal vision"):
        assert ciede2000(seen, np.repeat(stain[None], len(seen), axis=0)).min() >= 8
