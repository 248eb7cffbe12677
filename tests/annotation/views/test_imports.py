import io
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from annotation.models import Annotation, Box, Job, JobKind, JobState, Role, Tile
from annotation.services.jobs import run_job
from annotation.services.label_imports import run_label_import
from tests import factories

pytestmark = pytest.mark.django_db

CHOSEN = {"becomes": "truth", "targets": "new", "bad_boxes": "refuse", "class-0": "0", "class-1": "leave-out"}


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD))
    return project


def archive(lines="0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.25 0.25"):
    picture, content = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (90, 60), "white").save(picture, "PNG")
    files = {"classes.txt": "NEU\nplatelet\n", "labels/a.txt": lines, "images/a.png": picture.getvalue()}
    with zipfile.ZipFile(content, "w") as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return SimpleUploadedFile("cells.zip", content.getvalue())


def upload(client, project, *files, **fields):
    return client.post(reverse("import_create", args=[project.pk]), {"files": files, "format": ""} | fields)


def run_newest():
    job = Job.objects.filter(kind=JobKind.IMPORT_LABELS).first()
    run_job(job_pk=job.pk, function=run_label_import)
    job.refresh_from_db()
    return job


def read(client, project, *files):
    assert upload(client, project, *(files or [archive()])).status_code == 302
    return run_newest()


def tried(client, project, **fields):
    job = read(client, project)
    assert client.post(reverse("import_try", args=[job.pk]), CHOSEN | fields).status_code == 302
    return run_newest()


def page(client, job):
    response = client.get(reverse("label_import", args=[job.pk]))
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_without_an_import_the_page_says_what_to_do(client, project):
    text = client.get(reverse("project_imports", args=[project.pk])).content.decode()
    assert "No import yet" in text
    assert 'data-upload="whole"' in text


def test_an_upload_is_read_mapped_tried_out_and_imported(client, project):
    response = upload(client, project, archive())
    job = Job.objects.get()
    assert response["Location"] == reverse("label_import", args=[job.pk])
    text = page(client, job)
    assert "job-ended from:body" in text
    assert 'hx-disinherit="*"' in text  # else the job's own fragment would look for the whole step in each answer
    job = run_newest()
    text = page(client, job)
    assert "1, of which without a box: 0; known here by name: 0" in text
    assert '<option value="0" selected>NEU neutrophil</option>' in text  # the name equals the class's code
    assert "choose…" in text

    assert client.post(reverse("import_try", args=[job.pk]), CHOSEN).status_code == 302
    dry = run_newest()
    text = page(client, dry)
    assert "What would happen" in text
    assert "1: 0 of the project, 1 new" in text
    assert "platelet (left out)" in text
    assert not Annotation.objects.exists()

    response = client.post(reverse("import_write", args=[dry.pk]))
    written = run_newest()
    assert response["Location"] == reverse("label_import", args=[written.pk])
    assert (written.state, written.message) == (JobState.SUCCEEDED, "1 box on 1 tile")
    assert "What was imported" in page(client, written)
    assert (Tile.objects.get().truth.boxes.count(), Box.objects.get().width) == (1, 45)
    listed = client.get(reverse("project_imports", args=[project.pk])).content.decode()
    assert all(f": {step}</span>" in listed for step in ("reading", "dry run", "import"))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"class-1": ""}, "Choose a class, or leave its boxes out."),
        ({"class-0": "77"}, "77 is not one of the available choices"),
        ({"becomes": "reader"}, "Choose the reader."),
        ({"becomes": "gold"}, "gold is not one of the available choices"),
        ({"bad_boxes": ""}, "This field is required."),
    ],
)
def test_what_is_not_settled_is_asked_for_again(client, project, fields, error):
    job = read(client, project)
    response = client.post(reverse("import_try", args=[job.pk]), CHOSEN | fields)
    assert response.status_code == 422
    assert error in response.content.decode()
    assert Job.objects.count() == 1


def test_a_stranger_is_nobodys_reader(client, project):
    job = read(client, project)
    stranger = factories.make_user()
    fields = CHOSEN | {"becomes": "reader", "reader": stranger.pk}
    assert client.post(reverse("import_try", args=[job.pk]), fields).status_code == 422


def test_a_members_annotations_are_imported(client, project):
    reader = factories.make_member(project)
    dry = tried(client, project, becomes="reader", reader=reader.pk)
    assert f"a reader&#x27;s annotations: {reader}" in page(client, dry)
    client.post(reverse("import_write", args=[dry.pk]))
    run_newest()
    assert Annotation.objects.get().author.user == reader


