"""Exports: what is in the archive is what is in the database."""

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from django.core.files.storage import default_storage
from django.utils import timezone
from PIL import Image

from annotation.formats.coco import read_coco
from annotation.formats.csv_table import read_csv
from annotation.formats.labelimg import read_labelimg
from annotation.formats.voc import read_voc
from annotation.formats.yolo import read_yolo
from annotation.models import Annotation, Event, Job, JobState, Tile
from annotation.services import exports
from annotation.services.annotations import MIN_SIDE
from annotation.services.export_choice import FORMATS, ExportChoice, choice_of
from annotation.services.exports import (
    TrainingFacts,
    delete_export,
    labelled_tiles,
    queue_export,
    run_export,
    tile_name,
)
from annotation.services.jobs import LOST_AFTER, JobError, cancel_job, run_job, sweep_jobs
from annotation.services.policies import CONSENSUS, ReadingPolicy
from annotation.services.storage import store, work_dir
from annotation.services.tiles import crop_around, read_tile
from tests import factories

pytestmark = pytest.mark.django_db

READERS = {
    "yolo": read_yolo,
    "voc": read_voc,
    "coco": read_coco,
    "csv": read_csv,
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


def export(project, format_name, *, parts=None, snapshot_hash=None, **choice):
    """The job after it has run, and the path of its archive."""
    job = queue_export(project=project, choice=ExportChoice(format=format_name, **choice), user=None)
    facts = TrainingFacts(parts or {}, snapshot_hash)
    run_job(job_pk=job.pk, function=lambda running: run_export(running, facts=facts))
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
@pytest.mark.parametrize("format_name", READERS)
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
    assert len(pictures) == (5 if images and format_name != "csv" else 0)
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
    _, tiles = labelled_tiles(project, ExportChoice("yolo"), parts={})
    names = {tile.name: len(tile.boxes) for tile in tiles}
    assert sorted(names.values()) == [0, 1, 1, 2, 2]


def test_a_locked_patients_tiles_are_the_test_part_whatever_a_snapshot_said(project):
    locked = Tile.objects.get(slide__patient__locked=True, truth__isnull=False)
    _, tiles = labelled_tiles(project, ExportChoice("yolo", part="test"), parts={locked.pk: "train"})
    assert [tile.name for tile in tiles] == [tile_name(locked)]


@pytest.mark.parametrize(("part", "count"), [("all", 5), ("train", 3), ("val", 1), ("test", 1)])
def test_an_export_of_one_part_holds_that_part(project, part, count):
    held_out = Tile.objects.filter(slide__project=project, truth__isnull=False).first()
    job, archive = export(project, "voc", part=part, parts={held_out.pk: "val"})
    labels = [name for name in zipfile.ZipFile(archive).namelist() if name.endswith(".xml")]
    assert len(labels) == count
    assert job.message.startswith(str(count))


def test_an_unknown_format_is_refused(project):
    with pytest.raises(ValueError, match="pdf is not a choice of format"):
        ExportChoice("pdf")


def test_a_slides_own_name_is_never_a_files_name(project):
    slide = project.slides.first()
    slide.name = "../../etc/Müller, Hans.tif"
    slide.save()
    _, archive = export(project, "yolo")
    assert not [name for name in zipfile.ZipFile(archive).namelist() if "Hans" in name or ".." in name]


def files_of(archive):
    """Name to bytes of the files of an archive."""
    with zipfile.ZipFile(archive) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist() if not name.endswith("/")}


