"""The tiles that a selection put up for a batch: kept with it, so that single ones can be exchanged without a model."""

import random
from collections.abc import Iterator

from django.db import transaction

from annotation.models import Batch, Task, User
from annotation.selectors import pool_of
from annotation.services.projects import NotAllowed
from annotation.services.swaps import swap_tile
from inference.models import Candidate, CandidateState, TileScore
from inference.services.choosing import Chosen, summed


@transaction.atomic
def keep_candidates(*, batch: Batch, chosen: Chosen) -> None:
    """Store what was chosen for the batch, and what is in reserve."""
    parts = {CandidateState.CHOSEN: chosen.choices, CandidateState.RESERVE: chosen.reserve}
    Candidate.objects.bulk_create(
        Candidate(
            batch=batch,
            tile_id=choice.tile_id,
            state=state,
            place=place,
            strategy=choice.strategy,
            audit=choice.audit,
            reason=choice.reason[:200],
            expected=chosen.expected.get(choice.tile_id, []),
        )
        for state, choices in parts.items()
        for place, choice in enumerate(choices)
    )


@transaction.atomic
def swap_out(*, task: Task, user: User | None) -> Candidate:
    """Exchange the task's tile for the next best one of the strategy that chose it; returns that candidate.

    Where the strategy has none left, a random tile of the pool takes the place. The tile that goes never comes back
    into this batch, and the batch's expected boxes follow. Two at once: the batch's row lets one after the other, and
    who comes second to the same tile is refused. Raises NotAllowed (see `swap_tile`), or if the pool has no other tile.
    """
    batch = Batch.objects.select_for_update().select_related("project").get(pk=task.batch_id)
    old = Candidate.objects.filter(batch=batch, tile=task.tile_id).first()
    if old is None:  # the batch was made before there were candidates
        old = Candidate(batch=batch, tile=task.tile, place=task.position, strategy="random", reason=task.reason)
    if old.state not in ("", CandidateState.CHOSEN):
        raise NotAllowed(f"{task.tile} has already been swapped out.")
    new = next(_next_best(batch, old), None)
    if new is None:
        raise NotAllowed("There is no other tile in the pool.")
    swap_tile(task=task, tile_id=new.tile_id, reason=new.reason, user=user)
    new.state, new.place = CandidateState.CHOSEN, old.place
    old.state = CandidateState.OUT
    new.save()
    old.save()
    chosen = batch.candidates.filter(state=CandidateState.CHOSEN).exclude(expected=[])
    batch.expected = summed(list(chosen.values_list("expected", flat=True)))
    batch.save(update_fields=["expected"])
    return new


def _next_best(batch: Batch, old: Candidate) -> Iterator[Candidate]:
    """What may take the place of a candidate: what is in reserve for it and in the pool still, then one by chance."""
    pool = pool_of(batch.project)
    reserve = batch.candidates.filter(state=CandidateState.RESERVE, strategy=old.strategy, audit=old.audit)
    yield from reserve.filter(tile__in=pool)[:1]
    others = pool.exclude(pk__in=batch.candidates.values("tile"))
    count = others.count()
    if count:
        tile = others.select_related("slide__patient").order_by("pk")[random.randrange(count)]
        score = TileScore.objects.filter(tile=tile, model_version__is_current=True).first() if old.expected else None
        yield Candidate(
            batch=batch,
            tile=tile,
            strategy="random",
            audit=old.audit,
            reason=f"{'random audit' if old.audit else 'random'}; patient {tile.slide.patient.code}",
            expected=score.expected if score else [],
        )
    yield from batch.candidates.filter(state=CandidateState.RESERVE, tile__in=pool)[:1]
