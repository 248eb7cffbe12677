"""Importing plain images: through staging and the import job, up to their px, exports and pages' pictures."""

import io
import json
import zipfile

import numpy as np
import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from annotation.models import Event, JobKind, JobState, Patient, Slide, Tile
from annotation.services.exports import TrainingFacts, run_export
from annotation.services.jobs import run_job
from annotation.services.slides import SlideFacts, import_staged, stage_uploads
from annotation.services.tiles import open_slide, read_tile, read_tiles, slide_jpeg, tile_jpeg
from annotation.slides.image import ImageReader
from annotation.slides.reader import SlideError
from tests import factories
from tests.annotation.services.test_slides import assert_refused, files, imported

pytestmark = pytest.mark.django_db

FACTS = SlideFacts(patient="")
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture
def project():
    return factories.make_project()


def image_file(name="field 7.png", pixels=PIXELS, **options):
    data = io.BytesIO()
    kind = Image.registered_extensions()[f".{name.rsplit('.', 1)[1]}"]
    Image.fromarray(pixels).save(data, format=kind, **options)
    return SimpleUploadedFile(name, data.getvalue())


def test_an_image_is_imported_as_a_slide_of_one_tile(project):
    user = factories.make_user()
    facts = SlideFacts(patient="P-17", site="iliac crest", preparation="push", tiling="paper")
    (job,) = stage_uploads(project=project, uploads=[image_file()], facts=facts, user=user)
    run_job(job_pk=job.pk, function=import_staged)
    job.refresh_from_db()
    slide = Slide.objects.get()
    assert (job.state, job.message, job.result["slide"]) == (JobState.SUCCEEDED, "1 tile", slide.pk)
    assert (slide.name, slide.patient.code, slide.site, slide.preparation) == (
        "field 7.png",
        "P-17",
        "iliac crest",
        "push",
    )
    assert (slide.vendor, slide.tiling, slide.width, slide.height) == ("image", "image", 90, 60)
    assert (slide.mpp, slide.objective_power, slide.is_image, slide.imported_by) == (None, None, True, user)
    tile = slide.tiles.get()
    assert (tile.row, tile.column, tile.x, tile.y, tile.width, tile.height, tile.extent) == (0, 0, 0, 0, 90, 60, 90)
    assert tile.extents == (90, 60)
    assert slide.files == [f"slides/{project.pk}/{slide.sha256}/0.png"]
    assert len(files("slides")) == 1
    assert files("staging") == []
    assert Event.objects.get(verb="imported slide").data["tiles"] == 1


def test_its_px_come_back_exactly_and_its_pictures_keep_its_shape(project):
    imported(project, image_file())
    tile = Tile.objects.select_related("slide").get()
    assert (read_tile(tile) == PIXELS).all()
    assert Image.open(io.BytesIO(tile_jpeg(tile))).size == (90, 60)
    assert Image.open(io.BytesIO(slide_jpeg(tile.slide, 45))).size == (45, 30)
    with open_slide(tile.slide) as reader:
        assert isinstance(reader, ImageReader)


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp", "a.webp", "a.tif"])
def test_every_kind_of_image_is_imported(project, name):
    (job,) = imported(project, image_file(name))
    assert job.state == JobState.SUCCEEDED, job.message
    assert read_tile(Tile.objects.select_related("slide").get()).shape == (60, 90, 3)


def test_slides_and_images_are_read_one_after_the_other(project, smear):
    imported(project, image_file(), SimpleUploadedFile(smear.name, smear.read_bytes()))
    shapes = [pixels.shape for _, pixels in read_tiles(Tile.objects.select_related("slide"))]
    assert sorted(shapes) == [(60, 90, 3)] + [(512, 512, 3)] * 9


def test_a_blank_image_is_taken_because_somebody_chose_it(project):
    (job,) = imported(project, image_file(pixels=np.full((60, 90, 3), 240, np.uint8)))
    assert job.state == JobState.SUCCEEDED


