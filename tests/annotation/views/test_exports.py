import pytest
from django.core.files.storage import default_storage
from django.urls import reverse

from annotation.models import Job, JobKind, JobState, Role
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.REVIEWER))
    return project


def ask(client, project, **data):
    values = {"format": "coco", "split": "all", "with_images": "on"} | data
    return client.post(reverse("export_create", args=[project.pk]), values)


@pytest.mark.parametrize("name", ["yolo", "voc", "coco", "labelimg-voc", "labelimg-yolo"])
def test_an_export_is_queued(client, project, name):
    assert ask(client, project, format=name, split="test").status_code == 302
    job = Job.objects.get()
    assert (job.kind, job.state) == (JobKind.EXPORT, JobState.QUEUED)
    assert job.arguments == {"format": name, "images": True, "part": "test"}


@pytest.mark.parametrize("data", [{"format": "pdf"}, {"format": ""}, {"split": "half"}])
def test_an_unknown_choice_is_refused(client, project, data):
    assert ask(client, project, **data).status_code == 422
    assert not Job.objects.exists()


def test_the_archive_is_downloaded(client, project):
    job = factories.make_export(project)
    response = client.get(reverse("export_download", args=[job.pk]))
    assert b"".join(response.streaming_content) == b"PK an archive"
    assert response["Content-Type"] == "application/zip"
    assert f"marrowloop-{project.pk}-coco-{job.pk}.zip" in response["Content-Disposition"]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.FAILED])
def test_an_export_that_is_not_done_cannot_be_downloaded(client, project, state):
    job = factories.make_job(project, state=state)
    assert client.get(reverse("export_download", args=[job.pk])).status_code == 404


def test_another_kind_of_job_cannot_be_downloaded(client, project):
    job = factories.make_job(project, kind=JobKind.TRAIN, state=JobState.SUCCEEDED, result={"file": "exports/x.zip"})
    assert client.get(reverse("export_download", args=[job.pk])).status_code == 404


def test_an_archive_that_is_gone_is_not_found(client, project):
    job = factories.make_export(project)
    default_storage.delete(job.result["file"])
    assert client.get(reverse("export_download", args=[job.pk])).status_code == 404
