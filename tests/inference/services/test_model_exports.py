from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from PIL import Image

from annotation.services.storage import sha256_of
from inference.engine.detector import export_folder
from inference.engine.openvino_detector import OpenvinoDetector
from inference.engine.torch_detector import TorchDetector
from inference.services import model_exports
from inference.services.model_exports import ModelExport, choose_tiles, has_export, make_export
from inference.services.registry import detector_of, register_version
from tests import factories
from tests.inference.engine.made_weights import SIDE, untrained_weights
from tests.training.engine.cells import draw_tile

pytestmark = pytest.mark.django_db

TEXT = "on 36 tiles with 120 boxes, they differ"


@pytest.fixture
def tiles(tmp_path):
    """Plain images of drawn cells, and a large one."""
    project = factories.make_project()
    tiles = []
    for seed in range(200, 206):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(draw_tile(seed)[0]).save(path)
        tiles.append(factories.make_image(project, width=SIDE, height=SIDE, file=path))
    path = tmp_path / "large.png"
    Image.effect_noise((1200, 600), 60).convert("RGB").save(path)
    return [*tiles, factories.make_image(project, width=1200, height=600, file=path)]


def register(project, weights, export):
    config = {"image_size": SIDE}
    return register_version(project=project, weights=weights, snapshot_hash="a" * 64, config=config, export=export)


@pytest.fixture
def version(learned):
    """A version with an export that was accepted."""
    export = ModelExport(export_folder(learned), True, TEXT)
    return register(factories.make_project(), learned, export)


def stored(version, name):
    return Path(default_storage.path(str(export_folder(Path(version.weights)) / name)))


def test_an_export_is_made_and_measured_on_the_given_tiles(learned, tiles, tmp_path):
    export = make_export(weights=learned, folder=tmp_path / "export", image_size=SIDE, tiles=tiles)
    assert export.accepted, export.text
    assert export.text.startswith("on 7 tiles with ")
    assert OpenvinoDetector(tmp_path / "export").image_size == SIDE


def test_an_export_that_differs_is_not_accepted(learned, tiles, tmp_path, monkeypatch):
    other = untrained_weights(tmp_path / "other.pt", classes=("lymphocyte", "eosinophil"))
    asked = export_other_weights(monkeypatch, other)
    export = make_export(weights=learned, folder=tmp_path / "export", image_size=SIDE, tiles=tiles)
    assert asked == [learned]
    assert not export.accepted
    assert "AP of a class by" in export.text


def export_other_weights(monkeypatch, other):
    """Exports other weights than it is asked for; returns the list of those that it was asked for."""
    from inference.engine import openvino_detector

    asked, export_openvino = [], openvino_detector.export_openvino

    def export(weights, folder, *, image_size):
        asked.append(weights)
        return export_openvino(other, folder, image_size=image_size)

    monkeypatch.setattr(openvino_detector, "export_openvino", export)
    return asked


@pytest.mark.parametrize("what", ["weights", "slide"])
def test_whatever_goes_wrong_the_weights_are_not_lost(learned, tiles, tmp_path, what):
    weights = learned
    if what == "weights":
        weights = tmp_path / "bad.pt"
        weights.write_bytes(b"not weights")
    else:
        default_storage.delete(tiles[0].slide.files[0])
    export = make_export(weights=weights, folder=tmp_path / "export", image_size=SIDE, tiles=tiles)
    assert not export.accepted
    assert ("bad.pt is damaged" if what == "weights" else "missing from storage") in export.text
    version = register(tiles[0].slide.project, learned, export)
    assert isinstance(detector_of(version), TorchDetector)


def test_without_tiles_nothing_is_accepted(learned, tmp_path):
    export = make_export(weights=learned, folder=tmp_path / "export", image_size=SIDE, tiles=[])
    assert (export.accepted, export.text) == (False, "on 0 tiles no cell was seen, so nothing could be compared")


def test_tiles_are_chosen_evenly_and_always_the_same():
    places = list(range(100))
    assert choose_tiles(places, 5) == [0, 25, 50, 74, 99]
    assert choose_tiles(places[:3], 5) == [0, 1, 2]
    assert choose_tiles([], 5) == []
    assert len(set(choose_tiles(places))) == model_exports.CHECK_TILES


def test_an_accepted_export_lies_beside_the_weights_and_is_used(version, learned):
    files = version.exports["openvino"]["files"]
    assert version.exports["openvino"] == {"accepted": True, "text": TEXT, "files": files}
    assert set(files) == {"model.xml", "model.bin"}
    for name, digest in files.items():
        assert digest == sha256_of(stored(version, name)) == sha256_of(export_folder(learned) / name)
    assert version.refused_export == ""
    assert isinstance(detector_of(version), OpenvinoDetector)


def test_a_refused_export_is_not_kept(learned):
    version = register(factories.make_project(), learned, ModelExport(export_folder(learned), False, TEXT))
    assert version.exports == {"openvino": {"accepted": False, "text": TEXT, "files": {}}}
    assert version.refused_export == TEXT
    assert not stored(version, "model.xml").exists()
    assert isinstance(detector_of(version), TorchDetector)


def test_a_version_from_before_there_were_exports_runs_with_torch(learned):
    version = register(factories.make_project(), learned, None)
    assert (version.exports, version.refused_export) == ({}, "")
    assert isinstance(detector_of(version), TorchDetector)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_an_export_that_is_not_as_it_was_made_is_not_used(version, name, how, caplog):
    path = stored(version, name)
    content = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(content[:-1] + b"?")
    caplog.set_level("WARNING", logger=model_exports.logger.name)
    assert not has_export(version)
    assert name in caplog.text
    assert isinstance(detector_of(version), TorchDetector)


def test_what_was_found_out_of_an_export_never_changes(version):
    version.exports = {}
    with pytest.raises(ValueError, match="never changes"):
        version.save()
