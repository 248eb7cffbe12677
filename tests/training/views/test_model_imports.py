"""Uploading a model made elsewhere."""

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from annotation.models import Job, JobKind, JobState, Role
from inference import forms
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead", is_staff=True))
    return project


def post(client, project, *, name="best.pt", content=b"weights", **changes):
    fields = {"file": SimpleUploadedFile(name, content), "image_size": 320, "trusted": "on"} | changes
    url = reverse("model_import", args=[project.pk])
    return client.post(url, {key: value for key, value in fields.items() if value is not None})


def models(client, project, **headers):
    return client.get(reverse("project_models", args=[project.pk]), headers=headers)


def test_an_upload_is_staged_and_queued(client, project):
    response = post(client, project)
    assert response["Location"] == reverse("project_models", args=[project.pk])
    job = Job.objects.get(kind=JobKind.IMPORT_MODEL)
    assert (job.subject, job.arguments["image_size"], job.created_by.username) == ("best.pt", 320, "lead")
    assert default_storage.open(job.arguments["file"]).read() == b"weights"
    page = models(client, project).content.decode()
    assert "does not become the current model by itself" in page
    assert "Jobs under way" in page


def test_the_page_warns_of_what_a_file_may_carry(client, project):
    assert "can run program code" in models(client, project).content.decode()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "best.onnx"}, "best.onnx is not a .pt file."),
        ({"content": b""}, "empty"),
        ({"file": None}, "This field is required"),
        ({"image_size": 100}, "multiple of step size 32"),
        ({"image_size": 32}, "greater than or equal to 96"),
        ({"trusted": None}, "This field is required"),
    ],
)
def test_what_cannot_be_taken_is_said_beside_the_field(client, project, changes, text):
    response = post(client, project, **changes)
    assert response.status_code == 422
    assert text in response.content.decode()
    assert not Job.objects.exists()


def test_a_file_that_is_too_large_is_refused(client, project, monkeypatch):
    monkeypatch.setattr(forms, "MAX_BYTES", 3)
    response = post(client, project, content=b"1234")
    assert response.status_code == 422
    assert "best.pt is larger than 3" in response.content.decode()


def test_only_an_administrator_is_shown_the_form_and_may_send_it(client, project):
    client.force_login(factories.make_member(project, Role.LEAD, "no administrator"))
    assert reverse("model_import", args=[project.pk]) not in models(client, project).content.decode()
    assert post(client, project).status_code == 403
    assert not Job.objects.exists()


def test_an_administrator_who_does_not_lead_the_project_may_not(client, project):
    client.force_login(factories.make_member(project, Role.REVIEWER, "reviewer", is_staff=True))
    assert reverse("model_import", args=[project.pk]) not in models(client, project).content.decode()
    assert post(client, project).status_code == 403


def test_the_list_follows_an_import_and_says_when_it_failed(client, project):
    job = factories.make_job(project, state=JobState.RUNNING, kind=JobKind.IMPORT_MODEL, subject="best.pt")
    url = reverse("project_models", args=[project.pk], query={"live": models(client, project).context["stamp"]})
    assert "best.pt" in client.get(url, headers={"HX-Request": "true"}).content.decode()
    Job.objects.filter(pk=job.pk).update(state=JobState.FAILED, message="unknown: blast")
    assert client.get(url, headers={"HX-Request": "true"})["HX-Refresh"] == "true"
    assert "unknown: blast" in models(client, project).content.decode()
    factories.make_job(project, state=JobState.SUCCEEDED, kind=JobKind.IMPORT_MODEL)
    assert "unknown: blast" not in models(client, project).content.decode()


def test_an_imported_version_says_where_it_comes_from(client, project):
    version = factories.make_version(project, snapshot_hash="")
    version.config |= {"imported": True, "file": "<best>.pt", "imported_by": "lead"}
    version.save()
    page = client.get(reverse("model", args=[version.pk])).content.decode()
    assert "imported from <b>&lt;best&gt;.pt</b> by lead" in page
    assert "Snapshot" not in page
    assert "imported" in models(client, project).content.decode()
