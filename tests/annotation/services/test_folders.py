"""Registered folders: real slides in real folders, looked into again and again."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from django.core.files.storage import default_storage
from django.utils import timezone
from PIL import Image

from annotation.models import Event, FileState, FolderFile, Job, JobKind, JobState, PatientRule, Slide, SlideFolder
from annotation.services import folders as service
from annotation.services import jobs
from annotation.services.folders import (
    files_below,
    look_due,
    patient_by,
    pause_folder,
    queue_settled,
    register_folder,
    run_look,
    start_look,
    subfolders,
    unregister_folder,
)
from annotation.services.jobs import retry_job, run_job
from annotation.services.projects import NotAllowed
from annotation.services.slide_files import OutsideRoots, allowed, is_there, placed, slide_paths
from annotation.services.slides import SlideFacts, import_staged
from annotation.services.tiles import open_slide, read_tile
from annotation.slides.reader import SlideError
from tests import factories

pytestmark = pytest.mark.django_db

WSI = Path(__file__).resolve().parents[3] / "../shared/data/wsi"


@pytest.fixture
def root(settings, tmp_path):
    folder = tmp_path / "scanner"
    folder.mkdir()
    settings.SLIDE_ROOTS = [folder]
    return folder


@pytest.fixture
def project():
    return factories.make_project()


def register(project, path, rule=PatientRule.FILE, **fields):
    facts = SlideFacts(patient="", tiling="edge", **fields)
    user = factories.make_user()
    return register_folder(project=project, path=path, rule=rule, facts=facts, every_minutes=60, user=user)


def look(folder):
    """One look and the imports that it queues; returns the job of the look."""
    job = start_look(folder=folder, user=None)
    run_job(job_pk=job.pk, function=run_look)
    for one in Job.objects.filter(kind=JobKind.IMPORT_SLIDE, state=JobState.QUEUED):
        run_job(job_pk=one.pk, function=import_staged)
    job.refresh_from_db()
    return job


def looked(project, path, times=3, **values):
    """A registered folder after some looks: seen, imported, found imported."""
    folder = register(project, path, **values)
    for _ in range(times):
        look(folder)
    return folder


def standings(folder):
    return {file.name: file.standing for file in folder.files.select_related("job")}


def draw(path, number=0, side=60):
    """A small plain image that is no other's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def everything_in(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


# What works


def paths_of(slide):
    with slide_paths(slide) as paths:
        return paths


def test_a_slide_is_read_where_it_lies(project, root, smear):
    shutil.copy2(smear, root / "T01.tif")
    before = everything_in(root)
    folder = register(project, root, site="sternum")
    assert look(folder).message == "1 file, 1 new"
    assert not Slide.objects.exists()
    look(folder)
    slide = Slide.objects.get()
    assert (slide.name, slide.patient.code, slide.site, slide.tiles.count()) == ("T01.tif", "T01", "sternum", 9)
    assert slide.imported_by == folder.registered_by
    assert paths_of(slide) == [root / "T01.tif"]
    assert read_tile(slide.tiles.select_related("slide").first()).shape == (512, 512, 3)
    assert is_there(slide)
    assert not default_storage.exists("slides")
    assert everything_in(root) == before
    assert look(folder).message == "1 file, 0 new"
    assert standings(folder) == {"T01.tif": "imported"}


def test_a_file_that_grows_waits_until_it_has_stopped(project, root, smear):
    content = smear.read_bytes()
    (root / "A.tif").write_bytes(content[:1000])
    folder = register(project, root)
    for size in (2000, 3000, len(content)):
        look(folder)
        assert standings(folder) == {"A.tif": "seen"}
        (root / "A.tif").write_bytes(content[:size])
    look(folder)
    assert not Job.objects.filter(kind=JobKind.IMPORT_SLIDE).exists()
    look(folder)
    assert Slide.objects.get().bytes == len(content)


@pytest.mark.parametrize(
    ("rule", "codes"),
    [
        (PatientRule.FILE, ["P3", "P 1_b", "P2"]),
        (PatientRule.BEGINNING, ["P3", "P", "P2"]),
        (PatientRule.FOLDER, ["scanner", "day 1", "P9"]),
        (PatientRule.TOP, ["P3", "day 1", "day 1"]),
    ],
)
def test_the_patient_follows_from_the_rule(root, rule, codes):
    names = ["P3.svs", "day 1/P 1_b.svs", "day 1/P9/P2.svs"]
    assert [patient_by(rule, root, name) for name in names] == codes


