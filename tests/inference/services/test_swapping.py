import threading
from uuid import uuid4

import pytest
from django.db import connection

from annotation.models import BatchState, Event, Task, TaskState
from annotation.services.annotations import import_annotation
from annotation.services.batches import create_batch, open_batch
from annotation.services.projects import NotAllowed
from annotation.services.swaps import swap_tile
from inference.models import Candidate, CandidateState
from inference.selection.pool import Choice
from inference.services.choosing import Chosen
from inference.services.swapping import keep_candidates, swap_out
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def tiles(project):
    return list(factories.make_slide(project).tiles.all())


def make_batch(project, choices, reserve, expected=None):
    """A draft of (tile, strategy) pairs; one of the strategy "audit" is of the random audit."""
    parts = [
        [
            Choice(
                tile.pk, f"{strategy} {tile.pk}", 0, "random" if strategy == "audit" else strategy, strategy == "audit"
            )
            for tile, strategy in part
        ]
        for part in (choices, reserve)
    ]
    chosen = Chosen(*parts, expected or {})
    batch = create_batch(
        project=project,
        name="Round 3",
        choices=[(one.tile_id, one.reason) for one in chosen.choices],
        audits=[one.tile_id for one in chosen.choices if one.audit],
    )
    keep_candidates(batch=batch, chosen=chosen)
    return batch


def task_of(batch, tile):
    return batch.tasks.select_related("batch__project", "tile__slide").get(tile=tile)


def states(batch):
    return dict(batch.candidates.values_list("tile", "state"))


class TestSwapping:
    def test_the_next_best_of_the_same_strategy_takes_the_place(self, project, tiles):
        a, b, c, d, e = tiles[:5]
        batch = make_batch(project, [(a, "rare"), (b, "uncertain")], [(c, "uncertain"), (d, "rare"), (e, "rare")])
        task = task_of(batch, a)
        user = factories.make_user()
        swap_out(task=task, user=user)
        task.refresh_from_db()
        assert (task.tile, task.reason, task.position) == (d, f"rare {d.pk}", 0)
        assert states(batch) == {a.pk: "out", b.pk: "chosen", c.pk: "reserve", d.pk: "chosen", e.pk: "reserve"}
        event = Event.objects.get(verb="swapped out")
        assert (event.user, event.data["tile"], event.data["by"]) == (user, a.pk, d.pk)

    def test_what_was_swapped_out_never_comes_back(self, project, tiles):
        batch = make_batch(project, [(tiles[0], "rare")], [(tiles[1], "rare")])
        seen = [batch.tasks.get().tile_id]
        for _ in range(len(tiles) - 1):
            swap_out(task=batch.tasks.select_related("batch", "tile__slide").get(), user=None)
            seen.append(batch.tasks.get().tile_id)
        assert sorted(seen) == [tile.pk for tile in tiles]
        with pytest.raises(NotAllowed, match="no other tile"):
            swap_out(task=batch.tasks.select_related("batch", "tile__slide").get(), user=None)

    def test_without_reserve_a_random_tile_of_the_pool_comes(self, project, tiles):
        batch = make_batch(project, [(tiles[0], "diverse")], [(tile, "rare") for tile in tiles[1:8]])
        swap_out(task=task_of(batch, tiles[0]), user=None)
        task = batch.tasks.get()
        assert task.tile == tiles[8]
        assert task.reason == f"random; patient {tiles[8].slide.patient.code}"

    def test_before_the_pool_runs_out_the_reserve_of_others_is_taken(self, project, tiles):
        batch = make_batch(project, [(tiles[0], "diverse")], [(tile, "rare") for tile in tiles[1:]])
        swap_out(task=task_of(batch, tiles[0]), user=None)
        assert batch.tasks.get().tile == tiles[1]

    def test_a_place_of_the_audit_is_taken_by_chance(self, project, tiles):
        a, b, c = tiles[:3]
        batch = make_batch(project, [(a, "audit")], [(b, "random"), (c, "audit")])
        swap_out(task=task_of(batch, a), user=None)
        task = batch.tasks.get()
        assert (task.tile, task.audit) == (c, True)

    def test_a_tile_that_has_left_the_pool_is_passed_over(self, project, tiles):
        a, b, c = tiles[:3]
        batch = make_batch(project, [(a, "rare")], [(b, "rare"), (c, "rare")])
        factories.make_truth(b)
        swap_out(task=task_of(batch, a), user=None)
        assert batch.tasks.get().tile == c

    def test_the_expected_boxes_follow(self, project, tiles):
        a, b, c = tiles[:3]
        expected = {a.pk: [1.0, 0.0, 0.0], b.pk: [0.0, 2.0, 0.0], c.pk: [0.0, 0.5, 0.25]}
        batch = make_batch(project, [(a, "rare"), (b, "rare")], [(c, "rare")], expected)
        swap_out(task=task_of(batch, a), user=None)
        batch.refresh_from_db()
        assert batch.expected == {"0": 0.0, "1": 2.5, "2": 0.25}

    def test_who_comes_second_to_a_tile_is_refused(self, project, tiles):
        a, b, c = tiles[:3]
        batch = make_batch(project, [(a, "rare")], [(b, "rare"), (c, "rare")])
        first, second = task_of(batch, a), task_of(batch, a)
        swap_out(task=first, user=None)
        with pytest.raises(NotAllowed, match="already been swapped out"):
            swap_out(task=second, user=None)
        assert batch.tasks.get().tile == b

    def test_a_batch_of_before_there_were_candidates_swaps_by_chance(self, project, tiles):
        batch = create_batch(project=project, name="old", choices=[(tiles[0].pk, "by chance")])
        swap_out(task=task_of(batch, tiles[0]), user=None)
        assert batch.tasks.get().tile in tiles[1:]
        assert states(batch)[tiles[0].pk] == CandidateState.OUT