def table(archive, name="boxes.csv"):
    return list(csv.DictReader(io.StringIO(files_of(archive)[name].decode())))


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_manifest_names_every_file_and_what_was_chosen(project, format_name):
    _, archive = export(project, format_name, images=True, snapshot_hash="ab" * 32, classes=("neutrophil",))
    files = files_of(archive)
    manifest = json.loads(files.pop("manifest.json"))
    listed = {entry["path"]: (entry["sha256"], entry["bytes"]) for entry in manifest["files"]}
    assert listed == {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    assert len(manifest["files"]) == len(files)
    assert manifest["snapshot"] == "ab" * 32
    assert (manifest["taxonomy"]["name"], manifest["taxonomy"]["version"]) == ("Three classes", 1)
    assert (manifest["choice"]["format"], manifest["choice"]["classes"]) == (format_name, ["neutrophil"])
    assert (manifest["tiles"], manifest["boxes"]) == (5, 2)
    assert manifest["slides"] == {str(slide.pk): slide.sha256 for slide in project.slides.order_by("pk")}


def test_the_job_knows_the_archives_size_and_hash(project):
    job, archive = export(project, "csv")
    content = Path(archive).read_bytes()
    assert (job.result["bytes"], job.result["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_order_of_what_was_ticked_does_not_change_the_bytes(project, format_name):
    one, other = ("neutrophil", "erythroblast"), ("erythroblast", "neutrophil", "neutrophil")
    first, second = (export(project, format_name, classes=classes)[1] for classes in (one, other))
    assert Path(first).read_bytes() == Path(second).read_bytes()


def test_a_choice_of_classes_leaves_out_boxes_and_never_tiles(project, tmp_path):
    _, archive = export(project, "yolo", classes=("erythroblast",))
    zipfile.ZipFile(archive).extractall(tmp_path)
    read = read_yolo(tmp_path)
    assert len(read.tiles) == 5
    assert {box.class_id for tile in read.tiles for box in tile.boxes} == {1}
    # The numbers stay those of the taxonomy.
    assert read.classes == ("neutrophil", "erythroblast", "other cell")


def test_a_choice_of_patients(project):
    patient = Tile.objects.get(slide__patient__locked=True, truth__isnull=False).slide.patient
    _, archive = export(project, "csv", patients=(patient.code,))
    assert {row["patient"] for row in table(archive)} == {patient.code}
    assert {row["split"] for row in table(archive)} == {"test"}


@pytest.fixture
def rounds(project):
    """Two rounds, each of two tiles of a new slide; in the second two readers disagree, the second tile is empty."""
    slide = factories.make_slide(project, tiles=4)
    tiles = list(slide.tiles.all())
    first = factories.make_batch(project, tiles[:2])
    factories.make_round(project, batch=first, state="done", number=1)
    second = factories.make_batch(project, tiles[2:], policy=ReadingPolicy("independent", readers=2))
    factories.make_round(project, batch=second, number=2)
    anna, ben = factories.make_member(project, name="anna"), factories.make_member(project, name="ben")
    for task in first.tasks.all():
        factories.submit_task(task, anna, (0, 10, 10, 20, 20))
    for tile in tiles[2:]:
        tasks = second.tasks.filter(tile=tile, kind="reading").order_by("replica")
        for task, user, number in zip(tasks, (anna, ben), (0, 1), strict=True):
            boxes = [(number, 100, 120, 30, 40)] if tile == tiles[2] else []
            factories.submit_task(task, user, *boxes)
    return tiles


def test_a_choice_of_rounds_takes_what_was_drawn_in_them(project, rounds):
    _, archive = export(project, "csv", rounds=(1,))
    assert {row["tile"] for row in table(archive)} == {tile_name(tile) for tile in rounds[:2]}
    assert {(row["round"], row["author"]) for row in table(archive)} == {("1", "anna")}


def test_truth_that_no_task_asked_for_is_of_the_round_that_its_tile_was_in(project):
    tile = factories.make_slide(project, tiles=1).tiles.get()
    factories.make_round(project, batch=factories.make_batch(project, [tile]), number=3)
    factories.make_truth(tile, (0, 1, 2, 30, 40))
    _, archive = export(project, "csv", rounds=(3,))
    assert [row["tile"] for row in table(archive)] == [tile_name(tile)]


def test_all_readers_are_one_record_each_and_the_consensus_none(project, rounds):
    assert Annotation.objects.filter(author__name=CONSENSUS).exists()
    _, archive = export(project, "csv", annotations="readers", rounds=(2,))
    found = {(row["tile"].rsplit("_r", 1)[0], row["author"], row["class"]) for row in table(archive)}
    read, empty = (tile_name(tile) for tile in rounds[2:])
    assert found == {
        (read, "anna", "neutrophil"),
        (read, "ben", "erythroblast"),
        (empty, "anna", ""),
        (empty, "ben", ""),
    }
    assert len({row["tile"] for row in table(archive)}) == 4


def test_of_a_reader_the_newest_annotation_counts(project):
    task, reader = factories.make_task(project), factories.make_member(project, name="cleo")
    factories.submit_task(task, reader, (0, 10, 10, 20, 20))
    factories.submit_task(task, reader, (1, 10, 10, 20, 20))
    _, archive = export(project, "csv", annotations="readers", readers=("cleo",))
    assert [(row["author"], row["class"]) for row in table(archive)] == [("cleo", "erythroblast")]


@pytest.mark.parametrize("format_name", [name for name in READERS if name not in ("csv", "coco")])
def test_all_readers_can_be_had_in_every_format(project, rounds, tmp_path, format_name):
    _, archive = export(project, format_name, annotations="readers", rounds=(2,))
    zipfile.ZipFile(archive).extractall(tmp_path)
    read = READERS[format_name](tmp_path, classes=list(project.taxonomy.classes.values_list("name", flat=True)))
    assert sorted(len(tile.boxes) for tile in read.tiles) == [0, 0, 1, 1]


def half_size_tile(project):
    """A tile whose px are two of its slide's, at 100, 60 of it, with a box and beside a tile without one."""
    slide = factories.make_slide(project, tiles=0, width=3000, height=2000, mpp=0.125, name="=S.tif")
    facts = {"slide": slide, "extent": 1024, "row": 0}
    tile = Tile.objects.create(**facts, column=0, x=100, y=60)
    factories.make_truth(tile, (1, 10, 20, 30, 40))
    empty = Tile.objects.create(**facts, column=1, x=1124, y=60)
    factories.make_truth(empty)
    return tile, empty


def test_csv_holds_tile_px_and_slide_px(project):
    tile, empty = half_size_tile(project)
    _, archive = export(project, "csv", patients=(tile.slide.patient.code,))
    first, second = table(archive)
    assert [first[name] for name in ("x", "y", "width", "height")] == ["10", "20", "30", "40"]
    assert [first[f"slide_{name}"] for name in ("x", "y", "width", "height")] == ["120", "100", "60", "80"]
    assert first["slide"] == "'=S.tif"  # no spreadsheet takes it for a formula
    assert (second["tile"], second["class"], second["x"], second["slide_x"]) == (tile_name(empty), "", "", "")


def test_coco_in_slide_px_has_an_image_for_each_slide_and_lists_its_tiles(project):
    tile, empty = half_size_tile(project)
    _, archive = export(project, "coco", patients=(tile.slide.patient.code,), coordinates="slide", images=True)
    coco = json.loads(files_of(archive)["annotations/instances_train.json"])
    (image,), (box,) = coco["images"], coco["annotations"]
    assert (image["width"], image["height"], image["slide"]) == (3000, 2000, "=S.tif")
    assert box["bbox"] == [120, 100, 60, 80]
    assert [one["bbox"] for one in image["tiles"]] == [[100, 60, 1024, 1024], [1124, 60, 1024, 1024]]
    assert [one["tile"] for one in image["tiles"]] == [tile.pk, empty.pk]
    assert not [name for name in files_of(archive) if name.endswith(".jpg")]


def test_a_slide_in_two_splits_is_an_image_in_both(project):
    tile, empty = half_size_tile(project)
    _, archive = export(
        project, "coco", patients=(tile.slide.patient.code,), coordinates="slide", parts={empty.pk: "val"}
    )
    counts = {
        split: len(json.loads(files_of(archive)[f"annotations/instances_{split}.json"])["annotations"])
        for split in ("train", "val")
    }
    assert counts == {"train": 1, "val": 0}


@pytest.mark.parametrize("format_name", ["yolo", "voc", "labelimg-voc", "labelimg-yolo", "crops"])
def test_slide_px_are_refused_where_the_format_cannot_say_them(format_name):
    with pytest.raises(ValueError, match="slide px can be had as COCO and CSV"):
        ExportChoice(format_name, coordinates="slide")


def test_crops_are_what_the_film_strip_shows_but_without_loss(project):
    _, archive = export(project, "crops")
    rows, files = table(archive, "manifest.csv"), files_of(archive)
    truth = Tile.objects.filter(slide__project=project, truth__isnull=False)
    boxes = [box for tile in truth for box in tile.truth.boxes.all()]
    assert len(rows) == len(boxes) == len({row["file"] for row in rows})
    assert {row["file"] for row in rows} == {name for name in files if name.endswith(".png")}
    for box in boxes:
        name = tile_name(box.annotation.tile)
        (row,) = [row for row in rows if row["tile"] == name and float(row["x"]) == pytest.approx(box.x, abs=1e-4)]
        assert (
            row["file"].split("/")[0]
            == {0: "00_neutrophil", 1: "01_erythroblast", 2: "02_other-cell"}[box.cell_class.number]
        )
        picture = np.asarray(Image.open(io.BytesIO(files[row["file"]])))
        assert np.array_equal(picture, crop_around(read_tile(box.annotation.tile), box))
    folders = {name for name in zipfile.ZipFile(archive).namelist() if name.endswith("/")}
    assert folders == {"00_neutrophil/", "01_erythroblast/", "02_other-cell/"}


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"rounds": (7,)}, "no round 7"),
        ({"patients": ("X",)}, "no patient X"),
        ({"classes": ("blast", "neutrophil")}, "no class blast"),
        ({"readers": ("nobody",), "patients": ("X",)}, "no patient X, reader nobody"),
    ],
)
def test_what_the_project_does_not_have_is_refused(project, choice, reason):
    with pytest.raises(ValueError, match=reason):
        queue_export(project=project, choice=ExportChoice("coco", **choice), user=None)
    assert not project.jobs.exists()


