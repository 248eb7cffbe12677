"""Restoring: a new annotation with the old boxes, a defined outcome for two at once, nothing deleted."""

import threading
from uuid import uuid4

import pytest
from django.db import connection

from annotation.models import Annotation, Event, Role, TaskState, Tile
from annotation.selectors import WHOLE_TASK, task_as_json
from annotation.services.annotations import BoxInput, Effort, StaleRevision, submit
from annotation.services.batches import close_batch
from annotation.services.history import TruthChanged, restore
from annotation.services.policies import ReadingPolicy
from annotation.services.projects import NotAllowed
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def reviewer(project):
    return factories.make_member(project, Role.REVIEWER, "rita")


@pytest.fixture
def task(project):
    """Pre-labelled with two boxes, then read twice: first both kept and one added, then all deleted."""
    task = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all()).tasks.get()
    factories.make_pre_label(task, factories.make_version(project), (0, 10, 10, 30, 30), (1, 60, 10, 30, 30))
    return task


@pytest.fixture
def reader(project):
    return factories.make_member(project, name="ann")


def send(task, user, *boxes, revision=None):
    task.refresh_from_db()
    revision = task.revision if revision is None else revision
    return submit(task=task, user=user, uuid=uuid4(), revision=revision, boxes=list(boxes), effort=Effort(9, 9))[0]


@pytest.fixture
def readings(task, reader):
    origins = [BoxInput(box.cell_class.number, box.x, box.y, 30, 30, box.pk) for box in task.pre_label.boxes.all()]
    return send(task, reader, *origins, BoxInput(1, 200, 200, 30, 30)), send(task, reader)


def places(annotation):
    return [(box.cell_class.number, box.x, box.y, box.width, box.height) for box in annotation.boxes.all()]


def truth_of(task):
    return Tile.objects.get(pk=task.tile_id).truth


def shown(task, user):
    return task_as_json(WHOLE_TASK.get(task.pk), user, {}, {})


def test_it_writes_a_new_annotation_with_the_old_boxes(task, readings, reviewer):
    old, truth = readings
    before = Annotation.objects.count()
    made = restore(annotation=old, seen=truth.pk, user=reviewer)
    assert truth_of(task) == made
    assert places(made) == places(old)
    assert (made.author.user, made.supersedes, made.active_seconds) == (reviewer, truth, 0)
    assert Annotation.objects.count() == before + 1
    assert [box.change for box in made.boxes.all()] == ["kept", "kept", "added"]
    assert [box.origin_id for box in made.boxes.all()] == [box.origin_id for box in old.boxes.all()]
    counts = {"kept": 2, "moved": 0, "reclassified": 0, "added": 1, "deleted": 0}
    assert made.effort == counts | {"restored_from": old.pk}


def test_it_is_written_down(task, readings, reviewer):
    old, truth = readings
    made = restore(annotation=old, seen=truth.pk, user=reviewer)
    event = Event.objects.first()
    assert (event.verb, event.user_name, event.subject) == ("restored", "rita", str(task.tile))
    assert event.data == {"annotation": made.pk, "restored": old.pk, "replaced": truth.pk, "boxes": 3}


def test_a_pre_label_that_is_restored_comes_from_itself(task, readings, reviewer):
    made = restore(annotation=task.pre_label, seen=readings[1].pk, user=reviewer)
    pre_labels = list(task.pre_label.boxes.all())
    assert [(box.origin, box.change, box.score) for box in made.boxes.all()] == [
        (pre_labels[0], "kept", None),
        (pre_labels[1], "kept", None),
    ]


def test_what_is_restored_can_be_restored_again(task, readings, reviewer):
    old, truth = readings
    first = restore(annotation=old, seen=truth.pk, user=reviewer)
    back = restore(annotation=truth, seen=first.pk, user=reviewer)
    again = restore(annotation=first, seen=back.pk, user=reviewer)
    assert (places(back), places(again)) == ([], places(old))
    assert [one.supersedes_id for one in (first, back, again)] == [truth.pk, first.pk, back.pk]


# With the editor


def test_the_task_shows_what_was_restored_and_goes_on_from_it(task, readings, reviewer, reader):
    old, truth = readings
    made = restore(annotation=old, seen=truth.pk, user=reviewer)
    page = shown(task, reader)
    assert page["revision"] == 3
    assert [(box["x"], box["origin"]) for box in page["boxes"]] == [(box.x, box.origin_id) for box in old.boxes.all()]
    boxes = [
        BoxInput(box["class"], box["x"], box["y"], box["width"], box["height"], box["origin"]) for box in page["boxes"]
    ]
    newest = send(task, reader, *boxes)
    assert (newest.supersedes, newest.revision) == (made, 4)
    assert truth_of(task) == newest


def test_work_based_on_what_was_there_before_is_answered_with_the_restored_boxes(task, readings, reviewer, reader):
    old, truth = readings
    made = restore(annotation=old, seen=truth.pk, user=reviewer)
    with pytest.raises(StaleRevision) as stale:
        send(task, reader, revision=2)
    assert stale.value.newest == made
    assert truth_of(task) == made


def test_a_task_of_a_closed_batch_keeps_count_too(task, readings, reviewer):
    close_batch(batch=task.batch)
    made = restore(annotation=readings[0], seen=readings[1].pk, user=reviewer)
    task.refresh_from_db()
    assert (task.revision, made.revision, task.state) == (3, 3, TaskState.SUBMITTED)


def test_an_import_over_a_task_is_shown_by_it(task, readings, reader):
    factories.make_truth(Tile.objects.get(pk=task.tile_id), (1, 5, 6, 30, 40))
    assert [(box["x"], box["origin"]) for box in shown(task, reader)["boxes"]] == [(5, None)]


