import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from annotation.models import Draft
from annotation.services.annotations import Effort, save_draft
from annotation.services.batches import claim_next
from tests import factories


def save(task, user, sequence, *, boxes=(), until=None):
    return save_draft(
        task=task, user=user, sequence=sequence, revision=0, boxes=list(boxes), effort=Effort(), lease_until=until
    )


@pytest.mark.django_db
def test_a_newer_state_replaces_an_older():
    task, user = factories.make_task(), factories.make_user()
    assert save(task, user, 1, boxes=[factories.box_json()]) == 1
    assert save(task, user, 2, boxes=[]) == 2
    draft = Draft.objects.get()
    assert (draft.sequence, draft.boxes) == (2, [])


@pytest.mark.django_db
@pytest.mark.parametrize(("late", "answer"), [(1, 2), (2, 3)])
def test_an_older_state_never_replaces_a_newer_and_is_told_so(late, answer):
    task, user = factories.make_task(), factories.make_user()
    save(task, user, 2, boxes=[factories.box_json()])
    assert save(task, user, late, boxes=[]) == answer > late
    assert len(Draft.objects.get().boxes) == 1


@pytest.mark.django_db
def test_the_same_state_sent_twice_is_stored():
    task, user = factories.make_task(), factories.make_user()
    for _ in range(2):
        assert save(task, user, 2, boxes=[factories.box_json()]) == 2


@pytest.mark.django_db
def test_two_readers_have_their_own_drafts():
    task = factories.make_task()
    for _ in range(2):
        save(task, factories.make_user(), 1)
    assert Draft.objects.count() == 2


@pytest.mark.django_db
def test_it_renews_the_readers_lease():
    task = factories.make_task()
    user = factories.make_user()
    task = claim_next(batch=task.batch, reader=user)
    until = timezone.now() + timedelta(hours=3)
    save(task, user, 1, until=until)
    task.refresh_from_db()
    assert task.leased_until == until


@pytest.mark.django_db
def test_it_does_not_renew_somebody_elses_lease():
    reader, other = factories.make_user(), factories.make_user()
    task = claim_next(batch=factories.make_task().batch, reader=reader)
    before = task.leased_until
    save(task, other, 1, until=timezone.now() + timedelta(hours=3))
    task.refresh_from_db()
    assert (task.leased_until, task.reader) == (before, reader)


@pytest.mark.django_db(transaction=True)
def test_states_that_arrive_at_once_leave_the_newest():
    task, user = factories.make_task(), factories.make_user()
    start, failures = threading.Barrier(6), []

    def send(sequence):
        start.wait()
        try:
            save(task, user, sequence, boxes=[sequence])
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=[sequence]) for sequence in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    draft = Draft.objects.get()
    assert (draft.sequence, draft.boxes) == (6, [6])
