"""Plain images on the pages: many of them, and one of them."""

import io
import re

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from annotation.models import Job, JobKind, JobState, Role, Slide
from annotation.services.jobs import run_job
from annotation.services.slides import import_staged
from annotation.views.slides import JOBS_SHOWN, SLIDES_PER_PAGE
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def image_file(name, seed=0, size=(90, 60)):
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, format="PNG")
    return SimpleUploadedFile(name, data.getvalue())


def upload(client, project, *files, **data):
    values = {"files": list(files), "tiling": "paper", "patient": "", "site": "", "preparation": "", "mpp": ""} | data
    return client.post(reverse("slides_import", args=[project.pk]), values, follow=True)


def imported(client, project, *files, **data):
    upload(client, project, *files, **data)
    for job in Job.objects.filter(state=JobState.QUEUED):
        run_job(job_pk=job.pk, function=import_staged)
    return list(Slide.objects.order_by("name"))


def page(client, name, *arguments, **query):
    response = client.get(reverse(name, args=arguments), query)
    assert response.status_code == 200
    return response.content.decode()


# Uploading


def test_the_form_offers_images_and_says_what_becomes_of_them(client, project):
    text = page(client, "project_slides", project.pk)
    accepted = re.search(r'accept="([^"]+)"', text)[1].split(",")
    assert {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".svs"} <= set(accepted)
    assert "4096" in text


def test_uploaded_images_are_imported(client, project):
    slides = imported(client, project, image_file("a.png"), image_file("b.png", seed=1), patient="P-3")
    assert [(slide.name, slide.patient.code, slide.tiles.count(), slide.mpp) for slide in slides] == [
        ("a.png", "P-3", 1, None),
        ("b.png", "P-3", 1, None),
    ]


def test_a_bad_image_is_named_with_its_reason(client, project):
    assert imported(client, project, image_file("icon.png", size=(20, 20))) == []
    assert "icon.png is 20 x 20 px" in page(client, "project_slides", project.pk)


# The list of many


def test_many_slides_come_in_pages(client, project):
    patient = factories.make_patient(project, "P-1")
    for _ in range(SLIDES_PER_PAGE + 1):
        factories.make_image(project, patient=patient)
    first = page(client, "project_slides", project.pk)
    assert first.count("slide-thumbnail") == SLIDES_PER_PAGE
    assert f"1–{SLIDES_PER_PAGE} of {SLIDES_PER_PAGE + 1} slides" in first
    url = reverse("project_slides", args=[project.pk])
    assert f'href="{url}?page=2"' in first
    assert page(client, "project_slides", project.pk, page=2).count("slide-thumbnail") == 1
    assert page(client, "project_slides", project.pk, page="many").count("slide-thumbnail") == SLIDES_PER_PAGE


def test_the_pages_after_a_refused_upload_lead_back_to_the_list(client, project):
    for _ in range(SLIDES_PER_PAGE + 1):
        factories.make_image(project)
    response = upload(client, project)
    assert response.status_code == 422
    assert f'href="{reverse("project_slides", args=[project.pk])}?page=2"' in response.content.decode()


def test_the_list_is_fetched_anew_on_the_page_that_is_shown(client, project):
    for _ in range(SLIDES_PER_PAGE + 1):
        factories.make_image(project)
    url = reverse("project_slides", args=[project.pk])
    response = client.get(url, {"page": 2}, headers={"HX-Request": "true"})
    assert f'hx-get="{url}?page=2"' in response.content.decode()


def test_locking_a_patient_leads_back_to_its_page(client, project):
    tiles = [factories.make_image(project) for _ in range(SLIDES_PER_PAGE + 1)]
    patient = tiles[-1].slide.patient
    assert 'name="page"' in page(client, "project_slides", project.pk, page=2)
    url, lock = reverse("project_slides", args=[project.pk]), reverse("patient_lock", args=[patient.pk])
    assert client.post(lock, {"locked": "1", "page": "2"})["Location"] == f"{url}?page=2"
    assert client.post(lock, {"locked": "0", "page": "//elsewhere"})["Location"] == url


