"""A version's OpenVINO export: made once, measured against torch on the project's own tiles, used if they agree."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from annotation.models import Tile
from annotation.services.patience import StorageError
from annotation.services.storage import local_paths, sha256_of, store
from annotation.services.tiles import read_tiles
from inference.engine.detector import MODEL_FILES, WeightsError, export_folder
from inference.engine.windows import is_large, windows_of
from inference.models import ModelVersion

logger = logging.getLogger(__name__)

CHECK_TILES = 36

T = TypeVar("T")  # a tile, or its key


@dataclass(frozen=True)
class ModelExport:
    """An export on disk, and what is to be kept of it: whether it may be used, and why (not).

    classifier: the folder of a two-stage detector's classifier; `folder` then is the finder's.
    """

    folder: Path
    accepted: bool
    text: str
    classifier: Path | None = None

    def keep(self, weights_name: str, classifier_name: str = "") -> dict[str, Any]:
        """Put an accepted export into storage beside its weights; returns the content of `ModelVersion.exports`."""
        kept: dict[str, Any] = {"accepted": self.accepted, "text": self.text, "files": {}}
        if self.accepted:
            kept["files"] = _stored(self.folder, weights_name)
            if self.classifier is not None:
                kept["classifier_files"] = _stored(self.classifier, classifier_name)
        return {"openvino": kept}


def _stored(folder: Path, weights_name: str) -> dict[str, str]:
    """The SHA-256 of each file of an export, now in storage."""
    for name in MODEL_FILES:
        store(folder / name, stored_name(weights_name, name))
    return {name: sha256_of(folder / name) for name in MODEL_FILES}


def make_export(
    *, weights: Path, folder: Path, image_size: int, tiles: Sequence[Tile], classifier: Path | None = None
) -> ModelExport:
    """Export weights with OpenVINO into a folder, and measure the export against torch on some of the tiles.

    classifier: of a two-stage detector; its export goes into a folder beside the other.
    Whatever else goes wrong here is no reason to lose the weights: it becomes the text of an export that is not
    accepted. Raises StorageError.
    """
    classifier_folder = folder.with_name(f"{folder.name}-classifier") if classifier else None
    try:
        from inference.engine.comparison import compare_export
        from inference.engine.openvino_detector import export_openvino

        export_openvino(weights, folder, image_size=image_size)
        if classifier is not None and classifier_folder is not None:
            from inference.engine.openvino_classifier import export_classifier

            export_classifier(classifier, classifier_folder)
        difference = compare_export(
            weights,
            folder,
            pixels_of(choose_tiles(tiles)),
            image_size=image_size,
            classifier=classifier,
            classifier_export=classifier_folder,
        )
    except StorageError:
        raise  # the tiles could not be read: that says nothing of the export
    except WeightsError as error:  # an architecture that cannot be exported
        return ModelExport(folder, False, str(error))
    except Exception as error:
        logger.exception("the OpenVINO export of %s failed", weights.name)
        return ModelExport(folder, False, f"{type(error).__name__}: {error}")
    return ModelExport(folder, difference.is_small, difference.in_words(), classifier_folder)


def choose_tiles(tiles: Sequence[T], count: int = CHECK_TILES) -> list[T]:
    """At most so many of the tiles, evenly over their order: the same tiles give the same choice."""
    places = np.linspace(0, len(tiles) - 1, min(count, len(tiles))).round().astype(int)
    return [tiles[place] for place in places]


def pixels_of(tiles: Sequence[Tile]) -> list[np.ndarray]:
    """What the detector looks at: each tile, or of a large image the window in its middle. Raises SlideError."""
    pictures = []
    for _, pixels in read_tiles(tiles):
        height, width = pixels.shape[:2]
        windows = windows_of(width, height) if is_large(width, height) else []
        pictures.append(windows[len(windows) // 2].cut(pixels) if windows else pixels)
    return pictures


@dataclass(frozen=True)
class VersionFiles:
    """A version's files on this machine. has_export: whether one that may be used lies beside them."""

    weights: Path
    classifier: Path | None
    has_export: bool


def files_of(version: ModelVersion) -> VersionFiles:
    """The version's files, until the job ends. Raises FileNotFoundError if the weights are gone, StorageError."""
    names = [version.weights, *([version.classifier] if version.classifier else [])]
    known = version.exports.get("openvino", {})
    exports = stored_files(version.exports, version.weights, version.classifier) if known.get("accepted") else []
    paths = None
    if exports:
        try:
            paths = _on_this_machine(version, [*names, *exports])
            _check_files(version.weights, paths, known["files"])
            _check_files(version.classifier, paths, known.get("classifier_files", {}))
        except OSError as error:  # a missing file is one of these
            logger.warning("%s of %s computes with torch: %s", version, version.project, error)
            paths, exports = None, []
    paths = paths or _on_this_machine(version, names)
    return VersionFiles(paths[version.weights], paths.get(version.classifier), bool(exports))


def has_export(version: ModelVersion) -> bool:
    """Whether the version's export was accepted and lies on this machine now, as it was made."""
    return files_of(version).has_export


def _on_this_machine(version: ModelVersion, names: Sequence[str]) -> dict[str, Path]:
    def right(paths: Sequence[Path]) -> bool:
        return sha256_of(paths[0]) == version.weights_sha256

    paths = local_paths(names, right=right, called=f"the weights of {version}")
    return dict(zip(names, paths, strict=True))


def _check_files(weights_name: str, paths: Mapping[str, Path], files: dict[str, str]) -> None:
    """Raises OSError if a file of an export is not on this machine as it was stored."""
    for name, digest in files.items():
        if sha256_of(paths[stored_name(weights_name, name)]) != digest:
            raise OSError(f"{name} is not the file that was stored")


def stored_files(exports: dict[str, Any], weights_name: str, classifier_name: str) -> list[str]:
    """Where the files of a version's `exports` lie in storage."""
    known = exports.get("openvino", {})
    names = [stored_name(weights_name, name) for name in known.get("files", {})]
    return names + [stored_name(classifier_name, name) for name in known.get("classifier_files", {})]


def stored_name(weights_name: str, name: str) -> str:
    return str(export_folder(Path(weights_name)) / name)
