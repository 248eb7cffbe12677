"""Importing slides: real files, through staging and the import job."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from django.conf import settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection

from annotation.models import Event, Job, JobState, Patient, Slide, Tile
from annotation.services.jobs import run_job
from annotation.services.slides import (
    SlideFacts,
    display_name,
    import_slide,
    import_staged,
    patient_code_from,
    queue_folder,
    stage_uploads,
)
from annotation.services.tiles import open_slide, read_tile, slide_jpeg, tile_jpeg
from annotation.slides.reader import SlideError, SlideReader
from tests import factories

pytestmark = pytest.mark.django_db

WSI = Path(__file__).resolve().parents[3] / "../shared/data/wsi"
FACTS = SlideFacts(patient="")


@pytest.fixture
def project():
    return factories.make_project()


def upload(path, name=""):
    return SimpleUploadedFile(name or path.name, path.read_bytes())


def run(job):
    run_job(job_pk=job.pk, function=import_staged)
    job.refresh_from_db()
    return job


def imported(project, *uploads, facts=FACTS):
    """The jobs of these uploads after they have run."""
    return [run(job) for job in stage_uploads(project=project, uploads=uploads, facts=facts, user=None)]


def files(folder):
    root = Path(default_storage.path(folder))
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.exists() else []


def assert_nothing_was_imported():
    assert [model.objects.count() for model in (Slide, Tile, Patient)] == [0, 0, 0]
    assert files("slides") == []


def assert_refused(job, code, *words):
    assert (job.state, job.error_code) == (JobState.FAILED, code)
    for word in words:
        assert word in job.message
    assert_nothing_was_imported()


# What works


def test_a_slide_is_imported_with_its_tiles(project, smear):
    user = factories.make_user()
    facts = SlideFacts(patient="P-17", site="iliac crest", preparation="push")
    (job,) = stage_uploads(project=project, uploads=[upload(smear)], facts=facts, user=user)
    assert job.state == JobState.QUEUED
    assert_nothing_was_imported()
    run(job)
    slide = Slide.objects.get()
    assert (job.state, job.message, job.result["slide"]) == (JobState.SUCCEEDED, "9 tiles", slide.pk)
    assert (slide.name, slide.patient.code, slide.site, slide.preparation) == (
        smear.name,
        "P-17",
        "iliac crest",
        "push",
    )
    assert (slide.width, slide.height, slide.mpp, slide.imported_by) == (1536, 1536, 0.25, user)
    assert slide.bytes == smear.stat().st_size
    assert [(tile.row, tile.column, tile.x, tile.y) for tile in slide.tiles.all()] == [
        (row, column, 512 * column, 512 * row) for row in range(3) for column in range(3)
    ]
    assert len(files("slides")) == 1
    assert files("staging") == []
    assert Event.objects.get(verb="imported slide").data["tiles"] == 9


def test_the_tiles_of_an_imported_slide_open(project, smear):
    imported(project, upload(smear))
    tile = Tile.objects.select_related("slide").first()
    assert read_tile(tile).shape == (512, 512, 3)
    assert tile_jpeg(tile)[:3] == b"\xff\xd8\xff"
    assert slide_jpeg(tile.slide, 256)[:3] == b"\xff\xd8\xff"


def test_a_vendors_file_is_imported(project):
    (job,) = imported(project, upload(WSI / "cmu-1-small-region.svs"))
    slide = Slide.objects.get()
    assert job.state == JobState.SUCCEEDED, job.message
    assert (slide.vendor, slide.mpp, slide.objective_power) == ("aperio", 0.499, 20.0)
    assert slide.tiles.first().extent == 257
    assert read_tile(slide.tiles.first()).shape == (512, 512, 3)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd.tif", "passwd.tif"),
        (r"C:\slides\P 17.tif", "P 17.tif"),
        ("Knochenmark Müller 骨髄 #1.tif", "Knochenmark Müller 骨髄 #1.tif"),
        ("a\x07b\n.tif", "ab.tif"),
        ("UPPER.TIF", "UPPER.TIF"),
    ],
)
def test_a_name_is_shown_but_never_used_as_a_path(project, smear, given, shown):
    file = upload(smear)
    file._name = given  # as a client that ignores every rule would send it
    (job,) = imported(project, file)
    slide = Slide.objects.get()
    assert job.state == JobState.SUCCEEDED, job.message
    assert slide.name == shown
    assert slide.files == [f"slides/{project.pk}/{slide.sha256}/0.tif"]
    assert all(settings.DATA_DIR in path.resolve().parents for path in files(""))


def test_a_svs_with_the_name_of_a_system_file_lands_in_storage(project):
    file = upload(WSI / "cmu-1-small-region.svs")
    file._name = "../../etc/passwd.svs"
    imported(project, file)
    slide = Slide.objects.get()
    assert (slide.name, slide.patient.code) == ("passwd.svs", "passwd")


def test_without_a_patient_each_file_names_its_own(project, smear, tmp_path):
    other = factories.make_project()
    imported(project, upload(smear, "A.tif"))
    imported(other, upload(smear, "B.b.tif"))
    assert [patient.code for patient in Patient.objects.all()] == ["A", "B.b"]


def test_two_slides_of_one_patient_share_it(project, smear):
    facts = SlideFacts(patient="P-1")
    done = imported(project, upload(smear), upload(WSI / "cmu-1-small-region.svs"), facts=facts)
    assert [job.state for job in done] == [JobState.SUCCEEDED] * 2
    assert Patient.objects.get().slides.count() == 2


def test_a_folders_files_are_imported_from_where_they_lie(project, smear):
    (job,) = queue_folder(project=project, paths=[smear], facts=FACTS, user=None)
    assert run(job).state == JobState.SUCCEEDED
    assert smear.exists()


# What is refused


def test_the_same_slide_twice_is_refused_and_says_where_it_is(project, smear):
    imported(project, upload(smear))
    (job,) = imported(project, upload(smear, "again.tif"), facts=SlideFacts(patient="other"))
    assert (job.state, job.error_code) == (JobState.FAILED, "duplicate")
    assert "again.tif: already in this project as T01.tif (patient T01)" in job.message
    assert (Slide.objects.count(), Patient.objects.count(), len(files("slides"))) == (1, 1, 1)


def test_the_same_slide_in_another_project_is_imported(project, smear):
    imported(project, upload(smear))
    (job,) = imported(factories.make_project(), upload(smear))
    assert job.state == JobState.SUCCEEDED


def test_an_empty_file_is_refused_before_anything_is_staged(project, smear):
    with pytest.raises(SlideError, match=r"none\.svs.*empty") as refused:
        stage_uploads(
            project=project, uploads=[upload(smear), SimpleUploadedFile("none.svs", b"")], facts=FACTS, user=None
        )
    assert refused.value.code == "empty"
    assert not Job.objects.exists()
    assert files("") == []


def test_another_kind_of_file_is_refused_before_anything_is_staged(project):
    with pytest.raises(SlideError, match=r"report\.pdf: not a slide or image format"):
        stage_uploads(project=project, uploads=[SimpleUploadedFile("report.pdf", b"%PDF")], facts=FACTS, user=None)
    assert files("") == []


def test_text_with_the_name_of_a_slide_is_refused(project):
    (job,) = imported(project, SimpleUploadedFile("letter.svs", b"Dear colleague, " * 200))
    assert_refused(job, "unreadable", "letter.svs")


def test_a_truncated_file_is_refused(project, smear, tmp_path):
    cut = tmp_path / "cut.tif"
    cut.write_bytes(smear.read_bytes()[: smear.stat().st_size * 2 // 3])
    (job,) = imported(project, upload(cut))
    assert_refused(job, "truncated", "cut.tif", "cut short")


def test_a_slide_smaller_than_a_tile_is_refused(project):
    (job,) = imported(project, upload(WSI / "small.svs"))
    assert_refused(job, "too-small", "small.svs is 16 x 16 px")


def test_a_nearly_black_slide_is_refused(project):
    (job,) = imported(project, upload(WSI / "dapi.ndpi"))
    assert_refused(job, "no-tissue", "dapi.ndpi", "nearly black", "fluorescence")


def test_a_tiff_of_several_pictures_that_is_no_slide_is_refused(project):
    (job,) = imported(project, upload(WSI / "unreadable/plain.tif"))
    assert_refused(job, "several-pictures", "plain.tif", "2 pictures")


def test_a_blank_slide_is_refused(project, tmp_path):
    path = tmp_path / "blank.tif"
    blank = np.full((1024, 1024, 3), 240, np.uint8)
    tifffile.imwrite(
        path, blank, tile=(256, 256), photometric="rgb", resolution=(40000, 40000), resolutionunit="CENTIMETER"
    )
    (job,) = imported(project, upload(path))
    assert_refused(job, "no-tissue", "blank.tif", "blank")


def test_the_files_of_a_dicom_series_make_one_slide(project):
    """The pair is readable, and too small for a tile: one job says so, for both files together."""
    pair = sorted((WSI / "dicom").glob("*.dcm"))
    jobs = stage_uploads(project=project, uploads=[upload(path) for path in pair], facts=FACTS, user=None)
    assert [len(job.arguments["files"]) for job in jobs] == [2]
    assert_refused(run(jobs[0]), "too-small", "16 x 16 px")


def test_a_dicom_file_of_another_examination_is_refused(project):
    (job,) = imported(project, upload(WSI / "unreadable/colonoscopy.dcm"))
    assert_refused(job, "unreadable", "colonoscopy.dcm")


# The pixel size


@pytest.fixture
def without_mpp(smear, tmp_path):
    path = tmp_path / "unstated.tif"
    with SlideReader(smear) as reader:
        pixels = reader.read_area(0, 0, 1024, 1024, columns=1024, rows=1024)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", resolutionunit="NONE", metadata=None)
    return path


def test_a_slide_that_does_not_state_its_pixel_size_waits_for_it(project, without_mpp):
    (job,) = imported(project, upload(without_mpp))
    assert_refused(job, "mpp-missing", "unstated.tif", "enter the scanner's value")
    assert job.needs_mpp
    assert len(files("staging")) == 1


def test_a_printing_resolution_is_not_taken_for_a_pixel_size(project):
    (job,) = imported(project, upload(WSI / "boxes.tiff"))
    assert_refused(job, "mpp-implausible", "boxes.tiff")
    assert job.needs_mpp


def test_it_is_imported_once_the_lead_has_stated_it(client, project, without_mpp):
    lead = factories.make_member(project, "lead")
    client.force_login(lead)
    (job,) = imported(project, upload(without_mpp))
    assert "Pixel size" in client.get(f"/projects/{project.pk}/slides/").content.decode()
    response = client.post(f"/jobs/{job.pk}/retry/", {"mpp": "0.26"})
    assert response["Location"] == f"/projects/{project.pk}/slides/"
    job.refresh_from_db()
    assert job.state == JobState.QUEUED
    assert run(job).state == JobState.SUCCEEDED
    slide = Slide.objects.get()
    assert (slide.mpp, slide.tiles.first().extent) == (0.26, 492)
    assert files("staging") == []


@pytest.mark.parametrize("mpp", ["", "abc", "0", "-1", "72", "nan", "inf"])
def test_an_impossible_pixel_size_is_refused(client, project, mpp):
    client.force_login(factories.make_member(project, "lead"))
    job = factories.make_job(
        project,
        kind="import_slide",
        state=JobState.FAILED,
        error_code="mpp-missing",
        arguments={"facts": {}, "files": []},
    )
    response = client.post(f"/jobs/{job.pk}/retry/", {"mpp": mpp}, follow=True)
    assert "between 0.02 and 5" in response.content.decode()
    job.refresh_from_db()
    assert job.state == JobState.FAILED


def test_a_stated_pixel_size_serves_at_once(project, without_mpp):
    (job,) = imported(project, upload(without_mpp), facts=SlideFacts(patient="", mpp=0.25))
    assert job.state == JobState.SUCCEEDED
    with open_slide(Slide.objects.get()) as reader:
        assert reader.mpp == 0.25


# Being interrupted


def test_an_import_run_again_after_it_was_killed_at_the_end_is_done(project, smear):
    (job,) = stage_uploads(project=project, uploads=[upload(smear)], facts=FACTS, user=None)
    run(job)
    Job.objects.filter(pk=job.pk).update(state=JobState.QUEUED)
    assert run(job).state == JobState.SUCCEEDED
    assert Slide.objects.count() == 1


def test_an_import_killed_before_its_staged_files_were_removed_is_done(project, smear, monkeypatch):
    """The row is there and the staged file too: the second attempt must not call its own work a duplicate."""
    (job,) = stage_uploads(project=project, uploads=[upload(smear)], facts=FACTS, user=None)
    monkeypatch.setattr(default_storage, "delete", lambda name: 1 / 0)
    assert run(job).state == JobState.FAILED
    monkeypatch.undo()
    Job.objects.filter(pk=job.pk).update(state=JobState.QUEUED)
    assert run(job).state == JobState.SUCCEEDED, job.message
    assert Slide.objects.count() == 1
    assert files("staging") == []


@pytest.mark.django_db(transaction=True)
def test_the_same_file_imported_twice_at_once_is_entered_once(smear):
    project = factories.make_project()
    start, outcomes = threading.Barrier(2), []

    def import_it(name):
        try:
            start.wait()
            import_slide(project=project, paths=[smear], name=name, facts=SlideFacts(patient=name), user=None)
            outcomes.append("imported")
        except SlideError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=import_it, args=[name]) for name in ("a.tif", "b.tif")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["duplicate", "imported"]
    assert (Slide.objects.count(), Patient.objects.count(), Tile.objects.count()) == (1, 1, 9)
    assert read_tile(Tile.objects.first()).shape == (512, 512, 3)


def test_a_staged_file_that_is_gone_says_so(project, smear):
    (job,) = stage_uploads(project=project, uploads=[upload(smear)], facts=FACTS, user=None)
    shutil.rmtree(default_storage.path("staging"))
    assert_refused(run(job), "missing", smear.name, "upload it again")


def test_an_import_that_fails_while_its_rows_are_written_leaves_none_and_can_be_tried_again(
    project, smear, monkeypatch
):
    monkeypatch.setattr(Tile.objects, "bulk_create", lambda *args, **kwargs: 1 / 0)
    (job,) = imported(project, upload(smear))
    assert job.state == JobState.FAILED
    assert [model.objects.count() for model in (Slide, Tile, Patient)] == [0, 0, 0]
    monkeypatch.undo()
    Job.objects.filter(pk=job.pk).update(state=JobState.QUEUED)
    assert run(job).state == JobState.SUCCEEDED
    assert len(files("slides")) == 1


def test_a_missing_slide_file_is_explained(project):
    tile = factories.make_tile(project)
    factories.lose_files(tile.slide)
    with pytest.raises(SlideError, match="missing from storage"):
        read_tile(tile)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("P17.svs", "P17"),
        ("/data/P17.ome.tiff", "P17.ome"),
        (r"C:\x\P17.svs", "P17"),
        ("", "unnamed"),
        (".svs", "unnamed"),
    ],
)
def test_a_patients_code_comes_from_the_name(name, code):
    assert patient_code_from(name) == code


def test_a_name_of_nothing_but_control_characters_has_a_word():
    assert display_name("\x00\x01") == "unnamed"
    assert len(display_name("a" * 400)) == 255
