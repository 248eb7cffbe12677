"""Reads that join several tables."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Sum, Window
from django.db.models.functions import RowNumber

from annotation.models import (
    Annotation,
    AuthorKind,
    Batch,
    BatchState,
    Box,
    CellClass,
    Membership,
    Policy,
    Project,
    Role,
    Slide,
    Task,
    TaskKind,
    TaskState,
    Tile,
    User,
)
from annotation.prepared import Prepared
from annotation.services.annotations import DRAFT, boxes_as_json, name_of, read_boxes_as_json
from annotation.services.batches import ROLE_FOR, has_work_for, progress_of
from annotation.services.history import decides
from annotation.services.policies import CONSENSUS

RARE_SHARE = 0.25  # of an equal share of all boxes: below it a class is marked rare
TILE_STATES = {
    "unlabelled": "not yet labelled",
    "batch": "in a batch",
    "confirmed": "confirmed",
    "empty": "confirmed, no cell",
    "skipped": "skipped",
}


# Tasks that nobody did before their batch was closed: their tiles are back in the pool.
UNREAD = Q(batch__state=BatchState.CLOSED, state__in=[TaskState.OPEN, TaskState.LEASED])


def pool_of(project: Project) -> QuerySet[Tile]:
    """The tiles that a batch can be made of: without truth, of no locked patient, in no open batch, not skipped."""
    held = Task.objects.filter(tile=OuterRef("pk")).exclude(UNREAD)
    return Tile.objects.filter(~Exists(held), slide__project=project, slide__patient__locked=False, truth=None)


def truth_counts(tiles: Any) -> Counter[int]:
    """Boxes per class number in the truth of these tiles (a queryset)."""
    rows = (
        Box.objects.filter(annotation__in=tiles.filter(truth__isnull=False).values("truth"))
        .values_list("cell_class__number")
        .annotate(boxes=Count("pk"))
        .order_by()
    )
    return Counter(dict(rows))


def class_rows(
    project: Project,
    counts: Counter[int],
    expected: dict[str, float] | None = None,
    *,
    project_counts: Counter[int] | None = None,
) -> list[dict[str, Any]]:
    """One row per class, for the bars: its count, whether it is rare, what the model expected.

    `project_counts` decides what is rare where `counts` are those of a part, such as one batch.
    """
    every = counts if project_counts is None else project_counts
    classes = list(project.taxonomy.classes.all())
    counted = [one for one in classes if not one.ignored_in_training]
    equal = sum(every[one.number] for one in counted) / max(len(counted), 1)
    return [
        {
            "code": one.code,
            "name": one.name,
            "colour": one.colour,
            "count": counts[one.number],
            "rare": not one.ignored_in_training and every[one.number] < RARE_SHARE * equal,
            "expected": (expected or {}).get(str(one.number)),
        }
        for one in classes
    ]


def largest(rows: list[dict[str, Any]]) -> float:
    return max(1.0, *(float(row["count"]) for row in rows), *(float(row["expected"] or 0) for row in rows))


def confirmed_boxes(project: Project, cell_class: CellClass) -> QuerySet[Box]:
    """The boxes of the class in the project's current truth."""
    return Box.objects.filter(
        cell_class=cell_class,
        annotation__tile__truth=F("annotation"),
        annotation__tile__slide__project=project,
    )


def examples_of(project: Project, cell_class: CellClass, at_most: int) -> list[Box]:
    """Confirmed boxes of the class, with tile, slide and patient; none of a locked patient.

    First each patient's newest box, the newest of these before the others, then each patient's second newest ...
    """
    turn = Window(RowNumber(), partition_by=F("annotation__tile__slide__patient"), order_by=F("pk").desc())
    boxes = confirmed_boxes(project, cell_class).filter(annotation__tile__slide__patient__locked=False)
    boxes = boxes.select_related("annotation__tile__slide__patient")
    return list(boxes.annotate(turn=turn).order_by("turn", "-pk")[:at_most])


def expert_hours(project: Project) -> float:
    """Active hours of people on this project's tiles."""
    people = Annotation.objects.filter(tile__slide__project=project, author__kind=AuthorKind.PERSON)
    return float(people.aggregate(seconds=Sum("active_seconds"))["seconds"] or 0.0) / 3600


def annotations_shown_to(user: User, role: Role, tile: Tile) -> QuerySet[Annotation]:
    """A tile's annotations. While it is being read blind an annotator sees no pre-labels, or only their own reading."""
    return shown_of(tile.annotations.all(), user, role)


