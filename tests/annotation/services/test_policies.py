"""Who reads a tile, and what becomes its truth: a single read, a review, several readers blind to each other."""

import threading
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from annotation.models import Annotation, AuthorKind, BatchState, Event, Role, Task, TaskKind, TaskState, Tile
from annotation.services.annotations import (
    BatchClosed,
    BoxInput,
    Effort,
    SecondReading,
    import_annotation,
    skip,
    submit,
)
from annotation.services.batches import (
    assign_tasks,
    claim_next,
    close_batch,
    has_work_for,
    progress_of,
    reopen_batch,
)
from annotation.services.policies import ReadingPolicy
from annotation.services.projects import NotAllowed, remove_member
from tests import factories

pytestmark = pytest.mark.django_db

HERE, NEAR, FAR = (0, 10, 10, 40, 40), (0, 14, 10, 40, 40), (0, 300, 300, 40, 40)
TWO = ReadingPolicy("independent", readers=2)
THREE = ReadingPolicy("independent", readers=3)
REVIEWED = ReadingPolicy("reviewed")
REVIEW = TaskKind.REVIEW


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def readers(project):
    return [factories.make_member(project) for _ in range(3)]


@pytest.fixture
def reviewer(project):
    return factories.make_member(project, Role.REVIEWER)


def make_batch(project, policy, tiles=2, **fields):
    return factories.make_batch(
        project, factories.make_slide(project, tiles=tiles).tiles.all(), policy=policy, **fields
    )


def read(batch, reader, *boxes, kind=TaskKind.READING):
    """The reader's next task of the batch, submitted."""
    return factories.submit_task(claim_next(batch=batch, reader=reader, kind=kind), reader, *boxes)


def truth_of(tile):
    return Tile.objects.get(pk=tile.pk).truth


# What a lead may set


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "none"},
        {"policy": "independent"},
        {"policy": "independent", "readers": 6},
        {"policy": "reviewed", "readers": 2},
        {"review_by": "mood"},
        {"review_share": 1.5},
        {"blind_share": -0.1},
    ],
)
def test_an_impossible_policy_is_refused(wrong):
    with pytest.raises(ValueError):
        ReadingPolicy(**wrong)


def test_a_batch_for_two_readers_has_two_tasks_a_tile(project):
    batch = make_batch(project, TWO)
    assert list(batch.tasks.order_by("pk").values_list("position", "replica")) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert (batch.policy, batch.readers) == ("independent", 2)
    assert progress_of(batch) == (0, 4)


def test_the_database_keeps_the_number_of_readers_and_the_policy_together(project):
    batch = make_batch(project, TWO)
    with pytest.raises(IntegrityError), transaction.atomic():
        type(batch).objects.filter(pk=batch.pk).update(policy="single")


def test_a_share_of_the_audit_is_blind_and_always_the_same_tiles(project):
    tiles = list(factories.make_slide(project, tiles=9).tiles.all())
    audits = [tile.pk for tile in tiles[:4]]
    batch = factories.make_batch(project, tiles, policy=ReadingPolicy(blind_share=0.5), audits=audits)
    assert set(batch.tasks.filter(audit=True).values_list("tile", flat=True)) == set(audits)
    blind = set(batch.tasks.filter(blind=True).values_list("tile", flat=True))
    assert len(blind) == 2
    assert blind < set(audits)


# Independent readers


def test_nobody_gets_a_tile_twice(project, readers):
    batch = make_batch(project, TWO)
    first, second, _ = readers
    got = [claim_next(batch=batch, reader=first, held=batch.tasks.filter(reader=first).values_list("pk", flat=True))]
    got.append(claim_next(batch=batch, reader=first, held=[got[0].pk]))
    assert got[0].tile_id != got[1].tile_id
    assert claim_next(batch=batch, reader=first, held=[one.pk for one in got]) is None
    other = claim_next(batch=batch, reader=second)
    assert (other.tile_id, other.replica) == (got[0].tile_id, 1)