def test_slides_of_subfolders_are_found_and_what_is_no_slide_is_not(project, root):
    for number, name in enumerate(["P1/a.png", "P2/deep/b.png", "c.png"]):
        draw(root / name, number)
    for name in ("notes.txt", ".hidden.png", "._c.png", ".trash/d.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no slide")
    looked(project, root, 2, rule=PatientRule.TOP)
    assert sorted(Slide.objects.values_list("name", "patient__code")) == [
        ("a.png", "P1"),
        ("b.png", "P2"),
        ("c.png", "c"),
    ]


def test_files_of_one_series_make_one_slide_once_all_have_settled(project, root):
    shutil.copy2(WSI / "dicom" / "boxes_0.dcm", root)
    folder = register(project, root)
    look(folder)
    shutil.copy2(WSI / "dicom" / "boxes_1.dcm", root)
    look(folder)
    assert not Job.objects.filter(kind=JobKind.IMPORT_SLIDE).exists()
    look(folder)
    (job,) = Job.objects.filter(kind=JobKind.IMPORT_SLIDE)
    assert [Path(path).name for path in job.arguments["paths"]] == ["boxes_0.dcm", "boxes_1.dcm"]


def test_a_file_that_is_refused_says_why_and_is_tried_again_when_it_changes(project, root, smear):
    (root / "letter.tif").write_bytes(b"Dear colleague, " * 100)
    folder = looked(project, root)
    file = folder.files.get()
    assert file.standing == "refused"
    assert "letter.tif is not a whole-slide image" in file.reason
    assert Job.objects.filter(kind=JobKind.IMPORT_SLIDE).count() == 1  # not again and again
    shutil.copy2(smear, root / "letter.tif")
    look(folder)
    assert standings(folder) == {"letter.tif": "seen"}
    look(folder)
    look(folder)
    assert standings(folder) == {"letter.tif": "imported"}


def test_a_slide_whose_pixel_size_the_lead_gives_later_is_read_in_place(project, root):
    shutil.copy2(WSI / "boxes.tiff", root)
    folder = looked(project, root, 2)
    job = Job.objects.get(kind=JobKind.IMPORT_SLIDE)
    assert job.needs_mpp
    assert standings(folder) == {"boxes.tiff": "refused"}
    retry_job(job=job, user=None, facts=job.arguments["facts"] | {"mpp": 1.0})
    run_job(job_pk=job.pk, function=import_staged)
    look(folder)
    assert standings(folder) == {"boxes.tiff": "imported"}
    assert placed(Slide.objects.get().files[0]).path == root / "boxes.tiff"


# What changes afterwards


def test_a_file_that_has_changed_is_shown_and_no_longer_read(project, root):
    draw(root / "a.png", 1)
    folder = looked(project, root)
    slide = Slide.objects.get()
    before = Slide.objects.values().get()
    draw(root / "a.png", 2)
    with pytest.raises(SlideError, match=r"a\.png: the file in its registered folder has changed") as refused:
        paths_of(slide)
    assert refused.value.code == "changed"
    assert not is_there(slide)
    for _ in range(3):
        assert "1 changed" in look(folder).message
    assert standings(folder) == {"a.png": "changed"}
    assert "neither replaced nor read" in folder.files.get().reason
    assert Slide.objects.values().get() == before
    draw(root / "a.png", 1)  # what was imported is back
    look(folder)
    assert standings(folder) == {"a.png": "imported"}
    with open_slide(Slide.objects.get()) as reader:
        assert reader.info.width == 60


def test_a_file_whose_time_alone_has_changed_is_read_again_after_a_look(project, root):
    draw(root / "a.png")
    folder = looked(project, root)
    os.utime(root / "a.png", (1, 1))
    assert not is_there(Slide.objects.get())
    look(folder)
    assert is_there(Slide.objects.get())
    assert standings(folder) == {"a.png": "imported"}


def test_a_file_that_has_vanished_is_shown_and_comes_back(project, root):
    draw(root / "a.png")
    folder = looked(project, root)
    (root / "a.png").rename(root.parent / "a.png")
    assert "1 vanished" in look(folder).message
    assert standings(folder) == {"a.png": "vanished"}
    with pytest.raises(SlideError, match=r"missing from its registered folder"):
        paths_of(Slide.objects.get())
    (root.parent / "a.png").rename(root / "a.png")
    look(folder)
    assert standings(folder) == {"a.png": "imported"}
    assert Slide.objects.count() == 1


