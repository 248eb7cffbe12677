"""Handing out tasks."""

import threading
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.db import connection
from django.utils import timezone

from annotation.models import BatchState, Event, Purpose, Task, TaskState, Tile
from annotation.services.annotations import Effort, skip, submit
from annotation.services.batches import (
    SHORTEST_LEASE,
    LockedPatient,
    claim_next,
    close_batch,
    create_batch,
    lease_length,
    open_batch,
    progress_of,
    put_aside,
)
from annotation.services.policies import ReadingPolicy
from tests import factories


@pytest.fixture
def batch(db):
    return factories.make_batch(factories.make_project())


@pytest.fixture
def reader(db):
    return factories.make_user()


def keys(batch):
    return list(batch.tasks.values_list("pk", flat=True))


def test_tasks_are_handed_out_in_the_batchs_order(batch):
    claimed = [claim_next(batch=batch, reader=factories.make_user()).pk for _ in range(3)]
    assert claimed == keys(batch)[:3]


def test_a_lease_has_a_reader_and_an_end(batch, reader):
    now = timezone.now()
    task = claim_next(batch=batch, reader=reader, now=now)
    assert (task.state, task.reader_id) == (TaskState.LEASED, reader.pk)
    assert task.leased_until == now + SHORTEST_LEASE


def test_a_readers_own_lease_comes_first(batch, reader):
    first = claim_next(batch=batch, reader=reader)
    claim_next(batch=batch, reader=factories.make_user())
    assert claim_next(batch=batch, reader=reader) == first


def test_going_on_renews_the_lease(batch, reader):
    now = timezone.now()
    claim_next(batch=batch, reader=reader, now=now)
    again = claim_next(batch=batch, reader=reader, now=now + timedelta(minutes=5))
    assert again.leased_until == now + timedelta(minutes=5) + SHORTEST_LEASE


def test_what_the_browser_holds_is_left_out(batch, reader):
    first = claim_next(batch=batch, reader=reader)
    second = claim_next(batch=batch, reader=reader, held=[first.pk])
    assert [first.pk, second.pk] == keys(batch)[:2]
    assert claim_next(batch=batch, reader=reader, held=keys(batch)) is None


def test_a_running_lease_goes_to_nobody_else(batch, reader):
    first = claim_next(batch=batch, reader=reader)
    assert claim_next(batch=batch, reader=factories.make_user()) != first


def test_a_lease_that_ran_out_comes_back_after_what_nobody_has_begun(batch, reader):
    now = timezone.now()
    first = claim_next(batch=batch, reader=reader, now=now)
    other = factories.make_user()
    later = now + SHORTEST_LEASE + timedelta(seconds=1)
    assert claim_next(batch=batch, reader=other, now=later) != first
    batch.tasks.filter(state=TaskState.OPEN).update(state=TaskState.SUBMITTED)
    again = claim_next(batch=batch, reader=factories.make_user(), now=later)
    assert again == first
    assert claim_next(batch=batch, reader=reader, now=later) is None


def test_a_skipped_or_submitted_task_goes_to_nobody(batch, reader):
    first, second, third = batch.tasks.all()[:3]
    skip(task=first, user=reader, reason="out of focus")
    factories.submit_task(second, reader)
    assert claim_next(batch=batch, reader=reader) == third


def test_a_task_meant_for_one_reader_goes_to_no_other(batch, reader):
    first, second = batch.tasks.all()[:2]
    Task.objects.filter(pk=first.pk).update(reader=reader)
    assert claim_next(batch=batch, reader=factories.make_user()) == second
    assert claim_next(batch=batch, reader=reader) == first


def test_nothing_is_left_when_all_is_done(batch, reader):
    batch.tasks.update(state=TaskState.SUBMITTED)
    assert claim_next(batch=batch, reader=reader) is None


@pytest.mark.parametrize("state", [BatchState.DRAFT, BatchState.CLOSED])
def test_only_an_open_batch_hands_out(state, reader):
    batch = factories.make_batch(factories.make_project(), state=state)
    assert claim_next(batch=batch, reader=reader) is None


@pytest.mark.django_db(transaction=True)
def test_eight_readers_at_once_get_each_task_exactly_once():
    project = factories.make_project()
    tiles = [tile for _ in range(5) for tile in factories.make_slide(project, tiles=8).tiles.all()]
    batch = factories.make_batch(project, tiles)
    readers = [factories.make_member(project) for _ in range(8)]
    start, served, failures = threading.Barrier(8), Counter(), []

    def read(reader):
        held = []
        try:
            start.wait()
            while (task := claim_next(batch=batch, reader=reader, held=held)) is not None:
                held.append(task.pk)
                served[task.pk] += 1
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=read, args=[reader]) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert served == Counter(keys(batch))
    assert len(served) == 40


@pytest.mark.django_db(transaction=True)
def test_two_submissions_at_once_store_one_annotation():
    task = factories.make_task()
    readers = [factories.make_member(task.project) for _ in range(4)]
    start, outcomes = threading.Barrier(4), []

    def send(reader):
        mine = Task.objects.get(pk=task.pk)
        try:
            start.wait()
            factories.submit_task(mine, reader, (0, 1, 2, 30, 40))
            outcomes.append("stored")
        except Exception as error:
            outcomes.append(type(error).__name__)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=[reader]) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["StaleRevision"] * 3 + ["stored"]
    task.refresh_from_db()
    assert (task.revision, task.annotations.count()) == (1, 1)
    assert Tile.objects.get(pk=task.tile_id).truth == task.annotations.get()


