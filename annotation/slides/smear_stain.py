"""How strongly and in which hue a patient's smear took the stain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation.slides.smear_shapes import FloatArray


@dataclass(frozen=True)
class Stain:
    """The light that empty glass lets through (three values, 0..1) and a 3 x 3 change of optical densities."""

    background: FloatArray
    densities: NDArray[np.float64]

    def apply(self, transmission: FloatArray) -> FloatArray:
        """Stain a drawing: transmissions (height, width, 3) in 0..1 in, the same out, still without the background.

        Works on optical densities, which add up where ink lies over ink (Beer-Lambert).
        """
        density = -np.log(np.maximum(transmission, 0.02))
        stained = np.empty_like(density)
        for channel, weights in enumerate(self.densities):  # no matrix product: its rounding differs between machines
            stained[..., channel] = sum(float(weight) * density[..., i] for i, weight in enumerate(weights))
        return np.asarray(np.clip(np.exp(-stained), 0, 1), dtype=np.float32)


def choose_stain(rng: np.random.Generator) -> Stain:
    """Draw one patient's stain: tint of the glass, turn of the hue, saturation and strength."""
    warmth, light = rng.uniform(-1, 1), rng.uniform(0.93, 0.98)
    background = light * np.asarray((1.0, 0.92 + 0.025 * rng.uniform(-1, 1), 0.91 - 0.05 * warmth))
    hue, saturation, strength = math.radians(rng.uniform(-10, 10)), rng.uniform(0.82, 1.18), rng.uniform(0.85, 1.18)
    return Stain(background.astype(np.float32), strength * _turn_of_hue(hue, saturation))


def _turn_of_hue(angle: float, saturation: float) -> NDArray[np.float64]:
    """Turn colours about the grey axis (Rodrigues' rotation) and scale their distance from it."""
    grey = np.full((3, 3), 1 / 3)
    cross = np.asarray(((0, -1, 1), (1, 0, -1), (-1, 1, 0))) / math.sqrt(3)
    return np.asarray(grey + saturation * (math.cos(angle) * (np.eye(3) - grey) + math.sin(angle) * cross))
