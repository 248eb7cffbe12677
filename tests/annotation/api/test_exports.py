"""Exports through the API: asked for, followed, downloaded whole and in parts."""

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotation.models import Event, Job, JobState, Role, Scope
from annotation.services.exports import TrainingFacts, run_export
from annotation.services.jobs import run_job
from annotation.services.storage import sha256_of
from tests import factories
from tests.annotation.api.asking import program

pytestmark = pytest.mark.django_db
ARCHIVE = b"PK" + bytes(range(256)) * 40


@pytest.fixture
def project():
    return factories.make_project()


def test_an_export_is_asked_for_made_and_downloaded(project, tmp_path):
    tile = factories.make_tile(project)
    factories.make_truth(tile, (0, 10, 20, 30, 40), (1, 100, 20, 30, 40))
    reviewer = program(project, Role.REVIEWER, Scope.READ, "rae")
    body = {"format": "coco", "images": False, "classes": ["neutrophil"], "patients": [tile.slide.patient.code]}
    made = reviewer.send("exports", project.pk, body=body)
    assert made.status_code == 201
    row = made.json()
    assert (row["state"], row["file"], row["sha256"], row["by"]) == ("queued", None, None, "rae")
    wanted = {"part": "all", "rounds": [], "readers": [], "annotations": "truth", "coordinates": "tile"}
    assert row["choice"] == body | wanted
    run_job(job_pk=row["id"], function=lambda running: run_export(running, facts=TrainingFacts({})))
    row = reviewer.read("export", row["id"])
    assert (row["state"], row["tiles"], row["boxes"], row["progress"]) == ("succeeded", 1, 1, 1)
    assert reviewer.keys("exports", project.pk) == [row["id"]]
    assert reviewer.keys("exports", project.pk, state="failed") == []
    archive = b"".join(reviewer.client.get(row["file"]).streaming_content)
    (tmp_path / "export.zip").write_bytes(archive)
    assert (sha256_of(tmp_path / "export.zip"), len(archive)) == (row["sha256"], row["bytes"])


def test_what_is_left_out_is_as_the_page_proposes_it(project):
    row = program(project).send("exports", project.pk, body={"format": "yolo"}).json()
    assert (row["choice"]["images"], row["choice"]["part"], row["choice"]["annotations"]) == (True, "all", "truth")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({}, "format"),
        ({"format": "excel"}, "format"),
        ({"format": "coco", "patient": ["P1"]}, "patient"),
        ({"format": "coco", "patients": ["P1"]}, "P1"),
        ({"format": "coco", "patients": "P1"}, "patients"),
        ({"format": "coco", "rounds": [7]}, "round 7"),
        ({"format": "coco", "classes": ["blast"]}, "class blast"),
        ({"format": "coco", "readers": ["nobody"]}, "reader nobody"),
        ({"format": "voc", "coordinates": "slide"}, "slide px"),
        ({"format": "coco", "part": "some"}, "part"),
        ({"format": "coco", "images": "perhaps"}, "images"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_by_name(project, wrong, named):
    response = program(project).send("exports", project.pk, body=wrong)
    assert (response.status_code, named in response.json()["error"]) == (400, True)
    assert not Job.objects.exists()


@pytest.fixture
def export(project):
    name = default_storage.save("exports/whole.zip", ContentFile(ARCHIVE))
    return factories.make_job(project, state=JobState.SUCCEEDED, attempt=1, result={"file": name})


@pytest.fixture
def download(project, export):
    asking = program(project, Role.REVIEWER, Scope.READ)
    return lambda **headers: asking.client.get(reverse("api_export_file", args=[export.pk]), headers=headers)


def content(answer):
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_an_archive_is_sent_whole(download, export):
    answer = download()
    assert (answer.status_code, content(answer), answer["Content-Type"]) == (200, ARCHIVE, "application/zip")
    assert (answer["Accept-Ranges"], answer["Content-Length"]) == ("bytes", str(len(ARCHIVE)))
    assert f"marrowloop-{export.project_id}-coco-{export.pk}.zip" in answer["Content-Disposition"]
    assert download(if_none_match=answer["ETag"]).status_code == 304


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=0-9", slice(0, 10)), ("bytes=4000-", slice(4000, None)), ("bytes=-7", slice(-7, None))],
)
def test_a_download_goes_on_where_it_broke_off(download, asked, part):
    answer = download(range=asked)
    body = content(answer)
    assert (answer.status_code, body, answer["Content-Length"]) == (206, ARCHIVE[part], str(len(body)))
    assert answer["Content-Range"].endswith(f"/{len(ARCHIVE)}")


def test_a_part_that_is_not_there_is_416(download):
    answer = download(range="bytes=999999-")
    assert (answer.status_code, answer["Content-Range"]) == (416, f"bytes */{len(ARCHIVE)}")
    assert content(download(range="bytes=0-1", if_range='"another"')) == ARCHIVE


def test_a_download_is_written_down_once_not_for_each_part(download):
    for asked in ("bytes=0-9", "bytes=10-19", "bytes=20-"):
        content(download(range=asked))
    assert Event.objects.filter(verb="downloaded").count() == 1


def test_what_is_not_made_or_gone_is_404(project, export, download):
    waiting = factories.make_job(project)
    assert program(project).get("export_file", waiting.pk).status_code == 404
    default_storage.delete(export.result["file"])
    gone = download()
    assert (gone.status_code, "gone from storage" in gone.json()["error"]) == (404, True)


def test_another_job_is_no_export(project):
    job = factories.make_label_import(project)
    assert program(project).get("export", job.pk).status_code == 404


def test_the_list_takes_as_many_queries_however_long_it_is(project):
    asking = program(project)
    counts = []
    for _ in range(2):
        factories.make_job(project, created_by=asking.user)
        asking.read("exports", project.pk)
        with CaptureQueriesContext(connection) as queries:
            asking.read("exports", project.pk)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 7
