import pytest

from annotation.models import Annotation, Box
from annotation.services.annotations import parse_boxes
from annotation.services.batches import claim_next
from inference.models import TileScore
from inference.services import pre_labels
from inference.services.pre_labels import pool_tiles, pre_label_batch, score_pool
from tests import factories
from tests.factories.detector import ToldDetector

pytestmark = pytest.mark.django_db


@pytest.fixture
def batch(smear):
    project = factories.make_project()
    return factories.make_batch(project, factories.make_slide(project, file=smear).tiles.all())


@pytest.fixture
def version(batch):
    return factories.make_version(batch.project, current=True)


@pytest.fixture
def told(monkeypatch):
    """Let this detector stand for every version's weights."""

    def tell(*found):
        detector = ToldDetector(*found)
        monkeypatch.setattr(pre_labels, "detector_of", lambda version: detector)
        return detector

    return tell


def label(batch, version):
    return pre_label_batch(batch=batch, version=version, on_progress=lambda done, total: None)


def test_every_open_task_gets_the_versions_boxes(batch, version, told):
    told((1, 10, 20, 30, 40, 0.9), (0, 100, 100, 50, 50, 0.1))
    assert label(batch, version) == 9
    for task in batch.tasks.all():
        box = task.pre_label.boxes.get()  # the second is below the score that is shown to readers
        assert (box.cell_class.number, box.x, box.y, box.width, box.height) == (1, 10, 20, 30, 40)
        assert (box.score, box.class_scores) == (0.9, [0.09, 0.9, 0.09])
        assert task.pre_label.author == version.author
    assert not batch.tasks.filter(tile__truth__isnull=False).exists()


def test_labelled_again_nothing_is_new(batch, version, told):
    detector = told((1, 10, 20, 30, 40, 0.9))
    label(batch, version)
    assert label(batch, version) == 0
    assert (detector.tiles, Annotation.objects.count()) == (9, 9)


def test_a_labelling_that_was_killed_goes_on_where_it_stopped(batch, version, told, monkeypatch):
    detector = told((1, 10, 20, 30, 40, 0.9))
    monkeypatch.setattr(pre_labels, "CHUNK", 4)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pre_label_batch(batch=batch, version=version, on_progress=stop)
    assert label(batch, version) == 5
    assert detector.tiles == 9
    assert batch.tasks.filter(pre_label=None).count() == 0


def test_what_somebody_has_begun_is_left_alone(batch, version, told):
    told((1, 10, 20, 30, 40, 0.9))
    leased = claim_next(batch=batch, reader=factories.make_user())
    assert label(batch, version) == 8
    leased.refresh_from_db()
    assert leased.pre_label is None


def test_boxes_are_cut_at_the_tile_and_slivers_are_left_out(batch, version, told):
    told((0, -10, -10, 30, 40, 0.9), (0, 500.004, 500.004, 40, 40, 0.8), (1, 511.5, 0, 40, 40, 0.7))
    label(batch, version)
    task = batch.tasks.first()
    assert [(box.x, box.y, box.width, box.height) for box in task.pre_label.boxes.all()] == [
        (0, 0, 20, 30),
        (500, 500, 12, 12),
    ]


def test_a_pre_label_can_be_confirmed_as_it_is(batch, version, told):
    told((0, 100.005, 3.335, 600, 600, 0.9), (1, 0.005, 0.015, 2.004, 2.004, 0.9))
    label(batch, version)
    task = batch.tasks.first()
    boxes = [
        factories.box_json(box.cell_class.number, box.x, box.y, box.width, box.height, origin=box.pk)
        for box in task.pre_label.boxes.all()
    ]
    assert len(parse_boxes(boxes, task=task)) == 2


def test_the_pool_holds_no_locked_labelled_or_waiting_tile():
    project = factories.make_project()
    factories.make_slide(project, patient=factories.make_patient(project, locked=True))
    slide = factories.make_slide(project)
    first, second, *free = slide.tiles.all()
    factories.make_truth(first)
    factories.make_batch(project, [second])
    factories.make_slide(factories.make_project())
    assert pool_tiles(project) == free


def test_the_pools_tiles_are_scored_once(batch, version, told):
    detector = told((1, 10, 20, 30, 40, 0.5), (1, 100, 20, 30, 40, 0.3))
    tiles = list(batch.project.slides.get().tiles.all())
    for _ in range(2):
        score_pool(tiles=tiles, version=version, on_progress=lambda done, total: None)
    assert detector.tiles == 9
    assert TileScore.objects.count() == 9
    assert TileScore.objects.first().expected == pytest.approx([0.08, 0.8, 0.08])
    assert not Box.objects.exists()
