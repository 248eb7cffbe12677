import pytest

from annotation.models import BatchState, Patient, TaskState
from annotation.selectors import confirmed_boxes, examples_of, holder_of, last_done, pool_of, tile_states
from annotation.services.annotations import skip
from annotation.services.batches import claim_next, close_batch
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def slide():
    return factories.make_slide(factories.make_project(), tiles=4)


def test_what_nobody_read_goes_back_to_the_pool_when_its_batch_is_closed(slide):
    project, reader = slide.project, factories.make_user()
    *_, leased, waiting = slide.tiles.all()
    batch = factories.make_batch(project, slide.tiles.all())
    factories.submit_task(claim_next(batch=batch, reader=reader), reader)
    skip(task=claim_next(batch=batch, reader=reader), user=reader, reason="out of focus")
    assert claim_next(batch=batch, reader=reader).tile == leased
    assert list(pool_of(project)) == []
    close_batch(batch=batch)
    assert list(pool_of(project)) == [leased, waiting]
    assert [state for _, state in tile_states(slide)] == ["empty", "skipped", "unlabelled", "unlabelled"]


def test_a_tile_of_a_second_batch_is_not_in_the_pool(slide):
    close_batch(batch=factories.make_batch(slide.project, slide.tiles.all()))
    factories.make_batch(slide.project, slide.tiles.all()[:3])
    assert list(pool_of(slide.project)) == [slide.tiles.last()]


def test_a_batch_given_up_before_it_was_opened_gives_its_tiles_back(slide):
    batch = factories.make_batch(slide.project, slide.tiles.all(), state=BatchState.DRAFT)
    assert pool_of(slide.project).count() == 0
    assert close_batch(batch=batch)
    assert pool_of(slide.project).count() == 4
    assert not close_batch(batch=batch)


# Going back over one's own tiles


def test_the_readers_tasks_come_back_latest_first(slide):
    reader, batch = factories.make_user(), factories.make_batch(slide.project, slide.tiles.all())
    first, second, third, unread = batch.tasks.all()
    for task in (second, first, third):
        factories.submit_task(task, reader)
    assert last_done(batch, reader) == third
    assert last_done(batch, reader, [third.pk]) == first
    assert last_done(batch, reader, [third.pk, first.pk]) == second
    assert last_done(batch, reader, [third.pk, second.pk]) == first
    assert last_done(batch, reader, [third.pk, first.pk, second.pk]) is None
    assert last_done(batch, reader, [unread.pk, 10**9]) == third


def test_a_task_that_was_corrected_is_the_latest(slide):
    reader, batch = factories.make_user(), factories.make_batch(slide.project, slide.tiles.all())
    first, second, *_ = batch.tasks.all()
    for task in (first, second, first):
        factories.submit_task(task, reader)
    assert last_done(batch, reader) == first
    assert last_done(batch, reader, [first.pk]) == second
    assert last_done(batch, reader, [first.pk, second.pk]) is None


def test_other_readers_other_batches_and_skipped_tiles_are_not_gone_back_to(slide):
    reader, batch = factories.make_user(), factories.make_batch(slide.project, slide.tiles.all())
    other = factories.make_batch(slide.project, factories.make_slide(slide.project).tiles.all())
    theirs, skipped, mine, _ = batch.tasks.all()
    factories.submit_task(theirs, factories.make_user())
    factories.submit_task(other.tasks.first(), reader)
    skip(task=skipped, user=reader, reason="out of focus")
    assert last_done(batch, reader) is None
    factories.submit_task(mine, reader)
    assert last_done(batch, reader) == mine
    assert last_done(batch, reader, [mine.pk]) is None


# Who has it


def test_a_task_is_held_by_whoever_leased_or_submitted_it(slide):
    reader, other = factories.make_user(), factories.make_user("other", first_name="Ann", last_name="Other")
    batch = factories.make_batch(slide.project, slide.tiles.all())
    task = batch.tasks.first()
    assert holder_of(task, besides=reader) is None
    leased = claim_next(batch=batch, reader=other)
    assert leased == task
    assert holder_of(task, besides=reader) == "Ann Other"
    assert holder_of(task, besides=other) is None
    factories.submit_task(task, other)
    assert task.state == TaskState.SUBMITTED
    assert holder_of(task, besides=reader) == "Ann Other"


def test_what_was_only_given_to_somebody_or_was_skipped_is_held_by_nobody(slide):
    reader, other = factories.make_user(), factories.make_user()
    given, skipped, *_ = factories.make_batch(slide.project, slide.tiles.all()).tasks.all()
    given.reader = other
    given.save()
    skip(task=skipped, user=other, reason="out of focus")
    assert holder_of(given, besides=reader) is None
    assert holder_of(skipped, besides=reader) is None


# Examples of a class


def boxes_of(project, number, *counts, code=""):
    """Truth on the first tiles of a new patient's slide: so many boxes of the class on each."""
    slide = factories.make_slide(project, patient=factories.make_patient(project, code))
    for tile, count in zip(slide.tiles.all(), counts, strict=False):
        factories.make_truth(tile, *[(number, 10 + step, 20, 30, 40) for step in range(count)])
    return slide


def patients_of(boxes):
    return [box.annotation.tile.slide.patient.code for box in boxes]


def test_examples_are_spread_over_patients_the_newest_first():
    project = factories.make_project()
    neutrophil = project.taxonomy.classes.get(number=0)
    for code, counts in (("A", (3, 3)), ("B", (1,)), ("C", (2,))):
        boxes_of(project, 0, *counts, code=code)
    found = examples_of(project, neutrophil, 12)
    assert patients_of(found) == ["C", "B", "A", "C", "A", "A", "A", "A", "A"]
    by_patient = {code: [box.pk for box in found if patients_of([box]) == [code]] for code in "ABC"}
    assert all(keys == sorted(keys, reverse=True) for keys in by_patient.values())
    assert [box.pk for box in examples_of(project, neutrophil, 4)] == [box.pk for box in found[:4]]


def test_examples_are_of_this_class_in_current_truth_of_this_project(slide):
    project = slide.project
    neutrophil = project.taxonomy.classes.get(number=0)
    boxes_of(factories.make_project(), 0, 2)
    boxes_of(project, 1, 2)
    tile = slide.tiles.first()
    old = factories.make_truth(tile, (0, 1, 2, 30, 40))
    assert examples_of(project, neutrophil, 12) == list(old.boxes.all())
    task = factories.make_batch(project, [slide.tiles.last()]).tasks.get()
    factories.make_pre_label(task, factories.make_version(project), (0, 1, 2, 30, 40))
    tile.refresh_from_db()
    new = factories.make_truth(tile, (0, 5, 6, 30, 40))
    assert examples_of(project, neutrophil, 12) == list(new.boxes.all())
    assert list(confirmed_boxes(project, neutrophil)) == list(new.boxes.all())


def test_locked_patients_are_counted_and_never_shown(slide):
    project = slide.project
    neutrophil = project.taxonomy.classes.get(number=0)
    locked = boxes_of(project, 0, 2)
    Patient.objects.filter(pk=locked.patient_id).update(locked=True)
    assert examples_of(project, neutrophil, 12) == []
    assert confirmed_boxes(project, neutrophil).count() == 2
