"""Imports through the API: sent, read, tried out, carried out."""

import io
import json
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from annotation.models import Annotation, Job, Role
from annotation.services.exports import tile_name
from annotation.services.jobs import run_job
from annotation.services.label_imports import run_label_import
from tests import factories
from tests.annotation.api.asking import program

pytestmark = pytest.mark.django_db


@pytest.fixture
def tile():
    return factories.make_tile()


@pytest.fixture
def lead(tile):
    return program(tile.project, Role.LEAD, name="lea")


def coco(tile, *names, box=(10, 20, 30, 40)):
    """Labels of one tile, a box of each of these classes."""
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": f"{tile_name(tile)}.jpg", "width": 512, "height": 512}],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": number, "bbox": list(box)} for number in range(len(names))
            ],
        }
    ).encode()


def zipped(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_json", ".json"), data)
    return content.getvalue()


def send(asking, project, *files, **fields):
    address = reverse("api_imports", args=[project.pk])
    uploads = [SimpleUploadedFile(name, data) for name, data in files]
    return asking.client.post(address, {"files": uploads} | fields)


def run(asking, row):
    """Do the step's job as the worker does; its row."""
    run_job(job_pk=row["id"], function=run_label_import)
    return asking.read("import", row["id"])


def read(asking, tile, *names, **fields):
    response = send(asking, tile.project, ("labels.zip", zipped(labels_json=coco(tile, *names))), **fields)
    assert response.status_code == 201, response.content
    return run(asking, response.json())


def test_labels_are_read_mapped_tried_and_written(tile, lead):
    found = read(lead, tile, "neutrophil", "Blast", "smudge")
    assert (found["step"], found["state"], found["subject"]) == ("read", "succeeded", "labels.zip")
    assert (found["result"]["format"], found["result"]["known"], found["result"]["problems_count"]) == ("coco", 1, 0)
    assert [one["name"] for one in found["result"]["classes"]] == ["neutrophil", "Blast", "smudge"]

    unmapped = lead.send("import_try", found["id"], body={})
    assert (unmapped.status_code, "classes, Blast" in unmapped.json()["error"]) == (400, True)
    response = lead.send("import_try", found["id"], body={"classes": {"Blast": 1, "smudge": None}})
    assert response.status_code == 201
    tried = run(lead, response.json())
    assert (tried["step"], tried["read"], tried["message"]) == ("try", found["id"], "can be imported")
    assert (tried["result"]["boxes"], tried["result"]["tiles"]) == (2, 1)
    assert tried["settings"]["classes"] == {"neutrophil": 0, "Blast": 1, "smudge": None}
    assert not Annotation.objects.exists()

    response = lead.send("import_write", tried["id"])
    assert response.status_code == 201
    written = run(lead, response.json())
    assert (written["step"], written["tried"], written["message"]) == ("write", tried["id"], "2 boxes on 1 tile")
    assert lead.send("import_write", tried["id"]).json()["id"] == written["id"]
    tile.refresh_from_db()
    assert [box.cell_class.number for box in tile.truth.boxes.order_by("pk")] == [0, 1]
    assert lead.keys("imports", tile.project.pk) == [written["id"], tried["id"], found["id"]]
    assert lead.keys("imports", tile.project.pk, step="try", state="succeeded") == [tried["id"]]


def test_they_become_a_readers(tile, lead):
    factories.make_member(tile.project, name="ann")
    found = read(lead, tile, "neutrophil")
    body = {"becomes": "reader", "reader": "ann", "bad_boxes": "skip"}
    tried = run(lead, lead.send("import_try", found["id"], body=body).json())
    run(lead, lead.send("import_write", tried["id"]).json())
    assert Annotation.objects.get().author.name == "ann"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"becomes": "gold"}, "becomes"),
        ({"becomes": "reader"}, "reader"),
        ({"becomes": "reader", "reader": "stranger"}, "reader"),
        ({"classes": {"Blast": 9}}, "classes, Blast"),
        ({"classes": {"Blast": "ERY"}}, "classes, Blast"),
        ({"classes": {"Blast": {}}}, "classes, Blast"),
        ({"classes": {"basophil": 1}}, "basophil"),
        ({"classes": []}, "classes"),
        ({"first_pixel": 1, "classes": {"Blast": 1}}, "first_pixel"),
        ({"bad_box": "skip"}, "bad_box"),
        ({"targets": 3}, "targets"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(tile, lead, body, named):
    factories.make_user("stranger")
    found = read(lead, tile, "Blast")
    response = lead.send("import_try", found["id"], body=body)
    assert (response.status_code, named in response.json()["error"]) == (400, True)
    assert Job.objects.count() == 1


def test_files_with_problems_are_reported_and_not_tried(tile, lead):
    response = send(lead, tile.project, ("labels.json", b"{"), format="coco")
    row = run(lead, response.json())
    assert (row["state"], row["result"]["problems_count"]) == ("succeeded", 1)
    assert "labels.json" in row["result"]["problems"][0]
    refused = lead.send("import_try", row["id"], body={})
    assert (refused.status_code, "without problems" in refused.json()["error"]) == (409, True)


def test_a_dry_run_with_problems_is_not_carried_out(tile, lead):
    response = send(lead, tile.project, ("labels.json", coco(tile, "neutrophil", box=(500, 20, 30, 40))))
    found = run(lead, response.json())
    tried = run(lead, lead.send("import_try", found["id"], body={}).json())
    assert (tried["result"]["problems_count"], tried["message"]) == (1, "1 problem")
    assert lead.send("import_write", tried["id"]).status_code == 409
    assert lead.send("import_write", found["id"]).status_code == 409
    clipped = run(lead, lead.send("import_try", found["id"], body={"bad_boxes": "clip"}).json())
    assert clipped["message"] == "can be imported"


@pytest.mark.parametrize(
    ("files", "fields", "named"),
    [
        ([], {}, "files"),
        ([("a.xml", b"")], {}, "a.xml: the file is empty"),
        ([("a.zip", b"PK"), ("b.xml", b"<a/>")], {}, "a.zip: give one zip archive"),
        ([("a.xml", b"<a/>")], {"format": "excel"}, "format"),
    ],
)
def test_an_upload_that_cannot_be_an_import_is_refused(tile, lead, files, fields, named):
    response = send(lead, tile.project, *files, **fields)
    assert (response.status_code, named in response.json()["error"]) == (400, True)
    assert not Job.objects.exists()


def test_too_many_files_and_a_body_that_is_no_form_are_refused_in_json(tile, lead, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 2
    response = send(lead, tile.project, *[(f"{number}.xml", b"<a/>") for number in range(3)])
    assert (response.status_code, list(response.json())) == (400, ["error"])
    assert lead.send("imports", tile.project.pk, body={"files": []}).status_code == 415
    address = reverse("api_imports", args=[tile.project.pk])
    broken = lead.client.post(address, b"no form", content_type="multipart/form-data; boundary=x")
    assert (broken.status_code, list(broken.json())) == (400, ["error"])
    none = lead.client.post(address, b"no form", content_type="multipart/form-data")
    assert (none.status_code, list(none.json())) == (400, ["error"])
