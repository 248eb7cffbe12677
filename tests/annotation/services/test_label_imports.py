"""Importing annotations: real files through the three jobs, refusals, kills, and the way out and in again."""

import io
import json
import tempfile
import zipfile
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from PIL import Image

from annotation.models import Annotation, AuthorKind, BatchState, Box, Event, Job, JobState, Role, Slide, Tile
from annotation.selectors import annotations_shown_to
from annotation.services import jobs, label_imports
from annotation.services.export_choice import ExportChoice
from annotation.services.exports import TrainingFacts, labelled_tiles, write_archive
from annotation.services.jobs import JobError, cancel_job, run_job
from annotation.services.label_imports import (
    UploadRefused,
    discard_import,
    queue_dry_run,
    queue_writing,
    run_label_import,
    stage_labels,
)
from annotation.services.label_plans import ImportSettings, concerned_tasks
from annotation.services.policies import ReadingPolicy
from tests import factories
from tests.annotation.services.test_policies import at_once

pytestmark = pytest.mark.django_db

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
TABLE_HEAD = "tile,tile_width,tile_height,class,x,y,width,height\n"
NAMES = {"neutrophil": 0, "erythroblast": 1, "other cell": 2}


@pytest.fixture
def project():
    return factories.make_project()


def picture(width=90, height=60, shade=90):
    content = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 90, 90)).save(content, "PNG")
    return content.getvalue()


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def run(job):
    run_job(job_pk=job.pk, function=run_label_import)
    job.refresh_from_db()
    return job


def read(project, files, name="labels.zip", **fields):
    data = zipped(files) if isinstance(files, dict) else files
    job = stage_labels(project=project, uploads=[SimpleUploadedFile(name, data)], user=None, **fields)
    return run(job)


def dry_run(job, classes=None, **fields):
    chosen = ImportSettings(file_format=job.result["format"], classes=NAMES if classes is None else classes, **fields)
    return run(queue_dry_run(read=job, settings=chosen, user=None))


def import_all(project, files, classes=None, **fields):
    tried = dry_run(read(project, files), classes, **fields)
    assert tried.result["problems"] == []
    written = run(queue_writing(tried=tried, user=None))
    assert written.state == JobState.SUCCEEDED, written.message
    return written


def boxes_of(tile):
    tile.refresh_from_db()
    return [(box.cell_class.number, box.x, box.y, box.width, box.height) for box in tile.truth.boxes.all()]


def yolo(*lines, name="a", width=90, height=60, image=True, classes="neutrophil\nerythroblast\n"):
    files = {"classes.txt": classes, f"labels/{name}.txt": "\n".join(lines)}
    return files | ({f"images/{name}.png": picture(width, height)} if image else {})


def voc(*boxes, width=90, height=60, name="neutrophil", extra=""):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for box in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{extra}{size}{objects}</annotation>"


def folder_files(folder, names):
    return {name: (folder / name).read_bytes() for name in names}


def some_of(data, labels, suffix, stems):
    folder = SHARED / data
    names = [f"{labels}/{stem}{suffix}" for stem in stems] + [f"images/{stem}.jpg" for stem in stems]
    return folder_files(folder, names)


def nothing_is_there():
    root = Path(default_storage.path("slides"))
    files = [path for path in root.rglob("*") if path.is_file()] if root.exists() else []
    return not (Annotation.objects.exists() or Slide.objects.exists() or files)


# Real data


def test_a_part_of_bccd_goes_in_with_new_images_and_one_degenerate_box_left_out(project, settings):
    stems = ["BloodImage_00001", "BloodImage_00003", "BloodImage_00338"]
    job = read(project, some_of("bccd", "annotations", ".xml", stems))
    assert (job.result["format"], job.result["first_pixel"], job.result["tiles"]) == ("voc", 0, 3)
    assert job.result["bad_boxes"] == [
        "annotations/BloodImage_00338.xml: object 13: degenerate box from 504, 337 to 504, 337"
    ]
    classes = {"WBC": 0, "RBC": None, "Platelets": 2}
    refused = dry_run(job, classes, targets="new", first_pixel=0)
    assert refused.result["problems"] == job.result["bad_boxes"]
    with pytest.raises(UploadRefused):
        queue_writing(tried=refused, user=None)
    tried = dry_run(job, classes, targets="new", first_pixel=0, bad_boxes="skip")
    assert (tried.result["problems"], tried.result["new"], tried.result["left_out_count"]) == ([], 3, 1)
    assert nothing_is_there()
    written = run(queue_writing(tried=tried, user=None))
    assert written.state == JobState.SUCCEEDED, written.message
    assert Slide.objects.count() == Tile.objects.filter(truth__isnull=False).count() == 3
    assert Box.objects.count() == tried.result["boxes"] > 0
    assert [row["name"] for row in tried.result["left_out_classes"]] == ["RBC"]
    tile = Tile.objects.get(slide__name="BloodImage_00001.jpg")
    assert (tile.width, tile.height) == (640, 480)
    assert (0, 68, 315, 218, 165) in boxes_of(tile)
    assert not list((settings.DATA_DIR / "work").glob("*"))


def test_a_part_of_pbc_boxes_goes_in_as_yolo(project):
    stems = ["BA_10387", "BA_10622", "BA_1223"]
    files = some_of("pbc_boxes", "labels", ".txt", stems) | folder_files(SHARED / "pbc_boxes", ["classes.txt"])
    job = read(project, files)
    assert (job.result["format"], job.result["tiles"], job.result["images"]) == ("yolo", 3, 3)
    classes = {one["name"]: 2 if one["name"] == "basophil" else None for one in job.result["classes"]}
    import_all(project, files, classes, targets="new")
    lines = [(SHARED / f"pbc_boxes/labels/{stem}.txt").read_text().splitlines() for stem in stems]
    assert Box.objects.count() == sum(line.startswith("0 ") for one in lines for line in one) > 0


