"""Batches and their tasks: taken, saved, submitted and put aside as the editor does it."""

from typing import Any

from django.db.models import Count, Q, QuerySet
from django.urls import reverse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for, get_task_for
from annotation.api.base import MAX_KEY, Filters, View, checked
from annotation.api.errors import Refused
from annotation.api.inputs import AnyObject, Boxes, PlaceIn
from annotation.api.pages import Pages
from annotation.api.rows import BatchRow, TaskRow
from annotation.api.schema import Error, reads, writes
from annotation.models import Batch, BatchState, Policy, Purpose, Role, Scope, Task, TaskKind, TaskState, User
from annotation.selectors import WHOLE_TASK, conflict_as_json, holder_of, task_as_json
from annotation.services.annotations import (
    MAX_REVISION,
    MAX_SEQUENCE,
    BatchClosed,
    InvalidBoxes,
    SecondReading,
    StaleRevision,
    keep_draft,
    parse_boxes,
    parse_effort,
    skip,
    submit,
)
from annotation.services.batches import ROLE_FOR, claim_next, stop_batch
from annotation.services.projects import NotAllowed

MAX_HELD = 1000
EFFORT = "active_seconds, wall_seconds, keys, clicks; what is missing counts as nothing."
READINGS = Q(tasks__kind=TaskKind.READING)
DONE = Q(tasks__state__in=[TaskState.SUBMITTED, TaskState.SKIPPED])


class TaskPlace(PlaceIn):
    """A box as a task shows it. What a draft kept may lack any of these."""

    id = serializers.IntegerField(required=False)
    score = serializers.FloatField(required=False, allow_null=True)
    origin = serializers.IntegerField(required=False, allow_null=True, help_text="Send it back with the box.")
    change = serializers.CharField(required=False, allow_blank=True)
    touched = serializers.BooleanField(required=False)


class TaskTile(serializers.Serializer):
    id = serializers.IntegerField()
    width = serializers.IntegerField()
    height = serializers.IntegerField()
    slide = serializers.CharField()
    slide_id = serializers.IntegerField()
    slide_width = serializers.IntegerField()
    slide_height = serializers.IntegerField()
    patient = serializers.CharField()
    row = serializers.IntegerField()
    column = serializers.IntegerField()
    x = serializers.IntegerField()
    y = serializers.IntegerField()
    extent = serializers.FloatField()
    mpp = serializers.FloatField(allow_null=True, help_text="um per tile px.")
    image = serializers.CharField()


class DraftPart(serializers.Serializer):
    sequence = serializers.IntegerField()
    revision = serializers.IntegerField()
    boxes = serializers.ListField(child=serializers.DictField())
    effort = serializers.DictField()


class TaskUrls(serializers.Serializer):
    draft = serializers.CharField()
    submit = serializers.CharField()
    skip = serializers.CharField()


class WholeTask(serializers.Serializer):
    id = serializers.IntegerField()
    tile = TaskTile()
    reason = serializers.CharField()
    revision = serializers.IntegerField(help_text="Send it back with the submission.")
    skipped = serializers.CharField(help_text="Why it was put aside.")
    boxes = TaskPlace(many=True, help_text="What is drawn: a pre-label, or the newest annotation.")
    draft = DraftPart(allow_null=True, help_text="The user's own.")
    urls = TaskUrls()
    leased_until = serializers.DateTimeField(allow_null=True)


class TaskOrNone(serializers.Serializer):
    task = WholeTask(allow_null=True, help_text="Null: nothing is left for the user.")


class Theirs(serializers.Serializer):
    revision = serializers.IntegerField()
    author = serializers.CharField()
    boxes = TaskPlace(many=True)


class Conflict(serializers.Serializer):
    """`theirs`: the newer annotation. `closed`: the batch, or the user's reading of the tile, takes no more."""

    error = serializers.CharField()
    theirs = Theirs(required=False)
    closed = serializers.BooleanField(required=False)


class WrongBox(serializers.Serializer):
    index = serializers.IntegerField()
    error = serializers.CharField()


class WrongBoxes(serializers.Serializer):
    error = serializers.CharField()
    boxes = WrongBox(many=True, required=False)


class BatchFilters(Filters):
    state = serializers.ChoiceField(BatchState.choices, required=False)
    purpose = serializers.ChoiceField(Purpose.choices, required=False)
    policy = serializers.ChoiceField(Policy.choices, required=False)


