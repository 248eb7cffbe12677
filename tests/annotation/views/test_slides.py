"""The upload as a browser sends it."""

from io import BytesIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from annotation.models import Job, JobState, Role, Slide, Task, Tile
from annotation.services.jobs import run_job
from annotation.services.policies import ReadingPolicy
from annotation.services.slides import import_staged
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def upload(client, project, *files, **data):
    values = {"files": list(files), "tiling": "edge", "patient": "", "site": "", "preparation": "", "mpp": ""} | data
    return client.post(reverse("slides_import", args=[project.pk]), values)


def file_of(path, name=""):
    return SimpleUploadedFile(name or path.name, path.read_bytes())


def test_import_works(client, project, smear):
    response = upload(client, project, file_of(smear), patient=" P-3 ", site="sternum", preparation="push")
    assert response["Location"] == reverse("project_slides", args=[project.pk])
    job = Job.objects.get()
    run_job(job_pk=job.pk, function=import_staged)
    slide = Slide.objects.get()
    assert (slide.patient.code, slide.site, slide.preparation, slide.tiling) == ("P-3", "sternum", "push", "edge")
    assert slide.imported_by.username == "lead"
    # Nothing of the upload is left where it passed.
    assert list(Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir()) == []
    assert default_storage.listdir("staging")[1] == []


def test_several_files_are_several_jobs(client, project, smear):
    upload(client, project, file_of(smear, "A.tif"), file_of(smear, "B.svs"))
    assert sorted(Job.objects.values_list("subject", flat=True)) == ["A.tif", "B.svs"]


def test_one_bad_file_among_good_ones_imports_nothing(client, project, smear):
    response = upload(client, project, file_of(smear), SimpleUploadedFile("none.svs", b""))
    assert response.status_code == 422
    page = response.content.decode()
    assert "none.svs: the file is empty" in page
    assert "Nothing was imported" in page
    assert not Job.objects.exists()


def test_without_a_file_it_says_so(client, project):
    response = upload(client, project)
    assert response.status_code == 422
    assert "required" in response.content.decode()


@pytest.mark.parametrize("data", [{"mpp": "72"}, {"mpp": "x"}, {"tiling": "round"}, {"preparation": "smear"}])
def test_an_impossible_fact_is_refused(client, project, smear, data):
    assert upload(client, project, file_of(smear), **data).status_code == 422
    assert not Job.objects.exists()


def test_a_long_or_strange_name_is_borne(client, project, smear):
    for name in ("ä" * 100 + ".tif", "a b  c;d&e=.TIF", "-rf.tif", "%2e%2e%2fpasswd.tif"):
        assert upload(client, project, file_of(smear, name)).status_code == 302
    assert Job.objects.count() == 4
    for job in Job.objects.all():
        assert all(key.startswith("staging/") and ".." not in key for key in job.arguments["files"])


def test_a_patient_is_locked_and_unlocked(client, project):
    patient = factories.make_slide(project).patient
    for locked in (True, False):
        client.post(reverse("patient_lock", args=[patient.pk]), {"locked": "1" if locked else "0"})
        patient.refresh_from_db()
        assert patient.locked is locked


def test_a_patient_whose_tiles_are_in_a_batch_is_not_locked(client, project):
    slide = factories.make_slide(project)
    factories.make_batch(project, slide.tiles.all())
    response = client.post(reverse("patient_lock", args=[slide.patient_id]), {"locked": "1"}, follow=True)
    assert "can no longer change" in response.content.decode()
    slide.patient.refresh_from_db()
    assert not slide.patient.locked


def test_an_import_that_failed_is_shown_with_its_reason(client, project):
    upload(client, project, SimpleUploadedFile("letter.svs", b"Dear colleague, " * 100))
    run_job(job_pk=Job.objects.get().pk, function=import_staged)
    assert Job.objects.get().state == JobState.FAILED
    page = client.get(reverse("project_slides", args=[project.pk])).content.decode()
    assert "letter.svs is not a whole-slide image" in page