class TestTheTask:
    @pytest.fixture
    def batch(self, project, tiles):
        return make_batch(project, [(tiles[0], "rare"), (tiles[1], "rare")], [])

    def refused(self, batch, tiles, tile, match):
        with pytest.raises(NotAllowed, match=match):
            swap_tile(task=task_of(batch, tiles[0]), tile_id=tile.pk, reason="by hand", user=None)
        assert set(batch.tasks.values_list("tile", flat=True)) == {tiles[0].pk, tiles[1].pk}

    def test_only_a_batch_that_is_being_prepared_changes(self, batch, tiles):
        open_batch(batch=batch)
        self.refused(batch, tiles, tiles[2], "no longer being prepared")

    def test_a_tile_outside_the_pool_is_refused(self, project, batch, tiles):
        locked = factories.make_slide(project, patient=factories.make_patient(project, locked=True))
        for tile in (tiles[1], locked.tiles.first(), factories.make_tile()):
            self.refused(batch, tiles, tile, "in the pool")

    def test_a_task_that_imported_truth_has_answered_waits_for_its_new_tile_to_be_read(self, batch, tiles):
        import_annotation(tile=tiles[0], source="labels.zip", uuid=uuid4(), boxes=[])
        answered = task_of(batch, tiles[0])
        assert answered.state == TaskState.SUBMITTED
        swap_tile(task=answered, tile_id=tiles[2].pk, reason="by hand", user=None)
        answered.refresh_from_db()
        assert (answered.tile, answered.state) == (tiles[2], TaskState.OPEN)

    def test_every_reading_of_the_tile_changes(self, batch, tiles):
        Task.objects.create(batch=batch, tile=tiles[0], position=0, replica=1)
        swap_tile(task=batch.tasks.filter(tile=tiles[0]).first(), tile_id=tiles[2].pk, reason="by hand", user=None)
        assert list(batch.tasks.filter(tile=tiles[2]).values_list("replica", "reason")) == [
            (0, "by hand"),
            (1, "by hand"),
        ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("same", [True, False])
def test_of_swaps_at_once_each_has_a_defined_end(same):
    """Four at once: to one tile, one of them exchanges it; to four tiles, each gets another one."""
    project = factories.make_project()
    tiles = list(factories.make_slide(project).tiles.all())
    batch = make_batch(project, [(tile, "rare") for tile in tiles[:4]], [(tile, "rare") for tile in tiles[4:]])
    tasks = [task_of(batch, tiles[0 if same else number]) for number in range(4)]
    barrier, outcomes = threading.Barrier(4), []

    def swap(task):
        barrier.wait()
        try:
            swap_out(task=task, user=None)
            outcomes.append("swapped")
        except NotAllowed:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=swap, args=[task]) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == (["refused"] * 3 + ["swapped"] if same else ["swapped"] * 4)
    now = set(batch.tasks.values_list("tile", flat=True))
    assert len(now) == 4
    assert Candidate.objects.filter(batch=batch, state=CandidateState.OUT).count() == (1 if same else 4)
    assert now == set(batch.candidates.filter(state=CandidateState.CHOSEN).values_list("tile", flat=True))
    batch.refresh_from_db()
    assert batch.state == BatchState.DRAFT
