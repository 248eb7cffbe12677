"""Batches, and the handing out of their tasks."""

import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.core.cache import cache
from django.db import IntegrityError, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from annotation.models import (
    Annotation,
    AuthorKind,
    Batch,
    BatchState,
    Policy,
    Project,
    Purpose,
    Role,
    Slide,
    Task,
    TaskKind,
    TaskState,
    Tile,
    User,
)
from annotation.prepared import Prepared, PreparedUpdate
from annotation.services.events import record
from annotation.services.notices import tell_batch_ready
from annotation.services.policies import ReadingPolicy, settle, settle_rest
from annotation.services.projects import NotAllowed

SHORTEST_LEASE = timedelta(minutes=10)
LEASE_MEDIANS = 3
MEDIAN_OVER = 100  # the last so many submissions
CANDIDATES = 16
TRIES = 10
TOTAL_SECONDS = 60
DONE = (TaskState.SUBMITTED, TaskState.SKIPPED)
ROLE_FOR = {TaskKind.READING: Role.ANNOTATOR, TaskKind.REVIEW: Role.REVIEWER}


class LockedPatient(ValueError):
    """A tile of the locked test set was about to go where it must not go."""


@transaction.atomic
def create_batch(
    *,
    project: Project,
    name: str,
    choices: Sequence[tuple[int, str]],
    audits: Collection[int] = (),
    policy: ReadingPolicy | None = None,
    purpose: Purpose = Purpose.TRAINING,
    expected: dict[str, float] | None = None,
    user: User | None = None,
) -> Batch:
    """Make a batch of (tile key, reason) pairs, in the order in which they will be handed out.

    audits: the keys of the tiles that were chosen at random to see what the selection does not expect; of these the
    policy's blind share, at random too, is shown without pre-labels. policy: how the tiles are read; a single read if
    not given.

    Raises LockedPatient if a training batch would hold a tile of a locked patient, or a test batch one of another.
    """
    tiles = Tile.objects.filter(pk__in=[pk for pk, _ in choices], slide__project=project)
    wrong = tiles.filter(slide__patient__locked=purpose == Purpose.TRAINING)
    if wrong.exists():
        codes = sorted(set(wrong.values_list("slide__patient__code", flat=True)))
        which = "are in" if purpose == Purpose.TRAINING else "are not in"
        raise LockedPatient(f"Patients {', '.join(codes)} {which} the locked test set.")
    policy = policy or ReadingPolicy()
    batch = Batch.objects.create(
        project=project,
        name=name,
        purpose=purpose,
        expected=expected or {},
        policy=policy.policy,
        readers=policy.readers,
        review_share=policy.review_share,
        review_by=policy.review_by,
    )
    drawn = sorted({pk for pk, _ in choices}.intersection(audits))
    blind = set(random.Random(batch.pk).sample(drawn, round(policy.blind_share * len(drawn))))
    audited = set(drawn)
    Task.objects.bulk_create(
        Task(
            batch=batch,
            tile_id=pk,
            replica=replica,
            position=position,
            reason=reason[:200],
            audit=pk in audited,
            blind=pk in blind,
        )
        for replica in range(policy.readers)
        for position, (pk, reason) in enumerate(choices)
    )
    record(project=project, user=user, verb="made batch", subject=batch, tiles=len(choices))
    return batch


@transaction.atomic
def open_batch(*, batch: Batch, user: User | None = None) -> None:
    if Batch.objects.filter(pk=batch.pk, state=BatchState.DRAFT).update(state=BatchState.OPEN):
        record(project=batch.project, user=user, verb="opened batch", subject=batch)
        tell_batch_ready(batch)


@transaction.atomic
def close_batch(*, batch: Batch, user: User | None = None) -> bool:
    """Stop handing out tasks; what is submitted stays, the rest goes back to the pool. False if it was closed."""
    changed = Batch.objects.filter(pk=batch.pk).exclude(state=BatchState.CLOSED).update(state=BatchState.CLOSED)
    if changed:
        unsettled = settle_rest(batch=batch)
        facts = {"first_readings_taken": unsettled} if unsettled else {}
        record(project=batch.project, user=user, verb="closed batch", subject=batch, **facts)
    return bool(changed)


