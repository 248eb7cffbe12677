import pytest
from PIL import Image

from annotation.models import Event
from annotation.services.jobs import RunningJob, claim_job
from inference.services.registry import current_version
from tests import factories
from tests.factories.detector import ToldDetector
from training import tasks
from training.models import Evaluation
from training.services import evaluations
from training.services.evaluations import box_array, evaluate_version, promote_if_better, queue_evaluation

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


@pytest.mark.parametrize(("difference", "promoted"), [({"truth_hash": "2" * 64}, False), ({"part": "val"}, True)])
def test_figures_from_other_tiles_do_not_count(project, difference, promoted):
    """On the locked test set nothing becomes current that was not compared; on a validation part nothing can be."""
    current, version = factories.make_version(project, current=True), factories.make_version(project)
    factories.make_evaluation(current, 0.1)
    assert promote(version, 0.9, **difference) is promoted
    assert current_version(project) == (version if promoted else current)


@pytest.fixture
def locked_truth(project, smear):
    slide = factories.make_slide(project, patient=factories.make_patient(project, locked=True), file=smear)
    first, second, third, *_ = slide.tiles.all()
    factories.make_truth(first, (0, 10, 20, 30, 40), (1, 200, 200, 40, 40))
    factories.make_truth(second)
    factories.make_truth(third, (0, 10, 20, 30, 40))
    return slide


def evaluate(project, version, monkeypatch, *found):
    monkeypatch.setattr(evaluations, "detector_of", lambda version: ToldDetector(*found))
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


def test_the_worst_errors_are_kept_with_their_tiles(project, locked_truth, monkeypatch):
    told = [(0, 10, 20, 30, 40, 0.9), (0, 201, 200, 40, 40, 0.8), (1, 300, 300, 20, 20, 0.05)]
    evaluation = evaluate(project, factories.make_version(project), monkeypatch, *told)
    first, second, third, *_ = locked_truth.tiles.values_list("pk", flat=True)
    errors = evaluation.metrics["errors"]
    assert errors["confused"] == [
        {"tile": first, "box": [200.0, 200.0, 40.0, 40.0], "truth": 1, "found": 0, "score": 0.8}
    ]
    assert [(row["tile"], row["truth"], row["found"], row["score"]) for row in errors["false"]] == [
        (second, None, 0, 0.9),
        (second, None, 0, 0.8),
        (third, None, 0, 0.8),
    ]
    assert errors["missed"] == []


def test_a_version_is_measured_by_a_job_of_its_own(project, locked_truth, monkeypatch):
    monkeypatch.setattr(evaluations, "detector_of", lambda version: ToldDetector((0, 10, 20, 30, 40, 0.9)))
    current, version = factories.make_version(project, current=True), factories.make_version(project)
    job = queue_evaluation(version=version, user=None)
    assert queue_evaluation(version=version, user=None) == job  # it is under way
    tasks.evaluate(job.pk)
    job.refresh_from_db()
    assert (job.state, job.result["evaluation"]) == ("succeeded", version.evaluations.get().pk)
    assert job.message.endswith("on 3 locked test tiles")
    assert current_version(project) == current
    assert queue_evaluation(version=version, user=None) != job
    assert Event.objects.filter(verb="asked to evaluate").count() == 2


def test_a_job_without_anything_to_test_on_says_so(project):
    job = queue_evaluation(version=factories.make_version(project), user=None)
    tasks.evaluate(job.pk)
    job.refresh_from_db()
    assert (job.state, job.message) == ("failed", "There is no confirmed tile to test on.")


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
    monkeypatch.setattr(evaluations, "detect_tiles", lambda *args, **options: pytest.fail("measured again"))
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
