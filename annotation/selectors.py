"""Reads that join several tables."""

from collections import Counter
from typing import Any

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum

from annotation.models import (
    Annotation,
    AuthorKind,
    Batch,
    BatchState,
    Box,
    Project,
    Slide,
    Task,
    TaskState,
    Tile,
    User,
)
from annotation.services.annotations import boxes_as_json
from annotation.services.batches import progress_of

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


def expert_hours(project: Project) -> float:
    """Active hours of people on this project's tiles."""
    people = Annotation.objects.filter(tile__slide__project=project, author__kind=AuthorKind.PERSON)
    return float(people.aggregate(seconds=Sum("active_seconds"))["seconds"] or 0.0) / 3600


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
    tiles = slide.tiles.annotate(truth_boxes=Count("truth__boxes"))
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
    """Open batches with tasks left, in the user's projects."""
    projects = Project.objects.filter(memberships__user=user)
    batches = (
        Batch.objects.filter(project__in=projects, state=BatchState.OPEN)
        .filter(tasks__state__in=[TaskState.OPEN, TaskState.LEASED])
        .distinct()
        .select_related("project")
        .order_by("-pk")
    )
    rows = []
    for batch in batches:
        done, total = progress_of(batch)
        rows.append({"batch": batch, "done": done, "total": total, "round_name": batch.name})
    return rows


def task_as_json(task: Task, user: User, urls: dict[str, str], image: str) -> dict[str, Any]:
    """A task as the editor gets it: the tile, what is drawn on it, and the reader's own draft."""
    tile = task.tile
    newest = task.annotations.order_by("-revision").first()
    shown = newest or task.pre_label
    boxes = boxes_as_json(shown.boxes.select_related("cell_class")) if shown else []
    if newest is None:  # a pre-label's boxes are what the reader's boxes come from
        boxes = [box | {"origin": box["id"]} for box in boxes]
    draft = task.drafts.filter(user=user).first()
    return {
        "id": task.pk,
        "tile": {
            "id": tile.pk,
            "width": tile.width,
            "height": tile.height,
            "image": image,
            "slide": tile.slide.name,
            "patient": tile.slide.patient.code,
            "row": tile.row,
            "column": tile.column,
        },
        "reason": task.reason,
        "revision": task.revision,
        "boxes": boxes,
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