def test_a_file_that_was_moved_is_read_where_it_is_now(project, root):
    draw(root / "a.png")
    folder = looked(project, root)
    slide = Slide.objects.get()
    (root / "P1").mkdir()
    (root / "a.png").rename(root / "P1" / "b.png")
    for _ in range(3):
        look(folder)
    assert standings(folder) == {"P1/b.png": "imported"}
    slide.refresh_from_db()
    assert paths_of(slide) == [root / "P1" / "b.png"]
    assert slide.name == "a.png"
    assert Event.objects.get(verb="found again").subject == "a.png"


def test_a_second_copy_of_a_slide_is_refused_as_a_duplicate(project, root):
    draw(root / "a.png")
    folder = looked(project, root)
    shutil.copy2(root / "a.png", root / "b.png")
    for _ in range(3):
        look(folder)
    assert standings(folder) == {"a.png": "imported", "b.png": "refused"}
    assert "already in this project as a.png" in folder.files.get(name="b.png").reason
    assert paths_of(Slide.objects.get()) == [root / "a.png"]


def test_a_file_that_vanishes_before_it_is_imported_is_forgotten(project, root):
    draw(root / "a.png")
    folder = register(project, root)
    look(folder)
    (root / "a.png").unlink()
    look(folder)
    assert standings(folder) == {}


def test_a_file_that_vanishes_before_its_import_runs_is_said(project, root):
    draw(root / "a.png")
    folder = looked(project, root, 1)
    run_job(job_pk=start_look(folder=folder, user=None).pk, function=run_look)
    (root / "a.png").unlink()
    job = Job.objects.get(kind=JobKind.IMPORT_SLIDE)
    run_job(job_pk=job.pk, function=import_staged)
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "a.png" in job.message
    assert not Slide.objects.exists()


def test_a_folder_that_is_away_flags_nothing(project, root):
    draw(root / "in" / "a.png")
    folder = looked(project, root / "in")
    (root / "in").rename(root / "away")
    job = look(folder)
    assert job.state == JobState.FAILED
    assert f"{root / 'in'} could not be looked into" in job.message
    assert standings(folder) == {"a.png": "imported"}


# What is not allowed


@pytest.mark.parametrize(
    "given", ["", "relative", "{root}/../scanner", "{root}/x/../../etc", "/etc", "{root}/none", "a\0b"]
)
def test_a_path_outside_the_roots_is_refused(project, root, given):
    with pytest.raises(OutsideRoots):
        register(project, given.format(root=root))
    assert not SlideFolder.objects.exists()


def test_nothing_is_allowed_where_the_settings_name_no_root(project, root, settings):
    settings.SLIDE_ROOTS = []
    with pytest.raises(OutsideRoots, match="does not lie under a folder of slides that the settings allow"):
        register(project, root)


def test_a_link_that_leads_out_of_the_root_is_refused(project, root, tmp_path):
    outside = tmp_path / "outside"
    draw(outside / "secret.png")
    (root / "out").symlink_to(outside)
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "broken.png").symlink_to(outside / "none.png")
    with pytest.raises(OutsideRoots):
        allowed(root / "out")
    with pytest.raises(OutsideRoots):
        register(project, root / "out")
    assert [one.path.name for one in subfolders(root)] == []
    folder = looked(project, root)
    assert standings(folder) == {"link.png": "refused", "broken.png": "refused"}
    assert all("A link that leads out" in file.reason for file in folder.files.all())
    assert not Job.objects.filter(kind=JobKind.IMPORT_SLIDE).exists()