def test_an_import_that_answered_a_task_is_shown_by_it(task, reader):
    factories.make_truth(task.tile, (1, 5, 6, 30, 40))
    assert [box["x"] for box in shown(task, reader)["boxes"]] == [5]
    task.refresh_from_db()
    assert task.state == TaskState.SUBMITTED


def test_a_reading_restored_over_an_import_goes_on_with_its_task(task, readings, reviewer, reader):
    imported = factories.make_truth(Tile.objects.get(pk=task.tile_id), (1, 5, 6, 30, 40))
    made = restore(annotation=readings[0], seen=imported.pk, user=reviewer)
    assert (made.task, made.revision) == (task, 3)
    assert len(shown(task, reader)["boxes"]) == 3


def test_boxes_of_another_pre_label_are_added_ones_for_the_task(task, readings, reviewer, reader):
    """The task was pre-labelled anew; what is restored came from the pre-label before."""
    old, truth = readings
    factories.make_pre_label(task, factories.make_version(task.project), (0, 10, 10, 30, 30))
    made = restore(annotation=old, seen=truth.pk, user=reviewer)
    assert [(box.origin, box.change) for box in made.boxes.all()] == [(None, "added")] * 3
    assert made.effort["deleted"] == 1
    assert send(task, reader, BoxInput(0, 1, 2, 30, 40)).revision == 4


def test_a_tile_without_a_task_has_its_imports_restored(project, reviewer):
    tile = factories.make_tile(project)
    first = factories.make_truth(tile, (0, 1, 2, 30, 40))
    tile.refresh_from_db()
    second = factories.make_truth(tile)
    made = restore(annotation=first, seen=second.pk, user=reviewer)
    assert (made.task, made.revision, places(made)) == (None, None, places(first))


def test_readings_that_are_compared_stay_their_readers_own(project, reviewer):
    """Two blind readers agreed; what a reviewer restores is the truth, and no reading of theirs."""
    policy = ReadingPolicy(policy="independent", readers=2)
    batch = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all(), policy=policy)
    first, second = batch.tasks.order_by("replica")
    ann, bob = factories.make_member(project), factories.make_member(project)
    tile = first.tile
    imported = factories.make_truth(tile, (1, 5, 6, 30, 40))
    batch.tasks.update(state=TaskState.OPEN)
    for task, reader in ((first, ann), (second, bob)):
        factories.submit_task(task, reader, (0, 10, 20, 30, 40))
    agreed = truth_of(first)
    made = restore(annotation=imported, seen=agreed.pk, user=reviewer)
    assert made.task is None
    assert truth_of(first) == made
    assert [box["x"] for box in shown(first, ann)["boxes"]] == [10]
    first.refresh_from_db()
    assert first.revision == 1


# Refusals


def test_the_truth_itself_is_not_restored(readings, reviewer):
    with pytest.raises(NotAllowed, match="already"):
        restore(annotation=readings[1], seen=readings[1].pk, user=reviewer)


def test_a_tile_without_truth_has_nothing_to_restore(task, reviewer):
    with pytest.raises(NotAllowed, match="no truth yet"):
        restore(annotation=task.pre_label, seen=0, user=reviewer)
    assert truth_of(task) is None


def test_a_models_boxes_never_become_the_truth_of_the_locked_test_set(project, reviewer):
    patient = factories.make_patient(project, locked=True)
    tile = factories.make_slide(project, patient=patient, tiles=1).tiles.get()
    imported = factories.make_truth(tile, (0, 1, 2, 30, 40))
    tile.refresh_from_db()
    newest = factories.make_truth(tile)
    drawn = Annotation.objects.create(uuid=uuid4(), tile=tile, author=factories.make_version(project).author)
    with pytest.raises(NotAllowed, match="against itself"):
        restore(annotation=drawn, seen=newest.pk, user=reviewer)
    assert restore(annotation=imported, seen=newest.pk, user=reviewer).boxes.count() == 1


def test_a_truth_that_was_not_looked_at_is_not_replaced(task, readings, reviewer):
    before = Annotation.objects.count()
    with pytest.raises(TruthChanged):
        restore(annotation=readings[0], seen=readings[0].pk, user=reviewer)
    task.refresh_from_db()
    assert (Annotation.objects.count(), task.revision, truth_of(task)) == (before, 2, readings[1])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("with_task", [True, False])
def test_of_two_who_restore_at_once_one_succeeds_and_the_other_is_told(with_task):
    project = factories.make_project()
    tile = factories.make_tile(project)
    people = [factories.make_member(project, Role.REVIEWER) for _ in range(2)]
    if with_task:
        task = factories.make_batch(project, [tile]).tasks.get()
        old = factories.submit_task(task, people[0], (0, 1, 2, 30, 40))
        truth = factories.submit_task(task, people[0])
    else:
        old = factories.make_truth(tile, (0, 1, 2, 30, 40))
        tile.refresh_from_db()
        truth = factories.make_truth(tile)
    start, outcomes = threading.Barrier(2), []

    def go(user):
        start.wait()
        try:
            outcomes.append(restore(annotation=Annotation.objects.get(pk=old.pk), seen=truth.pk, user=user))
        except TruthChanged as error:
            outcomes.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=go, args=[user]) for user in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [one for one in outcomes if isinstance(one, Annotation)]
    assert len(outcomes) == 2
    assert len(made) == 1
    assert Tile.objects.get(pk=tile.pk).truth == made[0]
    assert Annotation.objects.filter(tile=tile).count() == 3
    assert Event.objects.filter(verb="restored").count() == 1
