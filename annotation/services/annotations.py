"""Drafts, submissions and imports of annotations."""

import json
import math
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from uuid import UUID, uuid5

from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, TextChoices
from django.utils import timezone

from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    BatchState,
    Box,
    Change,
    Draft,
    Policy,
    Task,
    TaskKind,
    TaskState,
    Tile,
    User,
)
from annotation.prepared import Prepared, PreparedUpdate, insert_rows
from annotation.services.batches import lease_length
from annotation.services.events import record
from annotation.services.policies import CONSENSUS, Settled, answer, check_not_settled, settle, settle_answered

MAX_BOXES = 2000
MAX_DRAFT_BOXES = 5000
MAX_SEQUENCE = 2**63 - 1
MAX_REVISION = 2**31 - 1
MIN_SIDE = 2.0  # tile px; Pascal VOC cannot say less than 1.01, and no cell is 0.5 um wide
SAME_PLACE = 0.01  # tile px: below this a box has not been moved
MAX_EFFORT = 1e9  # seconds or keys on one tile: more is no measurement
# Authors of the registry's versions; no outside model is taken for one.
OWN_MODEL = re.compile(r"model \d+", re.IGNORECASE)
JSON_NAMES = ("id", "class", "x", "y", "width", "height", "score", "origin", "change")
JSON_FIELDS = ("pk", "cell_class__number", "x", "y", "width", "height", "score", "origin", "change")
READ_FIELDS = (*JSON_FIELDS, "cell_class", "origin__cell_class", "origin__score")
BOXES = Prepared(lambda annotation: Box.objects.filter(annotation=annotation).values_list(*JSON_FIELDS))
READ_BOXES = Prepared(lambda annotation: Box.objects.filter(annotation=annotation).values_list(*READ_FIELDS))
AUTHOR = Prepared(lambda user: Author.objects.filter(user=user).values_list("pk", "name"))
BOX_COLUMNS = ("annotation_id", "cell_class_id", "x", "y", "width", "height", "origin_id", "change")
ORIGINS = Prepared(
    lambda annotation: Box.objects.filter(annotation=annotation).values_list(
        "pk", "cell_class__number", "x", "y", "width", "height"
    )
)
DRAFT = Prepared(lambda task, user: Draft.objects.filter(task=task, user=user).values_list("pk"))
MOVE_ON = PreparedUpdate(
    lambda task, revision, user: (
        Task.objects.filter(pk=task, revision=revision),
        {
            "revision": F("revision") + 1,
            "state": TaskState.SUBMITTED,
            "reader": user,
            "leased_until": None,
            "skip_reason": "",
        },
    )
)
# Boxes drawn to the very edge may stand out of the tile by a rounding error.
EDGE_TOLERANCE = 0.01


@dataclass(frozen=True)
class BoxInput:
    """A box as a client sends it: class number, tile px, and the pre-label box that it came from."""

    class_number: int
    x: float
    y: float
    width: float
    height: float
    origin: int | None = None


@dataclass(frozen=True)
class Effort:
    """What a reading cost. Active seconds leave out gaps of more than 30 s without input."""

    active_seconds: float = 0.0
    wall_seconds: float = 0.0
    keys: int = 0
    clicks: int = 0


