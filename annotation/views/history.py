"""A tile's annotations in order: two of them side by side or as a difference, and restoring one."""

from collections import Counter
from typing import Any

from django.contrib import messages
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, require_role
from annotation.differences import Kind, differences
from annotation.models import Annotation, AuthorKind, Box, Role, Tile
from annotation.selectors import annotations_shown_to
from annotation.services.history import TruthChanged, restore, restoring_problem
from annotation.services.projects import NotAllowed
from annotation.views.request import SignedIn, page_of
from annotation.views.slides import tile_for

VIEWS = {"side": "Side by side", "difference": "Difference"}


@require_GET
def tile_history(request: SignedIn, pk: int) -> HttpResponse:
    """?left= and ?right= name the two annotations, ?view= how they are shown."""
    tile = tile_for(request, pk)
    role = require_role(request.user, tile.slide.project, Role.ANNOTATOR)
    rows = _rows(request, role, tile)
    left, right = _chosen(request, tile, [row["annotation"] for row in rows])
    view = request.GET.get("view", "")
    context = page_of(request, tile.slide.project, "slides") | {
        "tile": tile,
        "rows": rows,
        "hidden": tile.annotations.count() - len(rows),
        "can_restore": role.covers(Role.REVIEWER) and tile.truth_id is not None,
        "left": next((row for row in rows if row["annotation"] == left), None),
        "right": next((row for row in rows if row["annotation"] == right), None),
        "view": view if view in VIEWS else "side",
        "views": [{"value": value, "label": label} for value, label in VIEWS.items()],
    }
    if left is not None and right is not None:
        context |= _comparison(left, right)
    return render(request, "annotation/history.html", context)


def _rows(request: SignedIn, role: Role, tile: Tile) -> list[dict[str, Any]]:
    """The newest first. Annotations of a tile are numbered in the order in which they came."""
    keys = tile.annotations.order_by("pk").values_list("pk", flat=True)
    numbers = {key: number for number, key in enumerate(keys, start=1)}
    shown = (
        annotations_shown_to(request.user, role, tile)
        .select_related("author", "task__batch")
        .annotate(box_count=Count("boxes"))
        .order_by("-pk")
    )
    return [
        {
            "annotation": one,
            "number": numbers[one.pk],
            "kind": _kind(one),
            "boxes": one.box_count,
            "is_truth": one.pk == tile.truth_id,
            "supersedes": numbers[one.supersedes_id] if one.supersedes_id else None,
            "restores": numbers.get(one.effort.get("restored_from")),
            "problem": restoring_problem(annotation=one, tile=tile),
        }
        for one in shown
    ]


def _kind(annotation: Annotation) -> str:
    if annotation.author.kind == AuthorKind.PERSON:
        return "reading" if annotation.task is None else annotation.task.get_kind_display()
    return "pre-label" if annotation.author.kind == AuthorKind.MODEL else "import"


def _chosen(request: SignedIn, tile: Tile, shown: list[Annotation]) -> tuple[Annotation | None, Annotation | None]:
    """What is asked for; else the truth on the right, and on the left what it took the place of or started from."""
    of_key = {str(one.pk): one for one in shown}
    truth = of_key.get(str(tile.truth_id)) or (shown[0] if shown else None)
    right = of_key.get(request.GET.get("right", "")) or truth
    if right is None:
        return None, None
    before = [of_key.get(str(right.supersedes_id)), of_key.get(str(right.pre_label_id))]
    before += [one for one in shown if one.pk < right.pk]
    left = of_key.get(request.GET.get("left", "")) or next((one for one in before if one is not None), None)
    return left, right


def _comparison(left: Annotation, right: Annotation) -> dict[str, Any]:
    """Both sides' boxes, what became of each, and how many of each kind there are."""
    sides = {one.pk: list(one.boxes.select_related("cell_class")) for one in (left, right)}
    pairs = [_pair(one.kind, one.left, one.right) for one in differences(sides[left.pk], sides[right.pk])]
    counts = Counter(pair["kind"] for pair in pairs)
    return {
        "left_boxes": sides[left.pk],
        "right_boxes": sides[right.pk],
        "pairs": pairs,
        "changed": [pair for pair in pairs if pair["kind"] != Kind.SAME],
        "legend": [
            {"kind": kind.name.lower().replace("_", "-"), "label": kind, "count": counts[kind]} for kind in Kind
        ],
    }


def _pair(kind: Kind, left: Any, right: Any) -> dict[str, Any]:
    here: Box = right or left
    return {"kind": kind, "name": kind.name.lower().replace("_", "-"), "left": left, "right": right, "here": here}


@require_POST
def annotation_restore(request: SignedIn, pk: int) -> HttpResponse:
    """Make an older annotation's boxes the truth again; `truth` is the key of the truth that the page showed."""
    found = get_for(
        request.user,
        Annotation.objects.select_related("author", "tile__slide__project"),
        pk,
        Role.REVIEWER,
        project=lambda one: one.tile.slide.project,
    )
    seen = request.POST.get("truth", "")
    try:
        restore(annotation=found, seen=int(seen) if seen.isdecimal() else 0, user=request.user)
    except (TruthChanged, NotAllowed) as error:
        messages.error(request, str(error))
    else:
        messages.success(request, "Restored: its boxes are the tile's truth again, in a new annotation.")
    return redirect("tile_history", found.tile_id)
