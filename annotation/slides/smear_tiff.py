"""Writes a pyramidal TIFF that OpenSlide reads as a generic tiled slide."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TILE = 256  # px
REDUCTIONS = (1, 4, 16)
PIXELS_PER_CENTIMETRE = 40_000  # 0.25 um per px
QUALITY = 88


def write_pyramid(path: Path, picture: Image.Image) -> None:
    """Write an RGB picture as JPEG tiles of 256 px in levels 1, 4 and 16, at 0.25 um/px.

    The file appears only when it is complete, and holds no date: the same picture gives the same bytes. Raises OSError
    when the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with tifffile.TiffWriter(part) as writer:
            for reduction in REDUCTIONS:
                writer.write(
                    np.asarray(picture.reduce(reduction)),
                    photometric="ycbcr",
                    compression="jpeg",
                    compressionargs={"level": QUALITY},
                    subsampling=(1, 1),
                    tile=(TILE, TILE),
                    subfiletype=0 if reduction == 1 else 1,
                    resolution=(PIXELS_PER_CENTIMETRE // reduction,) * 2,
                    resolutionunit="CENTIMETER",
                    software="Marrowloop",
                    metadata=None,
                )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
