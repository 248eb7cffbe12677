"""Batches, and the handing out of their tasks."""

import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from statistics import median

from django.core.cache import cache
from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from annotation.models import Annotation, AuthorKind, Batch, BatchState, Project, Purpose, Task, TaskState, Tile, User
from annotation.services.events import record

SHORTEST_LEASE = timedelta(minutes=10)
LEASE_MEDIANS = 3
MEDIAN_OVER = 100  # the last so many submissions
CANDIDATES = 16
TRIES = 10


class LockedPatient(ValueError):
    """A tile of the locked test set was about to go where it must not go."""


@transaction.atomic
def create_batch(
    *,
    project: Project,
    name: str,
    choices: Sequence[tuple[int, str]],
    purpose: Purpose = Purpose.TRAINING,
    expected: dict[str, float] | None = None,
    user: User | None = None,
) -> Batch:
    """Make a batch of (tile key, reason) pairs, in the order in which they will be handed out.

    Raises LockedPatient if a training batch would hold a tile of a locked patient, or a test batch one of another.
    """
    tiles = Tile.objects.filter(pk__in=[pk for pk, _ in choices], slide__project=project)
    wrong = tiles.filter(slide__patient__locked=purpose == Purpose.TRAINING)
    if wrong.exists():
        codes = sorted(set(wrong.values_list("slide__patient__code", flat=True)))
        which = "are in" if purpose == Purpose.TRAINING else "are not in"
        raise LockedPatient(f"Patients {', '.join(codes)} {which} the locked test set.")
    batch = Batch.objects.create(project=project, name=name, purpose=purpose, expected=expected or {})
    Task.objects.bulk_create(
        Task(batch=batch, tile_id=pk, position=position, reason=reason[:200])
        for position, (pk, reason) in enumerate(choices)
    )
    record(project=project, user=user, verb="made batch", subject=batch, tiles=len(choices))
    return batch


@transaction.atomic
def open_batch(*, batch: Batch, user: User | None = None) -> None:
    if Batch.objects.filter(pk=batch.pk, state=BatchState.DRAFT).update(state=BatchState.OPEN):
        record(project=batch.project, user=user, verb="opened batch", subject=batch)


@transaction.atomic
def close_batch(*, batch: Batch, user: User | None = None) -> bool:
    """Stop handing out tasks; what is submitted stays, the rest goes back to the pool. False if it was closed."""
    changed = Batch.objects.filter(pk=batch.pk).exclude(state=BatchState.CLOSED).update(state=BatchState.CLOSED)
    if changed:
        record(project=batch.project, user=user, verb="closed batch", subject=batch)
    return bool(changed)


def lease_length(*, project: Project) -> timedelta:
    """3x the median time that the project's last 100 tiles took, at least 10 minutes."""
    key = f"lease-seconds-{project.pk}"
    seconds = cache.get(key)
    if seconds is None:
        walls = list(
            Annotation.objects.filter(author__kind=AuthorKind.PERSON, tile__slide__project=project)
            .order_by("-pk")
            .values_list("wall_seconds", flat=True)[:MEDIAN_OVER]
        )
        seconds = LEASE_MEDIANS * median(walls) if walls else 0.0
        cache.set(key, seconds, 60)
    return max(SHORTEST_LEASE, timedelta(seconds=seconds))


def claim_next(*, batch: Batch, reader: User, held: Collection[int] = (), now: datetime | None = None) -> Task | None:
    """Lease the next task to a reader; None when nothing is left.

    A reader's own running lease comes first, so that a reload goes on where it stopped; `held` names the tasks that
    the reader's browser has already. One conditional UPDATE decides: no rows changed means that somebody else has it.
    """
    now = now or timezone.now()
    if batch.state != BatchState.OPEN:
        return None
    until = now + lease_length(project=batch.project)
    own = batch.tasks.filter(state=TaskState.LEASED, reader=reader).exclude(pk__in=held).order_by("position").first()
    if own is not None and Task.objects.filter(pk=own.pk, state=TaskState.LEASED, reader=reader).update(
        leased_until=until
    ):
        return _whole(own.pk)
    free = (Q(state=TaskState.OPEN) & (Q(reader=None) | Q(reader=reader))) | Q(
        state=TaskState.LEASED, leased_until__lt=now
    )
    for attempt in range(TRIES):
        candidates = list(
            batch.tasks.filter(free).exclude(pk__in=held).order_by("position").values_list("pk", flat=True)[:CANDIDATES]
        )
        if not candidates:
            return None
        # The first try keeps the batch's order; after a collision, spread out.
        pk = candidates[0] if attempt == 0 else random.choice(candidates)
        if Task.objects.filter(free, pk=pk).update(state=TaskState.LEASED, reader=reader, leased_until=until):
            return _whole(pk)
    return None


def _whole(pk: int) -> Task:
    return Task.objects.select_related("tile__slide__patient", "batch__project__taxonomy", "pre_label").get(pk=pk)


def progress_of(batch: Batch) -> tuple[int, int]:
    """How many of the batch's tasks are done (submitted or skipped), and how many there are."""
    is_done = Q(state__in=[TaskState.SUBMITTED, TaskState.SKIPPED])
    counts = batch.tasks.aggregate(done=Count("pk", filter=is_done), total=Count("pk"))
    return counts["done"], counts["total"]