def _batches() -> QuerySet[Batch]:
    counts = {"task_count": Count("tasks", filter=READINGS), "done_count": Count("tasks", filter=READINGS & DONE)}
    return Batch.objects.select_related("project__taxonomy").annotate(**counts)


class Batches(View):
    api_tag = "batches and tasks"

    @reads(BatchRow, about="A project's batches", name="batches", filters=BatchFilters, pages=Pages)
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.ANNOTATOR)
        chosen = checked(BatchFilters, request.query_params)
        return self.paged(request, _batches().filter(project=project, **chosen), BatchRow)


class OneBatch(View):
    api_tag = "batches and tasks"

    @reads(BatchRow, about="A batch", name="batch")
    def get(self, request: Request, pk: int) -> Response:
        return Response(BatchRow(get_for(request.user, _batches(), pk, Role.ANNOTATOR)).data)


BATCH: dict[str, Any] = {
    "id": 3,
    "name": "Round 3",
    "purpose": "training",
    "state": "closed",
    "policy": "single",
    "readers": 1,
    "review_share": 0.0,
    "review_by": "chance",
    "expected": {"0": 41.5},
    "tasks": 250,
    "done": 231,
    "created_at": "2026-03-02T08:00:00Z",
}


class CloseBatch(View):
    api_tag = "batches and tasks"
    scopes = {"POST": Scope.LEAD}

    @writes(
        None,
        {200: BatchRow, 409: Error},
        about="Hand out no more tasks of an open batch, as its page does; what is submitted stays; for leads",
        name="close_batch",
        example=BATCH,
    )
    def post(self, request: Request, pk: int) -> Response:
        batch = get_for(request.user, _batches(), pk, Role.LEAD)
        try:
            stop_batch(batch=batch, user=request.user)
        except NotAllowed as error:
            raise Refused(str(error)) from error
        return Response(BatchRow(_batches().get(pk=pk)).data)


class TaskFilters(Filters):
    state = serializers.ChoiceField(TaskState.choices, required=False)
    kind = serializers.ChoiceField(TaskKind.choices, required=False)
    mine = serializers.BooleanField(required=False, help_text="Kept for, leased to or done by the token's user.")


class Tasks(View):
    api_tag = "batches and tasks"

    @reads(TaskRow, about="A batch's tasks", name="tasks", filters=TaskFilters, pages=Pages)
    def get(self, request: Request, pk: int) -> Response:
        batch = get_for(request.user, Batch.objects.select_related("project"), pk, Role.ANNOTATOR)
        chosen = checked(TaskFilters, request.query_params)
        mine = chosen.pop("mine", None)
        found = batch.tasks.filter(**chosen).select_related("reader")
        if mine is not None:
            own = Q(reader=request.user)
            found = found.filter(own if mine else ~own | Q(reader=None))
        return self.paged(request, found, TaskRow)


def _task_json(task: Task, user: User) -> dict[str, Any]:
    urls = {name: reverse(f"api_task_{name}", args=[task.pk]) for name in ("draft", "submit", "skip")}
    return task_as_json(task, user, urls, {"image": reverse("api_tile_image", args=[task.tile_id])})


class OneTask(View):
    api_tag = "batches and tasks"

    @reads(TaskOrNone, about="A task with what is drawn in it; nothing is leased", name="task")
    def get(self, request: Request, pk: int) -> Response:
        task = get_task_for(request.user, WHOLE_TASK, pk)
        return Response({"task": _task_json(task, request.user)})


class Wanted(serializers.Serializer):
    kind = serializers.ChoiceField(TaskKind.choices, default=TaskKind.READING, help_text="Reviews are for reviewers.")
    held = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=MAX_KEY),
        default=list,
        max_length=MAX_HELD,
        help_text="Tasks that the client has leased already and goes on with.",
    )


class NextTask(View):
    api_tag = "batches and tasks"
    scopes = {"POST": Scope.ANNOTATE}

    @writes(Wanted, {200: TaskOrNone}, about="Lease the batch's next task to the token's user", name="next_task")
    def post(self, request: Request, pk: int) -> Response:
        batches = Batch.objects.select_related("project__taxonomy")
        batch = get_for(request.user, batches, pk, Role.ANNOTATOR)
        wanted = checked(Wanted, request.data)
        kind = TaskKind(wanted["kind"])
        if kind == TaskKind.REVIEW:
            get_for(request.user, batches, pk, ROLE_FOR[kind])
        task = claim_next(batch=batch, reader=request.user, kind=kind, held=wanted["held"])
        return Response({"task": _task_json(task, request.user) if task else None})


