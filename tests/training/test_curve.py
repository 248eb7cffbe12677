"""What the curve is made of: points, gains between like and like, rare boxes against chance, experts' time."""

import csv
import io
from uuid import uuid4

import pytest

from annotation.models import Role, TaskKind, Tile
from annotation.services.annotations import BoxInput, Effort, submit
from annotation.services.batches import claim_next
from annotation.services.history import restore
from annotation.services.policies import ReadingPolicy
from tests import factories
from training.curve import (
    FEWEST_RANDOM_BOXES,
    FEWEST_RANDOM_TILES,
    class_points,
    curve_points,
    plateau_of,
    rare_yields,
    readers_csv,
    rounds_csv,
    size_of,
    total_of,
    work_of,
)
from training.engine.plateau import Verdict
from training.models import Evaluation, Mode, Part, RoundState, Snapshot, SnapshotTile
from training.selectors import round_rows

pytestmark = pytest.mark.django_db
TODAY, BEFORE = "a" * 64, "b" * 64


@pytest.fixture
def project():
    return factories.make_project()


def done_round(project, number, *measured, mode=Mode.MANUAL, batch=None, snapshot=None):
    """A round that is over, its model measured: (mAP@0.5, truth hash) each."""
    version = factories.make_version(project)
    for map50, truth_hash in measured:
        factories.make_evaluation(version, map50, truth_hash=truth_hash)
    return factories.make_round(
        project,
        number=number,
        state=RoundState.DONE,
        mode=mode,
        model_version=version,
        batch=batch,
        snapshot=snapshot,
    )


def make_snapshot(project, *annotations):
    snapshot = Snapshot.objects.create(
        project=project, taxonomy=project.taxonomy, content_hash=f"{len(annotations)}".zfill(64)
    )
    for annotation in annotations:
        SnapshotTile.objects.create(snapshot=snapshot, tile=annotation.tile, annotation=annotation, part=Part.TRAIN)
    return snapshot


# Like with like


def test_each_round_counts_with_its_evaluation_on_what_the_newest_was_measured_on(project):
    done_round(project, 1, (0.4, TODAY), (0.7, BEFORE))
    done_round(project, 2, (0.6, BEFORE))
    done_round(project, 3, (0.9, BEFORE), (0.5, TODAY))
    rows = round_rows(project)
    assert [(row["map50"], row["alike"]) for row in rows] == [(0.4, True), (0.6, False), (0.5, True)]


def test_a_gain_is_between_evaluations_of_the_same_tiles_and_boxes(project):
    done_round(project, 1, (0.4, TODAY))
    done_round(project, 2, (0.45, TODAY))
    done_round(project, 3, (0.9, BEFORE))
    done_round(project, 4, (0.5, TODAY))
    assert [row["gain"] for row in round_rows(project)] == [None, pytest.approx(0.05), None, None]


def test_a_round_that_nothing_was_measured_of_is_passed_over(project):
    done_round(project, 1, (0.4, TODAY))
    factories.make_round(project, number=2, state=RoundState.CANCELLED)
    done_round(project, 3, (None, TODAY))
    done_round(project, 4, (0.6, TODAY))
    rows = round_rows(project)
    assert [row["gain"] for row in rows] == [None, None, None, pytest.approx(0.2)]
    assert [point.round_number for point in curve_points(rows, 6.0)] == [1, 4]


def test_validation_parts_of_two_trainings_are_not_alike(project):
    first, second = done_round(project, 1), done_round(project, 2)
    factories.make_evaluation(first.model_version, 0.4, part=Part.VALIDATION, truth_hash=BEFORE)
    factories.make_evaluation(second.model_version, 0.5, part=Part.VALIDATION, truth_hash=TODAY)
    assert [row["alike"] for row in round_rows(project)] == [False, True]


def test_a_project_without_rounds_has_no_points(project):
    assert round_rows(project) == []
    assert curve_points([], 6.0) == []
    assert plateau_of([]).verdict == Verdict.TOO_FEW


# Points


def test_a_point_knows_what_its_model_learned_from_and_what_it_cost(project):
    reader = factories.make_member(project)
    tiles = list(factories.make_slide(project).tiles.all())
    batches = [factories.make_batch(project, tiles[:2]), factories.make_batch(project, tiles[2:4])]
    first = [factories.submit_task(task, reader, (0, 1, 2, 30, 40), seconds=1800) for task in batches[0].tasks.all()]
    more = [factories.submit_task(task, reader, seconds=3600) for task in batches[1].tasks.all()]
    done_round(project, 1, (0.4, TODAY), batch=batches[0], snapshot=make_snapshot(project, *first))
    done_round(
        project, 2, (0.5, TODAY), batch=batches[1], snapshot=make_snapshot(project, *first, *more), mode=Mode.ASSISTED
    )
    one, two = curve_points(round_rows(project), hours_per_day=2.0)
    assert (one.tiles, one.boxes, one.expert_hours, one.expert_days, one.assisted) == (2, 2, 1.0, 0.5, False)
    assert (two.tiles, two.boxes, two.expert_hours, two.expert_days, two.assisted) == (4, 2, 3.0, 1.5, True)


