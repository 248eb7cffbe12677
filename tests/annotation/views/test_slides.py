"""The upload as a browser sends it."""

from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from annotation.models import Job, JobState, Role, Slide
from annotation.services.jobs import run_job
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