def test_a_third_reader_gets_nothing_of_a_tile_for_two(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    for reader in readers[:2]:
        read(batch, reader, HERE)
    assert claim_next(batch=batch, reader=readers[2]) is None
    assert not has_work_for(batch, readers[2])


def test_a_second_reading_by_the_same_person_is_refused(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    read(batch, readers[0], HERE)
    other = batch.tasks.get(state="open")
    with pytest.raises(SecondReading, match="already"):
        factories.submit_task(other, readers[0], FAR)
    with pytest.raises(SecondReading, match="already"):
        skip(task=other, user=readers[0], reason="thick")
    other.refresh_from_db()
    assert (other.state, other.revision) == ("open", 0)


def test_a_tile_has_no_truth_before_its_last_reader(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    read(batch, readers[0], HERE)
    assert truth_of(batch.tasks.first().tile) is None


def test_where_readers_agree_the_first_reading_is_truth(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    first = read(batch, readers[0], HERE)
    read(batch, readers[1], NEAR)
    assert truth_of(first.tile) == first
    assert not batch.tasks.filter(kind=REVIEW).exists()
    assert Event.objects.filter(verb="agreed").count() == 1


def test_two_readers_who_found_nothing_agree(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    first = read(batch, readers[0])
    read(batch, readers[1])
    assert truth_of(first.tile) == first


def test_where_they_differ_a_review_starts_from_all_they_drew(project, readers, reviewer):
    batch = make_batch(project, THREE, tiles=1)
    read(batch, readers[0], HERE)
    read(batch, readers[1], (1, 14, 10, 40, 40))
    read(batch, readers[2], HERE, FAR)
    review = batch.tasks.get(kind=REVIEW)
    assert truth_of(review.tile) is None
    drawn = [(box.cell_class.number, round(box.x, 2), round(box.score, 2)) for box in review.pre_label.boxes.all()]
    assert drawn == [(0, 11.33, 0.67), (0, 300.0, 0.33)]
    assert (review.pre_label.author.kind, review.pre_label.author.name) == (AuthorKind.IMPORT, "consensus of readers")
    decided = read(batch, reviewer, HERE, kind=REVIEW)
    assert truth_of(review.tile) == decided
    assert decided.supersedes == review.pre_label


def test_a_tile_that_one_reader_put_aside_is_reviewed(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    read(batch, readers[0], HERE)
    skip(task=claim_next(batch=batch, reader=readers[1]), user=readers[1], reason="out of focus")
    assert batch.tasks.filter(kind=REVIEW).count() == 1


def test_a_tile_that_all_put_aside_is_not_reviewed(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    for reader in readers[:2]:
        skip(task=claim_next(batch=batch, reader=reader), user=reader, reason="out of focus")
    assert not batch.tasks.filter(kind=REVIEW).exists()
    assert truth_of(batch.tasks.first().tile) is None


def test_who_read_a_tile_does_not_review_it(project, readers, reviewer):
    batch = make_batch(project, TWO, tiles=1)
    read(batch, readers[0], HERE)
    read(batch, reviewer, FAR)
    review = batch.tasks.get(kind=REVIEW)
    assert claim_next(batch=batch, reader=reviewer, kind=REVIEW) is None
    with pytest.raises(SecondReading):
        factories.submit_task(review, reviewer, HERE)
    assert claim_next(batch=batch, reader=factories.make_member(project, Role.REVIEWER), kind=REVIEW) == review


def test_a_reading_corrected_before_its_review_counts_as_corrected(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    first = read(batch, readers[0], HERE)
    read(batch, readers[1], FAR)
    assert batch.tasks.filter(kind=REVIEW).exists()
    corrected = factories.submit_task(Task.objects.get(pk=first.task_id), readers[0], FAR)
    assert not batch.tasks.filter(kind=REVIEW).exists()
    assert truth_of(first.tile) == corrected


def test_agreement_that_a_correction_ends_is_no_truth_any_more(project, readers):
    batch = make_batch(project, TWO, tiles=1)
    first = read(batch, readers[0], HERE)
    read(batch, readers[1], HERE)
    factories.submit_task(Task.objects.get(pk=first.task_id), readers[0], FAR)
    assert truth_of(first.tile) is None
    assert batch.tasks.filter(kind=REVIEW).count() == 1


def test_a_reading_takes_no_correction_once_its_review_has_begun(project, readers, reviewer):
    batch = make_batch(project, TWO, tiles=1)
    first = read(batch, readers[0], HERE)
    read(batch, readers[1], FAR)
    claim_next(batch=batch, reader=reviewer, kind=REVIEW)
    with pytest.raises(BatchClosed, match="with a reviewer"):
        factories.submit_task(Task.objects.get(pk=first.task_id), readers[0])
    assert Annotation.objects.filter(task=first.task_id).count() == 1


def test_at_the_end_an_undecided_tile_keeps_its_first_reading(project, readers):
    batch = make_batch(project, TWO, tiles=2)
    first = read(batch, readers[0], HERE)
    read(batch, readers[1], FAR)
    alone = read(batch, readers[2], HERE)
    close_batch(batch=batch)
    assert truth_of(first.tile) == first
    assert truth_of(alone.tile) == alone
    assert Event.objects.get(verb="closed batch").data == {"first_readings_taken": 2}


@pytest.mark.parametrize("before", [[HERE], []])
def test_truth_that_is_imported_meanwhile_stays_when_a_reader_who_differs_submits_after_it(project, readers, before):
    batch = make_batch(project, TWO, tiles=1)
    for box in before:
        read(batch, readers[0], box)
    begun = claim_next(batch=batch, reader=readers[1])
    imported = factories.make_truth(begun.tile, FAR)
    late = factories.submit_task(Task.objects.get(pk=begun.pk), readers[1], HERE, FAR)
    assert truth_of(begun.tile) == imported
    assert late.task_id == begun.pk  # a reading of its own, to be compared
    assert not batch.tasks.filter(kind=REVIEW).exists()


def test_truth_from_before_the_batch_is_replaced_by_what_its_readers_agree_on(project, readers):
    tile = factories.make_tile(project)
    factories.make_truth(tile, FAR)
    batch = factories.make_batch(project, [tile], policy=TWO)
    first = read(batch, readers[0], HERE)
    read(batch, readers[1], HERE)
    assert truth_of(tile) == first


@pytest.mark.django_db(transaction=True)
def test_two_last_readers_at_once_settle_the_tile_once():
    project = factories.make_project()
    for _ in range(3):
        batch = make_batch(project, TWO, tiles=1)
        readers = [factories.make_member(project) for _ in range(2)]
        tasks = [claim_next(batch=batch, reader=reader) for reader in readers]
        failures = at_once(
            [
                lambda t=t, r=r, b=b: factories.submit_task(t, r, b)
                for t, r, b in zip(tasks, readers, (HERE, FAR), strict=True)
            ]
        )
        assert failures == []
        assert batch.tasks.filter(kind=REVIEW).count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_reader_with_two_windows_is_handed_no_tile_twice():
    project = factories.make_project()
    batch = make_batch(project, THREE, tiles=4)
    reader, got = factories.make_member(project), []
    held = []

    def claim():
        task = claim_next(batch=batch, reader=reader, held=list(held))
        if task is not None:
            got.append(task.pk)

    assert at_once([claim] * 6) == []
    mine = batch.tasks.filter(reader=reader)
    assert mine.count() == mine.values("tile").distinct().count()


def at_once(acts):
    """Run them at the same moment, each in a thread; what was raised."""
    start, failures = threading.Barrier(len(acts)), []

    def run(act):
        try:
            start.wait()
            act()
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


# Read, then reviewed


def test_a_review_starts_from_the_reading_and_takes_its_place(project, readers, reviewer):
    batch = make_batch(project, REVIEWED, tiles=1)
    assert claim_next(batch=batch, reader=reviewer, kind=REVIEW) is None
    reading = read(batch, readers[0], HERE, FAR)
    assert truth_of(reading.tile) == reading
    task = claim_next(batch=batch, reader=reviewer, kind=REVIEW)
    assert task.pre_label == reading
    origin = reading.boxes.first().pk
    review, _ = submit(
        task=task, user=reviewer, uuid=uuid4(), revision=0, boxes=[BoxInput(*HERE, origin)], effort=Effort(5, 9)
    )
    assert truth_of(reading.tile) == review
    assert review.supersedes == reading
    assert (review.effort["kept"], review.effort["deleted"]) == (1, 1)


def test_an_annotator_is_offered_no_review(project, readers):
    batch = make_batch(project, REVIEWED, tiles=1)
    read(batch, readers[0], HERE)
    assert not has_work_for(batch, readers[1])
    assert claim_next(batch=batch, reader=readers[1]) is None


def test_a_review_that_nobody_has_begun_follows_the_correction(project, readers):
    batch = make_batch(project, REVIEWED, tiles=1)
    reading = read(batch, readers[0], HERE)
    corrected = factories.submit_task(Task.objects.get(pk=reading.task_id), readers[0], FAR)
    assert batch.tasks.get(kind=REVIEW).pre_label == corrected


def test_a_share_by_chance_is_about_so_many(project, readers):
    tiles = [tile for _ in range(12) for tile in factories.make_slide(project, tiles=9).tiles.all()]
    batch = factories.make_batch(project, tiles, policy=ReadingPolicy("reviewed", review_share=0.3))
    for task in batch.tasks.select_related("tile", "batch__project").all():
        factories.submit_task(task, readers[0])
    assert 12 <= batch.tasks.filter(kind=REVIEW).count() <= 60  # 108 tiles, 32 expected


def test_none_is_reviewed_where_the_share_is_none(project, readers):
    batch = make_batch(project, ReadingPolicy("reviewed", review_share=0.0), tiles=1)
    read(batch, readers[0])
    assert not batch.tasks.filter(kind=REVIEW).exists()


def test_the_readings_that_differ_most_from_the_model_are_reviewed_once_all_are_there(project, readers):
    version = factories.make_version(project)
    policy = ReadingPolicy("reviewed", review_share=0.25, review_by="disagreement")
    batch = make_batch(project, policy, tiles=4)
    for task in batch.tasks.all():
        factories.make_pre_label(task, version, HERE, FAR)
    changed = [(HERE, FAR), (HERE,), (HERE, FAR), ((1, *HERE[1:]), FAR)]
    for boxes in changed[:3]:
        read(batch, readers[0], *boxes)
    assert not batch.tasks.filter(kind=REVIEW).exists()
    skip(task=claim_next(batch=batch, reader=readers[1]), user=readers[1], reason="thick")
    review = batch.tasks.get(kind=REVIEW)
    assert review.position == 1


@pytest.mark.parametrize("state", [BatchState.OPEN, BatchState.DRAFT, BatchState.CLOSED])
def test_an_import_answers_what_is_undone_but_in_closed_batches(project, state):
    batch = make_batch(project, ReadingPolicy(), tiles=1, state=state)
    task = batch.tasks.select_related("tile").get()
    factories.make_truth(task.tile, HERE)
    task.refresh_from_db()
    assert task.state == ("open" if state == BatchState.CLOSED else "submitted")


def test_an_import_that_answers_the_last_reading_lets_the_reviews_be_made(project, readers):
    policy = ReadingPolicy("reviewed", review_share=0.5, review_by="disagreement")
    batch = make_batch(project, policy, tiles=4)
    tasks = list(batch.tasks.select_related("tile"))
    for _ in range(3):
        read(batch, readers[0], HERE)
    factories.make_truth(tasks[0].tile, FAR)  # in the place of a reading
    assert not batch.tasks.filter(kind=REVIEW).exists()
    imported = factories.make_truth(tasks[3].tile, FAR)
    reviewed = batch.tasks.get(kind=REVIEW)  # half of the two readings that count
    assert reviewed.tile in (tasks[1].tile, tasks[2].tile)
    assert truth_of(tasks[3].tile) == imported


# Assigning


def test_assigned_tiles_go_to_their_reader_first_and_to_nobody_else(project, readers):
    batch = make_batch(project, ReadingPolicy(), tiles=3)
    last = batch.tasks.last()
    assert assign_tasks(batch=batch, reader=readers[0], user=None, tasks=[last.pk]) == 1
    assert claim_next(batch=batch, reader=readers[0]) == last
    batch.tasks.exclude(pk=last.pk).update(state="submitted")
    assert claim_next(batch=batch, reader=readers[1]) is None


def test_tiles_of_a_patient_are_assigned(project, readers):
    patient = factories.make_patient(project, "P7")
    tiles = [*factories.make_slide(project, tiles=2).tiles.all()]
    tiles += factories.make_slide(project, patient=patient, tiles=3).tiles.all()
    batch = factories.make_batch(project, tiles)
    assert assign_tasks(batch=batch, reader=readers[0], user=None, patient="P7") == 3
    assert set(batch.tasks.filter(reader=readers[0]).values_list("tile__slide__patient__code", flat=True)) == {"P7"}
    assert Event.objects.get(verb="assigned").data == {"reader": readers[0].username, "tasks": 3}


def test_tiles_are_given_back_to_everybody(project, readers):
    batch = make_batch(project, ReadingPolicy(), tiles=2)
    assign_tasks(batch=batch, reader=readers[0], user=None)
    assert claim_next(batch=batch, reader=readers[1]) is None
    assert assign_tasks(batch=batch, reader=None, user=None) == 2
    assert claim_next(batch=batch, reader=readers[1]) is not None


def test_what_somebody_has_begun_stays_with_them(project, readers):
    batch = make_batch(project, ReadingPolicy(), tiles=2)
    begun = claim_next(batch=batch, reader=readers[1])
    assert assign_tasks(batch=batch, reader=readers[0], user=None) == 1
    begun.refresh_from_db()
    assert begun.reader == readers[1]


def test_one_reader_is_assigned_one_task_of_each_tile(project, readers):
    batch = make_batch(project, TWO, tiles=2)
    read(batch, readers[0], HERE)
    assert assign_tasks(batch=batch, reader=readers[0], user=None) == 1
    assert assign_tasks(batch=batch, reader=readers[1], user=None) == 2


def test_no_review_is_assigned_to_an_annotator(project, readers, reviewer):
    batch = make_batch(project, REVIEWED, tiles=1)
    read(batch, readers[0], HERE)
    assert assign_tasks(batch=batch, reader=readers[1], user=None) == 0
    assert assign_tasks(batch=batch, reader=reviewer, user=None) == 1


def test_a_stranger_is_assigned_nothing(project):
    with pytest.raises(NotAllowed, match="not a member"):
        assign_tasks(batch=make_batch(project, TWO), reader=factories.make_user(), user=None)


def test_what_a_removed_member_holds_or_was_assigned_goes_to_the_others(project, readers):
    batch = make_batch(project, TWO, tiles=2)
    claim_next(batch=batch, reader=readers[0])
    assign_tasks(batch=batch, reader=readers[0], user=None)
    remove_member(membership=project.memberships.get(user=readers[0]), user=None)
    assert not batch.tasks.filter(reader=readers[0]).exists()
    for reader in readers[1:]:
        assert len({read(batch, reader).tile_id for _ in range(2)}) == 2


# Reopening


def test_a_stopped_batch_is_reopened(project, readers):
    batch = make_batch(project, ReadingPolicy(), tiles=3)
    read(batch, readers[0], HERE)
    begun = claim_next(batch=batch, reader=readers[0])
    close_batch(batch=batch)
    assert reopen_batch(batch=batch, user=None) == 2
    batch.refresh_from_db()
    assert batch.state == BatchState.OPEN
    assert claim_next(batch=batch, reader=readers[0]) == begun


def test_a_tile_that_another_batch_has_meanwhile_is_put_aside(project, readers):
    batch = make_batch(project, ReadingPolicy(), tiles=2)
    first, second = batch.tasks.all()
    close_batch(batch=batch)
    later = factories.make_batch(project, [first.tile])
    assert reopen_batch(batch=batch, user=None) == 1
    first.refresh_from_db()
    assert (first.state, first.skip_reason) == (TaskState.SKIPPED, "read, imported or handed out elsewhere")
    batch.refresh_from_db()
    assert claim_next(batch=batch, reader=readers[0]) == second
    assert later.tasks.get().state == TaskState.OPEN


def test_a_tile_whose_truth_was_imported_meanwhile_is_put_aside(project, readers):
    batch = make_batch(project, ReadingPolicy(), tiles=2)
    first, second = batch.tasks.all()
    close_batch(batch=batch)
    imported = import_annotation(tile=first.tile, source="labels.zip", uuid=uuid4(), boxes=[])
    assert reopen_batch(batch=batch, user=None) == 1
    assert claim_next(batch=batch, reader=readers[0]) == second
    assert claim_next(batch=batch, reader=readers[1]) is None
    assert Tile.objects.get(pk=first.tile_id).truth == imported


def test_an_open_batch_is_not_reopened(project):
    with pytest.raises(NotAllowed, match="not closed"):
        reopen_batch(batch=make_batch(project, ReadingPolicy()), user=None)
