"""Exports: asked for with the choices of their page, followed, downloaded."""

from typing import Any

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.urls import reverse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for
from annotation.api.base import Filters, Strict, View, checked
from annotation.api.pages import NewestFirst
from annotation.api.rows import JobRow
from annotation.api.schema import downloads, reads, writes
from annotation.models import Job, JobKind, JobState, Role, Scope
from annotation.services.export_choice import ANNOTATIONS, COORDINATES, FORMATS, PARTS, choice_of
from annotation.services.exports import queue_export
from annotation.views.exports import archive_of

NAME = 150
MOST = 1000


def _names(help_text: str) -> serializers.ListField:
    return serializers.ListField(
        child=serializers.CharField(max_length=NAME), required=False, max_length=MOST, help_text=help_text
    )


class Choice(Strict):
    """What is left out is as the page proposes it: all tiles with their truth in tile px, with the images."""

    format = serializers.ChoiceField(list(FORMATS.items()))
    images = serializers.BooleanField(default=True)
    part = serializers.ChoiceField(list(PARTS.items()), default="all")
    rounds = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**31 - 1),
        required=False,
        max_length=MOST,
        help_text="Numbers; none: all.",
    )
    patients = _names("Pseudonyms; none: all.")
    classes = _names("Names of classes; boxes of others are left out, tiles never. None: all.")
    readers = _names("Names of authors; none: all.")
    annotations = serializers.ChoiceField(list(ANNOTATIONS.items()), default="truth")
    coordinates = serializers.ChoiceField(
        list(COORDINATES.items()), default="tile", help_text="Slide px can be had as COCO; CSV always holds both."
    )


class ExportRow(JobRow):
    choice = serializers.SerializerMethodField()
    tiles = serializers.IntegerField(source="result.tiles", default=None, allow_null=True)
    boxes = serializers.IntegerField(source="result.boxes", default=None, allow_null=True)
    bytes = serializers.IntegerField(source="result.bytes", default=None, allow_null=True)
    sha256 = serializers.CharField(source="result.sha256", default=None, allow_null=True, help_text="Of the archive.")
    file = serializers.SerializerMethodField(help_text="Where the archive is, once it is made.")
    by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    created_at = serializers.DateTimeField()

    def get_choice(self, job: Any) -> dict[str, Any]:
        return choice_of(job.arguments).arguments()

    def get_file(self, job: Any) -> str | None:
        return reverse("api_export_file", args=[job.pk]) if job.state == JobState.SUCCEEDED else None


CHOICE: dict[str, Any] = {"format": "coco", "images": False, "part": "test", "classes": ["blast", "promyelocyte"]}
EXPORT: dict[str, Any] = {
    "id": 72,
    "kind": "export",
    "state": "succeeded",
    "progress": 1.0,
    "seconds_left": None,
    "message": "120 tiles",
    "choice": choice_of(CHOICE).arguments(),
    "tiles": 120,
    "boxes": 811,
    "bytes": 20480,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "file": "/api/exports/72/file/",
    "by": "lead",
    "created_at": "2026-03-02T08:00:00Z",
}


def _exports() -> QuerySet[Job]:
    return Job.objects.filter(kind=JobKind.EXPORT).select_related("project", "created_by")


class ExportFilters(Filters):
    state = serializers.ChoiceField(JobState.choices, required=False)


class Exports(View):
    api_tag = "exports and imports"
    scopes = {"POST": Scope.READ}

    @reads(
        ExportRow,
        about="A project's exports, the newest first; for reviewers",
        name="exports",
        filters=ExportFilters,
        pages=NewestFirst,
        example=EXPORT,
    )
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.REVIEWER)
        chosen = checked(ExportFilters, request.query_params)
        return self.paged(request, _exports().filter(project=project, **chosen), ExportRow, NewestFirst)

    @writes(
        Choice,
        {201: ExportRow},
        about="Make an export; its row says when it is there; for reviewers",
        name="start_export",
        body=CHOICE,
        example=EXPORT
        | {"state": "queued", "progress": 0.0, "message": "", "file": None}
        | dict.fromkeys(("tiles", "boxes", "bytes", "sha256")),
    )
    def post(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.REVIEWER)
        asked = checked(Choice, request.data)
        try:
            job = queue_export(project=project, choice=choice_of(asked), user=request.user)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
        return Response(ExportRow(_exports().get(pk=job.pk)).data, status=201)


class OneExport(View):
    api_tag = "exports and imports"

    @reads(ExportRow, about="An export, with how far it is; for reviewers", name="export", example=EXPORT)
    def get(self, request: Request, pk: int) -> Response:
        return Response(ExportRow(get_for(request.user, _exports(), pk, Role.REVIEWER)).data)


class ExportFile(View):
    api_tag = "exports and imports"

    @downloads("application/zip", about="The archive of an export that is made; for reviewers", name="export_file")
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        return archive_of(request._request, pk, request.user)
