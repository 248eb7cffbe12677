from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from PIL import Image

from annotation.models import Event, JobState
from annotation.services.storage import sha256_of
from inference.engine import onnx_export
from inference.models import ModelVersion
from inference.services.onnx_files import onnx_file, onnx_job, queue_onnx
from inference.services.registry import register_version
from tests import factories
from tests.inference.engine.made_weights import SIDE, untrained_weights
from tests.training.engine.cells import CLASSES, draw_tile
from training import tasks

pytestmark = pytest.mark.django_db


def register(project, weights, **options):
    return register_version(project=project, weights=weights, snapshot_hash="", config={"image_size": SIDE}, **options)


@pytest.fixture
def version(learned, tmp_path):
    """A version of a project with plain images of drawn cells."""
    project = factories.make_project()
    for seed in range(200, 204):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(draw_tile(seed)[0]).save(path)
        factories.make_image(project, width=SIDE, height=SIDE, file=path)
    return register(project, learned)


def run(version):
    job = queue_onnx(version=version, user=None)
    tasks.export_model(job.pk)
    job.refresh_from_db()
    return job


def test_it_is_made_measured_and_stored_beside_the_weights(version):
    assert onnx_file(version) is None
    before = version.exports
    job = run(version)
    assert job.state == JobState.SUCCEEDED, job.message
    assert job.message.startswith("checked against torch on 4 tiles with ")
    made = onnx_file(version)
    assert made["file"] == str(Path(version.weights).with_suffix(".onnx"))
    assert made["sha256"] == sha256_of(Path(default_storage.path(made["file"])))
    assert ModelVersion.objects.get().exports == before
    default_storage.delete(made["file"])
    assert onnx_file(version) is None


def test_one_that_differs_is_not_offered(version, tmp_path, monkeypatch):
    other = untrained_weights(tmp_path / "other.pt", classes=CLASSES)
    export = onnx_export.export_onnx
    monkeypatch.setattr(
        onnx_export, "export_onnx", lambda weights, path, image_size: export(other, path, image_size=image_size)
    )
    job = run(version)
    assert job.state == JobState.FAILED
    assert job.message.startswith("The ONNX file differs from the weights, so it is not offered: on 4 tiles")
    assert onnx_file(version) is None
    assert not default_storage.exists(str(Path(version.weights).with_suffix(".onnx")))


def test_weights_that_are_gone_are_said_to_be(version):
    default_storage.delete(version.weights)
    job = run(version)
    assert (job.state, job.message) == (JobState.FAILED, f"{version.weights} is not in storage")


def test_asked_twice_it_is_made_once(version):
    job = queue_onnx(version=version, user=None)
    assert queue_onnx(version=version, user=None) == job == onnx_job(version)
    assert Event.objects.filter(verb="asked for ONNX of").count() == 1
