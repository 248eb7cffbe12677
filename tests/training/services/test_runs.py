"""Trainings of snapshots, real if of one epoch."""

from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile

import inference.engine.detector
from annotation.models import JobState, Tile
from annotation.services.jobs import JobCancelled, JobError, RunningJob, cancel_job, claim_job, retry_job, run_job
from annotation.services.slides import SlideFacts, import_staged, stage_uploads
from inference.models import DetectorKind
from inference.services.pre_labels import PRE_LABEL_SCORE
from inference.services.registry import detector_of
from tests import factories
from tests.factories.detector import ToldDetector
from tests.inference.engine.made_weights import untrained_weights
from training.engine.progress import Outcome
from training.services.rounds import RoundSettings
from training.services.runs import (
    LEAST_SHOWN,
    Trained,
    classes_not_trained,
    rows_of,
    shown_from,
    train_snapshot,
    training_tiles,
)
from training.services.snapshots import take_snapshot
from training.services.training_settings import Start
from training.services.yolo import Data, train_yolo

pytestmark = pytest.mark.django_db
SETTINGS = {"kind": DetectorKind.ONE_STAGE, "epochs": 1, "image_size": 64, "batch_size": 4}
BOTH = ((0, 10, 20, 60, 60), (1, 200, 200, 40, 40))


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def folder(settings, tmp_path):
    settings.START_WEIGHTS_DIR = tmp_path
    return tmp_path


def label(project, smear, *boxes, tiles=6):
    slide = factories.make_slide(project, file=smear)
    for tile in slide.tiles.all()[:tiles]:
        factories.make_truth(tile, *boxes)
    return take_snapshot(project=project, seed=0)


def begin(project):
    return RunningJob(claim_job(job_pk=factories.make_job(project).pk))


def train(project, snapshot, **settings):
    seen = []
    version, told = train_snapshot(
        begin(project), snapshot, RoundSettings(**(SETTINGS | settings)), key="test", on_version=seen.append
    )
    assert seen == [version]
    return version, told


def test_a_training_ends_with_a_version_and_its_export(project, smear):
    """It sees nothing yet, so its export cannot be measured and is not used."""
    version, told = train(project, label(project, smear, *BOTH))
    assert told == "mAP@0.5 0.00 on the validation part, best epoch 1 of 1"
    assert version.exports["openvino"]["text"] == "on 6 tiles no cell was seen, so nothing could be compared"
    assert not version.exports["openvino"]["accepted"]
    assert default_storage.exists(version.weights)
    assert version.config["started_from"] == "scratch"
    assert version.config["shown_from"] == PRE_LABEL_SCORE  # it finds nothing, and so tells nothing better


class Young:
    """What finds every cell, and is not sure of it; of false boxes it is less sure still."""

    def __init__(self, score, wrong=0.01):
        self.told = ToldDetector(*((0, *box[1:], score) for box in BOTH), (0, 400, 400, 50, 50, wrong))

    def detect(self, tiles, *, min_score, **options):
        return self.told.detect(tiles, min_score=min_score)


@pytest.mark.parametrize(("score", "shown"), [(0.07, 0.07), (0.6, 0.25), (0.031, 0.031), (0.029, 0.25)])
def test_boxes_are_shown_from_the_score_that_finds_cells_best_and_never_from_a_higher_one(
    project, smear, monkeypatch, score, shown
):
    monkeypatch.setattr(inference.engine.detector, "load_detector", lambda *_, **options: Young(score))
    snapshot = label(project, smear, *BOTH)
    rows = list(rows_of(snapshot))
    assert shown_from(begin(project), Path("weights.pt"), RoundSettings(**SETTINGS), rows) == shown
    assert LEAST_SHOWN == 0.03


def test_cancelled_it_looks_at_no_further_tile_to_find_that_score(project, smear, monkeypatch):
    running, looked = begin(project), []

    class Cancelling(Young):
        def detect(self, tiles, **options):
            looked.append(len(tiles))
            cancel_job(job=running.job, user=None)
            return super().detect(tiles, **options)

    monkeypatch.setattr(inference.engine.detector, "load_detector", lambda *_, **options: Cancelling(0.07))
    rows = list(rows_of(label(project, smear, *BOTH)))
    with pytest.raises(JobCancelled):
        shown_from(running, Path("weights.pt"), RoundSettings(**SETTINGS), rows)
    assert looked == [1]


def test_cancelled_it_writes_no_further_tile(project, smear, tmp_path):
    running, told = begin(project), []
    data = Data(training_tiles(list(rows_of(label(project, smear, *BOTH)))), [], ["a", "b", "other"], [])

    def report(share, text, seconds_left):
        told.append(text)
        if text.startswith("writing the tiles: 2"):
            cancel_job(job=running.job, user=None)

    with pytest.raises(JobCancelled):
        train_yolo(running, data, RoundSettings(**SETTINGS), Start(), folder=tmp_path, report=report)
    assert told == ["writing the tiles", "writing the tiles: 1 of 6", "writing the tiles: 2 of 6"]


