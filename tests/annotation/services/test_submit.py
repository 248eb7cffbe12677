"""Submitting, skipping and importing annotations."""

from uuid import uuid4

import pytest

from annotation.models import Annotation, BatchState, Box, Draft, Event, Task, TaskState
from annotation.services.annotations import (
    BatchClosed,
    BoxInput,
    Effort,
    InvalidBoxes,
    StaleRevision,
    import_annotation,
    parse_effort,
    pre_label_uuid,
    save_draft,
    skip,
    submit,
)
from annotation.services.batches import close_batch
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def task():
    return factories.make_task()


@pytest.fixture
def reader(task):
    return factories.make_member(task.project)


def send(task, reader, *boxes, revision=None, uuid=None, effort=None):
    return submit(
        task=task,
        user=reader,
        uuid=uuid or uuid4(),
        revision=task.revision if revision is None else revision,
        boxes=list(boxes),
        effort=effort or Effort(12.0, 20.0, keys=3, clicks=1),
    )


def test_it_stores_the_boxes_and_makes_them_the_truth(task, reader):
    annotation, new = send(task, reader, BoxInput(1, 10.5, 20.25, 30, 40))
    task.refresh_from_db()
    task.tile.refresh_from_db()
    assert new
    assert task.tile.truth == annotation
    assert (task.state, task.revision, task.reader, task.leased_until) == (TaskState.SUBMITTED, 1, reader, None)
    box = annotation.boxes.get()
    assert (box.cell_class.name, box.x, box.y, box.width, box.height) == ("erythroblast", 10.5, 20.25, 30, 40)
    assert (box.score, box.change) == (None, "added")
    assert (annotation.active_seconds, annotation.wall_seconds) == (12.0, 20.0)
    assert annotation.effort["keys"] == 3


def test_it_writes_one_line_of_the_log(task, reader):
    annotation, _ = send(task, reader)
    event = Event.objects.get(verb="submitted")
    assert (event.user_name, event.data["annotation"]) == (reader.username, annotation.pk)


def test_the_same_submission_sent_twice_counts_once(task, reader):
    uuid = uuid4()
    first, _ = send(task, reader, BoxInput(0, 1, 2, 30, 40), uuid=uuid, revision=0)
    again, new = send(task, reader, BoxInput(0, 1, 2, 30, 40), uuid=uuid, revision=0)
    task.refresh_from_db()
    assert again == first
    assert not new
    assert (task.revision, Annotation.objects.count(), Box.objects.count()) == (1, 1, 1)


def test_a_number_used_for_another_tile_is_refused(task, reader):
    uuid = uuid4()
    send(task, reader, uuid=uuid)
    with pytest.raises(InvalidBoxes, match="another tile"):
        send(task.batch.tasks.last(), reader, uuid=uuid)


def test_a_number_that_somebody_else_used_is_refused(task, reader):
    uuid = uuid4()
    send(task, reader, uuid=uuid, revision=0)
    with pytest.raises(InvalidBoxes):
        send(task, factories.make_member(task.project), uuid=uuid, revision=0)


def test_a_stale_submission_changes_nothing_and_carries_the_newer_one(task, reader):
    newest, _ = send(task, reader, BoxInput(0, 1, 2, 30, 40), revision=0)
    with pytest.raises(StaleRevision) as stale:
        send(task, factories.make_member(task.project), BoxInput(1, 5, 5, 30, 40), revision=0)
    task.tile.refresh_from_db()
    assert stale.value.newest == newest
    assert task.tile.truth == newest
    assert Annotation.objects.count() == 1


def test_a_revision_that_never_was_is_refused(task, reader):
    with pytest.raises(InvalidBoxes, match="revision"):
        send(task, reader, revision=5)


def test_a_correction_supersedes_and_keeps_what_it_corrects(task, reader):
    first, _ = send(task, reader, BoxInput(0, 1, 2, 30, 40))
    task.refresh_from_db()
    second, _ = send(task, reader, BoxInput(1, 1, 2, 30, 40))
    task.tile.refresh_from_db()
    assert (second.supersedes, second.revision) == (first, 2)
    assert task.tile.truth == second
    assert first.boxes.count() == 1


def test_a_closed_batch_takes_nothing(task, reader):
    close_batch(batch=task.batch)
    task.refresh_from_db()
    with pytest.raises(BatchClosed):
        send(task, reader)
    assert not Annotation.objects.exists()


def test_what_was_counted_before_the_batch_closed_is_still_answered(task, reader):
    uuid = uuid4()
    first, _ = send(task, reader, uuid=uuid)
    close_batch(batch=task.batch)
    task = Task.objects.get(pk=task.pk)
    assert send(task, reader, uuid=uuid, revision=0) == (first, False)


def test_a_tile_without_boxes_is_confirmed_empty(task, reader):
    annotation, _ = send(task, reader)
    task.tile.refresh_from_db()
    assert task.tile.truth == annotation
    assert not annotation.boxes.exists()


def test_it_removes_the_readers_draft_and_nobody_elses(task, reader):
    other = factories.make_member(task.project)
    for user in (reader, other):
        save_draft(task=task, user=user, sequence=1, revision=0, boxes=[], effort=Effort(), lease_until=None)
    send(task, reader)
    assert [draft.user for draft in Draft.objects.all()] == [other]


