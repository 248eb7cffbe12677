"""The editor: its page, and the JSON that it speaks with the server (docs/editor.md)."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_task_for
from annotation.models import Batch, Task, TaskKind, TaskState
from annotation.selectors import WHOLE_TASK, conflict_as_json, holder_of, last_done, task_as_json
from annotation.services.annotations import (
    MAX_REVISION,
    BatchClosed,
    InvalidBoxes,
    SecondReading,
    StaleRevision,
    is_count,
    keep_draft,
    parse_boxes,
    parse_effort,
    skip,
    submit,
)
from annotation.services.batches import ROLE_FOR, claim_next, progress_of
from annotation.services.preferences import InvalidPreference, change_editor_preferences, editor_preferences
from annotation.services.tiles import is_whole_slide
from annotation.views.batches import batch_for
from annotation.views.request import NotJSON, SignedIn, from_own_page, json_body

MAX_HELD = 1000  # a browser holds two or three; what a reader has gone back over may be many
MAX_KEY = 2**63 - 1


def _task_json(request: SignedIn, task: Task | None) -> dict[str, Any] | None:
    if task is None:
        return None
    urls = {name: reverse(f"task_{name}", args=[task.pk]) for name in ("draft", "submit", "skip")}
    alone = is_whole_slide(task.tile)
    pictures = {
        "image": reverse("tile_image", args=[task.tile_id]),
        "slide_image": reverse("slide_thumbnail", args=[task.tile.slide_id]),
        "neighbourhood": None if alone else reverse("tile_neighbourhood", args=[task.tile_id]),
    }
    return task_as_json(task, request.user, urls, pictures)


def _batch_json(batch: Batch, kind: TaskKind) -> dict[str, Any]:
    done, total = progress_of(batch, kind)
    return {"id": batch.pk, "name": batch.name, "url": reverse("batch", args=[batch.pk]), "total": total, "done": done}


def _batch_and_kind(request: SignedIn, pk: int) -> tuple[Batch, TaskKind]:
    """The batch, and what the reader does in it: `?review=1` is for reviewers."""
    kind = TaskKind.REVIEW if request.GET.get("review") == "1" else TaskKind.READING
    return batch_for(request, pk, ROLE_FOR[kind]), kind


@require_GET
@ensure_csrf_cookie
def batch_annotate(request: SignedIn, pk: int) -> HttpResponse:
    batch, kind = _batch_and_kind(request, pk)
    review = "?review=1" if kind == TaskKind.REVIEW else ""
    task = claim_next(batch=batch, reader=request.user, kind=kind)
    classes = [
        {
            "id": one.number,
            "code": one.code,
            "name": one.name,
            "colour": one.colour,
            "hotkey": one.hotkey,
            "lineage": one.lineage,
            "examples": reverse("class_examples", args=[batch.project_id, one.number]),
        }
        for one in batch.project.taxonomy.classes.all()
    ]
    data = {
        "batch": _batch_json(batch, kind),
        "classes": classes,
        "urls": {
            "next": reverse("batch_next", args=[pk]) + review,
            "previous": reverse("batch_previous", args=[pk]) + review,
            "task": reverse("task", args=[0]),  # the editor puts a task's number in
            "preferences": reverse("preferences"),
        },
        "preferences": editor_preferences(request.user),
        "reader": request.user.get_username(),
        "task": _task_json(request, task),
    }
    context = {"data": data, "batch": batch, "project": batch.project, "is_review": kind == TaskKind.REVIEW}
    return render(request, "annotation/editor.html", context)


@require_POST
@from_own_page
def batch_next(request: SignedIn, pk: int) -> JsonResponse:
    """Lease one more task: `{"except": [tasks that the browser holds]}` -> `{"task", "batch"}`."""
    batch, kind = _batch_and_kind(request, pk)
    try:
        body = json_body(request)
    except NotJSON as error:
        return JsonResponse({"error": str(error)}, status=400)
    task = claim_next(batch=batch, reader=request.user, kind=kind, held=_held(body))
    if task is not None:  # how far the batch is comes with every submission
        return JsonResponse({"task": _task_json(request, task)})
    return JsonResponse({"task": None, "batch": _batch_json(batch, kind)})


@require_POST
@from_own_page
def batch_previous(request: SignedIn, pk: int) -> JsonResponse:
    """Go back: `{"except": [tasks seen]}` -> `{"task"}`, the last other one that the reader did. Nothing is leased."""
    batch, kind = _batch_and_kind(request, pk)
    try:
        body = json_body(request)
    except NotJSON as error:
        return JsonResponse({"error": str(error)}, status=400)
    return JsonResponse({"task": _task_json(request, last_done(batch, request.user, _held(body), kind=kind))})


def _held(body: dict[str, Any]) -> list[int]:
    raw = body.get("except", [])
    return [pk for pk in raw if is_count(pk, MAX_KEY)][:MAX_HELD] if isinstance(raw, list) else []


def _task_for(request: SignedIn, pk: int) -> Task:
    return get_task_for(request.user, WHOLE_TASK, pk)


@require_GET
def task(request: SignedIn, pk: int) -> JsonResponse:
    """One task as it now stands: `{"task"}`. Nothing is leased."""
    return JsonResponse({"task": _task_json(request, _task_for(request, pk))})


@require_POST
@from_own_page
def task_draft(request: SignedIn, pk: int) -> JsonResponse:
    """Keep work in progress: `{"sequence", "revision", "boxes", "effort"}` -> `{"saved": sequence, "held_by"}`.

    A draft is stored as it is; only a submission is checked box by box. `held_by` is the name of another reader who
    has leased or submitted the task, or null.
    """
    task = _task_for(request, pk)
    try:
        saved = keep_draft(task=task, user=request.user, body=json_body(request))
    except ValueError as error:
        return JsonResponse({"error": str(error)}, status=400)
    except StaleRevision:
        return _conflict(task)
    return JsonResponse({"saved": saved, "held_by": holder_of(task, besides=request.user)})


@require_POST
@from_own_page
def task_submit(request: SignedIn, pk: int) -> JsonResponse:
    """Submit: `{"uuid", "revision", "boxes", "effort", "want_next"}` -> `{"annotation", "revision", "batch", "next"}`.

    400 names the boxes that cannot be stored; 409 carries the newer annotation (or says that the batch is closed).
    """
    task = _task_for(request, pk)
    try:
        body = json_body(request)
        uuid, revision = UUID(str(body.get("uuid"))), body.get("revision")
        if not is_count(revision, MAX_REVISION):
            raise NotJSON("A submission needs the revision that it is based on.")
        annotation, _ = submit(
            task=task,
            user=request.user,
            uuid=uuid,
            revision=revision,
            boxes=parse_boxes(body.get("boxes"), task=task),
            effort=parse_effort(body.get("effort")),
        )
    except InvalidBoxes as error:
        problems = [{"index": index, "error": reason} for index, reason in error.problems]
        return JsonResponse({"error": str(error), "boxes": problems}, status=400)
    except StaleRevision:
        return _conflict(task)
    except (BatchClosed, SecondReading) as error:
        return JsonResponse({"error": str(error), "closed": True}, status=409)
    except ValueError as error:
        return JsonResponse({"error": str(error)}, status=400)
    kind = TaskKind(task.kind)
    answer = {
        "annotation": annotation.pk,
        "revision": annotation.revision,
        "batch": _batch_json(task.batch, kind),
        "next": None,
    }
    if body.get("want_next"):
        following = claim_next(batch=task.batch, reader=request.user, kind=kind, held=_held(body))
        answer["next"] = _task_json(request, following)
    return JsonResponse(answer)


def _conflict(task: Task) -> JsonResponse:
    answer = conflict_as_json(task)
    return JsonResponse(answer, status=409 if "theirs" in answer else 400)


@require_POST
@from_own_page
def task_skip(request: SignedIn, pk: int) -> JsonResponse:
    """Put a tile aside: `{"reason", "want_next", "except"}` -> `{"batch"}`, with `want_next` also "task", leased."""
    task = _task_for(request, pk)
    try:
        body = json_body(request)
    except NotJSON as error:
        return JsonResponse({"error": str(error)}, status=400)
    reason = str(body.get("reason") or "").strip()
    if not reason:
        return JsonResponse({"error": "Say why the tile is skipped."}, status=400)
    try:
        skipped = skip(task=task, user=request.user, reason=reason)
    except SecondReading as error:
        return JsonResponse({"error": str(error), "closed": True}, status=409)
    if not skipped:
        task.refresh_from_db()
        if task.state == TaskState.SUBMITTED:
            return _conflict(task)
    kind = TaskKind(task.kind)
    answer: dict[str, Any] = {"batch": _batch_json(task.batch, kind)}
    if body.get("want_next"):
        following = claim_next(batch=task.batch, reader=request.user, kind=kind, held=_held(body))
        answer["task"] = _task_json(request, following)
    return JsonResponse(answer)


@require_POST
@from_own_page
def preferences(request: SignedIn) -> HttpResponse:
    """Keep the editor's display settings, any of them: `{"gamma": 1.2}` -> 204. 400 names the one that is wrong."""
    try:
        change_editor_preferences(user=request.user, changes=json_body(request))
    except InvalidPreference as error:
        return JsonResponse({"error": str(error), "field": error.field}, status=400)
    except NotJSON as error:
        return JsonResponse({"error": str(error)}, status=400)
    return HttpResponse(status=204)
