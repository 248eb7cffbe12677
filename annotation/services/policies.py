"""How the tiles of a batch are read: once, with a reviewer's second look, or by several readers blind to each other.

What becomes a tile's truth follows from it:

- single read: the reading;
- read, then reviewed: the reading, until a reviewer's takes its place;
- independent readers: nothing until all have read the tile. Where they say the same, the first one's reading; else a
  review starts from all that they drew, each box with the share of the readers who agree on it, and decides.

Truth that is imported meanwhile answers whatever is undone of a tile, and needs no review.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5
from zlib import crc32

from django.db.models import QuerySet

from annotation.agreement import Consensus, Floats, Reading, consensus_of, disagreement, maturation_weights
from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    Batch,
    BatchState,
    Box,
    CellClass,
    Policy,
    ReviewBy,
    Task,
    TaskKind,
    TaskState,
    Tile,
    User,
)
from annotation.prepared import PreparedUpdate
from annotation.services.events import record

CONSENSUS = "consensus of readers"  # the author of what a review of independent readings starts from
MOST_READERS = 5
UNDONE = (TaskState.OPEN, TaskState.LEASED)
HASHES = 2**32
TAKE_AS_TRUTH = PreparedUpdate(lambda tile, annotation: (Tile.objects.filter(pk=tile), {"truth": annotation}))


@dataclass(frozen=True)
class ReadingPolicy:
    """What a lead sets for a batch.

    readers: of each tile, where the policy is independent. review_share: of the tiles, where it is reviewed, by chance
    or those where reader and model differ most. blind_share: of the tiles of the random audit, those that are shown
    without pre-labels. Raises ValueError for what is impossible.
    """

    policy: str = Policy.SINGLE
    readers: int = 1
    review_share: float = 1.0
    review_by: str = ReviewBy.CHANCE
    blind_share: float = 0.0

    def __post_init__(self) -> None:
        if self.policy not in Policy.values or self.review_by not in ReviewBy.values:
            raise ValueError(f"There is no policy {self.policy!r} with reviews by {self.review_by!r}.")
        least, most = (2, MOST_READERS) if self.policy == Policy.INDEPENDENT else (1, 1)
        if not least <= self.readers <= most:
            raise ValueError(
                f"With the policy {self.policy}, a tile has {least} to {most} readers, not {self.readers}."
            )
        if not (0 <= self.review_share <= 1 and 0 <= self.blind_share <= 1):
            raise ValueError("Shares lie between 0 and 1.")


def in_words(policy: ReadingPolicy | Batch) -> str:
    """How each tile is read, as a sentence."""
    if policy.policy == Policy.INDEPENDENT:
        return f"Each tile has {policy.readers} readers who do not see each other; a reviewer settles differences."
    if policy.policy == Policy.REVIEWED:
        if policy.review_share == 1:
            return "Each tile is read once, then a reviewer looks it over."
        which = "chosen by chance"
        if policy.review_by == ReviewBy.DISAGREEMENT:
            which = "those on which reader and model differ most"
        return f"Each tile is read once; a reviewer looks over {policy.review_share:.0%} of them, {which}."
    return "Each tile is read once."


class Settled(Exception):
    """The reading can no longer change: a review of its tile has begun, or has decided."""


def check_not_settled(task: Task) -> None:
    """Raise Settled if a review of the task's tile is under way or done, and the task is no review itself."""
    if task.batch.policy == Policy.SINGLE or task.kind == TaskKind.REVIEW:
        return
    if _tasks_on(task, TaskKind.REVIEW).exclude(state=TaskState.OPEN).exists():
        raise Settled(f"{task.tile} is with a reviewer: its reading takes no more changes.")


def settle(*, task: Task, annotation: Annotation | None, user: User | None) -> None:
    """Draw the consequences of a task that has just been submitted with this annotation, or skipped.

    In the caller's transaction.
    """
    if task.batch.policy == Policy.INDEPENDENT and task.kind == TaskKind.READING:
        _settle_independent(task, user)
        return
    if annotation is not None:
        TAKE_AS_TRUTH.run(task.tile_id, annotation.pk)
    if task.batch.policy == Policy.REVIEWED and task.kind == TaskKind.READING:
        _ask_for_reviews(task, annotation)


