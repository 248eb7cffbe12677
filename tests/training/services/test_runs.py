import pytest

from annotation.services.jobs import RunningJob, claim_job
from inference.services.registry import current_version
from tests import factories
from tests.factories.detector import ToldDetector
from training.models import Evaluation
from training.services import runs
from training.services.runs import box_array, evaluate_version, promote_if_better

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


def test_measured_again_on_the_same_truth_it_is_the_same_row(project, locked_truth, monkeypatch):
    version = factories.make_version(project)
    first = evaluate(project, version, monkeypatch, (0, 10, 20, 30, 40, 0.9))
    monkeypatch.setattr(runs, "read_tiles", lambda tiles: pytest.fail("read again"))
    assert evaluate(project, version, monkeypatch) == first


def test_a_changed_truth_is_measured_anew(project, locked_truth, monkeypatch):
    version = factories.make_version(project)
    evaluate(project, version, monkeypatch)
    factories.make_truth(locked_truth.tiles.first(), (0, 11, 20, 30, 40))
    evaluate(project, version, monkeypatch)
    assert Evaluation.objects.count() == 2


def test_boxes_become_an_array(project):
    annotation = factories.make_truth(factories.make_tile(project), (1, 1.5, 2, 30, 40))
    assert box_array(list(annotation.boxes.all())).tolist() == [[1, 1.5, 2, 30, 40]]
    assert box_array([]).shape == (0, 5)