@transaction.atomic
def stop_batch(*, batch: Batch, user: User | None) -> None:
    """Close a batch that is handed out, by itself. Raises NotAllowed in any other state.

    A draft goes on with its round, or is given up with it: closed alone, it would leave the round without an end.
    """
    here = Batch.objects.select_for_update().get(pk=batch.pk)
    if here.state == BatchState.DRAFT:
        raise NotAllowed(f"{batch} has not been opened yet: to give it up, cancel its round.")
    if not close_batch(batch=batch, user=user):
        raise NotAllowed(f"{batch} is closed already.")


@transaction.atomic
def put_aside(*, batch: Batch, slide: Slide, reason: str) -> int:
    """Skip the readings of a slide's tiles that nobody has begun; returns how many these are."""
    waiting = batch.tasks.filter(kind=TaskKind.READING, state=TaskState.OPEN, revision=0, drafts=None)
    changes = {"state": TaskState.SKIPPED, "reader": None, "skip_reason": reason[:200]}
    aside = 0
    for task in waiting.filter(tile__slide=slide).select_related("batch__project", "tile"):
        if Task.objects.filter(pk=task.pk, state=TaskState.OPEN, revision=0).update(**changes):
            task.state = TaskState.SKIPPED
            settle(task=task, annotation=None, user=None)
            aside += 1
    record(project=batch.project, user=None, verb="put aside", subject=batch, tasks=aside, reason=reason)
    return aside


def hold_pool(*, project: Project) -> None:
    """Let nobody else take tiles from the project's pool until the caller's transaction ends."""
    # Not the key: what names the project, as each submission's event does, can be written meanwhile.
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


@transaction.atomic
def reopen_batch(*, batch: Batch, user: User | None) -> int:
    """Hand out a closed batch's unread tasks again; returns how many of them are left.

    A tile that was read elsewhere since, whose truth has been imported, or that lies in another open batch, is put
    aside here. Raises NotAllowed if the batch is not closed.
    """
    hold_pool(project=batch.project)
    if not Batch.objects.filter(pk=batch.pk, state=BatchState.CLOSED).update(state=BatchState.OPEN):
        raise NotAllowed(f"{batch} is not closed.")
    unread = batch.tasks.filter(state__in=[TaskState.OPEN, TaskState.LEASED])
    elsewhere = (
        Task.objects.filter(tile=OuterRef("tile"))
        .exclude(batch=batch)
        .exclude(batch__state=BatchState.CLOSED, state__in=[TaskState.OPEN, TaskState.LEASED])
    )
    imported = Q(kind=TaskKind.READING, tile__truth__author__kind=AuthorKind.IMPORT)
    taken = unread.filter(Exists(elsewhere) | imported)
    Task.objects.filter(pk__in=list(taken.values_list("pk", flat=True))).update(
        state=TaskState.SKIPPED, reader=None, leased_until=None, skip_reason="read, imported or handed out elsewhere"
    )
    unread.update(state=TaskState.OPEN, leased_until=None)
    left = unread.count()
    record(project=batch.project, user=user, verb="reopened batch", subject=batch, tasks=left)
    return left