def test_an_export_of_cvat_goes_in(project):
    box = '<box label="neutrophil" xtl="10" ytl="20" xbr="40.5" ybr="50"/>'
    text = f'<annotations><image id="0" name="a.png" width="90" height="60">{box}</image></annotations>'
    import_all(project, {"annotations.xml": text, "images/a.png": picture()}, targets="new")
    assert boxes_of(Tile.objects.get()) == [(0, 10, 20, 30.5, 30)]


def test_a_table_of_boxes_goes_in(project):
    tile = factories.make_image(project)
    name = Path(tile.slide.name).stem
    import_all(project, {"any.csv": f"{TABLE_HEAD}{name},90,60,erythroblast,1,2.5,30,40\n"})
    assert boxes_of(tile) == [(1, 1, 2.5, 30, 40)]


def test_an_export_of_label_studio_goes_in_onto_the_image_of_its_name(project):
    tile = factories.make_image(project)
    value = {"x": 10, "y": 50, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["erythroblast"]}
    region = {"type": "rectanglelabels", "original_width": 90, "original_height": 60, "value": value}
    image = f"/data/upload/1/0a1b2c3d-{Path(tile.slide.name).stem}.png"
    task = {"id": 1, "data": {"image": image}, "annotations": [{"id": 1, "result": [region]}]}
    import_all(project, {"export.json": json.dumps([task])})
    assert boxes_of(tile) == [(1, 9, 30, 45, 15)]


# What an import becomes


def test_truth_goes_onto_a_tile_of_the_exports_name_and_keeps_what_was(project):
    tile = factories.make_slide(project, tiles=1).tiles.get()
    before = factories.make_truth(tile, (1, 5, 5, 20, 20))
    task = factories.make_batch(project, [tile]).tasks.get()
    name = f"slide{tile.slide_id:04d}_x000000_y000000"
    written = import_all(project, yolo("0 0.5 0.5 0.25 0.125", name=name, image=False))
    assert boxes_of(tile) == [(0, 192, 224, 128, 64)]
    assert tile.truth.supersedes == before
    assert (tile.truth.author.kind, tile.truth.author.name) == (AuthorKind.IMPORT, "labels.zip")
    assert (written.result["matched"], written.result["replaced"], written.result["tasks"]) == (1, 1, 1)
    task.refresh_from_db()
    assert (task.state, task.reader) == ("submitted", None)
    assert Event.objects.get(verb="imported annotations").data == {
        "tiles": 1,
        "boxes": 1,
        "becomes": "truth",
    }


def test_a_readers_annotations_are_theirs_and_no_truth(project):
    reader = factories.make_member(project)
    tile = factories.make_image(project)
    stem = Path(tile.slide.name).stem
    import_all(project, yolo("1 0.5 0.5 0.5 0.5", name=stem, image=False), becomes="reader", reader=reader.pk)
    annotation = tile.annotations.get()
    assert (annotation.author.user, annotation.boxes.get().cell_class.number) == (reader, 1)
    tile.refresh_from_db()
    assert tile.truth is None


def test_pre_labels_are_shown_in_the_tasks_that_nobody_has_begun(project):
    first, begun = factories.make_image(project), factories.make_image(project)
    batch = factories.make_batch(project, [first, begun])
    factories.submit_task(batch.tasks.get(tile=begun), factories.make_member(project))
    files = {"classes.txt": "neutrophil\n"}
    for tile in (first, begun):
        files[f"{Path(tile.slide.name).stem}.txt"] = "0 0.5 0.5 0.5 0.5 0.75"
    written = import_all(project, files, becomes="pre-labels")
    assert written.result["tasks"] == 1
    task = batch.tasks.get(tile=first)
    assert task.pre_label.boxes.get().score == 0.75
    assert batch.tasks.get(tile=begun).pre_label is None
    first.refresh_from_db()
    assert first.truth is None


def named(*tiles):
    """Files with one box of a model on each of these plain images."""
    boxes = {f"{Path(tile.slide.name).stem}.txt": "0 0.5 0.5 0.5 0.5 0.75" for tile in tiles}
    return {"classes.txt": "neutrophil\n"} | boxes


def test_pre_labels_are_a_models_boxes_that_blind_readers_do_not_see(project):
    tile, reader = factories.make_image(project), factories.make_member(project)
    batch = factories.make_batch(project, [tile])
    batch.tasks.update(blind=True)
    written = import_all(project, named(tile), becomes="pre-labels")
    assert written.result["tasks"] == 0
    drawn = tile.annotations.select_related("author").get()
    assert (drawn.author.kind, drawn.author.name) == (AuthorKind.MODEL, "labels.zip")
    assert list(annotations_shown_to(reader, Role.ANNOTATOR, tile)) == []
    assert list(annotations_shown_to(reader, Role.REVIEWER, tile)) == [drawn]


def test_pre_labels_are_no_readers_annotations_in_an_export(project):
    first, second = factories.make_image(project), factories.make_image(project)
    import_all(project, named(first), becomes="pre-labels")
    import_all(project, named(second))
    choice = ExportChoice("csv", annotations="readers")
    count, tiles = labelled_tiles(project, choice, parts={})
    assert (count, [tile.extra["slide"] for tile in tiles]) == (1, [second.slide.name])


