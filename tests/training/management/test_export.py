import io
import json
import zipfile

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command

from annotation.models import Event, JobState
from annotation.services.export_choice import FORMATS, ExportChoice
from annotation.services.exports import queue_export, write_archive
from tests import factories
from training import tasks
from training.services.snapshots import facts_of_newest, take_snapshot

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(smear):
    project = factories.make_project()
    for _ in range(3):
        tiles = factories.make_slide(project, file=smear).tiles.all()[:2]
        factories.make_truth(tiles[0], (0, 10, 20, 30, 40), (1, 100, 120, 40, 30))
        factories.make_truth(tiles[1])
    return project


@pytest.fixture
def folder(tmp_path):
    """An empty one: the tests' storage is beside it."""
    path = tmp_path / "out"
    path.mkdir()
    return path


def export(project, format_name, path, *options):
    out = io.StringIO()
    call_command("export", project.name, format_name, str(path), *options, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("format_name", FORMATS)
def test_it_writes_what_the_job_writes(project, tmp_path, format_name):
    snapshot = take_snapshot(project=project, seed=0)
    said = export(project, format_name, tmp_path / "a.zip", "--images", "--class", "neutrophil", "--split", "val")
    choice = ExportChoice(format_name, images=True, part="val", classes=("neutrophil",))
    write_archive(tmp_path / "b.zip", project, choice, facts_of_newest(project))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    manifest = json.loads(zipfile.ZipFile(tmp_path / "a.zip").read("manifest.json"))
    assert manifest["snapshot"] == snapshot.content_hash
    assert manifest["choice"] == choice.arguments()
    assert f"{manifest['tiles']} tiles, {manifest['boxes']} boxes" in said
    assert manifest["tiles"] > 0
    assert Event.objects.filter(verb="exported", subject=FORMATS[format_name]).exists()


def test_the_workers_task_writes_the_same(project, tmp_path):
    take_snapshot(project=project, seed=0)
    job = queue_export(project=project, choice=ExportChoice("coco", coordinates="slide"), user=None)
    tasks.export(job.pk)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED, job.message
    export(project, "coco", tmp_path / "a.zip", "--coordinates", "slide")
    assert default_storage.open(job.result["file"]).read() == (tmp_path / "a.zip").read_bytes()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["yolo", "x.zip", "--round", "3"], "has no round 3"),
        (["yolo", "x.zip", "--patient", "X", "--patient", "Y"], "has no patient X, patient Y"),
        (["voc", "x.zip", "--coordinates", "slide"], "slide px can be had as COCO and CSV"),
        (["voc", "nowhere/x.zip"], "there is no folder nowhere"),
        (["pdf", "x.zip"], "invalid choice: 'pdf'"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(project, folder, monkeypatch, options, reason):
    monkeypatch.chdir(folder)
    with pytest.raises(CommandError, match=reason):
        call_command("export", project.name, *options)
    assert list(folder.iterdir()) == []


def test_an_unknown_project_is_refused(tmp_path):
    with pytest.raises(CommandError, match="There is no project X"):
        call_command("export", "X", "coco", str(tmp_path / "x.zip"))


def test_an_archive_that_is_there_stays_if_the_export_fails(project, folder):
    path = folder / "a.zip"
    path.write_bytes(b"an older one")
    factories.lose_files(project.slides.first())
    with pytest.raises(CommandError, match="missing from storage"):
        export(project, "crops", path)
    assert [one.name for one in folder.iterdir()] == ["a.zip"]
    assert path.read_bytes() == b"an older one"
    export(project, "csv", path)
    assert zipfile.is_zipfile(path)