@transaction.atomic
def assign_tasks(
    *, batch: Batch, reader: User | None, user: User | None, tasks: Collection[int] | None = None, patient: str = ""
) -> int:
    """Keep open tasks for one reader, or give them to everybody again (None); returns how many these are.

    tasks: their keys; all open ones if not given. patient: only tasks on tiles of this patient. A reader gets one task
    of a tile at most, and none of a tile that they have read. A review goes to reviewers only; what somebody has begun
    stays with them. Raises NotAllowed if the reader is no member.
    """
    open_tasks = batch.tasks.filter(state=TaskState.OPEN).order_by("kind", "replica", "position")
    if tasks is not None:
        open_tasks = open_tasks.filter(pk__in=tasks)
    if patient:
        open_tasks = open_tasks.filter(tile__slide__patient__code=patient)
    if reader is not None:
        member = batch.project.memberships.filter(user=reader).first()
        if member is None:
            raise NotAllowed(f"{reader} is not a member of {batch.project}.")
        if not Role(member.role).covers(Role.REVIEWER):
            open_tasks = open_tasks.filter(kind=TaskKind.READING)
        open_tasks = open_tasks.exclude(tile__in=batch.tasks.filter(reader=reader).values("tile"))
    chosen: dict[int, int] = {}
    for key, tile in open_tasks.values_list("pk", "tile"):
        chosen.setdefault(key if reader is None else tile, key)
    changed = Task.objects.filter(pk__in=chosen.values(), state=TaskState.OPEN).update(reader=reader)
    whom = reader.get_username() if reader else "everybody"
    record(project=batch.project, user=user, verb="assigned", subject=batch, reader=whom, tasks=changed)
    return changed


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


def claimable(*, batch: Batch, reader: User, kind: TaskKind = TaskKind.READING, now: datetime | None = None) -> Q:
    """What `reader` may be handed: open and not kept for somebody else, or with a lease that ran out."""
    left = Q(state=TaskState.LEASED, leased_until__lt=now or timezone.now())
    free = _untouched(reader.pk) | left
    if batch.policy == Policy.SINGLE:  # one task a tile
        return free
    return free & Q(kind=kind) & _unread(batch.pk, reader.pk)


def _untouched(reader: int) -> Q:
    return Q(state=TaskState.OPEN) & (Q(reader=None) | Q(reader=reader))


def _unread(batch: int, reader: int) -> Q:
    """Tasks on tiles of which the reader has no other one."""
    return Q(~Exists(Task.objects.filter(batch=batch, tile=OuterRef("tile"), reader=reader).exclude(pk=OuterRef("pk"))))


def _begun_or_kept(kind: TaskKind) -> Prepared:
    # "leased" sorts before "open".
    states = [TaskState.LEASED, TaskState.OPEN]
    return Prepared(
        lambda batch, reader: (
            Task.objects.filter(batch=batch, kind=kind, reader=reader, state__in=states)
            .order_by("state", "position")
            .values_list("pk", "state")
        )
    )


def _waiting(kind: TaskKind, *, alone: bool) -> Prepared:
    """The first tasks of a batch that nobody has begun; `alone`: where every tile has one task."""

    def build(batch: int, reader: int) -> "QuerySet[Task, tuple[int]]":
        tasks = Task.objects.filter(_untouched(reader), batch=batch, kind=kind)
        tasks = tasks if alone else tasks.filter(_unread(batch, reader))
        return tasks.order_by("position").values_list("pk")[:CANDIDATES]

    return Prepared(build)


def _done(kind: TaskKind) -> Prepared:
    return Prepared(
        lambda batch: (
            Task.objects.filter(batch=batch, kind=kind, state__in=DONE)
            .order_by()
            .values("batch")
            .annotate(done=Count("pk"))
            .values_list("done")
        )
    )


def _lease_untouched(task: int, reader: int, until: datetime) -> "tuple[QuerySet[Task], dict[str, Any]]":
    changes = {"state": TaskState.LEASED, "reader": reader, "leased_until": until}
    return Task.objects.filter(_untouched(reader), pk=task), changes


LEASE_UNTOUCHED = PreparedUpdate(_lease_untouched)
LEASED = Prepared(lambda task: Task.objects.select_related("tile__slide__patient").filter(pk=task))
BEGUN_OR_KEPT = {kind: _begun_or_kept(kind) for kind in TaskKind}
WAITING = {(kind, alone): _waiting(kind, alone=alone) for kind in TaskKind for alone in (True, False)}
DONE_COUNT = {kind: _done(kind) for kind in TaskKind}