def test_pre_labels_on_tiles_of_the_locked_test_set_are_refused(project):
    patient = factories.make_patient(project, locked=True)
    locked, other = factories.make_image(project, patient=patient), factories.make_image(project)
    task = factories.make_batch(project, [locked], purpose="test").tasks.get()
    job = read(project, named(locked, other))
    refused = dry_run(job, becomes="pre-labels").result
    source = f"{Path(locked.slide.name).stem}.txt"
    reason = "the tile is in the locked test set: its readers never start from a model's boxes"
    assert (refused["problems"], refused["tasks"]) == ([f"{source}: {reason}"], 0)
    assert not concerned_tasks("pre-labels", [locked.pk]).exists()
    assert list(concerned_tasks("truth", [locked.pk])) == [task]
    assert dry_run(job).result["problems"] == []
    images = yolo("0 0.5 0.5 0.5 0.5")
    for becomes, wanted in (("pre-labels", [f"labels/a.txt: {reason}"]), ("truth", [])):
        tried = dry_run(read(project, images), becomes=becomes, targets="new", patient=patient.code)
        assert tried.result["problems"] == wanted


def test_truth_answers_what_waits_in_a_batch_that_is_being_prepared(project):
    tile = factories.make_image(project)
    task = factories.make_batch(project, [tile], state=BatchState.DRAFT).tasks.get()
    written = import_all(project, named(tile))
    task.refresh_from_db()
    assert (written.result["tasks"], task.state, task.reader) == (1, "submitted", None)


def test_the_reviews_are_made_where_an_import_answers_the_last_reading(project):
    reader, first, last = factories.make_member(project), factories.make_image(project), factories.make_image(project)
    policy = ReadingPolicy("reviewed", review_share=0.8, review_by="disagreement")
    batch = factories.make_batch(project, [first, last], policy=policy)
    factories.submit_task(batch.tasks.get(tile=first), reader, (0, 10, 10, 20, 20))
    assert not batch.tasks.filter(kind="review").exists()
    import_all(project, named(last))
    assert [task.tile for task in batch.tasks.filter(kind="review")] == [first]


def test_what_the_boxes_are_counted_from_moves_them_by_one_pixel(project):
    files = {"Annotations/a.xml": voc((11, 21, 40, 50)), "JPEGImages/a.png": picture()}
    job = read(project, files)
    assert job.result["first_pixel"] == 1
    import_all(project, files, targets="new", first_pixel=1)
    assert boxes_of(Tile.objects.get()) == [(0, 10, 20, 30, 30)]
    import_all(project, files, targets="new", first_pixel=0)
    assert boxes_of(Tile.objects.get()) == [(0, 11, 21, 29, 29)]
    assert Slide.objects.count() == 1


@pytest.mark.parametrize(
    ("text", "folder", "reason"),
    [
        (voc((0, 0, 40, 50)), "Annotations", "has a corner below 1"),
        (voc((1, 1, 40, 50), extra="<path>/home/a.png</path>"), "Annotations", "states a <path>"),
        (voc((1, 1, 40, 50)), "train", "lies where LabelImg puts it"),
    ],
)
def test_files_of_labelimg_are_proposed_to_be_counted_from_0(project, text, folder, reason):
    job = read(project, {f"{folder}/a.xml": text, "images/a.png": picture()})
    assert job.result["first_pixel"] == 0
    assert reason in job.result["first_pixel_reason"]


def test_bad_boxes_are_refused_left_out_or_cut(project):
    job = read(project, yolo("0 0.5 0.5 0.25 0.5", "0 1 0.5 0.5 0.5", "1 0.5 0.5 0 0.5"))
    assert job.result["bad_boxes_count"] == 2
    refused = dry_run(job, targets="new")
    assert [line.split(": ")[0] for line in refused.result["problems"]] == [
        "labels/a.txt, line 2",
        "labels/a.txt, line 3",
    ]
    skipped = dry_run(job, targets="new", bad_boxes="skip").result
    assert (skipped["boxes"], skipped["left_out_count"], skipped["cut_count"]) == (1, 2, 0)
    clipped = dry_run(job, targets="new", bad_boxes="clip").result
    assert (clipped["boxes"], clipped["left_out_count"], clipped["cut_count"]) == (2, 1, 1)
    written = run(queue_writing(tried=dry_run(job, targets="new", bad_boxes="clip"), user=None))
    assert written.state == JobState.SUCCEEDED
    assert boxes_of(Tile.objects.get())[1] == (0, 67.5, 15, 22.5, 30)


def test_a_class_that_is_neither_mapped_nor_left_out_is_a_problem(project):
    job = read(project, yolo("0 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5 0.5"))
    tried = dry_run(job, {"neutrophil": 0}, targets="new")
    assert tried.result["problems"] == [
        "(all files): the class 'erythroblast' is neither mapped to a class nor left out"
    ]
    tried = dry_run(job, {"neutrophil": 77, "erythroblast": None}, targets="new")
    assert "'neutrophil' is neither" in tried.result["problems"][0]


def test_a_class_whose_boxes_are_all_bad_can_be_mapped(project):
    job = read(project, yolo("0 1 0.5 0.5 0.5"))
    assert [(one["name"], one["boxes"]) for one in job.result["classes"]] == [("neutrophil", 1), ("erythroblast", 0)]
    assert job.result["bad_boxes_count"] == 1
    assert dry_run(job, targets="new", bad_boxes="clip").result["boxes"] == 1


def test_a_tile_whose_boxes_are_all_left_out_is_pointed_out(project):
    job = read(project, yolo("0 0.5 0.5 0.5 0.5"))
    assert dry_run(job, {"neutrophil": None}, targets="new").result["emptied"] == 1


def coco_files(*boxes):
    images = [{"id": 1, "file_name": "a.png", "width": 90, "height": 60}]
    images.append({"id": 2, "file_name": "b.png", "width": 90, "height": 60})
    entries = [{"id": number, "image_id": 1, "category_id": 1, "bbox": box} for number, box in enumerate(boxes)]
    names = [{"id": 1, "name": "neutrophil"}]
    return {"a.json": json.dumps({"images": images, "annotations": entries, "categories": names})}