class Submission(serializers.Serializer):
    uuid = serializers.UUIDField(help_text="Made by the client: sent twice, it counts once.")
    revision = serializers.IntegerField(
        min_value=0, max_value=MAX_REVISION, help_text="The task's, that the work is based on."
    )
    boxes = Boxes()
    effort = AnyObject(required=False, help_text=EFFORT)


class Submitted(serializers.Serializer):
    annotation = serializers.IntegerField()
    revision = serializers.IntegerField()
    new = serializers.BooleanField(help_text="False: this UUID had come before.")


class SubmitTask(View):
    api_tag = "batches and tasks"
    scopes = {"POST": Scope.ANNOTATE}

    @writes(
        Submission,
        {200: Submitted, 400: WrongBoxes, 409: Conflict},
        about="Submit a task's boxes; 409 with the newer annotation if somebody has submitted since",
        name="submit_task",
    )
    def post(self, request: Request, pk: int) -> Response:
        task = get_task_for(request.user, WHOLE_TASK, pk)
        body = checked(Submission, request.data)
        try:
            annotation, new = submit(
                task=task,
                user=request.user,
                uuid=body["uuid"],
                revision=body["revision"],
                boxes=parse_boxes(body["boxes"], task=task),
                effort=parse_effort(body.get("effort")),
            )
        except InvalidBoxes as error:
            return Response(wrong_boxes(error), status=400)
        except StaleRevision:
            return _conflict(task)
        except (BatchClosed, SecondReading) as error:
            return Response({"error": str(error), "closed": True}, status=409)
        return Response({"annotation": annotation.pk, "revision": annotation.revision, "new": new})


def wrong_boxes(error: InvalidBoxes) -> dict[str, Any]:
    return {"error": str(error), "boxes": [{"index": index, "error": reason} for index, reason in error.problems]}


def _conflict(task: Task) -> Response:
    answer = conflict_as_json(task)
    return Response(answer, status=409 if "theirs" in answer else 400)


class DraftIn(serializers.Serializer):
    sequence = serializers.IntegerField(
        min_value=0, max_value=MAX_SEQUENCE, help_text="The client's counter: an older state never replaces a newer."
    )
    revision = serializers.IntegerField(min_value=0, max_value=MAX_REVISION)
    boxes = serializers.ListField(
        child=AnyObject(), help_text="Kept as they are; only a submission's are checked one by one."
    )
    effort = AnyObject(required=False, help_text=EFFORT)


class Saved(serializers.Serializer):
    saved = serializers.IntegerField(help_text="The stored sequence; one above what was sent: it was not stored.")
    held_by = serializers.CharField(allow_null=True, help_text="Who else has leased or submitted the task.")


class TaskDraft(View):
    api_tag = "batches and tasks"
    scopes = {"PUT": Scope.ANNOTATE}

    @writes(DraftIn, {200: Saved, 409: Conflict}, about="Keep work in progress; renews the lease", name="save_draft")
    def put(self, request: Request, pk: int) -> Response:
        task = get_task_for(request.user, WHOLE_TASK, pk)
        body = checked(DraftIn, request.data)
        try:
            saved = keep_draft(task=task, user=request.user, body=body)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
        except StaleRevision:
            return _conflict(task)
        return Response({"saved": saved, "held_by": holder_of(task, besides=request.user)})


class Reason(serializers.Serializer):
    reason = serializers.CharField(max_length=200)


class Skipped(serializers.Serializer):
    skipped = serializers.BooleanField(help_text="False: the batch takes no more, or it was put aside before.")


class SkipTask(View):
    api_tag = "batches and tasks"
    scopes = {"POST": Scope.ANNOTATE}

    @writes(Reason, {200: Skipped, 409: Conflict}, about="Put a task's tile aside, with a reason", name="skip_task")
    def post(self, request: Request, pk: int) -> Response:
        task = get_task_for(request.user, WHOLE_TASK, pk)
        body = checked(Reason, request.data)
        try:
            skipped = skip(task=task, user=request.user, reason=body["reason"])
        except SecondReading as error:
            return Response({"error": str(error), "closed": True}, status=409)
        task.refresh_from_db()
        if not skipped and task.state == TaskState.SUBMITTED:
            return _conflict(task)
        return Response({"skipped": skipped})