def unanswered(tiles: Collection[int]) -> "QuerySet[Task]":
    """The tasks on these tiles (keys) that truth from elsewhere answers: those that somebody has done stay theirs."""
    return Task.objects.filter(tile__in=tiles, state__in=UNDONE).exclude(batch__state=BatchState.CLOSED)


def answer(*, tiles: Collection[int]) -> set[int]:
    """Count the undone tasks of tiles that have got truth from elsewhere as answered, in the caller's transaction.

    Returns the keys of their batches, for `settle_answered`.
    """
    tasks = unanswered(tiles)
    batches = set(tasks.values_list("batch", flat=True))
    if batches:
        tasks.update(state=TaskState.SUBMITTED, reader=None, leased_until=None)
    return batches


def settle_answered(*, batches: Collection[int]) -> None:
    """Ask for the reviews that waited for the last reading of these batches (keys), where that was an import's answer.

    As the last act of the caller's transaction: a submission holds its task before it waits for its batch.
    """
    waiting = Batch.objects.filter(pk__in=batches, policy=Policy.REVIEWED, review_by=ReviewBy.DISAGREEMENT)
    for batch in waiting.filter(review_share__lt=1).order_by("pk"):
        _review_most_different(batch)


def settle_rest(*, batch: Batch) -> int:
    """At a batch's end, give every tile that was read, and that nobody decided on, its first reading as truth.

    Returns how many tiles these are. A single reader would have counted too, and no work is lost.
    """
    if batch.policy != Policy.INDEPENDENT:
        return 0
    tasks = batch.tasks.filter(kind=TaskKind.READING, state=TaskState.SUBMITTED, tile__truth=None)
    first: dict[int, Annotation] = {}
    for annotation in Annotation.objects.filter(task__in=tasks).order_by("task__replica", "-revision"):
        first.setdefault(annotation.tile_id, annotation)
    for tile, annotation in first.items():
        Tile.objects.filter(pk=tile, truth=None).update(truth=annotation)
    return len(first)


def newest_of(task: Task) -> Annotation | None:
    """The task's newest annotation; None if it has none, or was put aside."""
    return task.annotations.order_by("-revision").first() if task.state == TaskState.SUBMITTED else None


def readings_of(annotations: Sequence[Annotation]) -> list[Reading]:
    """The boxes of annotations, for annotation.agreement."""
    boxes: dict[int, list[tuple[float, ...]]] = {one.pk: [] for one in annotations}
    rows = Box.objects.filter(annotation__in=boxes).order_by("pk")
    for key, *values in rows.values_list("annotation", "cell_class__number", "x", "y", "width", "height"):
        boxes[key].append(tuple(values))
    return [Reading.of([row[1:] for row in boxes[one.pk]], [row[0] for row in boxes[one.pk]]) for one in annotations]


def maturation_of(classes: Sequence[CellClass]) -> Floats:
    """The taxonomy's weights of confusions: float64 (classes, classes), of annotation.agreement."""
    return maturation_weights([one.lineage for one in classes], [one.maturation for one in classes])


def _tasks_on(task: Task, kind: TaskKind) -> "QuerySet[Task]":
    return Task.objects.filter(batch=task.batch_id, tile=task.tile_id, kind=kind)


def _ask_for_reviews(task: Task, annotation: Annotation | None) -> None:
    """After a reading of a batch that is then reviewed."""
    batch = task.batch
    if batch.review_by == ReviewBy.DISAGREEMENT and batch.review_share < 1:
        _review_most_different(batch)
    elif annotation is not None and _draw(batch, task.tile_id) < batch.review_share:
        _ask_for_review(task, annotation)


def _review_most_different(batch: Batch) -> None:
    """Which of the readings differ most is known when the last one is there; two last ones wait for each other."""
    Batch.objects.select_for_update().get(pk=batch.pk)
    if not batch.tasks.filter(kind=TaskKind.READING, state__in=UNDONE).exists():
        for one, newest in _most_different(batch):
            _ask_for_review(one, newest)