def test_problems_are_listed_and_nothing_can_be_imported(client, project):
    job = read(client, project, archive("0 nan 0.5 0.5 0.5"))
    text = page(client, job)
    assert "Problems: nothing can be imported (1)" in text
    assert "labels/a.txt, line 1" in text
    assert reverse("import_try", args=[job.pk]) not in text
    assert client.post(reverse("import_try", args=[job.pk]), CHOSEN).status_code == 404


def test_a_dry_run_with_problems_cannot_be_carried_out(client, project):
    dry = tried(client, project, targets="existing")
    text = page(client, dry)
    assert "labels/a.txt: the project has no tile of this name" in text
    assert "What would happen" not in text
    assert reverse("import_write", args=[dry.pk]) not in text
    response = client.post(reverse("import_write", args=[dry.pk]), follow=True)
    assert "Only what a dry run has found without problems can be imported." in response.content.decode()
    assert not Annotation.objects.exists()


def test_only_a_dry_run_is_carried_out(client, project):
    assert client.post(reverse("import_write", args=[read(client, project).pk])).status_code == 404


def test_voc_asks_what_corners_are_counted_from(client, project):
    size = "<size><width>90</width><height>60</height></size>"
    job = read(client, project, SimpleUploadedFile("a.xml", f"<annotation><path>a</path>{size}</annotation>".encode()))
    text = page(client, job)
    assert '<option value="0" selected>from 0, as LabelImg does</option>' in text
    assert "states a &lt;path&gt;, as LabelImg does" in text


@pytest.mark.parametrize(
    ("files", "error"),
    [([], "This field is required."), ([SimpleUploadedFile("a.xml", b"")], "a.xml: the file is empty (0 bytes).")],
)
def test_an_upload_that_cannot_be_an_import_is_refused(client, project, files, error):
    response = upload(client, project, *files)
    assert response.status_code == 422
    assert error in response.content.decode()
    assert not Job.objects.exists()


def test_an_import_is_discarded_and_its_report_stays(client, project):
    dry = tried(client, project)
    assert "Discard this import" in page(client, dry)
    response = client.post(reverse("import_discard", args=[dry.pk]), follow=True)
    assert "The files of cells.zip are deleted." in response.content.decode()
    read_pk = dry.arguments["read"]
    text = page(client, dry)
    assert "The uploaded files are deleted, because they were discarded." in text
    assert "What would happen" in text
    assert all(reverse(name, args=[dry.pk]) not in text for name in ("import_write", "import_discard"))
    text = page(client, Job.objects.get(pk=read_pk))
    assert "Tiles with labels" in text
    assert reverse("import_try", args=[read_pk]) not in text
    assert client.post(reverse("import_try", args=[read_pk]), CHOSEN).status_code == 404


def test_files_in_use_are_not_discarded(client, project):
    assert upload(client, project, archive()).status_code == 302
    job = Job.objects.get()
    response = client.post(reverse("import_discard", args=[job.pk]), follow=True)
    assert "A job is at work on these files: cancel it first." in response.content.decode()
    assert run_newest().result["tiles"] == 1


def test_the_page_of_an_import_has_no_button_to_itself(client, project):
    job = read(client, project)
    assert "Open<span" not in page(client, job)
    listed = client.get(reverse("project_imports", args=[project.pk])).content.decode()
    assert "Open<span" in listed


@pytest.mark.parametrize(("role", "status"), [(None, 404), (Role.ANNOTATOR, 403), (Role.REVIEWER, 403)])
def test_imports_are_the_leads(client, project, role, status):
    dry = tried(client, project)
    read_pk = dry.arguments["read"]
    client.force_login(factories.make_member(project, role) if role else factories.make_user())
    answers = [
        client.get(reverse("label_import", args=[dry.pk])),
        client.post(reverse("import_try", args=[read_pk]), CHOSEN),
        client.post(reverse("import_write", args=[dry.pk])),
        client.post(reverse("import_discard", args=[dry.pk])),
    ]
    assert [answer.status_code for answer in answers] == [status] * 4


def test_another_kind_of_job_is_no_import(client, project):
    job = factories.make_job(project, kind=JobKind.EXPORT)
    assert client.get(reverse("label_import", args=[job.pk])).status_code == 404