class InvalidBoxes(ValueError):
    """Boxes that cannot be stored; `problems` lists (index, reason)."""

    def __init__(self, text: str, problems: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(text)
        self.problems = list(problems)


class StaleRevision(Exception):
    """The task has a newer annotation than the one the work was based on."""

    def __init__(self, newest: Annotation) -> None:
        super().__init__("Somebody has submitted this tile since you opened it.")
        self.newest = newest


class BatchClosed(Exception):
    """The batch, or this reading of it, takes no more annotations."""


class SecondReading(Exception):
    """The reader has another task on the same tile of the same batch: nobody reads a tile twice."""


def parse_boxes_of(raw: object, *, tile: Tile, known: Container[int]) -> list[BoxInput]:
    """Boxes from JSON, checked against the tile and the `known` class numbers.

    Raises InvalidBoxes that lists every box which is not finite, has no area, lies outside the tile or has an unknown
    class.
    """
    if not isinstance(raw, list):
        raise InvalidBoxes("The boxes are not a list.")
    if len(raw) > MAX_BOXES:
        raise InvalidBoxes(f"{len(raw)} boxes on one tile: at most {MAX_BOXES} are taken.")
    boxes, problems = [], []
    for index, item in enumerate(raw):
        try:
            boxes.append(_parse_box(item, known, tile.width, tile.height))
        except (TypeError, ValueError, KeyError) as error:
            problems.append((index, str(error)))
    if problems:
        listed = "; ".join(f"box {index + 1}: {reason}" for index, reason in problems[:5])
        raise InvalidBoxes(f"Not stored. {listed}", problems)
    return boxes


def parse_boxes(raw: object, *, task: Task) -> list[BoxInput]:
    """The same of a task's tile."""
    return parse_boxes_of(raw, tile=task.tile, known=task.batch.project.taxonomy.class_keys)


def _parse_box(item: object, known: Container[int], tile_width: int, tile_height: int) -> BoxInput:
    if not isinstance(item, dict):
        raise ValueError("is not an object")
    missing = [name for name in ("class", "x", "y", "width", "height") if name not in item]
    if missing:
        raise ValueError(f"has no {missing[0]}")
    number, origin = item["class"], item.get("origin")
    if isinstance(number, bool) or not isinstance(number, int) or number not in known:
        raise ValueError(f"class {number!r} is not in the taxonomy")
    if origin is not None and (isinstance(origin, bool) or not isinstance(origin, int)):
        raise ValueError("origin is not a box number")
    sides = [item["x"], item["y"], item["width"], item["height"]]
    if any(isinstance(side, bool) or not isinstance(side, int | float) for side in sides):
        raise ValueError("x, y, width and height must be numbers")
    try:
        x, y, width, height = (float(side) for side in sides)
    except OverflowError:  # JSON's whole numbers know no limit
        x = y = width = height = math.inf
    if not all(math.isfinite(side) for side in (x, y, width, height)):
        raise ValueError("x, y, width and height must be finite")
    if min(width, height) < MIN_SIDE - EDGE_TOLERANCE:
        raise ValueError(f"is {width:g} x {height:g} px: a box is at least {MIN_SIDE:g} px wide and high")
    right, bottom = x + width, y + height
    if (
        x < -EDGE_TOLERANCE
        or y < -EDGE_TOLERANCE
        or right > tile_width + EDGE_TOLERANCE
        or bottom > tile_height + EDGE_TOLERANCE
    ):
        raise ValueError("lies outside the tile")
    x, y = max(x, 0.0), max(y, 0.0)
    return BoxInput(number, x, y, min(right, tile_width) - x, min(bottom, tile_height) - y, origin)


def parse_draft(body: Mapping[str, Any]) -> tuple[int, int, list[dict[str, Any]]]:
    """The sequence, revision and boxes of a draft from JSON. Raises ValueError.

    A draft is stored as it is; only a submission is checked box by box.
    """
    sequence, revision, boxes = (body.get(name) for name in ("sequence", "revision", "boxes"))
    if not (is_count(sequence, MAX_SEQUENCE) and is_count(revision, MAX_REVISION)):
        raise ValueError("A draft needs a sequence and a revision, both whole numbers from 0.")
    if not isinstance(boxes, list) or len(boxes) > MAX_DRAFT_BOXES:
        raise ValueError(f"A draft needs a list of at most {MAX_DRAFT_BOXES} boxes.")
    if not all(isinstance(box, dict) for box in boxes):
        raise ValueError("A draft's boxes must be objects.")
    if not _is_plain(boxes):
        raise ValueError("A draft's numbers must be finite.")
    return sequence, revision, boxes


def is_count(value: object, highest: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest


def _is_plain(boxes: list[Any]) -> bool:
    """Whether JSON can say it: Python reads NaN and Infinity too, and no database stores them."""
    try:
        json.dumps(boxes, allow_nan=False)
    except ValueError:
        return False
    return True


def parse_effort(raw: object) -> Effort:
    """Effort from JSON; what is missing or impossible counts as nothing: time is never a reason to refuse boxes."""
    values = raw if isinstance(raw, dict) else {}

    def number(name: str) -> float:
        value = values.get(name, 0)
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_EFFORT
        return float(value) if good else 0.0

    active = number("active_seconds")
    return Effort(active, max(number("wall_seconds"), active), int(number("keys")), int(number("clicks")))


def keep_draft(*, task: Task, user: User, body: Mapping[str, Any]) -> int:
    """Keep the draft that a client has sent; returns the stored sequence, as `save_draft` does.

    Raises ValueError for what is none, StaleRevision when somebody has submitted since.
    """
    sequence, revision, boxes = parse_draft(body)
    if revision < task.revision:
        raise StaleRevision(task.annotations.latest("revision"))
    return save_draft(
        task=task,
        user=user,
        sequence=sequence,
        revision=revision,
        boxes=boxes,
        effort=parse_effort(body.get("effort")),
        lease_until=timezone.now() + lease_length(project=task.batch.project),
    )


@transaction.atomic
def save_draft(
    *,
    task: Task,
    user: User,
    sequence: int,
    revision: int,
    boxes: list[dict[str, Any]],
    effort: Effort,
    lease_until: Any,
) -> int:
    """Keep the reader's work in progress; an older sequence never replaces a newer one.

    Returns the stored sequence. Whatever is above the one given says that this state was not stored, because another
    window of the reader has saved a later one, or (then it is one above) another one of the same number. Saving also
    renews the reader's lease.
    """
    content = {
        "sequence": sequence,
        "revision": revision,
        "boxes": boxes,
        "effort": vars(effort),
        "saved_at": timezone.now(),
    }
    mine = Draft.objects.filter(task=task, user=user)
    if not mine.filter(sequence__lt=sequence).update(**content):
        try:
            with transaction.atomic():
                Draft.objects.create(task=task, user=user, **content)
        except IntegrityError:  # another state of this reader is there: replace it if it is the older one
            if not mine.filter(sequence__lt=sequence).update(**content):
                stored = mine.get()
                return stored.sequence + (stored.sequence == sequence and stored.boxes != boxes)
    Task.objects.filter(pk=task.pk, reader=user, state=TaskState.LEASED).update(leased_until=lease_until)
    return sequence


def submit(
    *, task: Task, user: User, uuid: UUID, revision: int, boxes: Sequence[BoxInput], effort: Effort
) -> tuple[Annotation, bool]:
    """Store a reader's annotation of a task's tile; returns it and whether it is new. What becomes of the tile's truth
    is in annotation.services.policies.

    The same UUID sent again returns the annotation that it made the first time. Raises StaleRevision when somebody
    has submitted since `revision`, BatchClosed when the batch takes no more or a review of the tile has begun,
    SecondReading when the reader has another task on this tile, InvalidBoxes when an origin is not one of the boxes
    that the task starts from.
    """
    try:
        return _submit(task, user, uuid, revision, boxes, effort), True
    except (BatchClosed, InvalidBoxes, SecondReading, StaleRevision, IntegrityError):
        # Nearly all are sent once: only where one cannot be stored, it may have been stored already.
        known = Annotation.objects.select_related("author").filter(uuid=uuid).first()
        if known is None:
            raise
        if known.task_id != task.pk or known.author.user_id != user.pk:
            raise InvalidBoxes("This submission number was used for another tile.") from None
        return known, False


@transaction.atomic
def _submit(task: Task, user: User, uuid: UUID, revision: int, boxes: Sequence[BoxInput], effort: Effort) -> Annotation:
    if task.batch.state != BatchState.OPEN:
        raise BatchClosed(f"{task.batch} is closed: it takes no more annotations.")
    try:
        check_not_settled(task)
    except Settled as error:
        raise BatchClosed(str(error)) from error
    # The revision is the lock: of two submissions based on the same one, one changes a row here and the other none.
    moved_on = _move_on(task, revision, user)
    # A first submission follows none, and is what nearly all of them are.
    newest = None if moved_on and revision == 0 else task.annotations.order_by("-revision").first()
    if not moved_on:
        if newest is None:
            raise InvalidBoxes("The revision is not one of this task's.")
        raise StaleRevision(newest)
    annotation = _write(
        uuid=uuid,
        tile=task.tile,
        author=author_of(user=user),
        boxes=boxes,
        origins=_origins_of(task),
        numbers=task.batch.project.taxonomy.class_keys,
        task=task,
        revision=revision + 1,
        supersedes=newest or (task.pre_label if task.kind == TaskKind.REVIEW else None),
        pre_label_id=task.pre_label_id,
        active_seconds=effort.active_seconds,
        wall_seconds=effort.wall_seconds,
        effort={"keys": effort.keys, "clicks": effort.clicks},
    )
    task.state, task.revision, task.reader = TaskState.SUBMITTED, revision + 1, user
    settle(task=task, annotation=annotation, user=user)
    if DRAFT.rows(task.pk, user.pk):
        Draft.objects.filter(task=task, user=user).delete()
    record(
        project=task.batch.project,
        user=user,
        verb="submitted",
        subject=task.tile,
        annotation=annotation.pk,
        boxes=len(boxes),
    )
    return annotation


def _origins_of(task: Task) -> dict[int, BoxInput]:
    """The boxes that the task's reader started from, by their keys."""
    if task.pre_label_id is None:
        return {}
    return {key: BoxInput(*values) for key, *values in ORIGINS.rows(task.pre_label_id)}


def _move_on(task: Task, revision: int, user: User) -> bool:
    try:
        with transaction.atomic(savepoint=task.batch.policy != Policy.SINGLE):
            return bool(MOVE_ON.run(task.pk, revision, user.pk))
    except IntegrityError as error:
        raise SecondReading(f"You have read {task.tile} already: another reader does this one.") from error


@transaction.atomic
def skip(*, task: Task, user: User, reason: str) -> bool:
    """Put the tile aside with a reason; False if it has been submitted meanwhile.

    Raises SecondReading when the reader has another task on this tile.
    """
    free = Task.objects.filter(pk=task.pk, state__in=[TaskState.OPEN, TaskState.LEASED], batch__state=BatchState.OPEN)
    try:
        with transaction.atomic(savepoint=task.batch.policy != Policy.SINGLE):
            changed = free.update(state=TaskState.SKIPPED, reader=user, leased_until=None, skip_reason=reason[:200])
    except IntegrityError as error:
        raise SecondReading(f"You have read {task.tile} already: another reader does this one.") from error
    if changed:
        task.state = TaskState.SKIPPED
        settle(task=task, annotation=None, user=user)
        record(project=task.batch.project, user=user, verb="skipped", subject=task.tile, reason=reason[:200])
    return bool(changed)


@transaction.atomic
def import_annotation(
    *, tile: Tile, source: str, uuid: UUID, boxes: Sequence[BoxInput], user: User | None = None
) -> Annotation:
    """Store boxes that came from elsewhere as the tile's truth; an open task of the tile counts as answered."""
    known = Annotation.objects.filter(uuid=uuid).first()
    if known is not None:
        return known
    project = tile.slide.project
    author, _ = Author.objects.get_or_create(project=project, kind=AuthorKind.IMPORT, name=source[:150])
    annotation = _write(
        uuid=uuid,
        tile=tile,
        author=author,
        boxes=boxes,
        origins={},
        numbers=project.taxonomy.class_keys,
        supersedes=tile.truth,
    )
    Tile.objects.filter(pk=tile.pk).update(truth=annotation)
    batches = answer(tiles=[tile.pk])
    record(project=project, user=user, verb="imported truth", subject=tile, annotation=annotation.pk, boxes=len(boxes))
    settle_answered(batches=batches)
    return annotation


class Outside(TextChoices):
    """What boxes from elsewhere are taken for."""

    PRE_LABEL = "pre-label", "what readers start from"
    TRUTH = "truth", "what counts as confirmed"


class UsedUUID(ValueError):
    """The UUID is another annotation's."""


class NotTaken(ValueError):
    """A rule of the project stands against boxes from elsewhere; the text says which."""


@transaction.atomic
def add_from_outside(
    *,
    tile: Tile,
    kind: Outside,
    source: str,
    uuid: UUID,
    boxes: Sequence[BoxInput],
    scores: Sequence[float | None],
    user: User | None,
) -> tuple[Annotation, bool]:
    """Store boxes that a client has, as a tile's pre-label or truth; returns the annotation and whether it is new.

    `source` names the outside model, or where truth comes from; `scores` has one for each box of a pre-label. A
    pre-label is what readers start from in every task of the tile that nobody has begun, the newest one counts; blind
    tasks have none. The same UUID sent again returns what it made the first time. Raises UsedUUID, NotTaken,
    InvalidBoxes when a box names an origin.
    """
    # Two of one UUID at once: the second waits here, and then sees what the first has written.
    Tile.objects.select_for_update().get(pk=tile.pk)
    author_kind = AuthorKind.MODEL if kind == Outside.PRE_LABEL else AuthorKind.IMPORT
    known = Annotation.objects.select_related("author").filter(uuid=uuid).first()
    if known is not None:
        if (known.tile_id, known.author.kind, known.author.name) != (tile.pk, author_kind, source):
            raise UsedUUID("This UUID was used for another annotation.")
        return known, False
    if source == CONSENSUS or OWN_MODEL.fullmatch(source):
        raise NotTaken(f"{source!r} names something of the project itself: give another source.")
    if kind == Outside.TRUTH:
        return import_annotation(tile=tile, source=source, uuid=uuid, boxes=boxes, user=user), True
    if tile.slide.patient.locked:
        raise NotTaken("The tile is in the locked test set: its readers never start from a model's boxes.")
    if any(box.origin is not None for box in boxes):
        raise InvalidBoxes("A pre-label's boxes come from no other boxes: give no origin.")
    return _pre_label(tile, source, uuid, boxes, scores, user), True


def _pre_label(
    tile: Tile,
    source: str,
    uuid: UUID,
    boxes: Sequence[BoxInput],
    scores: Sequence[float | None],
    user: User | None,
) -> Annotation:
    project = tile.slide.project
    author, _ = Author.objects.get_or_create(project=project, kind=AuthorKind.MODEL, name=source)
    annotation = Annotation.objects.create(uuid=uuid, tile=tile, author=author)
    keys = project.taxonomy.class_keys
    Box.objects.bulk_create(
        Box(
            annotation=annotation,
            cell_class_id=keys[box.class_number],
            x=box.x,
            y=box.y,
            width=box.width,
            height=box.height,
            score=score,
        )
        for box, score in zip(boxes, scores, strict=True)
    )
    # A draft's boxes come from the pre-label that its reader was shown.
    begun = Q(Exists(Draft.objects.filter(task=OuterRef("pk"))))
    waiting = Task.objects.filter(~begun, tile=tile, kind=TaskKind.READING, state=TaskState.OPEN, revision=0)
    waiting = waiting.filter(blind=False).exclude(batch__state=BatchState.CLOSED)
    tasks = Task.objects.filter(pk__in=list(waiting.values_list("pk", flat=True)), state=TaskState.OPEN, revision=0)
    shown = tasks.update(pre_label=annotation)
    record(
        project=project,
        user=user,
        verb="pre-labelled",
        subject=tile,
        by=source,
        annotation=annotation.pk,
        boxes=len(boxes),
        tasks=shown,
    )
    return annotation


def pre_label_uuid(*, author: Author, tile: Tile) -> UUID:
    """The same model version never pre-labels a tile twice: the UUID follows from both."""
    return uuid5(UUID(int=author.pk), f"pre-label of tile {tile.pk}")


def author_of(*, user: User) -> Author:
    known = AUTHOR.first(user.pk)
    if known is not None:
        return Author(pk=known[0], kind=AuthorKind.PERSON, user=user, name=known[1])
    name = name_of(user)
    if Author.objects.filter(kind=AuthorKind.PERSON, name=name).exclude(user=user).exists():
        name = f"{name} ({user.get_username()})"  # tables and curves tell readers apart by their names
    author, _ = Author.objects.get_or_create(user=user, defaults={"kind": AuthorKind.PERSON, "name": name})
    return author


def name_of(user: User) -> str:
    return user.get_full_name() or user.get_username()


def _write(
    *,
    uuid: UUID,
    tile: Tile,
    author: Author,
    boxes: Sequence[BoxInput],
    origins: Mapping[int, BoxInput],
    numbers: Mapping[int, int],
    effort: dict[str, Any] | None = None,
    **fields: Any,
) -> Annotation:
    strangers = [box.origin for box in boxes if box.origin is not None and box.origin not in origins]
    if strangers:
        raise InvalidBoxes(f"Box {strangers[0]} is not one of this tile's pre-label boxes.")
    changes = [change_of(box, origins.get(box.origin or 0)) for box in boxes]
    counts = Counter(str(change.value) for change in changes)
    deleted = len(origins) - len({box.origin for box in boxes if box.origin is not None})
    summary = {name: counts.get(name, 0) for name in Change.values} | {"deleted": deleted}
    annotation = Annotation.objects.create(
        uuid=uuid, tile=tile, author=author, effort=(effort or {}) | summary, **fields
    )
    rows = [
        (annotation.pk, numbers[box.class_number], box.x, box.y, box.width, box.height, box.origin, change.value)
        for box, change in zip(boxes, changes, strict=True)
    ]
    insert_rows(Box, BOX_COLUMNS, rows)
    return annotation


def change_of(box: BoxInput, origin: BoxInput | None) -> Change:
    """What became of a pre-label box. Moved and reclassified counts as reclassified, the costlier mistake."""
    if origin is None:
        return Change.ADDED
    if box.class_number != origin.class_number:
        return Change.RECLASSIFIED
    pairs = ((box.x, origin.x), (box.y, origin.y), (box.width, origin.width), (box.height, origin.height))
    return Change.KEPT if all(abs(a - b) <= SAME_PLACE for a, b in pairs) else Change.MOVED


def boxes_as_json(annotation: int) -> list[dict[str, Any]]:
    """The boxes of the annotation with this key, in the form that the editor and the API speak."""
    return [dict(zip(JSON_NAMES, row, strict=True)) for row in BOXES.rows(annotation)]


def read_boxes_as_json(annotation: Annotation) -> list[dict[str, Any]]:
    """The boxes of a person's annotation, as the editor shows them again.

    Each is marked as touched; where the class is still that of its pre-label box, with that box's score.
    """
    boxes = []
    for *row, cell_class, origin_class, score in READ_BOXES.rows(annotation.pk):
        box = dict(zip(JSON_NAMES, row, strict=True))
        boxes.append(box | {"touched": True, "score": score if origin_class == cell_class else None})
    return boxes