def test_htmx_gets_the_list_alone_so_that_the_form_keeps_what_is_typed(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    factories.make_slide(project)
    page = client.get(f"/projects/{project.pk}/slides/").content.decode()
    part = client.get(f"/projects/{project.pk}/slides/", headers={"HX-Request": "true"}).content.decode()
    assert 'id="import"' in page
    assert 'id="slides"' in page
    assert 'id="import"' not in part
    assert 'id="slides"' in part


# Pictures cut from a tile and from around it


@pytest.fixture
def cell(project, smear):
    """A confirmed box on a tile whose slide really opens."""
    slide = factories.make_slide(project, file=smear)
    return factories.make_truth(slide.tiles.all()[4], (0, 100, 120, 60, 50)).boxes.get()


PICTURES = {"box_crop": (96, 96), "tile_crop": (96, 96), "tile_neighbourhood": (1152, 1152)}
PLACE = {"x": 100, "y": 120, "width": 60, "height": 50}  # the cell's


def picture_url(name, cell):
    key = cell.pk if name == "box_crop" else cell.annotation.tile_id
    return reverse(name, args=[key], query=PLACE if name == "tile_crop" else None)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_jpeg_that_the_browser_keeps(client, cell, name):
    response = client.get(picture_url(name, cell))
    assert (response.status_code, response["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(BytesIO(response.content)).size == PICTURES[name]
    kept = {part.strip() for part in response["Cache-Control"].split(",")}
    assert kept == {"private", "immutable", "max-age=604800"}
    again = client.get(picture_url(name, cell), headers={"If-None-Match": response["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(picture_url(name, cell), headers={"If-None-Match": '"another"'})
    assert other.content == response.content


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_another_project_is_not_there(client, cell, name):
    client.force_login(factories.make_member(factories.make_project()))
    assert client.get(picture_url(name, cell)).status_code == 404


def crop_seen(client, user, annotation):
    """Whether the user gets the crops of the annotation's boxes."""
    client.force_login(user)
    answers = {client.get(reverse("box_crop", args=[box.pk])).status_code for box in annotation.boxes.all()}
    assert answers in ({200}, {404})
    return answers == {200}


def test_a_blind_reader_sees_no_crops_of_what_others_have_drawn(client, project, smear):
    tile = factories.make_slide(project, file=smear).tiles.all()[4]
    readers = [factories.make_member(project) for _ in range(2)]
    reviewer = factories.make_member(project, Role.REVIEWER)
    batch = factories.make_batch(project, [tile], policy=ReadingPolicy("independent", readers=2))
    first = factories.submit_task(batch.tasks.get(replica=0), readers[0], (0, 100, 120, 60, 50))
    assert [crop_seen(client, user, first) for user in (*readers, reviewer)] == [True, False, True]
    factories.submit_task(batch.tasks.get(replica=1), readers[1], (0, 100, 120, 60, 50))
    assert Tile.objects.get(pk=tile.pk).truth == first  # all have read it: an example for everybody
    assert crop_seen(client, readers[1], first)


def test_a_blind_reader_sees_no_crops_of_a_models_boxes(client, project, smear):
    tile = factories.make_slide(project, file=smear).tiles.all()[4]
    task = factories.make_batch(project, [tile]).tasks.get()
    drawn = factories.make_pre_label(task, factories.make_version(project), (0, 100, 120, 60, 50))
    reader = factories.make_member(project)
    assert crop_seen(client, reader, drawn)
    Task.objects.filter(pk=task.pk).update(blind=True)
    assert not crop_seen(client, reader, drawn)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_whose_slide_is_gone_says_so_and_is_not_kept(client, project, name):
    cell = factories.make_truth(factories.make_tile(project), (0, 100, 120, 60, 50)).boxes.get()
    factories.lose_files(cell.annotation.tile.slide)
    response = client.get(picture_url(name, cell))
    assert response.status_code == 404
    assert "missing from storage" in response.content.decode()
    assert not response.has_header("ETag")
    assert "immutable" not in response.get("Cache-Control", "")


def test_a_place_of_a_tile_is_cut_out_as_a_box_there_would_be(client, cell):
    place, box = (client.get(picture_url(name, cell)).content for name in ("tile_crop", "box_crop"))
    assert place == box
    elsewhere = reverse("tile_crop", args=[cell.annotation.tile_id], query=PLACE | {"x": 300})
    assert client.get(elsewhere).content != box


@pytest.mark.parametrize(
    "change",
    [
        {"x": 500},
        {"x": -40},
        {"y": "nan"},
        {"width": "inf"},
        {"width": 0},
        {"height": 513},
        {"height": "tall"},
        {"y": ""},
    ],
)
def test_a_place_that_is_none_of_the_tile_is_refused(client, cell, change):
    response = client.get(reverse("tile_crop", args=[cell.annotation.tile_id], query=PLACE | change))
    assert response.status_code == 400
    assert "must name a place of this tile" in response.content.decode()


def test_nothing_lies_around_a_tile_that_is_its_whole_slide(client, project, smear):
    slide = factories.make_slide(project, file=smear, tiles=1, width=512, height=512)
    response = client.get(reverse("tile_neighbourhood", args=[slide.tiles.get().pk]))
    assert response.status_code == 404
    assert "whole picture" in response.content.decode()


def test_a_box_of_a_pre_label_has_its_crop(client, project, smear):
    slide = factories.make_slide(project, file=smear)
    task = factories.make_batch(project, slide.tiles.all()).tasks.first()
    pre_label = factories.make_pre_label(task, factories.make_version(project), (0, 10, 20, 30, 40))
    assert client.get(reverse("box_crop", args=[pre_label.boxes.get().pk])).status_code == 200
