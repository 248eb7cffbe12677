import pytest
from django.core.files.storage import default_storage
from PIL import Image

from annotation.services.jobs import RunningJob, claim_job
from inference.services.registry import current_version
from tests import factories
from tests.factories.detector import ToldDetector
from training.models import Evaluation
from training.services import runs
from training.services.rounds import RoundSettings
from training.services.runs import box_array, evaluate_version, promote_if_better, train_snapshot
from training.services.snapshots import take_snapshot

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


def promote(version, map50, **options):
    return promote_if_better(version=version, evaluation=factories.make_evaluation(version, map50, **options))


def test_the_first_version_becomes_current(project):
    version = factories.make_version(project)
    assert promote(version, 0.1)
    assert current_version(project) == version


@pytest.mark.parametrize(
    ("old", "new", "promoted"),
    [(0.5, 0.6, True), (0.5, 0.5, True), (0.6, 0.5, False), (None, 0.1, True), (0.5, None, False)],
)
def test_a_version_becomes_current_unless_the_current_one_is_better(project, old, new, promoted):
    current, version = factories.make_version(project, current=True), factories.make_version(project)
    factories.make_evaluation(current, old)
    assert promote(version, new) is promoted
    assert current_version(project) == (version if promoted else current)


@pytest.mark.parametrize("difference", [{"truth_hash": "2" * 64}, {"part": "val"}])
def test_figures_from_other_tiles_do_not_count(project, difference):
    current, version = factories.make_version(project, current=True), factories.make_version(project)
    factories.make_evaluation(current, 0.9)
    assert promote(version, 0.1, **difference)
    assert current_version(project) == version


@pytest.fixture
def locked_truth(project, smear):
    slide = factories.make_slide(project, patient=factories.make_patient(project, locked=True), file=smear)
    first, second, third, *_ = slide.tiles.all()
    factories.make_truth(first, (0, 10, 20, 30, 40), (1, 200, 200, 40, 40))
    factories.make_truth(second)
    factories.make_truth(third, (0, 10, 20, 30, 40))
    return slide


def evaluate(project, version, monkeypatch, *found):
    monkeypatch.setattr(runs, "detector_of", lambda version: ToldDetector(*found))
    running = RunningJob(claim_job(job_pk=factories.make_job(project).pk))
    return evaluate_version(running, version, None)


def test_a_version_is_measured_on_the_locked_set(project, locked_truth, monkeypatch):
    version = factories.make_version(project)
    evaluation = evaluate(project, version, monkeypatch, (0, 10, 20, 30, 40, 0.9))
    assert (evaluation.part, evaluation.tiles, evaluation.boxes, evaluation.patients) == ("test", 3, 3, 1)
    rows = {row["name"]: row for row in evaluation.metrics["classes"]}
    assert rows["neutrophil"]["recall"] == 1.0
    # One of its three detections lies on the confirmed-empty tile.
    assert rows["neutrophil"]["precision"] == pytest.approx(2 / 3)
    assert rows["erythroblast"]["recall"] == 0.0


def test_a_large_image_is_measured_as_a_whole(project, tmp_path, monkeypatch):
    """1200 x 600 px, seen in windows that begin at x 0, 344 and 688 and y 0 and 88; each finds a cell at its 10, 20."""
    path = tmp_path / "large.png"
    Image.effect_noise((1200, 600), 60).convert("RGB").save(path)
    patient = factories.make_patient(project, locked=True)
    tile = factories.make_image(project, patient=patient, width=1200, height=600, file=path)
    cells = [(0, x + 10, y + 20, 30, 40) for x in (0, 344, 688) for y in (0, 88)]
    factories.make_truth(tile, *cells)
    evaluation = evaluate(project, factories.make_version(project), monkeypatch, (0, 10, 20, 30, 40, 0.9))
    assert (evaluation.tiles, evaluation.boxes) == (1, 6)
    assert evaluation.metrics["map50"] == 1.0
    (row,) = (row for row in evaluation.metrics["classes"] if row["name"] == "neutrophil")
    assert (row["precision"], row["recall"], row["count_mse"]) == (1.0, 1.0, 0.0)


def test_measured_again_on_the_same_truth_it_is_the_same_row(project, locked_truth, monkeypatch):
    version = factories.make_version(project)
    first = evaluate(project, version, monkeypatch, (0, 10, 20, 30, 40, 0.9))
    monkeypatch.setattr(runs, "detect_tiles", lambda *args, **options: pytest.fail("measured again"))
    assert evaluate(project, version, monkeypatch) == first


def test_a_changed_truth_is_measured_anew(project, locked_truth, monkeypatch):
    version = factories.make_version(project)
    evaluate(project, version, monkeypatch)
    factories.make_truth(locked_truth.tiles.first(), (0, 11, 20, 30, 40))
    evaluate(project, version, monkeypatch)
    assert Evaluation.objects.count() == 2


def test_a_training_ends_with_a_version_and_its_export(project, smear, monkeypatch):
    """A real training, if of one epoch: it sees nothing yet, so its export cannot be measured and is not used."""
    slide = factories.make_slide(project, file=smear)
    for tile in slide.tiles.all()[:6]:
        factories.make_truth(tile, (0, 10, 20, 60, 60), (1, 200, 200, 40, 40))
    snapshot = take_snapshot(project=project, seed=0)
    running = RunningJob(claim_job(job_pk=factories.make_job(project).pk))
    settings = RoundSettings(epochs=1, image_size=64, batch_size=4)
    seen = []
    version, _ = train_snapshot(running, snapshot, settings, key="test", on_version=seen.append)
    assert seen == [version]
    assert version.exports["openvino"]["text"] == "on 6 tiles no cell was seen, so nothing could be compared"
    assert not version.exports["openvino"]["accepted"]
    assert default_storage.exists(version.weights)


def test_boxes_become_an_array(project):
    annotation = factories.make_truth(factories.make_tile(project), (1, 1.5, 2, 30, 40))
    assert box_array(list(annotation.boxes.all())).tolist() == [[1, 1.5, 2, 30, 40]]
    assert box_array([]).shape == (0, 5)
