"""Two-stage detectors: trained, kept, refreshed; on plain images of drawn cells, with real if short trainings."""

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from django.core.files.storage import default_storage
from PIL import Image

from annotation.models import Annotation, JobKind, JobState
from annotation.services.jobs import JobError, RunningJob, claim_job
from annotation.services.projects import NotAllowed
from annotation.services.storage import local_path
from inference.engine.classifier import TorchClassifier
from inference.engine.crops import crop_cells
from inference.engine.detector import export_folder
from inference.engine.openvino_classifier import OpenvinoClassifier
from inference.engine.openvino_detector import OpenvinoDetector
from inference.models import DetectorKind
from inference.services.model_archives import openvino_archive, two_stage_archive
from inference.services.model_exports import ModelExport, has_export, make_export
from inference.services.onnx_files import queue_onnx
from inference.services.pre_labels import pre_label_batch
from inference.services.registry import detector_of, make_current, register_version
from tests import factories
from tests.training.engine.cells import SIDE, draw_tile
from training import tasks
from training.models import Mode
from training.services.refresh import refreshes_of, run_refresh, start_refresh, why_not_refresh
from training.services.rounds import RoundSettings
from training.services.runs import rows_of, train_snapshot
from training.services.snapshots import take_snapshot
from training.services.stages import MOST_CHANGED, changed_share, classifier_config, finder_snapshot, finds_alike
from training.services.training_settings import Start, backbone_files

pytestmark = pytest.mark.django_db
SETTINGS = RoundSettings(
    kind=DetectorKind.TWO_STAGE, epochs=1, image_size=SIDE, batch_size=4, classifier_epochs=1, threads=1
)


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def images(project, tmp_path):
    """`images(patient, seeds)`: the tiles of plain images of drawn cells."""

    def make(code: str, seeds, *, locked: bool = False):
        patient = factories.make_patient(project, code, locked=locked)
        tiles = []
        for seed in seeds:
            path = tmp_path / f"{code}-{seed}.png"
            Image.fromarray(draw_tile(seed)[0]).save(path)
            tiles.append(factories.make_image(project, patient=patient, width=SIDE, height=SIDE, file=path))
        return tiles

    return make


def cells(seed):
    return [(int(number), *place) for number, *place in draw_tile(seed)[1].tolist()]


def confirm(tiles, seeds):
    for tile, seed in zip(tiles, seeds, strict=True):
        factories.make_truth(tile, *cells(seed))


@pytest.fixture
def snapshot(project, images):
    for code, seeds in (("P1", range(300, 304)), ("P2", range(310, 312))):
        confirm(images(code, seeds), seeds)
    return take_snapshot(project=project, seed=0)


@pytest.fixture
def current(project, snapshot, learned_stages):
    """A current two-stage version that knows what it does, as if trained on the snapshot; without an export."""
    version = register_version(
        project=project,
        weights=learned_stages.finder,
        classifier=learned_stages.classifier,
        snapshot_hash=snapshot.content_hash,
        config={"image_size": SIDE, "model": "yolo11n"},
    )
    make_current(version=version)
    version.refresh_from_db()
    return version


def begin(project, **fields):
    return RunningJob(claim_job(job_pk=factories.make_job(project, **fields).pk))


def train(project, snapshot, **changes):
    settings = RoundSettings(**(vars(SETTINGS) | changes))
    return train_snapshot(begin(project), snapshot, settings, key="test", on_version=lambda version: None)