@pytest.mark.django_db(transaction=True)
def test_the_same_submission_sent_several_times_at_once_counts_once():
    task = factories.make_task()
    reader, uuid = factories.make_member(task.project), uuid4()
    start, outcomes = threading.Barrier(4), []

    def send():
        mine = Task.objects.select_related("tile", "batch__project", "pre_label").get(pk=task.pk)
        try:
            start.wait()
            annotation, new = submit(task=mine, user=reader, uuid=uuid, revision=0, boxes=[], effort=Effort())
            outcomes.append((annotation.pk, new))
        except Exception as error:
            outcomes.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pk = task.annotations.get().pk
    assert sorted(outcomes, key=str) == [(pk, False)] * 3 + [(pk, True)]


def test_a_lease_lasts_ten_minutes_at_first(batch):
    assert lease_length(project=batch.project) == timedelta(minutes=10)


def test_a_lease_lasts_three_times_the_median(batch, reader):
    for task, seconds in zip(batch.tasks.all()[:3], (100, 400, 5000), strict=True):
        factories.submit_task(task, reader, seconds=seconds)  # wall time is 30 s longer
    cache.clear()
    assert lease_length(project=batch.project) == timedelta(seconds=3 * 430)


def test_quick_readers_still_have_ten_minutes(batch, reader):
    factories.submit_task(batch.tasks.first(), reader, seconds=5)
    cache.clear()
    assert lease_length(project=batch.project) == timedelta(minutes=10)


def test_imports_and_pre_labels_do_not_shorten_a_lease(batch, reader):
    factories.submit_task(batch.tasks.first(), reader, seconds=1000)
    for task in batch.tasks.all()[1:]:
        factories.make_truth(task.tile)
    cache.clear()
    assert lease_length(project=batch.project) == timedelta(seconds=3 * 1030)


def test_a_batch_is_made_in_the_order_of_its_choices(db):
    project = factories.make_project()
    tiles = list(factories.make_slide(project).tiles.all())[::-1]
    batch = create_batch(project=project, name="One", choices=[(tile.pk, f"tile {tile.pk}") for tile in tiles])
    assert [(task.tile, task.reason) for task in batch.tasks.all()] == [(tile, f"tile {tile.pk}") for tile in tiles]
    assert batch.state == BatchState.DRAFT


def test_a_training_batch_never_holds_a_locked_patient(db):
    project = factories.make_project()
    tiles = factories.make_slide(project, patient=factories.make_patient(project, "T7", locked=True)).tiles.all()
    with pytest.raises(LockedPatient, match="T7"):
        factories.make_batch(project, tiles)
    assert not project.batches.exists()


def test_a_test_batch_holds_locked_patients_only(db):
    project = factories.make_project()
    locked = factories.make_slide(project, patient=factories.make_patient(project, locked=True)).tiles.all()
    assert factories.make_batch(project, locked, purpose=Purpose.TEST).tasks.count() == 9
    with pytest.raises(LockedPatient):
        factories.make_batch(project, factories.make_slide(project).tiles.all(), purpose=Purpose.TEST)


def test_what_nobody_has_begun_on_a_slide_is_put_aside(db):
    project = factories.make_project()
    slide, other = factories.make_slide(project, tiles=2), factories.make_slide(project, tiles=1)
    tiles = [*slide.tiles.all(), *other.tiles.all()]
    batch = factories.make_batch(project, tiles, policy=ReadingPolicy("independent", readers=2))
    reader = factories.make_member(project)
    read = claim_next(batch=batch, reader=reader)
    factories.submit_task(read, reader, (0, 10, 20, 30, 40))
    begun = claim_next(batch=batch, reader=reader)
    assert {read.tile.slide, begun.tile.slide} == {slide}
    assert put_aside(batch=batch, slide=slide, reason="its file is gone") == 2
    aside = batch.tasks.filter(state=TaskState.SKIPPED)
    assert {(task.tile.slide, task.skip_reason) for task in aside} == {(slide, "its file is gone")}
    assert batch.tasks.get(kind="review").tile == read.tile  # as if its second reader had skipped it


def test_closing_twice_is_logged_once(batch, reader):
    assert close_batch(batch=batch, user=reader)
    assert not close_batch(batch=batch, user=reader)
    assert Event.objects.filter(verb="closed batch").count() == 1


def test_a_closed_batch_does_not_open_again(batch):
    close_batch(batch=batch)
    open_batch(batch=batch)
    batch.refresh_from_db()
    assert batch.state == BatchState.CLOSED


def test_progress_counts_what_was_submitted_or_skipped(batch, reader):
    first, second = batch.tasks.all()[:2]
    factories.submit_task(first, reader)
    skip(task=second, user=reader, reason="thick")
    claim_next(batch=batch, reader=reader)
    assert progress_of(batch) == (2, 9)