def test_a_box_to_the_right_of_the_pre_label_is_one_that_moved(task, reader):
    version = factories.make_version(task.project)
    five = [(0, 10.0 + 100 * index, 10.0, 40.0, 40.0) for index in range(5)]
    pre_label = factories.make_pre_label(task, version, *five)
    kept, moved, renamed, resized, _deleted = pre_label.boxes.all()
    annotation, _ = send(
        task,
        reader,
        BoxInput(0, kept.x + 0.005, kept.y, 40, 40, origin=kept.pk),
        BoxInput(0, moved.x + 3, moved.y, 40, 40, origin=moved.pk),
        BoxInput(1, renamed.x + 3, renamed.y, 40, 40, origin=renamed.pk),
        BoxInput(0, resized.x, resized.y, 44, 40, origin=resized.pk),
        BoxInput(1, 300, 300, 40, 40),
    )
    assert [box.change for box in annotation.boxes.all()] == ["kept", "moved", "reclassified", "moved", "added"]
    counts = {name: annotation.effort[name] for name in ("kept", "moved", "reclassified", "added", "deleted")}
    assert counts == {"kept": 1, "moved": 2, "reclassified": 1, "added": 1, "deleted": 1}
    assert annotation.pre_label == pre_label
    assert [box.origin_id for box in annotation.boxes.all()] == [kept.pk, moved.pk, renamed.pk, resized.pk, None]


def test_a_pre_label_that_nobody_confirmed_counts_as_deleted(task, reader):
    factories.make_pre_label(task, factories.make_version(task.project), (0, 1, 2, 30, 40), (1, 50, 2, 30, 40))
    annotation, _ = send(task, reader)
    assert (annotation.effort["deleted"], annotation.effort["kept"]) == (2, 0)


def test_an_origin_on_another_tile_is_refused_and_nothing_is_stored(task, reader):
    version = factories.make_version(task.project)
    elsewhere = factories.make_pre_label(task.batch.tasks.last(), version, (0, 1, 2, 30, 40))
    factories.make_pre_label(task, version, (0, 1, 2, 30, 40))
    with pytest.raises(InvalidBoxes, match="pre-label"):
        send(task, reader, BoxInput(0, 1, 2, 30, 40, origin=elsewhere.boxes.get().pk))
    task.refresh_from_db()
    assert (task.state, task.revision) == (TaskState.OPEN, 0)
    assert not Annotation.objects.filter(task=task).exists()


def test_a_skipped_tile_keeps_its_reason_and_goes_to_nobody(task, reader):
    assert skip(task=task, user=reader, reason="out of focus")
    task.refresh_from_db()
    assert (task.state, task.skip_reason, task.reader) == (TaskState.SKIPPED, "out of focus", reader)


def test_a_submitted_tile_cannot_be_skipped(task, reader):
    send(task, reader)
    assert not skip(task=task, user=reader, reason="out of focus")
    task.refresh_from_db()
    assert task.state == TaskState.SUBMITTED


def test_a_tile_of_a_closed_batch_cannot_be_skipped(task, reader):
    close_batch(batch=task.batch)
    assert not skip(task=task, user=reader, reason="out of focus")


def test_a_skipped_tile_can_still_be_submitted(task, reader):
    skip(task=task, user=reader, reason="out of focus")
    task.refresh_from_db()
    send(task, reader)
    task.refresh_from_db()
    assert (task.state, task.skip_reason) == (TaskState.SUBMITTED, "")


def test_an_imported_truth_answers_the_open_tasks_of_its_tile(task):
    annotation = factories.make_truth(task.tile, (0, 1, 2, 30, 40))
    task.refresh_from_db()
    assert task.state == TaskState.SUBMITTED
    assert (annotation.author.kind, annotation.author.name, annotation.task) == ("import", "made truth", None)


def test_an_import_leaves_a_closed_batch_alone():
    task = factories.make_batch(factories.make_project(), state=BatchState.CLOSED).tasks.first()
    factories.make_truth(task.tile)
    task.refresh_from_db()
    assert task.state == TaskState.OPEN


def test_the_same_import_counts_once():
    tile, uuid = factories.make_tile(), uuid4()
    first = import_annotation(tile=tile, source="a file", uuid=uuid, boxes=[])
    assert import_annotation(tile=tile, source="a file", uuid=uuid, boxes=[]) == first


def test_a_model_version_has_one_number_for_each_tile():
    project = factories.make_project()
    first, second = factories.make_slide(project, tiles=2).tiles.all()
    version, newer = factories.make_version(project), factories.make_version(project)
    numbers = [pre_label_uuid(author=one.author, tile=tile) for one in (version, newer) for tile in (first, second)]
    assert len(set(numbers)) == 4
    assert pre_label_uuid(author=version.author, tile=first) == numbers[0]


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ({"active_seconds": 5, "wall_seconds": 9}, (5, 9)),
        ({"active_seconds": 9, "wall_seconds": 5}, (9, 9)),
        ({"active_seconds": -1, "wall_seconds": float("inf")}, (0, 0)),
        ({"active_seconds": True, "wall_seconds": "12"}, (0, 0)),
        (None, (0, 0)),
        ([1, 2], (0, 0)),
    ],
)
def test_impossible_times_are_no_reason_to_refuse(raw, seconds):
    effort = parse_effort(raw)
    assert (effort.active_seconds, effort.wall_seconds) == seconds