class TestTraining:
    def test_from_scratch_it_makes_a_version_of_two_files(self, project, snapshot):
        version, told = train(project, snapshot)
        assert version.kind == DetectorKind.TWO_STAGE
        assert default_storage.exists(version.weights)
        assert default_storage.exists(version.classifier)
        assert told.startswith("finder: mAP@0.5 ")
        assert "; classifier trained: " in told
        detector = detector_of(version)
        assert detector.classes == ("neutrophil", "erythroblast", "other cell")
        assert detector.finder.classes == ("cell",)

    def test_a_finder_that_experts_left_alone_is_kept(self, project, snapshot, current, images):
        """The classifier goes on from the one that was."""
        version, told = train(project, snapshot, from_previous=True)
        assert told.startswith("finder kept: 0% of the boxes on new tiles were added, moved or deleted; classifier")
        assert version.weights_sha256 == current.weights_sha256
        assert version.classifier_sha256 != current.classifier_sha256
        assert version.exports["openvino"]["accepted"], version.exports["openvino"]["text"]
        assert finder_snapshot(version) == finder_snapshot(current) == snapshot.content_hash

    def test_what_a_kept_finder_has_missed_adds_up_from_its_own_training_on(self, project, snapshot, current, images):
        """Another version with the same finder was registered for a later snapshot, as a refresh does."""
        confirm(images("P3", range(320, 322)), range(320, 322))  # imported: every box counts as added
        later = take_snapshot(project=project, seed=0)
        version = register_version(
            project=project,
            weights=local_path(current.weights),
            classifier=local_path(current.classifier),
            snapshot_hash=later.content_hash,
            config=current.config | {"finder_snapshot": finder_snapshot(current)},
        )
        assert changed_share(version, list(rows_of(later))) == 1.0

    def test_a_finder_whose_boxes_were_redrawn_is_trained_again(self, project, current, images):
        confirm(images("P3", range(320, 322)), range(320, 322))  # imported: every box counts as added
        later = take_snapshot(project=project, seed=0)
        assert changed_share(current, list(rows_of(later))) == 1.0 > MOST_CHANGED
        version, told = train(project, later, from_previous=True)
        assert told.startswith("finder: mAP@0.5 ")
        assert f"layers taken over from {current}" in told
        assert version.weights_sha256 != current.weights_sha256

    def test_a_finder_of_another_model_or_size_is_not_kept(self, current):
        assert finds_alike(current, SETTINGS)
        assert not finds_alike(current, RoundSettings(**(vars(SETTINGS) | {"model": "yolo11s"})))
        assert not finds_alike(current, RoundSettings(**(vars(SETTINGS) | {"image_size": 64})))

    def test_of_an_unknown_snapshot_nothing_is_known(self, project, snapshot, learned_stages):
        version = register_version(
            project=project,
            weights=learned_stages.finder,
            classifier=learned_stages.classifier,
            snapshot_hash="",
            config={"image_size": SIDE},
        )
        assert changed_share(version, list(rows_of(snapshot))) is None

    @pytest.mark.parametrize(
        ("device", "wanted"), [("auto", "auto"), ("cpu", "cpu"), ("cuda:1", "cuda:1"), ("1,0", "cuda:1")]
    )
    def test_the_classifier_is_trained_where_the_finder_is(self, device, wanted):
        assert classifier_config(RoundSettings(kind=DetectorKind.TWO_STAGE, device=device), Start()).device == wanted

    def test_a_backbone_that_cannot_be_is_told(self, project, snapshot, settings, tmp_path):
        settings.START_WEIGHTS_DIR = tmp_path / "weights"
        settings.START_WEIGHTS_DIR.mkdir()
        (settings.START_WEIGHTS_DIR / "own.safetensors").write_bytes(b"no weights")
        assert backbone_files() == ["own.safetensors"]
        with pytest.raises(JobError, match="no backbone called 'resnet-like' in timm"):
            train(project, snapshot, backbone="resnet-like", backbone_file="own.safetensors")
        with pytest.raises(JobError, match=r"own\.safetensors is damaged"):
            train(project, snapshot, backbone="test_resnet", backbone_file="own.safetensors")
        with pytest.raises(JobError, match=r"gone\.pth is no longer in the folder"):
            train(project, snapshot, backbone="test_resnet", backbone_file="gone.pth")
        assert not project.model_versions.exists()


class TestExports:
    @pytest.fixture
    def exported(self, project, snapshot, learned_stages):
        finder, classifier = learned_stages
        export = ModelExport(export_folder(finder), True, "they answer alike", export_folder(classifier))
        return register_version(
            project=project,
            weights=finder,
            classifier=classifier,
            snapshot_hash=snapshot.content_hash,
            config={"image_size": SIDE},
            export=export,
        )

    def test_both_stages_are_measured(self, snapshot, learned_stages, tmp_path):
        export = make_export(
            weights=learned_stages.finder,
            classifier=learned_stages.classifier,
            folder=tmp_path / "openvino",
            image_size=SIDE,
            tiles=[row.tile for row in rows_of(snapshot)],
        )
        assert export.accepted, export.text
        assert export.text.startswith("on 6 tiles with ")
        assert export.classifier is not None
        assert (export.classifier / "model.xml").is_file()

    def test_both_stages_are_run_by_openvino(self, exported):
        assert has_export(exported)
        detector = detector_of(exported)
        assert isinstance(detector.finder, OpenvinoDetector)
        assert isinstance(detector.classifier, OpenvinoClassifier)
        (found,) = detector.detect(draw_tile(400)[0][None], min_score=0.25)
        truth = sorted((round(x + width / 2), number) for number, x, _, width, _ in draw_tile(400)[1].tolist())
        seen = sorted(
            (round(float(box[0] + box[2] / 2)), float(number))
            for box, number in zip(found.boxes, found.class_ids, strict=True)
        )
        assert [number for _, number in seen] == [number for _, number in truth]
        assert all(abs(x - there) <= 3 for (x, _), (there, _) in zip(seen, truth, strict=True))

    def test_with_a_stage_that_is_not_as_it_was_stored_torch_computes(self, exported):
        path = Path(default_storage.path(exported.classifier)).with_suffix(".openvino") / "model.bin"
        path.write_bytes(b"something else")
        assert not has_export(exported)
        assert isinstance(detector_of(exported).classifier, TorchClassifier)

    def test_the_archives_hold_both_stages(self, exported):
        with zipfile.ZipFile(two_stage_archive(exported)) as archive:
            assert archive.namelist() == ["finder.pt", "classifier.pt"]
        with zipfile.ZipFile(openvino_archive(exported)) as archive:
            assert archive.namelist() == ["model.xml", "model.bin", "classifier/model.xml", "classifier/model.bin"]

    def test_the_onnx_files_compute_what_torch_does(self, exported):
        job = queue_onnx(version=exported, user=None)
        tasks.export_model(job.pk)
        job.refresh_from_db()
        assert job.state == JobState.SUCCEEDED, job.message
        assert job.message.startswith("checked against torch on 6 tiles with ")
        with zipfile.ZipFile(default_storage.open(job.result["file"])) as archive:
            session = onnxruntime.InferenceSession(archive.read("classifier.onnx"))
            assert archive.namelist() == ["finder.onnx", "classifier.onnx"]
        facts = session.get_modelmeta().custom_metadata_map
        classifier = TorchClassifier(Path(default_storage.path(exported.classifier)), device="cpu")
        assert float(facts["side"]) == classifier.side
        pixels, boxes = draw_tile(400)
        crops = crop_cells(pixels, boxes[:, 1:], side=classifier.side, size=classifier.size)
        images = crops.transpose(0, 3, 1, 2).astype(np.float32) / 255
        (named,) = session.run(None, {"crops": images})
        assert named == pytest.approx(classifier.classify(crops), abs=1e-4)