def studio_file(name, width):
    value = {"x": 1, "y": 1, "width": width, "height": 9, "rectanglelabels": ["neutrophil"]}
    region = {"type": "rectanglelabels", "original_width": 90, "original_height": 60, "value": value}
    return {"id": name, "data": {"image": f"{name}.png"}, "annotations": [{"result": [region]}]}


def cvat_image(name, *shapes):
    return f'<image name="{name}.png" width="90" height="60">{"".join(shapes)}</image>'


ALL_BAD = {
    "yolo": yolo("0 0.5 0.5 0 0.5") | {"labels/b.txt": ""},
    "voc": {"a.xml": voc((9, 9, 9, 9)), "b.xml": voc()},
    "coco": coco_files([1, 1, 0, 9]),
    "csv": {"a.csv": f"{TABLE_HEAD}a,90,60,neutrophil,1,1,0,9\nb,90,60,,,,,\n"},
    "label-studio": {"a.json": json.dumps([studio_file("a", 0), studio_file("b", 9)])},
    "cvat": {"a.xml": f"<annotations>{cvat_image('a', '<polygon/>')}{cvat_image('b')}</annotations>"},
}


@pytest.mark.parametrize("name", ALL_BAD)
def test_a_tile_none_of_whose_boxes_can_be_kept_is_pointed_out(project, name):
    files = ALL_BAD[name] | {f"images/{stem}.png": picture(shade=shade) for stem, shade in (("a", 90), ("b", 10))}
    job = read(project, files)
    assert job.result["format"] == name
    tried = dry_run(job, targets="new", bad_boxes="skip")
    assert (tried.result["problems"], tried.result["all_bad"], tried.result["emptied"]) == ([], 1, 0)
    assert tried.message == "can be imported; a tile is left without a box, because none of its boxes can be kept"


def test_tasks_of_label_studio_that_nobody_annotated_are_counted(project):
    tasks = [studio_file("a", 9), studio_file("b", 9), studio_file("c", 9) | {"annotations": []}]
    tasks[1] |= {"annotations": [], "predictions": studio_file("b", 9)["annotations"]}
    files = {"a.json": json.dumps(tasks), "a.png": picture(), "b.png": picture(shade=1), "d.png": picture(shade=2)}
    job = read(project, files)
    assert (job.result["tiles"], job.result["unlabelled"]) == (1, 3)  # b, c and the picture d, which no task names
    assert job.message == "1 box on 1 tile; predictions of 1 task are not read"
    assert job.result["passed_over"] == ["a.json: task 'b': predictions are not read, and nobody has annotated it"]
    assert dry_run(job, targets="new").result["unlabelled"] == 3


def test_labels_without_a_tile_are_a_problem_or_left_out(project):
    tile = factories.make_image(project)
    stem = Path(tile.slide.name).stem
    files = yolo("0 0.5 0.5 0.5 0.5", name=stem, image=False) | {
        "labels/stranger.txt": "",
        "images/stranger.png": picture(),
    }
    job = read(project, files)
    assert dry_run(job).result["problems"] == ["labels/stranger.txt: the project has no tile of this name"]
    tried = dry_run(job, leave_out_unmatched=True)
    assert (tried.result["problems"], tried.result["unmatched"]) == ([], ["stranger"])
    assert dry_run(job, targets="new").result["new"] == 1


def test_the_same_import_again_writes_nothing_new(project):
    files = yolo("0 0.5 0.5 0.5 0.5")
    import_all(project, files, targets="new")
    corrected = factories.make_truth(Tile.objects.get(), (1, 5, 5, 20, 20))
    again = import_all(project, files, targets="new")
    assert (again.result["already"], again.message) == (1, "all of it was there already")
    assert Annotation.objects.count() == 2
    assert Tile.objects.get().truth == corrected


def test_asking_twice_makes_one_job(project):
    tried = dry_run(read(project, yolo("0 0.5 0.5 0.5 0.5")), targets="new")
    assert queue_writing(tried=tried, user=None) == queue_writing(tried=tried, user=None)


# Files that are refused, with their name and the reason


def image_without_size():
    return json.dumps(
        {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    )


def coco(**fields):
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20]} | fields
    images = [{"id": 1, "file_name": "a.png", "width": 90, "height": 60}]
    return json.dumps({"images": images, "annotations": [entry], "categories": [{"id": 1, "name": "x"}]})


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
    "<annotation><size><width>&c;</width></size></annotation>"
)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.xml": "<annotation><size>"}, "a.xml, line 1: the file is not valid XML"),
        ({"a.xml": BOMB}, "a.xml: the XML uses an entity"),
        ({"a.xml": "<html></html>"}, "a.xml: expected <annotation>, found <html>"),
        ({"a.xml": voc(("nan", 1, 20, 20))}, "a.xml: object 1: a <name> and finite"),
        ({"a.xml": voc((1, 1, 20, 20), width=0)}, "a.xml: missing image size"),
        ({"a.json": '{"images": [\n'}, "a.json, line 2: the file is not valid JSON"),
        ({"a.json": "[" * 100_000}, "a.json: the file is not valid JSON"),
        ({"a.json": "{}"}, "a.json: `images` must be a list"),
        ({"a.json": image_without_size()}, "missing image size"),
        ({"a.json": coco(bbox=[float("nan"), 1, 2, 3])}, "four finite numbers"),
        ({"a.json": coco(category_id=9)}, "category 9 is not in `categories`"),
        ({"a.json": coco(image_id=9)}, "its image is not in `images`"),
        (yolo("7 0.5 0.5 0.5 0.5"), "labels/a.txt, line 1: class 7 is not in the class list"),
        (yolo("0 nan 0.5 0.5 0.5"), "labels/a.txt, line 1: expected `class"),
        (yolo("0 0.5 0.5 0.5 0.5", image=False), "labels/a.txt: missing image size"),
        ({"labels/a.txt": "0 0.5 0.5 0.5 0.5", "a.png": picture()}, "there is no class list"),
        (yolo("") | {"labels/classes.txt": "x\n"}, "labels/classes.txt: the classes are not those of classes.txt"),
        (yolo("") | {"data.yaml": "names: [x]"}, "data.yaml: the classes are not those of classes.txt"),
        (yolo("") | {"data.yaml": "names: [x"}, "data.yaml: the file is not valid YAML"),
        (
            {"a.csv": "tile,tile_width,tile_height,class,x,y,width,height\na,90,60,x,1,1,nan,9\n"},
            "a.csv, line 2: a box needs",
        ),
        ({"a.png": picture()}, "there is no label file among them"),
        ({"a.xml": voc(), "b.json": coco()}, "labels of several formats, choose one"),
        (yolo("") | {"more/a.png": picture()}, "has the same name as images/a.png"),
        (yolo("") | {"images/a.png": b"no picture"}, "a.png: the image cannot be read"),
        ({"../a.xml": voc()}, "the path leads out of the archive's folder"),
        (b"PK no archive", "labels.zip: the file is not a zip archive"),
    ],
)
def test_files_that_cannot_be_read_are_refused_with_their_name_and_the_reason(project, files, reason):
    job = read(project, files)
    assert (job.state, job.message) == (JobState.SUCCEEDED, "refused: 1 problem")
    assert reason in job.result["problems"][0]
    assert nothing_is_there()