def test_an_end_to_end_model_is_kept_without_an_export(project, smear):
    version, _ = train(project, label(project, smear, *BOTH), model="yolo26n")
    assert "no OpenVINO export for models of this kind" in version.refused_export


def test_a_class_without_a_box_is_named_and_training_goes_on(project, smear):
    snapshot = label(project, smear, BOTH[0])
    assert [one.name for one in classes_not_trained(snapshot)] == ["erythroblast"]  # and not the ignored one
    version, told = train(project, snapshot)
    assert told.endswith("; no box to train on: erythroblast")
    assert version.pk


def test_it_tells_how_many_layers_came_from_a_weights_file(project, smear, folder):
    untrained_weights(folder / "lab.pt")
    version, told = train(project, label(project, smear, *BOTH), weights_file="lab.pt")
    assert told.endswith("; 168 of 168 layers taken over from lab.pt")
    assert version.config["started_from"] == "lab.pt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"lab\.pt is no longer in the folder"),
        (lambda path: path.write_bytes(b"half a file"), r"lab\.pt is damaged"),
        (lambda path: untrained_weights(path, model="yolo11s"), r"No layer of lab\.pt fits yolo26n"),
    ],
    ids=["gone", "damaged", "fits nothing"],
)
def test_a_weights_file_that_cannot_be_used_stops_the_training_with_a_text(project, smear, folder, make, message):
    make(folder / "lab.pt")
    with pytest.raises(JobError, match=message):
        train(project, label(project, smear, *BOTH), weights_file="lab.pt", model="yolo26n")
    assert not project.model_versions.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"model": "yolo11"}, "did you mean yolo11"), ({"mosaic": 2.0}, "Mosaic must lie between 0.0 and 1.0")],
)
def test_settings_that_cannot_be_stop_the_training_with_a_text(project, smear, changes, message):
    with pytest.raises(JobError, match=message):
        train(project, label(project, smear, *BOTH), **changes)


def test_how_a_training_ended_in_words(tmp_path):
    ended = Outcome(epochs=60, last_epoch=24, best_epoch=17, map50=0.425, taken=160, layers=168)
    lab = Start(tmp_path / "lab.pt", "lab.pt")
    assert Trained(tmp_path, ended, lab, ["blast", "basophil"]).in_words() == (
        "mAP@0.5 0.42 on the validation part, best epoch 17 of 60; stopped early after epoch 24, as it got no better; "
        "160 of 168 layers taken over from lab.pt; no box to train on: blast, basophil"
    )


def test_no_box_at_all_is_told(project, smear):
    with pytest.raises(JobError, match="not a single box to train on"):
        train(project, label(project, smear))


def test_cancelled_it_ends_within_a_batch_and_leaves_no_version(project, smear):
    snapshot, running = label(project, smear, *BOTH), begin(project)
    cancel_job(job=running.job, user=None)
    with pytest.raises(JobCancelled):
        train_snapshot(running, snapshot, RoundSettings(**SETTINGS), key="test", on_version=print)
    assert not project.model_versions.exists()


def test_a_training_on_remote_storage_waits_and_goes_on(remote, project, smear, settings):
    """Its slides come from there and its weights go there. Storage away at the end costs no epoch."""
    settings.S3_WAIT = 0
    (imported,) = stage_uploads(
        project=project,
        uploads=[SimpleUploadedFile(smear.name, smear.read_bytes())],
        facts=SlideFacts(patient="P1", tiling="edge"),
        user=None,
    )
    run_job(job_pk=imported.pk, function=import_staged)
    for tile in Tile.objects.all()[:6]:
        factories.make_truth(tile, *BOTH)
    snapshot, job = take_snapshot(project=project, seed=0), factories.make_job(project)
    texts = []

    def work(running):
        report = running.report

        def told(share, text="", **rest):
            texts.append(text)
            if text.startswith("exporting") and texts.count(text) == 1:
                remote.server.stop()
            report(share, text, **rest)

        running.report = told
        train_snapshot(running, snapshot, RoundSettings(**SETTINGS), key="test", on_version=lambda version: None)

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.FAILED, "storage-away")
    assert job.message.startswith("the weights: storage did not answer")
    assert not project.model_versions.exists()
    remote.server.start()
    trained = [text for text in texts if text.startswith("epoch ")]
    retry_job(job=job, user=None)
    run_job(job_pk=job.pk, function=work)
    version = project.model_versions.get()
    assert [text for text in texts if text.startswith("epoch ")] == trained  # not a second time
    assert version.weights in remote.objects
    assert detector_of(version).classes == ("neutrophil", "erythroblast", "other cell")