def test_of_many_imports_some_are_shown_and_the_others_counted(client, project):
    for number in range(JOBS_SHOWN + 3):
        factories.make_job(project, kind=JobKind.IMPORT_SLIDE, subject=f"field {number}.png")
    factories.make_job(project, kind=JobKind.IMPORT_SLIDE, subject="now.png", state=JobState.RUNNING)
    text = page(client, "project_slides", project.pk)
    assert text.count('data-job-state="queued"') == JOBS_SHOWN - 1
    assert "now.png" in text  # the one that runs comes first
    assert "4 more wait" in text


def test_the_imports_are_fetched_anew_while_more_wait_than_are_shown(client, project):
    url = reverse("project_slides", args=[project.pk])
    for number in range(JOBS_SHOWN + 1):
        factories.make_job(project, kind=JobKind.IMPORT_SLIDE, subject=f"field {number}.png")
    part = client.get(url, {"imports": "1"}, headers={"HX-Request": "true"}).content.decode()
    assert f'hx-get="{url}?imports=1"' in part
    assert "1 more wait" in part
    assert 'id="slides"' not in part
    Job.objects.filter(subject="field 0.png").update(state=JobState.FAILED, message="no such image")
    part = client.get(url, {"imports": "1"}, headers={"HX-Request": "true"}).content.decode()
    assert "no such image" in part
    assert "?imports=1" not in part  # each of those that are left asks for itself
    Job.objects.update(state=JobState.SUCCEEDED)
    assert client.get(url, {"imports": "1"}, headers={"HX-Request": "true"}).content.strip() == b""


# One image


def test_the_list_says_that_the_pixel_size_is_not_stated(client, project):
    factories.make_image(project)
    text = page(client, "project_slides", project.pk)
    assert "not stated" in text
    assert "plain image" in text
    assert "None" not in text


def test_an_images_page_shows_it_and_leads_to_its_tile(client, project):
    (slide,) = imported(client, project, image_file("a.png"))
    text = page(client, "slide", slide.pk)
    assert text.count(f'href="{reverse("tile", args=[slide.tiles.get().pk])}"') == 2
    assert 'viewBox="0 0 90 60"' in text
    assert "not yet labelled" in text
    assert "data-tile-grid" not in text
    assert re.search(r"<dt>Pixel size</dt>\s*<dd>not stated</dd>", text)
    assert re.search(r"<dt>Vendor</dt>\s*<dd>plain image</dd>", text)
    assert "None" not in text


def test_an_images_page_states_a_pixel_size_that_is_known(client, project):
    (slide,) = imported(client, project, image_file("a.png"), mpp="0.1")
    assert "0.1 µm per px" in page(client, "slide", slide.pk)


def test_its_tiles_page_shows_it_in_its_shape(client, project):
    (slide,) = imported(client, project, image_file("a.png", size=(1024, 600)))
    tile = slide.tiles.get()
    factories.make_truth(tile, (0, 700, 100, 200, 300))
    text = page(client, "tile", tile.pk)
    assert 'viewBox="0 0 1024 600"' in text
    assert re.search(r"<h1>\s*a\.png\s*</h1>", text)
    assert 'transform="translate(700.0 100.0) scale(0.01) scale(200)"' in text
    for name, size in (("tile_image", (1024, 600)), ("slide_thumbnail", (256, 150)), ("slide_overview", (1024, 600))):
        owner = tile if name == "tile_image" else slide
        response = client.get(reverse(name, args=[owner.pk]))
        assert Image.open(io.BytesIO(response.content)).size == size


def test_an_image_goes_through_a_batch_like_any_tile(client, project):
    (slide,) = imported(client, project, image_file("a.png"))
    batch = factories.make_batch(project, slide.tiles.all())
    user = factories.make_member(project)
    factories.submit_task(batch.tasks.get(), user, (0, 60, 10, 30, 50))
    tile = slide.tiles.get()
    assert tile.truth.boxes.get().width == 30
    assert "confirmed" in page(client, "slide", slide.pk)