def test_a_million_boxes_in_one_file_are_refused(project):
    job = read(project, yolo(*["0 .5 .5 .5 .5"] * 1_000_000))
    assert job.result["problems"] == ["labels/a.txt: the file is larger than 8 MB"]
    job = read(project, yolo(*["0 .5 .5 .5 .5"] * 2001))
    assert job.result["problems"] == ["labels/a.txt: 2001 boxes on one tile: at most 2000 are taken"]
    images = [{"id": 1, "file_name": "a.png", "width": 90, "height": 60}]
    boxes = [{"id": number, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]} for number in range(2001)]
    text = json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]})
    job = read(project, {"a.json": text})
    assert job.result["problems"] == ["a.json: image 1: more boxes on one tile: at most 2000 are taken"]


@pytest.mark.parametrize(
    ("files", "fields", "reason"),
    [
        (
            {"a.xml": voc(), "a.png": picture(80, 60)},
            {"targets": "new"},
            "a.xml: wrong image size: 90 x 60 px in the labels, 80 x 60 px in the image",
        ),
        ({"a.xml": voc()}, {"targets": "new"}, "a.xml: missing image: no tile and no image of this name"),
        (
            {"a.xml": voc(width=20, height=20), "a.png": picture(20, 20)},
            {"targets": "new"},
            "a.xml: a.png is 20 x 20 px: an image has at least 32 px",
        ),
        (
            {"a.xml": voc(), "a.png": picture(), "b.xml": voc(), "b.png": picture()},
            {"targets": "new"},
            "b.xml: it is of the same tile as a",
        ),
    ],
)
def test_a_dry_run_finds_what_is_wrong_with_the_images(project, files, fields, reason):
    tried = dry_run(read(project, files), **fields)
    assert reason in tried.result["problems"][0]
    assert nothing_is_there()


def test_labels_of_another_size_do_not_go_onto_a_tile(project):
    tile = factories.make_image(project)
    tried = dry_run(read(project, {f"{Path(tile.slide.name).stem}.xml": voc(width=91)}))
    assert "wrong image size: 91 x 60 px in the labels, 90 x 60 px the tile of this name" in tried.result["problems"][0]


def test_two_images_of_one_name_are_told_apart_by_nobody(project):
    patient = factories.make_patient(project)
    for _ in range(2):
        factories.make_image(project, patient=patient)
    tried = dry_run(read(project, {f"{patient.code}.xml": voc()}))
    assert "2 images of the project have this name" in tried.result["problems"][0]


def test_a_tile_of_another_slide_is_not_taken_for_the_one_that_is_meant(project):
    tile = factories.make_slide(project, tiles=1).tiles.get()
    name = f"slide{tile.slide_id:04d}_x000000_y000000.jpg"
    image = {"id": 1, "file_name": name, "width": 512, "height": 512, "slide": "other.svs"}
    data = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    tried = dry_run(read(project, {"a.json": json.dumps(data)}))
    assert "it is of the slide 'other.svs'" in tried.result["problems"][0]


def exported(project, folder, name="yolo"):
    archive = folder / "export.zip"
    write_archive(archive, project, ExportChoice(name, images=False), TrainingFacts({}))
    return archive.read_bytes()


@pytest.mark.parametrize("name", ["yolo", "voc", "coco", "csv", "labelimg-voc", "labelimg-yolo"])
def test_an_export_of_another_server_does_not_go_onto_tiles_that_are_only_numbered_alike(project, tmp_path, name):
    slides = [factories.make_slide(project, tiles=2) for _ in range(2)]
    for tile in Tile.objects.all():
        factories.make_truth(tile, (0, 5, 5, 20, 20))
    data = exported(project, tmp_path, name)
    assert dry_run(read(project, data)).result["matched"] == 4
    Slide.objects.filter(pk=slides[0].pk).update(sha256="f" * 64)  # as a server numbers its own slides
    job = read(project, data)
    (problem,) = dry_run(job).result["problems"]
    number = slides[0].pk
    wanted = f"slide {number} of the export is not slide {number} here, {slides[0].name!r}: manifest.json tells another"
    assert wanted in problem
    left = dry_run(job, leave_out_unmatched=True).result
    assert (left["problems"], left["matched"], left["unmatched_count"]) == ([], 2, 2)