def test_the_hours_of_a_cancelled_round_are_spent_too(project):
    batch = factories.make_batch(project)
    factories.submit_task(batch.tasks.first(), factories.make_member(project), seconds=3600)
    factories.make_round(project, number=1, state=RoundState.CANCELLED, batch=batch)
    done_round(project, 2, (0.4, TODAY))
    assert [point.expert_hours for point in curve_points(round_rows(project), 6.0)] == [1.0]


def test_a_snapshot_is_counted_once(project, django_assert_num_queries):
    snapshot = make_snapshot(project, factories.make_truth(factories.make_tile(project), (0, 1, 2, 30, 40)))
    assert size_of(snapshot) == (1, 1)
    with django_assert_num_queries(0):
        assert size_of(snapshot) == (1, 1)
    assert size_of(None) == (None, None)


def test_the_plateau_is_of_the_last_round_and_the_one_two_before(project):
    for number, map50 in enumerate((0.3, 0.5, 0.6, 0.62), start=1):
        done_round(project, number, (map50, TODAY))
    found = plateau_of(round_rows(project))
    assert found.gain == pytest.approx(0.12)
    # The intervals of made metrics reach 0.1 either way: sqrt(2) * 0.1.
    assert found.interval == (pytest.approx(0.12 - 0.1 * 2**0.5), pytest.approx(0.12 + 0.1 * 2**0.5))
    assert not found.paired


def test_resamplings_that_were_kept_are_compared_in_pairs(project):
    for number, map50 in enumerate((0.5, 0.5, 0.56), start=1):
        version = factories.make_version(project)
        metrics = factories.make_metrics(version, map50) | {"map50_resampled": [map50 - 0.2, map50, map50 + 0.2]}
        fields = {"part": Part.TEST, "truth_hash": TODAY, "tiles": 7, "boxes": 31, "patients": 2}
        Evaluation.objects.create(model_version=version, metrics=metrics, **fields)
        factories.make_round(project, number=number, state=RoundState.DONE, model_version=version)
    found = plateau_of(round_rows(project))
    assert found.paired
    assert found.interval == (pytest.approx(0.06), pytest.approx(0.06))
    assert found.verdict == Verdict.RISING


def test_a_test_set_that_changed_leaves_the_plateau_open(project):
    for number, truth_hash in enumerate((BEFORE, TODAY, TODAY), start=1):
        done_round(project, number, (0.5, truth_hash))
    assert plateau_of(round_rows(project)).verdict == Verdict.NOT_ALIKE


def test_each_measured_class_has_a_value_per_round(project):
    done_round(project, 1, (0.4, TODAY))
    done_round(project, 2, (0.5, TODAY))
    found = class_points(list(project.taxonomy.classes.all()), round_rows(project))
    assert [one.code for one, _ in found] == ["NEU", "ERY"]
    assert [[point.value for point in points] for _, points in found] == [[0.4, 0.5]] * 2


# Rare classes

RARE, COMMON = (1, 5, 5, 30, 40), (0, 50, 50, 30, 40)


def rare_batch(project, boxes, reason, *, empty=0):
    """A batch of one tile for each number, with so many rare boxes and twenty common ones; `empty` more tiles."""
    count = len(boxes) + empty
    slide = factories.make_slide(project, tiles=count)
    batch = factories.make_batch(project, slide.tiles.all())
    batch.tasks.update(reason=reason)
    reader = factories.make_member(project)
    for task, rare in zip(batch.tasks.all(), [*boxes, *[0] * empty], strict=True):
        factories.submit_task(task, reader, *[RARE] * rare, *[COMMON] * 20)
    return batch


