"""A version's OpenVINO export: made once, measured against torch on the project's own tiles, used if they agree."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annotation.models import Tile
from annotation.services.storage import local_path, sha256_of, store
from annotation.services.tiles import read_tiles
from inference.engine.detector import MODEL_FILES, export_folder
from inference.engine.windows import is_large, windows_of
from inference.models import ModelVersion

logger = logging.getLogger(__name__)

CHECK_TILES = 36


@dataclass(frozen=True)
class ModelExport:
    """An export on disk, and what is to be kept of it: whether it may be used, and why (not)."""

    folder: Path
    accepted: bool
    text: str

    def keep(self, weights_name: str) -> dict[str, Any]:
        """Put an accepted export into storage beside its weights; returns the content of `ModelVersion.exports`."""
        files = {}
        for name in MODEL_FILES if self.accepted else ():
            store(self.folder / name, _stored_name(weights_name, name))
            files[name] = sha256_of(self.folder / name)
        return {"openvino": {"accepted": self.accepted, "text": self.text, "files": files}}


def make_export(*, weights: Path, folder: Path, image_size: int, tiles: Sequence[Tile]) -> ModelExport:
    """Export weights with OpenVINO into a folder, and measure the export against torch on some of the tiles.

    Whatever goes wrong here is no reason to lose the weights: it becomes the text of an export that is not accepted.
    """
    try:
        from inference.engine.comparison import compare_export
        from inference.engine.openvino_detector import export_openvino

        export_openvino(weights, folder, image_size=image_size)
        difference = compare_export(weights, folder, _pixels(choose_tiles(tiles)), image_size=image_size)
    except Exception as error:
        logger.exception("the OpenVINO export of %s failed", weights.name)
        return ModelExport(folder, False, f"{type(error).__name__}: {error}")
    return ModelExport(folder, difference.is_small, difference.in_words())


def choose_tiles(tiles: Sequence[Tile], count: int = CHECK_TILES) -> list[Tile]:
    """At most so many of the tiles, evenly over their order: the same tiles give the same choice."""
    places = np.linspace(0, len(tiles) - 1, min(count, len(tiles))).round().astype(int)
    return [tiles[place] for place in places]


def _pixels(tiles: Sequence[Tile]) -> list[np.ndarray]:
    """What the detector looks at: each tile, or of a large image the window in its middle."""
    pictures = []
    for _, pixels in read_tiles(tiles):
        height, width = pixels.shape[:2]
        windows = windows_of(width, height) if is_large(width, height) else []
        pictures.append(windows[len(windows) // 2].cut(pixels) if windows else pixels)
    return pictures


def has_export(version: ModelVersion) -> bool:
    """Whether the version's export was accepted and lies on this machine now, as it was made."""
    known = version.exports.get("openvino", {})
    if not known.get("accepted"):
        return False
    try:
        for name, digest in known["files"].items():
            if sha256_of(local_path(_stored_name(version.weights, name))) != digest:
                raise OSError(f"{name} is not the file that was stored")
    except OSError as error:  # a missing file is one of these
        logger.warning("%s of %s computes with torch: %s", version, version.project, error)
        return False
    return True


def _stored_name(weights_name: str, name: str) -> str:
    return str(export_folder(Path(weights_name)) / name)