def test_the_images_of_another_server_become_new_ones(project):
    tile = factories.make_image(project)
    name = f"slide{tile.slide_id:04d}_x000000_y000000"
    manifest = {"made_by": "Marrowloop", "slides": {str(tile.slide_id): "f" * 64}, "files": []}
    files = yolo("0 0.5 0.5 0.5 0.5", name=name)
    assert dry_run(read(project, files), targets="new").result["matched"] == 1
    job = read(project, files | {"manifest.json": json.dumps(manifest)})
    assert dry_run(job).result["problems_count"] == 1
    assert dry_run(job, targets="new").result["new"] == 1


@pytest.mark.parametrize(
    ("uploads", "reason"),
    [
        ([("a.zip", b"PK"), ("b.txt", b"0")], "a.zip: give one zip archive, or the files without one."),
        ([("a.xml", b"<a/>"), ("a.xml", b"<a/>")], "a.xml: two files have this name."),
        ([("a.xml", b"")], "a.xml: the file is empty (0 bytes)."),
        ([], "There is no file."),
    ],
)
def test_an_upload_that_cannot_be_an_import_is_refused_at_once(project, uploads, reason):
    with pytest.raises(UploadRefused) as caught:
        stage_labels(project=project, uploads=[SimpleUploadedFile(*one) for one in uploads], user=None)
    assert reason in str(caught.value)
    assert not Job.objects.exists()


def test_the_files_of_a_folder_need_no_archive(project):
    uploads = [("a.xml", voc((1, 1, 20, 20)).encode()), ("a.png", picture()), ("b.txt", b"")]
    job = run(stage_labels(project=project, uploads=[SimpleUploadedFile(*one) for one in uploads[:2]], user=None))
    assert (job.subject, job.result["tiles"], job.result["images"]) == ("a.xml and 1 more", 1, 1)


def test_the_format_can_be_chosen(project):
    job = read(project, {"a.xml": voc((1, 1, 20, 20)), "notes.json": "{}"}, file_format="voc")
    assert (job.result["format"], job.result["tiles"]) == ("voc", 1)
    with pytest.raises(UploadRefused, match="pdf is not a format"):
        read(project, {}, file_format="pdf")


# All or nothing, however it ends


class Killed(BaseException):
    """The process ends here."""


def killed_while_writing(job, monkeypatch, after):
    """Run the job and kill it at the n-th time that it writes; nothing of a kill is tidied up."""
    write, forget, calls = label_imports._write_some, label_imports._forget, []

    def write_and_die(*args):
        calls.append(args)
        if len(calls) > after:
            raise Killed
        return write(*args)

    with monkeypatch.context() as patched:
        patched.setattr(label_imports, "_write_some", write_and_die)
        patched.setattr(label_imports, "_forget", lambda *args: None)
        patched.setattr(label_imports, "_CHUNK", 1)
        with pytest.raises(Killed):
            run_job(job_pk=job.pk, function=run_label_import)
    assert forget is label_imports._forget


def started_again(job):
    Job.objects.filter(pk=job.pk).update(state=JobState.QUEUED)
    return run(job)


def two_images():
    return yolo("0 0.5 0.5 0.5 0.5") | {"labels/b.txt": "1 0.5 0.5 0.5 0.5", "images/b.png": picture(shade=10)}


def test_a_killed_import_leaves_nothing_and_is_whole_when_it_starts_again(project, monkeypatch):
    job = queue_writing(tried=dry_run(read(project, two_images()), targets="new"), user=None)
    killed_while_writing(job, monkeypatch, after=1)
    assert not Annotation.objects.exists()
    assert not Slide.objects.exists()
    started_again(job)
    assert (job.state, job.message) == (JobState.SUCCEEDED, "2 boxes on 2 tiles")
    assert (Slide.objects.count(), Annotation.objects.count(), Box.objects.count()) == (2, 2, 2)


def test_an_import_that_is_killed_when_all_is_written_succeeds_when_it_starts_again(project, monkeypatch):
    job = queue_writing(tried=dry_run(read(project, two_images()), targets="new"), user=None)

    def die(*args):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(label_imports, "_delete_files", die)  # what comes after the rows
        with pytest.raises(Killed):
            run_job(job_pk=job.pk, function=run_label_import)
    assert Annotation.objects.count() == 2
    started_again(job)
    assert (job.state, job.message) == (JobState.SUCCEEDED, "2 boxes on 2 tiles")
    assert Annotation.objects.count() == 2
    assert not default_storage.exists(job.arguments["file"])


def test_the_jobs_row_is_left_to_others_while_an_import_is_written(project, monkeypatch):
    monkeypatch.setattr(jobs, "REPORT_SECONDS", 0)  # whatever is reported is written
    monkeypatch.setattr(label_imports, "_CHUNK", 1)
    job = queue_writing(tried=dry_run(read(project, two_images()), targets="new"), user=None)
    with CaptureQueriesContext(connection) as captured:
        run(job)
    queries = [query["sql"] for query in captured]
    inserts = [place for place, sql in enumerate(queries) if 'INSERT INTO "annotation_' in sql]
    writes = [place for place, sql in enumerate(queries) if sql.startswith('UPDATE "annotation_job"')]
    assert len([place for place in inserts if '_box"' in queries[place]]) == 2
    assert not [place for place in writes if inserts[0] < place < inserts[-1]]
    assert "result" in queries[min(place for place in writes if place > inserts[-1])]


def test_an_import_that_is_cancelled_while_it_is_written_leaves_nothing(project, monkeypatch):
    job = queue_writing(tried=dry_run(read(project, two_images()), targets="new"), user=None)
    write = label_imports._write_some

    def write_and_cancel(*args):
        answered = write(*args)
        cancel_job(job=job, user=None)  # in the same transaction: what is rolled back with it
        return answered

    monkeypatch.setattr(label_imports, "_write_some", write_and_cancel)
    run(job)
    assert job.state == JobState.CANCELLED
    assert nothing_is_there()
    assert len(stored_files(project)) == 2