def test_a_batch_is_compared_with_as_many_random_tiles(project):
    by_chance = rare_batch(project, [1] * FEWEST_RANDOM_BOXES, "random; patient P01", empty=15)
    chosen = rare_batch(project, [2, 3, 0, 1], "expects 2.1 erythroblast; patient P01")
    done_round(project, 1, (0.4, TODAY), batch=by_chance)
    done_round(project, 2, (0.5, TODAY), batch=chosen)
    found = rare_yields(project, round_rows(project))
    assert found.codes == ["ERY"]
    assert (found.chance.tiles, found.chance.boxes, found.chance.rate) == (20, 5, 0.25)
    assert (found.of_round[2].tiles, found.of_round[2].boxes) == (4, 6)
    assert found.of_round[2].by_chance == pytest.approx(1.0)
    assert found.of_round[2].times == pytest.approx(6.0)
    assert found.of_round[1].times == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("boxes", "empty"), [([1] * FEWEST_RANDOM_BOXES, 14), ([1] * (FEWEST_RANDOM_BOXES - 1), 16), ([], 0)]
)
def test_few_random_tiles_or_boxes_say_nothing_of_chance(project, boxes, empty):
    assert len(boxes) + empty < FEWEST_RANDOM_TILES or len(boxes) < FEWEST_RANDOM_BOXES
    if boxes:
        done_round(project, 1, (0.4, TODAY), batch=rare_batch(project, boxes, "random audit; patient P01", empty=empty))
    done_round(project, 2, (0.5, TODAY), batch=rare_batch(project, [1], "expects 1 erythroblast"))
    found = rare_yields(project, round_rows(project))
    assert found.chance.rate is None
    assert (found.of_round[2].boxes, found.of_round[2].by_chance, found.of_round[2].times) == (1, None, None)


def test_skipped_and_unread_tiles_and_what_was_superseded_do_not_count(project):
    batch = rare_batch(project, [3], "expects", empty=1)
    first, _ = batch.tasks.all()
    factories.submit_task(first, factories.make_member(project), RARE, *[COMMON] * 20)
    batch.tasks.filter(pk=batch.tasks.last().pk).update(state="skipped")
    done_round(project, 1, (0.4, TODAY), batch=batch)
    found = rare_yields(project, round_rows(project)).of_round[1]
    assert (found.tiles, found.boxes) == (1, 1)


def test_without_a_rare_class_there_is_nothing_to_compare(project):
    done_round(project, 1, (0.4, TODAY))
    found = rare_yields(project, round_rows(project))
    assert (found.codes, found.of_round) == ([], {})


# Experts' time


@pytest.fixture
def assisted(project):
    """A batch of two tiles, each with three pre-label boxes."""
    batch = factories.make_batch(project, factories.make_slide(project, tiles=2).tiles.all())
    version = factories.make_version(project)
    for task in batch.tasks.all():
        factories.make_pre_label(task, version, (0, 10, 10, 30, 30), (0, 60, 10, 30, 30), (1, 110, 10, 30, 30))
    done_round(project, 1, (0.4, TODAY), batch=batch, mode=Mode.ASSISTED)
    return batch


def send(task, user, *boxes, seconds=60.0):
    task.refresh_from_db()
    effort = Effort(seconds, seconds)
    return submit(task=task, user=user, uuid=uuid4(), revision=task.revision, boxes=list(boxes), effort=effort)[0]


def confirmed(task):
    """One kept, one moved, one deleted, two added."""
    first, second, _ = task.pre_label.boxes.all()
    return [
        BoxInput(0, first.x, first.y, 30, 30, first.pk),
        BoxInput(0, second.x + 3, second.y, 30, 30, second.pk),
        BoxInput(1, 200, 200, 30, 30),
        BoxInput(1, 300, 200, 30, 30),
    ]


def test_a_readers_work_is_counted_by_what_became_of_the_pre_labels(project, assisted):
    reader = factories.make_member(project, name="ann")
    first, second = assisted.tasks.all()
    send(first, reader, *confirmed(first))
    send(second, reader, seconds=20)
    work = work_of(round_rows(project))[1]
    assert list(work) == ["ann"]
    one = work["ann"]
    assert (one.tiles, one.boxes, one.seconds, one.seconds_per_box) == (2, 4, 80.0, 20.0)
    # Of six pre-label boxes: one kept, one moved, none reclassified, one and three deleted.
    assert one.pre_labels == 6
    assert one.shares == [pytest.approx(1 / 6), pytest.approx(1 / 6), 0.0, pytest.approx(4 / 6)]
    assert one.added == 2


def test_of_revisions_the_newest_ones_boxes_count_and_everybodys_time(project, assisted):
    ann, bob = factories.make_member(project, name="ann"), factories.make_member(project, name="bob")
    task = assisted.tasks.first()
    send(task, ann, *confirmed(task), seconds=50)
    send(task, bob, BoxInput(0, 400, 400, 30, 30), seconds=10)
    work = work_of(round_rows(project))[1]
    assert (work["ann"].tiles, work["ann"].boxes, work["ann"].seconds) == (0, 0, 50.0)
    assert work["ann"].seconds_per_box is None
    assert (work["bob"].tiles, work["bob"].boxes, work["bob"].seconds) == (1, 1, 10.0)
    assert (total_of(work).tiles, total_of(work).seconds) == (1, 60.0)