class TestRefresh:
    @pytest.fixture
    def round_(self, project, current, images):
        """A round whose batch of six tiles is pre-labelled, two of them read; every cell was called wrongly."""
        confirm(images("P9", range(500, 502), locked=True), range(500, 502))
        tiles = images("P5", range(330, 336))
        batch = factories.make_batch(project, tiles)
        pre_label_batch(batch=batch, version=current, on_progress=lambda done, total: None)
        reader = factories.make_member(project)
        for task in batch.tasks.order_by("pk")[:2]:
            factories.submit_task(task, reader, *[(1 - number, *place) for number, *place in cells(330)])
        return factories.make_round(project, mode=Mode.ASSISTED, batch=batch, settings=vars(SETTINGS))

    def begin(self, round_):
        return begin(round_.project, kind=JobKind.REFRESH, arguments={"round": round_.pk})

    def test_the_head_learns_what_was_confirmed_and_labels_the_rest(self, round_, current, monkeypatch):
        monkeypatch.setattr("training.services.refresh.promote_if_better", promote)
        running = self.begin(round_)
        answer = run_refresh(running)
        version = round_.project.model_versions.get(is_current=True)
        assert version.weights_sha256 == current.weights_sha256
        assert version.classifier_sha256 != current.classifier_sha256
        assert version.config["refreshed_from"] == current.number
        assert finder_snapshot(version) == finder_snapshot(current) != version.snapshot_hash
        assert answer["message"].startswith(f"{version}, mAP@0.5 ")
        assert answer["message"].endswith("; new pre-labels on 4 tiles")
        open_tasks = round_.batch.tasks.filter(state="open")
        assert {task.pre_label.author for task in open_tasks} == {version.author}
        read = round_.batch.tasks.filter(state="submitted")
        assert {task.pre_label.author for task in read} == {current.author}

        labels = Annotation.objects.count()
        run_refresh(running)  # as after a kill at the very end
        assert round_.project.model_versions.count() == 2
        assert Annotation.objects.count() == labels

    def test_a_head_that_is_worse_changes_no_pre_label(self, round_, current, monkeypatch):
        monkeypatch.setattr("training.services.refresh.promote_if_better", lambda **given: False)
        refused = ModelExport(Path("nowhere"), False, "not measured")
        monkeypatch.setattr("training.services.refresh.make_export", lambda **given: refused)
        answer = run_refresh(self.begin(round_))
        assert answer["message"].endswith("; the pre-labels stay as they are")
        assert round_.project.model_versions.get(is_current=True) == current
        assert {task.pre_label.author for task in round_.batch.tasks.all()} == {current.author}

    def test_without_news_there_is_nothing_to_learn(self, round_, current):
        snapshot = take_snapshot(project=round_.project, seed=0)
        type(current).objects.filter(pk=current.pk).update(snapshot_hash=snapshot.content_hash)
        assert run_refresh(self.begin(round_))["message"] == "nothing has been confirmed that the model does not know"
        assert round_.project.model_versions.count() == 1

    def test_it_is_asked_for_once_at_a_time_and_only_where_it_helps(self, round_, current, project):
        first = start_refresh(round_=round_, user=None)
        assert start_refresh(round_=round_, user=None) == first
        assert list(refreshes_of(round_)) == [first]
        round_.batch.tasks.filter(state="open").delete()
        assert why_not_refresh(round_) == "Every tile of this batch has been begun."
        make_current(version=factories.make_version(project))
        assert "the current model is not one" in why_not_refresh(round_)
        first.delete()
        with pytest.raises(NotAllowed, match="Only a two-stage model"):
            start_refresh(round_=round_, user=None)


def promote(*, version, evaluation, user=None):
    """As if it were better."""
    make_current(version=version)
    return True