def test_two_imports_of_the_same_write_it_once(project):
    jobs = [queue_writing(tried=dry_run(read(project, two_images()), targets="new"), user=None) for _ in range(2)]
    first, second = map(run, jobs)
    assert (first.message, second.message) == ("2 boxes on 2 tiles", "all of it was there already")
    assert (second.state, second.result["already"]) == (JobState.SUCCEEDED, 2)
    assert Annotation.objects.count() == 2


# What an upload leaves behind


def stored_files(project):
    root = Path(default_storage.path(f"imports/{project.pk}"))
    return [path.name for path in root.iterdir()] if root.exists() else []


def onto_tile(project):
    tile = factories.make_image(project)
    return yolo("0 0.5 0.5 0.5 0.5", name=Path(tile.slide.name).stem, image=False)


def test_files_are_deleted_when_they_are_imported_and_reports_stay(project):
    job = read(project, onto_tile(project))
    tried = dry_run(job)
    assert len(stored_files(project)) == 2  # the upload, and what was read of it
    written = run(queue_writing(tried=tried, user=None))
    assert (written.state, stored_files(project)) == (JobState.SUCCEEDED, [])
    for one in (job, tried, written):
        one.refresh_from_db()
        assert (one.arguments["gone"], one.result["tiles"]) == ("imported", 1)
    assert queue_writing(tried=tried, user=None) == written
    with pytest.raises(UploadRefused, match=r"The files of labels\.zip are deleted; upload them again\."):
        dry_run(job)


def test_discarded_files_are_deleted_and_reports_stay(project):
    user = factories.make_member(project)
    job = read(project, onto_tile(project))
    tried = dry_run(job)
    discard_import(job=tried, user=user)
    assert stored_files(project) == []
    for one in (job, tried):
        one.refresh_from_db()
        assert (one.arguments["gone"], one.result["tiles"]) == ("discarded", 1)
    with pytest.raises(UploadRefused, match="are deleted; upload them again"):
        queue_writing(tried=tried, user=None)
    discard_import(job=job, user=user)
    event = Event.objects.get(verb="discarded import")
    assert (event.user_name, event.subject) == (user.username, "labels.zip")


def test_files_that_a_job_is_at_work_on_are_not_discarded(project):
    job = read(project, onto_tile(project))
    settings = ImportSettings(file_format="yolo", classes=NAMES)
    waiting = queue_dry_run(read=job, settings=settings, user=None)
    with pytest.raises(JobError, match="A job is at work on these files: cancel it first"):
        discard_import(job=job, user=None)
    assert run(waiting).result["problems"] == []


def test_what_the_dry_run_has_found_is_written_without_reading_the_files_again(project):
    tile = factories.make_slide(project, tiles=2).tiles.first()
    name = f"slide{tile.slide_id:04d}_x{tile.x:06d}_y{tile.y:06d}"
    lines = ["0 0.5 0.5 0.25 0.125 0.75", "1 0.25 0.5 0.125 0.25 0"]
    files = yolo(*lines, name=name, image=False)
    tried = dry_run(read(project, files), becomes="pre-labels")
    job = queue_writing(tried=tried, user=None)
    default_storage.delete(job.arguments["file"])
    assert run(job).message == "2 boxes on 1 tile"
    boxes = tile.annotations.get().boxes.order_by("pk")
    assert [(box.x, box.y, box.width, box.height, box.score) for box in boxes] == [
        (192, 224, 128, 64, 0.75),
        (96, 192, 64, 128, 0),
    ]
    assert {key: job.result[key] for key in ("tiles", "boxes", "already", "new")} == {
        "tiles": 1,
        "boxes": 2,
        "already": 0,
        "new": 0,
    }


def test_an_import_that_fails_takes_its_files_out_of_storage_again(project, monkeypatch):
    job = queue_writing(tried=dry_run(read(project, two_images()), targets="new"), user=None)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(label_imports, "_write_some", fail)
    run(job)
    assert (job.state, job.message) == (JobState.FAILED, "OSError: disk full")
    assert nothing_is_there()


def test_a_project_that_has_changed_since_the_dry_run_needs_a_new_one(project):
    tile = factories.make_image(project)
    tried = dry_run(read(project, yolo("0 0.5 0.5 0.5 0.5", name=Path(tile.slide.name).stem, image=False)))
    truth = factories.make_truth(tile, (1, 5, 5, 20, 20))
    job = run(queue_writing(tried=tried, user=None))
    assert (job.state, job.error_code) == (JobState.FAILED, "changed")
    tile.refresh_from_db()
    assert tile.truth == truth


def test_a_truth_that_was_corrected_since_the_dry_run_is_not_replaced(project):
    tile = factories.make_image(project)
    factories.make_truth(tile, (1, 5, 5, 20, 20))
    tried = dry_run(read(project, named(tile)))
    corrected = factories.make_truth(tile, (0, 5, 5, 20, 20))
    job = run(queue_writing(tried=tried, user=None))
    assert (job.state, job.error_code) == (JobState.FAILED, "changed")
    tile.refresh_from_db()
    assert tile.truth == corrected
    again = dry_run(Job.objects.get(pk=job.arguments["read"]))
    assert run(queue_writing(tried=again, user=None)).state == JobState.SUCCEEDED
    tile.refresh_from_db()
    assert tile.truth.supersedes == corrected