def shown_of(annotations: QuerySet[Annotation], user: User, role: Role) -> QuerySet[Annotation]:
    """The same of any annotations of one project, in which the user has this role."""
    if role.covers(Role.REVIEWER):
        return annotations
    to_each_other = {"batch__state": BatchState.OPEN, "batch__policy": Policy.INDEPENDENT}
    tasks = Task.objects.filter(tile=OuterRef("tile"), batch__state=BatchState.OPEN)
    others = Exists(Task.objects.filter(pk=OuterRef("task"), **to_each_other)) & ~Q(author__user=user)
    # What independent readers have drawn, put together.
    of_all = Q(author__kind=AuthorKind.IMPORT, author__name=CONSENSUS)
    waiting = tasks.filter(blind=True, state__in=[TaskState.OPEN, TaskState.LEASED])
    hidden = (
        others
        | of_all & Exists(tasks.filter(batch__policy=Policy.INDEPENDENT))
        | Q(author__kind=AuthorKind.MODEL) & Exists(waiting)
    )
    return annotations.filter(~hidden)


def slides_of(project: Project) -> list[dict[str, Any]]:
    slides = (
        Slide.objects.filter(project=project)
        .select_related("patient")
        .annotate(tile_count=Count("tiles"), confirmed=Count("tiles", filter=Q(tiles__truth__isnull=False)))
        .order_by("patient__code", "name", "pk")
    )
    return [{"slide": slide, "tiles": slide.tile_count, "confirmed": slide.confirmed} for slide in slides]


def tile_states(slide: Slide) -> list[tuple[Tile, str]]:
    """Each of the slide's tiles with its state, a key of TILE_STATES."""
    # Named, since a query that counts leaves the order of the model aside.
    tiles = slide.tiles.annotate(truth_boxes=Count("truth__boxes")).order_by("row", "column", "pk")
    held = Task.objects.filter(tile__slide=slide).exclude(UNREAD)
    tasks: dict[int, str] = dict(held.order_by("pk").values_list("tile_id", "state"))
    return [(tile, _state(tile, tasks.get(tile.pk))) for tile in tiles]


def _state(tile: Any, task_state: str | None) -> str:
    if tile.truth_id is not None:
        return "confirmed" if tile.truth_boxes else "empty"
    if task_state == TaskState.SKIPPED:
        return "skipped"
    return "unlabelled" if task_state is None else "batch"


def readers_of(batch: Batch) -> list[dict[str, Any]]:
    """Who has how many of the batch's tasks in which state, and the hours that they spent."""
    counts: Any = (
        batch.tasks.filter(reader__isnull=False, state__in=["submitted", "leased", "skipped"])
        .values("reader", name=F("reader__username"))
        .annotate(
            submitted=Count("pk", filter=Q(state="submitted")),
            leased=Count("pk", filter=Q(state="leased")),
            skipped=Count("pk", filter=Q(state="skipped")),
        )
        .order_by("name")
    )
    seconds = dict(
        Annotation.objects.filter(task__batch=batch)
        .values_list("author__user")
        .annotate(total=Sum("active_seconds"))
        .order_by()
    )
    return [
        {
            "reader": row["name"],
            "submitted": row["submitted"],
            "leased": row["leased"],
            "skipped": row["skipped"],
            "hours": seconds.get(row["reader"], 0.0) / 3600,
        }
        for row in counts
    ]


def batches_to_continue(user: User) -> list[dict[str, Any]]:
    """What the user can go on with: open batches of the user's projects, and the reviews in them."""
    roles = {one.project_id: Role(one.role) for one in Membership.objects.filter(user=user)}
    return _work(Batch.objects.filter(project__in=roles), user, roles)


def work_in(project: Project, user: User, role: Role) -> list[dict[str, Any]]:
    """The same in one project, for a user of this role."""
    return _work(Batch.objects.filter(project=project), user, {project.pk: role})


def _work(batches: QuerySet[Batch], user: User, roles: Mapping[int, Role]) -> list[dict[str, Any]]:
    rows = []
    for batch in batches.filter(state=BatchState.OPEN).select_related("project").order_by("-pk"):
        for kind in TaskKind:
            if roles[batch.project_id].covers(ROLE_FOR[kind]) and has_work_for(batch, user, kind):
                done, total = progress_of(batch, kind)
                rows.append({"batch": batch, "kind": kind, "done": done, "total": total, "round_name": batch.name})
    return rows