def test_an_export_that_fails_leaves_nothing_in_storage(project):
    factories.lose_files(project.slides.first())
    job = queue_export(project=project, choice=ExportChoice("crops"), user=None)
    run_job(job_pk=job.pk, function=lambda running: run_export(running, facts=TrainingFacts({})))
    job.refresh_from_db()
    assert (job.state, "missing from storage" in job.message) == (JobState.FAILED, True)
    assert not default_storage.exists(f"exports/{project.pk}/{job.pk}.zip")
    with work_dir(f"export-{job.pk}") as folder:
        assert list(folder.iterdir()) == []


def test_a_cancelled_export_stops(project):
    job = queue_export(project=project, choice=ExportChoice("voc"), user=None)
    Job.objects.filter(pk=job.pk).update(cancel_requested=True)
    run_job(job_pk=job.pk, function=lambda running: run_export(running, facts=TrainingFacts({})))
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_a_deleted_export_is_gone_and_remembered(project):
    job, archive = export(project, "coco")
    delete_export(job=job, user=None)
    assert not Path(archive).exists()
    assert not Job.objects.exists()
    event = Event.objects.first()
    assert (event.verb, event.subject, event.data) == ("deleted", "Export COCO", {"export": job.pk})
    delete_export(job=job, user=None)  # a second click
    assert Event.objects.filter(verb="deleted").count() == 1