def test_the_lead_can_state_the_pixel_size(project):
    (job,) = imported(project, image_file(), facts=SlideFacts(patient="", mpp=0.1))
    assert job.state == JobState.SUCCEEDED
    slide = Slide.objects.get()
    assert (slide.mpp, slide.tiles.get().width) == (0.1, 90)


def test_one_patient_for_all_or_each_by_its_name(project):
    imported(project, image_file("a.png"), image_file("b.png", PIXELS[:50]), facts=SlideFacts(patient="P-1"))
    imported(project, image_file("c.png", PIXELS[:40]))
    assert [patient.code for patient in Patient.objects.all()] == ["P-1", "c"]


def test_the_same_image_twice_is_refused_and_says_where_it_is(project):
    imported(project, image_file())
    (job,) = imported(project, image_file("again.png"))
    assert (job.state, job.error_code) == (JobState.FAILED, "duplicate")
    assert "again.png: already in this project as field 7.png (patient field 7)" in job.message
    assert (Slide.objects.count(), len(files("slides"))) == (1, 1)


TWO_PAGES = {"save_all": True, "append_images": [Image.fromarray(PIXELS)]}
BAD = {
    "too-large": (image_file("wide.png", np.zeros((40, 5000, 3), np.uint8)), "5000 x 40 px; at most 4096"),
    "too-small": (image_file("icon.png", PIXELS[:20]), "90 x 20 px"),
    "truncated": (SimpleUploadedFile("cut.png", image_file().read()[:5000]), "cut short"),
    "unreadable": (SimpleUploadedFile("letter.jpg", b"Dear colleague, " * 20), "not an image"),
    "several-pictures": (image_file("pages.tif", **TWO_PAGES), "2 pictures"),
}


@pytest.mark.parametrize("code", BAD)
def test_a_bad_image_is_refused_and_leaves_nothing(project, code):
    upload, words = BAD[code]
    upload.seek(0)
    (job,) = imported(project, upload)
    assert_refused(job, code, upload.name, words)
    assert files("staging") == []


def test_another_suffix_is_refused_before_anything_is_staged(project):
    with pytest.raises(SlideError, match=r"a\.gif: not a slide or image format"):
        stage_uploads(project=project, uploads=[SimpleUploadedFile("a.gif", b"GIF89a")], facts=FACTS, user=None)
    assert files("") == []


def test_an_image_that_is_gone_says_so(project):
    imported(project, image_file())
    tile = Tile.objects.select_related("slide").get()
    default_storage.delete(tile.slide.files[0])
    with pytest.raises(SlideError, match=r"field 7\.png.*missing from storage"):
        read_tile(tile)


def test_an_image_is_called_by_its_name_alone(project):
    assert str(factories.make_image(project, patient=factories.make_patient(project, "P-2"))) == "P-2.tif"


def exported(project, format_name):
    """The archive of an export with images, name to content."""
    arguments = {"format": format_name, "images": True, "part": "all"}
    job = factories.make_job(project, kind=JobKind.EXPORT, arguments=arguments)
    run_job(job_pk=job.pk, function=lambda running: run_export(running, facts=TrainingFacts({})))
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED, job.message
    with zipfile.ZipFile(default_storage.open(job.result["file"])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("format_name", ["yolo", "coco", "voc"])
def test_an_export_has_the_images_own_size(project, format_name):
    imported(project, image_file())
    factories.make_truth(Tile.objects.get(), (0, 45, 15, 9, 30))
    archive = exported(project, format_name)
    (image,) = (content for name, content in archive.items() if name.endswith(".jpg"))
    assert Image.open(io.BytesIO(image)).size == (90, 60)
    text = b" ".join(content for name, content in archive.items() if not name.endswith(".jpg")).decode()
    if format_name == "yolo":
        assert "0 0.55000000 0.50000000 0.10000000 0.50000000" in text
    elif format_name == "coco":
        (entry,) = json.loads(archive["annotations/instances_train.json"])["images"]
        assert (entry["width"], entry["height"], entry["slide_px_per_tile_px"]) == (90, 60, 1)
    else:
        assert "<width>90</width>" in text
        assert "<height>60</height>" in text