# A task with all that the editor asks of it.
WHOLE_TASK = Prepared(
    lambda task: Task.objects.select_related("tile__slide__patient", "batch__project__taxonomy").filter(pk=task)
)


def task_as_json(task: Task, user: User, urls: dict[str, str], pictures: dict[str, str | None]) -> dict[str, Any]:
    """A task as the editor gets it: the tile, what is drawn on it, and the reader's own draft.

    Three queries at most, for a task that carries its tile, slide and patient.
    """
    draft = task.drafts.get(user=user) if DRAFT.rows(task.pk, user.pk) else None
    return {
        "id": task.pk,
        "tile": _tile_as_json(task.tile) | pictures,
        "reason": task.reason,
        "revision": task.revision,
        "skipped": task.skip_reason,
        "boxes": _boxes_on(task),
        "draft": None
        if draft is None
        else {
            "sequence": draft.sequence,
            "revision": draft.revision,
            "boxes": draft.boxes,
            "effort": draft.effort,
        },
        "urls": urls,
        "leased_until": task.leased_until.isoformat() if task.leased_until else None,
    }


def conflict_as_json(task: Task) -> dict[str, Any]:
    """What somebody hears whose work on a task is based on an older revision: `{"error", "theirs"}`, the newest
    annotation; without `theirs` if there is none.
    """
    newest = task.annotations.select_related("author").order_by("-revision").first()
    if newest is None:
        return {"error": "The revision is not one of this task's."}
    theirs = {
        "revision": newest.revision,
        "author": newest.author.name,
        "boxes": boxes_as_json(newest.pk),
    }
    return {"error": f"{newest.author.name} has submitted this tile since you opened it.", "theirs": theirs}


def _tile_as_json(tile: Tile) -> dict[str, Any]:
    slide = tile.slide
    return {
        "id": tile.pk,
        "width": tile.width,
        "height": tile.height,
        "slide": slide.name,
        "slide_id": slide.pk,
        "slide_width": slide.width,
        "slide_height": slide.height,
        "patient": slide.patient.code,
        "row": tile.row,
        "column": tile.column,
        "x": tile.x,
        "y": tile.y,
        "extent": tile.extent,
        "mpp": None if slide.mpp is None else slide.mpp * tile.extent / tile.width,
    }


def _boxes_on(task: Task) -> list[dict[str, Any]]:
    """The task's newest annotation, or truth that came after it; before the first, its pre-label, whose boxes the
    reader's boxes come from.
    """
    newest = task.annotations.get(revision=task.revision) if task.revision else None  # it counts the annotations
    truth = _truth_since(task, newest)
    if truth is not None:
        known = set(Box.objects.filter(annotation=task.pre_label_id).values_list("pk", flat=True))
        boxes = read_boxes_as_json(truth)
        return [box | {"origin": box["origin"] if box["origin"] in known else None} for box in boxes]
    if newest is not None:
        return read_boxes_as_json(newest)
    if task.pre_label_id is None:
        return []
    boxes = boxes_as_json(task.pre_label_id)
    return [box | {"origin": box["id"]} for box in boxes]


def _truth_since(task: Task, newest: Annotation | None) -> Annotation | None:
    """What was imported or restored over the tile since the task was done, if the task decides the tile's truth.

    A reading that others are compared with stays what its reader drew.
    """
    tile = task.tile
    if task.state != TaskState.SUBMITTED or tile.truth_id is None or not decides(task):
        return None
    if newest is not None and tile.truth_id <= newest.pk:
        return None
    return tile.truth if tile.truth is not None and tile.truth.task_id is None else None


def last_done(
    batch: Batch, reader: User, besides: Collection[int] = (), *, kind: TaskKind = TaskKind.READING
) -> Task | None:
    """The batch's task of this kind that the reader has submitted, or corrected, last; without those `besides`."""
    mine: Any = (
        Annotation.objects.filter(task__batch=batch, task__kind=kind, author__user=reader)
        .values("task")
        .annotate(latest=Max("pk"))
        .order_by("-latest")
    )
    found = mine.exclude(task__in=besides).first()
    return WHOLE_TASK.get(found["task"]) if found else None


def holder_of(task: Task, *, besides: User) -> str | None:
    """The name of another reader who has leased or submitted the task, as it now stands in the database."""
    held = [TaskState.LEASED, TaskState.SUBMITTED]
    holder = User.objects.filter(tasks__pk=task.pk, tasks__state__in=held).exclude(pk=besides.pk).first()
    return name_of(holder) if holder else None
