"""Exports: what is in the archive is what is in the database."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from django.core.files.storage import default_storage

from annotation.formats.coco import read_coco
from annotation.formats.labelimg import read_labelimg
from annotation.formats.voc import read_voc
from annotation.formats.yolo import read_yolo
from annotation.models import JobState, Tile
from annotation.services.annotations import MIN_SIDE
from annotation.services.exports import FORMATS, labelled_tiles, queue_export, run_export, tile_name
from annotation.services.jobs import run_job
from tests import factories

pytestmark = pytest.mark.django_db

READERS = {
    "yolo": read_yolo,
    "voc": read_voc,
    "coco": read_coco,
    "labelimg-voc": lambda folder, classes: read_labelimg(folder, flavour="voc", classes=classes),
    "labelimg-yolo": lambda folder, classes: read_labelimg(folder, flavour="yolo", classes=classes),
}


@pytest.fixture
def project(smear):
    """Four tiles with boxes in odd places, one confirmed empty, one of a locked patient, three without truth."""
    project = factories.make_project()
    slide = factories.make_slide(project, file=smear)
    tiles = list(slide.tiles.all())
    factories.make_truth(tiles[0], (0, 1.25, 2.5, 30.75, 40.125), (1, 0, 0, 512, 512))
    factories.make_truth(tiles[1], (1, 481.3, 470.9, 30.7, 41.1))
    factories.make_truth(tiles[2], (2, 100.01, 200.02, 33.33, 44.44), (0, 5, 5, MIN_SIDE, MIN_SIDE))
    factories.make_truth(tiles[3])
    locked = factories.make_slide(project, patient=factories.make_patient(project, locked=True), file=smear)
    factories.make_truth(locked.tiles.first(), (1, 10, 20, 30, 40))
    return project


def export(project, format_name, *, part="all", images=False, parts=None):
    """The job after it has run, and the path of its archive."""
    job = queue_export(project=project, format_name=format_name, images=images, part=part, user=None)
    run_job(job_pk=job.pk, function=lambda running: run_export(running, parts=parts or {}))
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED, job.message
    return job, default_storage.path(job.result["file"])


def rows(tiles):
    """Each tile's boxes as numbers, in a fixed order."""
    return {tile.name: sorted((box.class_id, *sides(box)) for box in tile.boxes) for tile in tiles}


def in_database(project):
    truth = Tile.objects.filter(slide__project=project, truth__isnull=False)
    return {
        tile_name(tile): sorted((box.cell_class.number, *sides(box)) for box in tile.truth.boxes.all())
        for tile in truth
    }


def sides(box):
    return box.x, box.y, box.width, box.height


@pytest.mark.parametrize("images", [False, True], ids=["labels only", "with images"])
@pytest.mark.parametrize("format_name", FORMATS)
def test_an_export_equals_the_database(project, tmp_path, format_name, images):
    job, archive = export(project, format_name, images=images)
    zipfile.ZipFile(archive).extractall(tmp_path / "out")
    classes = list(project.taxonomy.classes.values_list("name", flat=True))
    read = READERS[format_name](tmp_path / "out", classes=classes)
    expected = in_database(project)
    found = rows(read.tiles)
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert np.array(found[name]) == pytest.approx(np.array(boxes), abs=0.01)
    assert len(expected) == 5
    assert read.unlabelled == ()
    pictures = [name for name in zipfile.ZipFile(archive).namelist() if name.endswith(".jpg")]
    assert len(pictures) == (5 if images else 0)
    assert (job.message, job.result["bytes"]) == ("5 tiles", default_storage.size(job.result["file"]))


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_same_data_gives_the_same_bytes(project, format_name):
    first, second = (export(project, format_name, images=True)[1] for _ in range(2))
    assert first != second
    assert Path(first).read_bytes() == Path(second).read_bytes()


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_project_without_truth_gives_an_archive_without_tiles(format_name):
    job, archive = export(factories.make_project(), format_name)
    assert job.message == "0 tiles"
    assert zipfile.ZipFile(archive).testzip() is None


def test_confirmed_empty_tiles_are_in_and_unread_ones_are_not(project):
    names = {tile.name: len(tile.boxes) for tile in labelled_tiles(project, parts={})}
    assert sorted(names.values()) == [0, 1, 1, 2, 2]


def test_a_locked_patients_tiles_are_the_test_part_whatever_a_snapshot_said(project):
    locked = Tile.objects.get(slide__patient__locked=True, truth__isnull=False)
    tiles = labelled_tiles(project, parts={locked.pk: "train"}, part="test")
    assert [tile.name for tile in tiles] == [tile_name(locked)]


@pytest.mark.parametrize(("part", "count"), [("all", 5), ("train", 3), ("val", 1), ("test", 1)])
def test_an_export_of_one_part_holds_that_part(project, part, count):
    held_out = Tile.objects.filter(slide__project=project, truth__isnull=False).first()
    job, archive = export(project, "voc", part=part, parts={held_out.pk: "val"})
    labels = [name for name in zipfile.ZipFile(archive).namelist() if name.endswith(".xml")]
    assert len(labels) == count
    assert job.message.startswith(str(count))


def test_an_unknown_format_is_refused(project):
    with pytest.raises(ValueError, match="pdf is not a format"):
        queue_export(project=project, format_name="pdf", images=False, part="all", user=None)


def test_a_slides_own_name_is_never_a_files_name(project):
    slide = project.slides.first()
    slide.name = "../../etc/Müller, Hans.tif"
    slide.save()
    _, archive = export(project, "yolo")
    assert not [name for name in zipfile.ZipFile(archive).namelist() if "Hans" in name or ".." in name]
