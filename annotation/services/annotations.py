"""Drafts, submissions and imports of annotations."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    BatchState,
    Box,
    Change,
    Draft,
    Project,
    Task,
    TaskState,
    Tile,
    User,
)
from annotation.services.events import record

MAX_BOXES = 2000
MIN_SIDE = 2.0  # tile px; Pascal VOC cannot say less than 1.01, and no cell is 0.5 um wide
SAME_PLACE = 0.01  # tile px: below this a box has not been moved
MAX_EFFORT = 1e9  # seconds or keys on one tile: more is no measurement
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
    """The batch takes no more annotations."""


def parse_boxes(raw: object, *, task: Task) -> list[BoxInput]:
    """Boxes from JSON, checked against the tile and the taxonomy.

    Raises InvalidBoxes that lists every box which is not finite, has no area, lies outside the tile or has an unknown
    class.
    """
    if not isinstance(raw, list):
        raise InvalidBoxes("The boxes are not a list.")
    if len(raw) > MAX_BOXES:
        raise InvalidBoxes(f"{len(raw)} boxes on one tile: at most {MAX_BOXES} are taken.")
    known = set(task.batch.project.taxonomy.classes.values_list("number", flat=True))
    boxes, problems = [], []
    for index, item in enumerate(raw):
        try:
            boxes.append(_parse_box(item, known, task.tile.width, task.tile.height))
        except (TypeError, ValueError, KeyError) as error:
            problems.append((index, str(error)))
    if problems:
        listed = "; ".join(f"box {index + 1}: {reason}" for index, reason in problems[:5])
        raise InvalidBoxes(f"Not stored. {listed}", problems)
    return boxes


def _parse_box(item: object, known: set[int], tile_width: int, tile_height: int) -> BoxInput:
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


def parse_effort(raw: object) -> Effort:
    """Effort from JSON; what is missing or impossible counts as nothing: time is never a reason to refuse boxes."""
    values = raw if isinstance(raw, dict) else {}

    def number(name: str) -> float:
        value = values.get(name, 0)
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_EFFORT
        return float(value) if good else 0.0

    active = number("active_seconds")
    return Effort(active, max(number("wall_seconds"), active), int(number("keys")), int(number("clicks")))


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


@transaction.atomic
def submit(
    *, task: Task, user: User, uuid: UUID, revision: int, boxes: Sequence[BoxInput], effort: Effort
) -> tuple[Annotation, bool]:
    """Store a reader's annotation of a task's tile and make it the tile's truth; returns it and whether it is new.

    The same UUID sent again returns the annotation that it made the first time. Raises StaleRevision when somebody
    has submitted since `revision`, BatchClosed when the batch takes no more, InvalidBoxes when an origin is not one of
    the tile's pre-label boxes.
    """
    known = Annotation.objects.filter(uuid=uuid).first()
    if known is not None:
        if known.task_id != task.pk or known.author.user_id != user.pk:
            raise InvalidBoxes("This submission number was used for another tile.")
        return known, False
    if task.batch.state != BatchState.OPEN:
        raise BatchClosed(f"{task.batch} is closed: it takes no more annotations.")
    # The revision is the lock: of two submissions based on the same one, one changes a row here and the other none.
    moved_on = Task.objects.filter(pk=task.pk, revision=revision).update(
        revision=F("revision") + 1, state=TaskState.SUBMITTED, reader=user, leased_until=None, skip_reason=""
    )
    newest = task.annotations.order_by("-revision").first()
    if not moved_on:
        if newest is None:
            raise InvalidBoxes("The revision is not one of this task's.")
        if newest.uuid == uuid:  # sent twice at the same time, and the other one was first
            return newest, False
        raise StaleRevision(newest)
    origins = {box.pk: box for box in task.pre_label.boxes.select_related("cell_class")} if task.pre_label else {}
    annotation = _write(
        uuid=uuid,
        tile=task.tile,
        author=author_of(user=user),
        boxes=boxes,
        origins=origins,
        numbers=_class_keys(task.batch.project),
        task=task,
        revision=revision + 1,
        supersedes=newest,
        pre_label=task.pre_label,
        active_seconds=effort.active_seconds,
        wall_seconds=effort.wall_seconds,
        effort={"keys": effort.keys, "clicks": effort.clicks},
    )
    Tile.objects.filter(pk=task.tile_id).update(truth=annotation)
    Draft.objects.filter(task=task, user=user).delete()
    record(
        project=task.batch.project,
        user=user,
        verb="submitted",
        subject=task.tile,
        annotation=annotation.pk,
        boxes=len(boxes),
    )
    return annotation, True


@transaction.atomic
def skip(*, task: Task, user: User, reason: str) -> bool:
    """Put the tile aside with a reason; False if it has been submitted meanwhile."""
    changed = Task.objects.filter(
        pk=task.pk, state__in=[TaskState.OPEN, TaskState.LEASED], batch__state=BatchState.OPEN
    ).update(state=TaskState.SKIPPED, reader=user, leased_until=None, skip_reason=reason[:200])
    if changed:
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
        numbers=_class_keys(project),
        supersedes=tile.truth,
    )
    Tile.objects.filter(pk=tile.pk).update(truth=annotation)
    Task.objects.filter(tile=tile, state__in=[TaskState.OPEN, TaskState.LEASED], batch__state=BatchState.OPEN).update(
        state=TaskState.SUBMITTED, reader=None, leased_until=None
    )
    record(project=project, user=user, verb="imported truth", subject=tile, annotation=annotation.pk, boxes=len(boxes))
    return annotation


def pre_label_uuid(*, author: Author, tile: Tile) -> UUID:
    """The same model version never pre-labels a tile twice: the UUID follows from both."""
    return uuid5(UUID(int=author.pk), f"pre-label of tile {tile.pk}")


def author_of(*, user: User) -> Author:
    author, _ = Author.objects.get_or_create(user=user, defaults={"kind": AuthorKind.PERSON, "name": name_of(user)})
    return author


def name_of(user: User) -> str:
    return user.get_full_name() or user.get_username()


def _class_keys(project: Project) -> dict[int, int]:
    return dict(project.taxonomy.classes.values_list("number", "pk"))


def _write(
    *,
    uuid: UUID,
    tile: Tile,
    author: Author,
    boxes: Sequence[BoxInput],
    origins: dict[int, Box],
    numbers: dict[int, int],
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
    Box.objects.bulk_create(
        Box(
            annotation=annotation,
            cell_class_id=numbers[box.class_number],
            x=box.x,
            y=box.y,
            width=box.width,
            height=box.height,
            origin_id=box.origin,
            change=change,
        )
        for box, change in zip(boxes, changes, strict=True)
    )
    return annotation


def change_of(box: BoxInput, origin: Box | None) -> Change:
    """What became of a pre-label box. Moved and reclassified counts as reclassified, the costlier mistake."""
    if origin is None:
        return Change.ADDED
    if box.class_number != origin.cell_class.number:
        return Change.RECLASSIFIED
    pairs = ((box.x, origin.x), (box.y, origin.y), (box.width, origin.width), (box.height, origin.height))
    return Change.KEPT if all(abs(a - b) <= SAME_PLACE for a, b in pairs) else Change.MOVED


def boxes_as_json(boxes: Iterable[Box]) -> list[dict[str, Any]]:
    """Boxes in the form that the editor and the API speak."""
    return [_box_as_json(box) for box in boxes]


def read_boxes_as_json(annotation: Annotation) -> list[dict[str, Any]]:
    """The boxes of a person's annotation, as the editor shows them again.

    Each is marked as touched; where the class is still that of its pre-label box, with that box's score.
    """
    rows = []
    for box in annotation.boxes.select_related("cell_class", "origin"):
        origin = box.origin
        score = origin.score if origin is not None and origin.cell_class_id == box.cell_class_id else None
        rows.append(_box_as_json(box) | {"touched": True, "score": score})
    return rows


def _box_as_json(box: Box) -> dict[str, Any]:
    return {
        "id": box.pk,
        "class": box.cell_class.number,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "score": box.score,
        "origin": box.origin_id,
        "change": box.change,
    }
