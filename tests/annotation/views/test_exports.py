import pytest
from django.core.files.storage import default_storage
from django.urls import reverse

from annotation.models import Job, JobKind, JobState, Role
from annotation.services.export_choice import FORMATS, ExportChoice, choice_of
from annotation.views.exports import EXPORTS_PER_PAGE
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


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_queued(client, project, name):
    assert ask(client, project, format=name, split="test").status_code == 302
    job = Job.objects.get()
    assert (job.kind, job.state) == (JobKind.EXPORT, JobState.QUEUED)
    images = name not in ("csv", "crops")
    assert choice_of(job.arguments) == ExportChoice(name, images=images, part="test")


def test_a_part_is_chosen(client, project):
    slide = factories.make_slide(project)
    batch = factories.make_batch(project, slide.tiles.all())
    factories.make_round(project, batch=batch, number=2)
    reader = factories.make_member(project, name="anna")
    factories.submit_task(batch.tasks.first(), reader, (0, 1, 2, 30, 40))
    chosen = {"rounds": ["2"], "patients": [slide.patient.code], "classes": ["neutrophil"], "readers": ["anna"]}
    response = ask(client, project, annotations="readers", coordinates="slide", **chosen)
    assert response.status_code == 302
    assert choice_of(Job.objects.get().arguments) == ExportChoice(
        "coco",
        rounds=(2,),
        patients=(slide.patient.code,),
        classes=("neutrophil",),
        readers=("anna",),
        annotations="readers",
        coordinates="slide",
    )
    text = client.get(reverse("project_exports", args=[project.pk])).content.decode()
    assert "annotations of all readers, round 2" in text
    assert "in slide px" in text


@pytest.mark.parametrize(
    "data",
    [
        {"format": "pdf"},
        {"format": ""},
        {"split": "half"},
        {"rounds": ["1"]},
        {"patients": ["X"]},
        {"classes": ["blast"]},
        {"readers": ["nobody"]},
        {"annotations": "some"},
        {"coordinates": "mm"},
        {"format": "yolo", "coordinates": "slide"},
    ],
)
def test_an_unknown_choice_is_refused(client, project, data):
    assert ask(client, project, **data).status_code == 422
    assert not Job.objects.exists()


def test_why_slide_px_are_refused_is_said(client, project):
    response = ask(client, project, format="voc", coordinates="slide")
    assert b"slide px can be had as COCO and CSV" in response.content
    assert b'<details class="advanced" open>' in response.content


def test_the_page_lists_what_was_exported(client, project):
    maker = factories.make_member(project, name="anna")
    job = factories.make_export(project)
    Job.objects.filter(pk=job.pk).update(created_by=maker, result=job.result | {"sha256": "cd" * 32})
    text = client.get(reverse("project_exports", args=[project.pk])).content.decode()
    for part in ("all tiles, labels only", "by anna", "cd" * 32, reverse("export_download", args=[job.pk]), "13"):
        assert part in text


def test_earlier_exports_are_on_further_pages(client, project):
    for _ in range(EXPORTS_PER_PAGE + 1):
        factories.make_job(project, state=JobState.CANCELLED)
    address = reverse("project_exports", args=[project.pk])
    assert len(client.get(address).context["exports"]) == EXPORTS_PER_PAGE
    assert len(client.get(address, {"page": 2}).context["exports"]) == 1


def delete(client, job):
    return client.post(reverse("export_delete", args=[job.pk]), follow=True)


@pytest.fixture
def lead(client, project):
    client.force_login(factories.make_member(project, Role.LEAD))


def test_the_lead_deletes_an_export(client, project, lead):
    job = factories.make_export(project)
    page = client.get(reverse("project_exports", args=[project.pk]))
    assert reverse("export_delete", args=[job.pk]) in page.content.decode()
    assert b"is deleted" in delete(client, job).content
    assert not default_storage.exists(job.result["file"])
    assert client.get(reverse("export_download", args=[job.pk])).status_code == 404


def test_nobody_else_deletes_one(client, project):
    job = factories.make_export(project)
    assert delete(client, job).status_code == 403
    assert (
        reverse("export_delete", args=[job.pk])
        not in client.get(reverse("project_exports", args=[project.pk])).content.decode()
    )
    assert default_storage.exists(job.result["file"])


def test_one_that_is_being_made_is_not_deleted(client, project, lead):
    job = factories.make_job(project, state=JobState.RUNNING)
    assert b"cancel it first" in delete(client, job).content
    assert Job.objects.exists()


def test_another_kind_of_job_is_not_deleted(client, project, lead):
    job = factories.make_job(project, kind=JobKind.TRAIN, state=JobState.SUCCEEDED)
    assert delete(client, job).status_code == 404
    assert Job.objects.exists()


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


def test_what_is_known_of_one_export_is_asked_for_alone(client, project):
    ask(client, project)
    job = Job.objects.get()
    url = reverse("project_exports", args=[project.pk])
    waiting = client.get(url, {"facts": job.pk}).content.decode()
    assert "job-ended" in waiting
    Job.objects.filter(pk=job.pk).update(state=JobState.SUCCEEDED, result={"bytes": 2048, "sha256": "ab" * 32})
    done = client.get(url, {"facts": job.pk}).content.decode()
    assert "job-ended" not in done
    assert "SHA-256 " + "ab" * 32 in done
    assert "<html" not in done


@pytest.mark.parametrize("asked", ["0", "x", "9" * 40])
def test_nothing_is_known_of_an_export_that_is_not_there(client, project, asked):
    other = factories.make_job(factories.make_project(), kind=JobKind.EXPORT)
    url = reverse("project_exports", args=[project.pk])
    assert client.get(url, {"facts": asked}).status_code == 404
    assert client.get(url, {"facts": other.pk}).status_code == 404