def test_what_an_export_had_stored_when_it_was_killed_and_cancelled_goes_with_it(project, monkeypatch):
    class Killed(BaseException):
        """The process ends here."""

    def store_and_die(*args, **kwargs):
        store(*args, **kwargs)
        raise Killed

    job = queue_export(project=project, choice=ExportChoice("coco"), user=None)
    monkeypatch.setattr(exports, "store", store_and_die)
    with pytest.raises(Killed):
        run_job(job_pk=job.pk, function=lambda running: run_export(running, facts=TrainingFacts({})))
    cancel_job(job=job, user=None)
    Job.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * LOST_AFTER)
    sweep_jobs()
    job.refresh_from_db()
    name = f"exports/{project.pk}/{job.pk}.zip"
    assert (job.state, job.result, default_storage.exists(name)) == (JobState.CANCELLED, {}, True)
    delete_export(job=job, user=None)
    assert not default_storage.exists(name)


def test_an_export_that_is_being_made_is_not_deleted(project):
    job = queue_export(project=project, choice=ExportChoice("coco"), user=None)
    with pytest.raises(JobError, match="cancel it first"):
        delete_export(job=job, user=None)
    assert Job.objects.exists()


def test_a_job_of_an_older_version_still_says_what_it_holds():
    choice = choice_of({"format": "coco", "images": True, "part": "val"})
    assert choice.words() == ["validation", "with the images"]


def test_the_tiles_are_fetched_by_the_hundred(project, django_assert_max_num_queries):
    tiles = factories.make_slide(project, tiles=9).tiles.all()
    for tile in tiles:
        factories.make_truth(tile, (0, 10, 10, 20, 20))
    with django_assert_max_num_queries(10):
        count, found = labelled_tiles(project, ExportChoice("yolo"), parts={})
        assert len(list(found)) == count == 14