def test_a_manual_round_has_seconds_per_box_and_no_shares(project):
    batch = factories.make_batch(project)
    done_round(project, 1, (0.4, TODAY), batch=batch)
    factories.submit_task(batch.tasks.first(), factories.make_member(project), (0, 1, 2, 30, 40), seconds=9)
    one = total_of(work_of(round_rows(project))[1])
    assert (one.boxes, one.seconds_per_box) == (1, 9.0)
    assert (one.shares, one.added) == ([None] * 4, None)


def test_what_was_restored_is_nobodys_reading(project, assisted):
    ann = factories.make_member(project, name="ann")
    reviewer = factories.make_member(project, Role.REVIEWER, name="bob")
    task = assisted.tasks.first()
    older = send(task, ann, *confirmed(task))
    newer = send(task, ann)
    restore(annotation=older, seen=newer.pk, user=reviewer)
    work = work_of(round_rows(project))[1]
    assert list(work) == ["ann"]
    assert (work["ann"].tiles, work["ann"].boxes, work["ann"].seconds) == (1, 0, 120.0)


@pytest.mark.parametrize("policy", [ReadingPolicy("reviewed"), ReadingPolicy("independent", readers=2)])
def test_a_review_is_time_and_no_further_boxes(project, policy):
    tiles = factories.make_slide(project, tiles=1).tiles.all()
    batch = factories.make_batch(project, tiles, policy=policy)
    factories.make_round(project, batch=batch)
    for name, box in zip(("ann", "ben")[: policy.readers], (0, 300), strict=False):
        reader = factories.make_member(project, name=name)
        factories.submit_task(claim_next(batch=batch, reader=reader), reader, (0, box, 10, 40, 40))
    bob = factories.make_member(project, Role.REVIEWER, name="bob")
    review = claim_next(batch=batch, reader=bob, kind=TaskKind.REVIEW)
    factories.submit_task(review, bob, (0, 10, 10, 40, 40), seconds=5.0)
    work = work_of(round_rows(project))[1]
    assert (work["bob"].tiles, work["bob"].boxes, work["bob"].seconds) == (0, 0, 5.0)
    assert (total_of(work).tiles, total_of(work).boxes) == (policy.readers, policy.readers)
    assert not total_of(work).fates


# Files


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_rounds_table_has_every_figure(project, assisted):
    task = assisted.tasks.first()
    truth = send(task, factories.make_member(project, name="ann"), *confirmed(task), seconds=3600)
    factories.make_round(project, number=2)
    snapshot = make_snapshot(project, truth)
    project.rounds.filter(number=1).update(snapshot=snapshot)
    first, second = table(rounds_csv(project, round_rows(project)))
    wanted = {
        "round": "1",
        "state": "done",
        "mode": "assisted",
        "model": "2",
        "measured_on": "test",
        "alike": "1",
        "test_tiles": "7",
        "test_boxes": "31",
        "test_patients": "2",
        "map50": "0.4",
        "map50_low": "0.3",
        "map50_high": "0.5",
        "gain": "",
        "tiles_in_batch": "2",
        "tiles_done": "1",
        "confirmed_tiles": "1",
        "confirmed_boxes": "4",
        "expert_hours_so_far": "1.0",
        "expert_days_so_far": "0.1667",
        "rare_boxes": "0",
        "rare_boxes_by_chance": "",
        "tiles_read_by_people": "1",
        "boxes_by_people": "4",
        "hours": "1.0",
        "seconds_per_box": "900.0",
        "pre_label_boxes": "3",
        "kept": "1",
        "moved": "1",
        "reclassified": "0",
        "deleted": "1",
        "added": "2",
        "ap50 NEU": "0.4",
        "ap50 ERY": "0.4",
    }
    assert {name: first[name] for name in wanted} == wanted
    assert set(first) == set(wanted)
    assert (second["round"], second["map50"], second["model"], second["kept"]) == ("2", "", "", "")


def test_the_readers_table_has_a_line_per_round_and_reader(project, assisted):
    first, second = assisted.tasks.all()
    send(first, factories.make_member(project, name="ann"), *confirmed(first))
    send(second, factories.make_member(project, name="=bob"), BoxInput(0, 1, 2, 30, 40))
    rows = table(readers_csv(round_rows(project)))
    assert [(row["round"], row["reader"], row["boxes_by_people"]) for row in rows] == [
        ("1", "'=bob", "1"),
        ("1", "ann", "4"),
    ]


def test_tiles_answered_by_an_import_cost_nobody_time(project):
    batch = factories.make_batch(project)
    factories.make_truth(Tile.objects.get(pk=batch.tasks.first().tile_id), (0, 1, 2, 30, 40))
    done_round(project, 1, (0.4, TODAY), batch=batch)
    assert work_of(round_rows(project)) == {}