def claim_next(
    *,
    batch: Batch,
    reader: User,
    kind: TaskKind = TaskKind.READING,
    held: Collection[int] = (),
    now: datetime | None = None,
) -> Task | None:
    """Lease the next task of a kind to a reader; None when nothing is left for them.

    A reader's own running lease comes first, so that a reload goes on where it stopped, then what is kept for them;
    `held` names the tasks that the reader's browser has already. One conditional UPDATE decides: no rows changed means
    that somebody else has it.
    """
    now = now or timezone.now()
    if batch.state != BatchState.OPEN:
        return None
    until = now + lease_length(project=batch.project)
    known = set(held)
    for pk, state in BEGUN_OR_KEPT[kind].rows(batch.pk, reader.pk):
        if pk not in known:
            if _lease(pk, Q(state=state, reader=reader), reader, until, batch):
                return _whole(pk, batch)
            break
    free = claimable(batch=batch, reader=reader, kind=kind, now=now)
    waiting = batch.tasks.filter(free, kind=kind).exclude(pk__in=held).order_by("position").values_list("pk", flat=True)
    first = WAITING[kind, batch.policy == Policy.SINGLE]
    for attempt in range(TRIES):
        candidates = [pk for (pk,) in first.rows(batch.pk, reader.pk) if pk not in known]
        if candidates and attempt == 0 and batch.policy == Policy.SINGLE:  # what nearly everybody gets
            if LEASE_UNTOUCHED.run(candidates[0], reader.pk, until):
                return _whole(candidates[0], batch)
            continue
        # One state after the other, so that the index gives them in their order. What was left comes back last.
        for state in (TaskState.OPEN, TaskState.LEASED):
            candidates = candidates or list(waiting.filter(state=state)[:CANDIDATES])
        if not candidates:
            return None
        # The first try keeps the batch's order; after a collision, spread out.
        pk = candidates[0] if attempt == 0 else random.choice(candidates)
        if _lease(pk, free, reader, until, batch):
            return _whole(pk, batch)
    return None


def _lease(pk: int, free: Q, reader: User, until: datetime, batch: Batch) -> bool:
    leasing = Task.objects.filter(free, pk=pk)
    changes = {"state": TaskState.LEASED, "reader": reader, "leased_until": until}
    if batch.policy == Policy.SINGLE:
        return bool(leasing.update(**changes))
    try:
        with transaction.atomic():
            return bool(leasing.update(**changes))
    except IntegrityError:  # in another window the reader was handed the same tile at the same moment
        return False


def _whole(pk: int, batch: Batch) -> Task:
    task: Task = LEASED.get(pk)
    task.batch = batch  # known already
    return task


def progress_of(batch: Batch, kind: TaskKind = TaskKind.READING) -> tuple[int, int]:
    """How many of the batch's tasks of a kind are done (submitted or skipped), and how many there are."""
    (done,) = DONE_COUNT[kind].first(batch.pk) or (0,)
    if kind == TaskKind.READING and batch.state == BatchState.OPEN:
        # The readings of a batch that is handed out are as many as they were, and every submission asks.
        key = f"readings-of-batch-{batch.pk}"
        return done, cache.get_or_set(key, lambda: _count_of(batch, kind), TOTAL_SECONDS) or 0
    return done, _count_of(batch, kind)


def _count_of(batch: Batch, kind: TaskKind) -> int:
    return batch.tasks.filter(kind=kind).count()


def has_work_for(batch: Batch, reader: User, kind: TaskKind = TaskKind.READING) -> bool:
    """Whether the open batch has a task of the kind that the reader has begun, or may be handed."""
    mine = Q(state=TaskState.LEASED, reader=reader)
    waiting = batch.tasks.filter(mine | claimable(batch=batch, reader=reader, kind=kind), kind=kind)
    return batch.state == BatchState.OPEN and waiting.exists()