def test_a_file_that_becomes_a_link_outwards_is_not_read(project, root, tmp_path):
    draw(root / "a.png")
    folder = looked(project, root)
    shutil.move(root / "a.png", tmp_path / "a.png")
    (root / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(SlideError):
        paths_of(Slide.objects.get())
    look(folder)
    assert standings(folder) == {"a.png": "changed"}


def test_a_link_within_the_roots_is_read(project, root):
    draw(root / "all" / "a.png")
    (root / "mine").mkdir()
    (root / "mine" / "b.png").symlink_to(root / "all" / "a.png")
    folder = looked(project, root / "mine")
    assert standings(folder) == {"b.png": "imported"}
    assert paths_of(Slide.objects.get()) == [root / "all" / "a.png"]


def test_a_slide_is_no_longer_read_once_its_root_is_no_longer_allowed(project, root, settings):
    draw(root / "a.png")
    looked(project, root)
    settings.SLIDE_ROOTS = [root.parent / "other"]
    with pytest.raises(SlideError, match="missing from its registered folder"):
        paths_of(Slide.objects.get())


def test_a_folder_is_registered_once_and_not_within_another(project, root):
    (root / "in").mkdir()
    register(project, root / "in")
    for path in (root / "in", root):
        with pytest.raises(NotAllowed):
            register(project, path)
    register(factories.make_project(), root)  # another project's


def test_a_name_that_is_not_utf_8_is_said(project, root):
    path = os.fsencode(root) + b"/\xff.png"
    Path(os.fsdecode(path)).write_bytes(b"x")
    folder = looked(project, root)
    assert folder.files.get().reason == "Its name is too long, or is not UTF-8."


def test_a_subfolder_that_cannot_be_read_is_said(root, monkeypatch):
    draw(root / "a" / "a.png")
    draw(root / "b.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(service.os, "scandir", scandir)
    assert [(one.name, one.problem) for one in files_below(root)] == [
        ("a", "The folder cannot be read: Permission denied."),
        ("b.png", ""),
    ]


# The schedule


def test_a_folder_is_looked_into_when_its_time_has_come(project, root):
    folder = register(project, root)
    now = timezone.now()
    run_job(job_pk=SlideFolder.objects.get().job_id, function=run_look)
    assert look_due(now=now) == 0
    assert look_due(now=now + timedelta(minutes=61)) == 1
    assert look_due(now=now + timedelta(minutes=61)) == 0
    folder.refresh_from_db()
    assert folder.job.state == JobState.QUEUED
    assert start_look(folder=folder, user=None) == folder.job  # it is under way


def test_what_is_being_copied_is_looked_at_again_soon(project, root):
    draw(root / "a.png")
    folder = looked(project, root, 1)
    folder.refresh_from_db()
    assert folder.next_look_at <= timezone.now() + timedelta(minutes=1)


def test_a_paused_folder_is_not_looked_into_by_schedule(project, root):
    folder = register(project, root)
    look(folder)
    pause_folder(folder=folder, paused=True, user=folder.registered_by)
    later = timezone.now() + timedelta(days=2)
    assert look_due(now=later) == 0
    pause_folder(folder=folder, paused=False, user=folder.registered_by)
    assert look_due(now=later) == 1


def test_an_unregistered_folder_leaves_its_slides(project, root):
    draw(root / "a.png")
    folder = looked(project, root)
    late = start_look(folder=folder, user=None)
    unregister_folder(folder=folder, user=folder.registered_by)
    run_job(job_pk=late.pk, function=run_look)
    late.refresh_from_db()
    assert late.message == "The folder is no longer registered."
    assert not FolderFile.objects.exists()
    with open_slide(Slide.objects.get()) as reader:
        assert reader.info.width == 60
    assert (root / "a.png").exists()


def test_old_looks_are_forgotten(project, root, monkeypatch):
    monkeypatch.setattr(service, "LOOKS_KEPT", 2)
    looked(project, root, 5)
    assert Job.objects.filter(kind=JobKind.LOOK).count() == 3  # the one that ran was not over


def test_thousands_of_files_are_queued_a_few_at_a_time(project, root, monkeypatch, django_assert_max_num_queries):
    monkeypatch.setattr(jobs, "REPORT_SECONDS", 3600)
    for number in range(3000):
        (root / f"{number:05}.png").write_bytes(b"no image")
    folder = register(project, root)
    with django_assert_max_num_queries(80):
        look(folder)
    job = start_look(folder=folder, user=None)
    run_job(job_pk=job.pk, function=run_look)
    assert folder.files.filter(state=FileState.SETTLED).count() == 3000 - service.MOST_WAITING
    imports = Job.objects.filter(kind=JobKind.IMPORT_SLIDE)
    assert imports.count() == service.MOST_WAITING
    assert queue_settled(folder=folder) == 0
    imports.filter(pk__in=list(imports.values_list("pk", flat=True)[:5])).update(state=JobState.FAILED)
    look_due()
    assert imports.count() == service.MOST_WAITING + 5
    with django_assert_max_num_queries(80):
        run_job(job_pk=start_look(folder=folder, user=None).pk, function=run_look)


def test_a_folder_with_too_many_files_is_refused(project, root, monkeypatch):
    monkeypatch.setattr(service, "MOST_FILES", 3)
    for number in range(4):
        draw(root / f"{number}.png", number)
    job = look(register(project, root))
    assert job.state == JobState.FAILED
    assert "holds more than 3 slides and images: register its subfolders instead" in job.message
