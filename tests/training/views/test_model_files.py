"""What can be downloaded of a model version, its figures apart."""

import io
import zipfile

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.urls import reverse

from annotation.models import Job, JobKind, JobState, Role
from inference.engine.detector import MODEL_FILES
from inference.services.model_exports import ModelExport
from inference.services.registry import register_version
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


@pytest.fixture
def two_stage(project, tmp_path):
    paths = {name: tmp_path / f"{name}.pt" for name in ("finder", "classifier")}
    for name, path in paths.items():
        path.write_bytes(f"the {name}".encode())
    return register_version(
        project=project,
        weights=paths["finder"],
        classifier=paths["classifier"],
        snapshot_hash="",
        config={"image_size": 320},
    )


def exported(project, tmp_path, accepted=True):
    for name in MODEL_FILES:
        (tmp_path / name).write_text(f"the {name}")
    return factories.make_version(project, export=ModelExport(tmp_path, accepted, "on 36 tiles they differ"))


def content(response):
    return b"".join(response.streaming_content)


def unzipped(response):
    with zipfile.ZipFile(io.BytesIO(content(response))) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def address(name, version):
    return reverse(name, args=[version.pk])


def page(client, version):
    return client.get(address("model", version)).content.decode()


def test_the_weights_are_downloaded(client, project):
    version = factories.make_version(project)
    response = client.get(address("model_weights", version))
    assert content(response) == default_storage.open(version.weights).read()
    assert f"marrowloop-{project.pk}-model-1.pt" in response["Content-Disposition"]


def test_both_weights_of_two_stages_are_downloaded_together(client, project, two_stage):
    response = client.get(address("model_weights", two_stage))
    assert f"marrowloop-{project.pk}-model-1.zip" in response["Content-Disposition"]
    assert unzipped(response) == {"finder.pt": "the finder", "classifier.pt": "the classifier"}


def test_weights_that_are_gone_are_not_found(client, project, two_stage):
    version = factories.make_version(project)
    default_storage.delete(version.weights)
    default_storage.delete(two_stage.classifier)
    for one in (version, two_stage):
        assert client.get(address("model_weights", one)).status_code == 404


def test_the_openvino_export_is_downloaded_as_it_was_stored(client, project, tmp_path):
    version = exported(project, tmp_path)
    assert unzipped(client.get(address("model_openvino", version))) == {name: f"the {name}" for name in MODEL_FILES}
    assert address("model_openvino", version) in page(client, version)


def test_an_openvino_export_that_was_refused_is_not_offered(client, project, tmp_path):
    version = exported(project, tmp_path, accepted=False)
    shown = page(client, version)
    assert "differs too much from the weights" in shown
    assert address("model_openvino", version) not in shown
    assert client.get(address("model_openvino", version)).status_code == 404


def test_an_onnx_file_is_made_on_request_and_then_downloaded(client, project):
    version = factories.make_version(project)
    assert address("model_export", version) in page(client, version)
    assert client.get(address("model_onnx", version)).status_code == 404
    client.post(address("model_export", version))
    job = Job.objects.get(kind=JobKind.EXPORT_MODEL)
    assert job.arguments == {"version": version.pk, "format": "onnx"}
    shown = page(client, version)
    assert "It is being made" in shown
    assert address("model_export", version) not in shown
    name = default_storage.save("weights/made.onnx", default_storage.open(version.weights))
    result = {"file": name, "message": "checked against torch on 4 tiles"}
    Job.objects.filter(pk=job.pk).update(state=JobState.SUCCEEDED, result=result)
    assert "checked against torch on 4 tiles" in page(client, version)
    response = client.get(address("model_onnx", version))
    assert f"marrowloop-{project.pk}-model-1.onnx" in response["Content-Disposition"]
    assert content(response) == default_storage.open(name).read()


def test_an_onnx_file_that_could_not_be_made_says_why_and_can_be_tried_again(client, project):
    version = factories.make_version(project)
    fields = {"kind": JobKind.EXPORT_MODEL, "arguments": {"version": version.pk, "format": "onnx"}}
    factories.make_job(project, state=JobState.FAILED, message="it differs", **fields)
    shown = page(client, version)
    assert "it differs" in shown
    assert address("model_export", version) in shown


def test_of_two_stages_onnx_comes_as_an_archive(client, project, two_stage):
    assert address("model_export", two_stage) in page(client, two_stage)
    client.post(address("model_export", two_stage))
    job = Job.objects.get(kind=JobKind.EXPORT_MODEL)
    name = default_storage.save("weights/made.onnx.zip", ContentFile(b"PK an archive"))
    result = {"file": name, "message": "checked against torch on 4 tiles"}
    Job.objects.filter(pk=job.pk).update(state=JobState.SUCCEEDED, result=result)
    assert "finder.onnx and classifier.onnx" in page(client, two_stage)
    response = client.get(address("model_onnx", two_stage))
    assert f"model-{two_stage.number}-onnx.zip" in response["Content-Disposition"]
    assert response["Content-Type"] == "application/zip"


def test_an_annotator_is_offered_no_weights(client, project, tmp_path):
    version = exported(project, tmp_path)
    client.force_login(factories.make_member(project))
    shown = page(client, version)
    assert "/download/" not in shown
    assert address("model_weights", version) not in shown