def _ask_for_review(task: Task, annotation: Annotation) -> None:
    """A review that starts from this annotation; one that nobody has begun starts from the newer one now."""
    review, new = _tasks_on(task, TaskKind.REVIEW).get_or_create(
        defaults={
            "batch": task.batch,
            "tile": task.tile,
            "kind": TaskKind.REVIEW,
            "position": task.position,
            "reason": task.reason,
            "audit": task.audit,
            "pre_label": annotation,
        }
    )
    if not new:
        Task.objects.filter(pk=review.pk, state=TaskState.OPEN).update(pre_label=annotation)


def _draw(batch: Batch, tile: int) -> float:
    """A number from 0 to 1 for each tile of a batch, always the same and foreseen by nobody who reads."""
    return crc32(f"review of tile {tile} in batch {batch.pk}".encode()) / HASHES


def _most_different(batch: Batch) -> list[tuple[Task, Annotation]]:
    """The share of the batch's readings that differ most from what their reader started from."""
    done = batch.tasks.filter(kind=TaskKind.READING, state=TaskState.SUBMITTED)
    tasks = list(done.select_related("tile__truth", "batch"))
    newest = {one.task_id: one for one in Annotation.objects.filter(task__in=tasks).order_by("revision")}
    # An import may have answered a task, or have taken the place of a reading: that is decided.
    tasks = [task for task in tasks if task.pk in newest and not _is_from_elsewhere(task.tile.truth, batch)]
    after = readings_of([newest[task.pk] for task in tasks])
    drawn = dict(zip([task.pk for task in tasks], after, strict=True))
    started = [task for task in tasks if task.pre_label is not None]
    before = readings_of([task.pre_label for task in started if task.pre_label is not None])
    weights = maturation_of(list(batch.project.taxonomy.classes.all()))
    apart = {task.pk: disagreement(one, drawn[task.pk], weights) for task, one in zip(started, before, strict=True)}
    tasks.sort(key=lambda task: (-apart.get(task.pk, 0.0), _draw(batch, task.tile_id)))
    return [(task, newest[task.pk]) for task in tasks[: round(batch.review_share * len(tasks))]]


def _settle_independent(task: Task, user: User | None) -> None:
    """Once all readers of the tile are done: truth where they agree, else a review that starts from all they drew."""
    # Of two last readers at once the second waits here, and then sees what the first has written.
    tile = Tile.objects.select_for_update().get(pk=task.tile_id)
    tasks = list(_tasks_on(task, TaskKind.READING).order_by("replica"))
    if any(one.state in UNDONE for one in tasks):
        return
    annotations = [one for one in map(newest_of, tasks) if one is not None]
    if not annotations:
        return
    found = consensus_of(readings_of(annotations))
    agreed = len(annotations) == len(tasks) and found.unanimous
    if not agreed and _is_from_elsewhere(tile.truth, task.batch):
        return
    _tasks_on(task, TaskKind.REVIEW).filter(state=TaskState.OPEN).delete()  # of readings that changed since
    Tile.objects.filter(pk=tile.pk).update(truth=annotations[0] if agreed else None)
    if agreed:
        record(project=task.batch.project, user=user, verb="agreed", subject=tile, readers=len(annotations))
    else:
        _ask_for_review(task, _write_consensus(task, annotations, found))


def _is_from_elsewhere(truth: Annotation | None, batch: Batch) -> bool:
    """Whether a tile's truth was imported or restored since the batch was made: readings that differ do not undo it."""
    return truth is not None and truth.task_id is None and truth.submitted_at >= batch.created_at


def _write_consensus(task: Task, annotations: Sequence[Annotation], found: Consensus) -> Annotation:
    """As an annotation, whose boxes have the readers' support as their score."""
    project = task.batch.project
    author, _ = Author.objects.get_or_create(project=project, kind=AuthorKind.IMPORT, name=CONSENSUS)
    uuid = uuid5(UUID(int=author.pk), " ".join(str(one.uuid) for one in annotations))
    annotation, new = Annotation.objects.get_or_create(uuid=uuid, defaults={"tile": task.tile, "author": author})
    if new:
        keys = project.taxonomy.class_keys
        cells = zip(found.reading.boxes.tolist(), found.reading.classes.tolist(), found.support.tolist(), strict=True)
        Box.objects.bulk_create(
            Box(annotation=annotation, cell_class_id=keys[number], x=x, y=y, width=width, height=height, score=support)
            for (x, y, width, height), number, support in cells
        )
    return annotation