def test_a_truth_that_is_corrected_at_the_last_moment_is_not_replaced(project, monkeypatch):
    tile = factories.make_image(project)
    job = queue_writing(tried=dry_run(read(project, named(tile))), user=None)
    made, note = [], jobs.RunningJob.note

    def correct_and_note(*args):
        made.append(factories.make_truth(tile, (0, 5, 5, 20, 20)))
        note(*args)

    monkeypatch.setattr(jobs.RunningJob, "note", correct_and_note)
    run(job)
    assert (job.state, job.error_code) == (JobState.FAILED, "changed")
    assert [one.author.name for one in tile.annotations.all()] == []  # what this transaction wrote went with it
    assert len(made) == 1


@pytest.mark.django_db(transaction=True)
def test_a_reader_who_submits_while_an_import_is_written_is_not_held_up_for_ever():
    project = factories.make_project()
    for _ in range(3):
        tiles = [factories.make_image(project) for _ in range(2)]
        policy = ReadingPolicy("reviewed", review_share=0.9, review_by="disagreement")
        tasks = list(factories.make_batch(project, tiles, policy=policy).tasks.all())
        reader = factories.make_member(project)
        job = queue_writing(tried=dry_run(read(project, named(*tiles))), user=None)
        submitting = [lambda t=t, r=reader: factories.submit_task(t, r, (1, 5, 5, 20, 20)) for t in tasks]
        assert at_once([lambda j=job: run(j), *submitting]) == []
        assert job.state == JobState.SUCCEEDED or job.error_code == "changed"
        for tile in tiles:
            tile.refresh_from_db()
            assert tile.truth_id is not None
            assert tile.truth_id == tile.annotations.latest("pk").pk


def test_files_that_are_gone_are_said_to_be(project):
    job = queue_writing(tried=dry_run(read(project, yolo("0 0.5 0.5 0.5 0.5")), targets="new"), user=None)
    default_storage.delete(job.arguments["file"])
    run(job)
    assert (job.state, job.error_code) == (JobState.FAILED, "missing")
    assert job.message == "labels.zip: the files are gone; upload them again."


def test_a_reader_is_named_for_a_readers_annotations_only():
    with pytest.raises(ValueError, match="A reader is named"):
        ImportSettings(file_format="yolo", classes={}, becomes="reader")
    with pytest.raises(ValueError, match="no such way"):
        ImportSettings(file_format="yolo", classes={}, becomes="gold")


# Out and in again


@st.composite
def drawn_boxes(draw, width=90, height=60):
    box_width, box_height = draw(st.floats(2, width)), draw(st.floats(2, height))
    x, y = draw(st.floats(0, width - box_width)), draw(st.floats(0, height - box_height))
    return draw(st.integers(0, 2)), x, y, box_width, box_height


class RoundTrip(TestCase):
    """An export that is imported into the project is the same truth, to 0.01 px, in every format."""

    @settings(max_examples=6)
    @given(st.lists(st.lists(drawn_boxes(), max_size=4), min_size=1, max_size=3))
    def test_an_export_comes_back_as_it_was(self, drawn):
        for name in ("yolo", "voc", "coco", "csv", "labelimg-voc", "labelimg-yolo"):
            with tempfile.TemporaryDirectory() as folder:
                self.come_back(drawn, name, Path(folder) / "export.zip")

    def come_back(self, drawn, name, archive):
        project = factories.make_project()
        tiles = [factories.make_image(project) for _ in drawn]
        for tile, boxes in zip(tiles, drawn, strict=True):
            factories.make_truth(tile, *boxes)
        write_archive(archive, project, ExportChoice(name, images=False), TrainingFacts({}))
        job = read(project, archive.read_bytes())
        assert job.result["problems"] == []
        tried = dry_run(job, first_pixel=job.result["first_pixel"])
        assert (tried.result["problems"], tried.result["matched"]) == ([], len(tiles))
        written = run(queue_writing(tried=tried, user=None))
        assert written.state == JobState.SUCCEEDED, written.message
        for tile, boxes in zip(tiles, drawn, strict=True):
            found = boxes_of(tile)
            assert tile.truth.author.name == "labels.zip"
            assert [box[0] for box in found] == [box[0] for box in boxes]
            for one, other in zip(found, boxes, strict=True):
                assert all(abs(a - b) <= 0.01 for a, b in zip(one[1:], other[1:], strict=True)), (name, one, other)


def test_an_export_of_single_cell_crops_comes_back(project, smear, tmp_path):
    first, second, third = factories.make_slide(project, file=smear, tiles=3).tiles.all()
    drawn = {first: [(0, 10, 20, 30, 40), (1, 100.25, 50, 31, 22.5)], second: [(2, 5, 5, 20, 20)]}
    for tile, boxes in drawn.items():
        factories.make_truth(tile, *boxes)
    empty = factories.make_truth(third)
    job = read(project, exported(project, tmp_path, "crops"))
    assert (job.result["format"], job.result["tiles"], job.result["images"]) == ("csv", 2, 0)
    tried = dry_run(job, targets="new")
    assert (tried.result["problems"], tried.result["matched"], tried.result["unlabelled"]) == ([], 2, 0)
    assert run(queue_writing(tried=tried, user=None)).message == "3 boxes on 2 tiles"
    for tile, boxes in drawn.items():
        assert boxes_of(tile) == boxes
        assert tile.truth.author.name == "labels.zip"
    third.refresh_from_db()
    assert third.truth == empty  # crops say nothing of tiles without cells


def test_the_masks_beside_a_voc_data_set_are_left_alone(project):
    files = {"Annotations/a.xml": voc((11, 21, 40, 50)), "JPEGImages/a.png": picture()}
    masks = {f"{folder}/a.png": picture(shade=3) for folder in ("SegmentationClass", "SegmentationObject")}
    written = import_all(project, files | masks, targets="new")
    assert (written.result["new"], Slide.objects.get().name) == (1, "a.png")
