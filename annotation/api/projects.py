"""Projects, slides, tiles and the event log, to be read."""

from typing import Any

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.http import Http404
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response, patch_cache_control
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for, projects_of, require_role, role_in
from annotation.api.base import Filters, View, checked, key
from annotation.api.pages import NewestFirst, Pages
from annotation.api.ranges import part_of
from annotation.api.rows import EventRow, ProjectRow, SlideRow, TileRow
from annotation.api.schema import downloads, reads
from annotation.event_log import events_of
from annotation.models import Annotation, Membership, Project, Role, Slide, Tile, User
from annotation.selectors import shown_of
from annotation.services.tiles import tile_jpeg
from annotation.slides.reader import SlideError

MONTH = 60 * 60 * 24 * 30


class Projects(View):
    api_tag = "projects"

    @reads(ProjectRow, about="The projects that the token's user may see", name="projects", pages=Pages)
    def get(self, request: Request) -> Response:
        found = projects_of(request.user).select_related("taxonomy").prefetch_related("taxonomy__classes")
        paginator = Pages()
        page = paginator.paginate_queryset(found.order_by(), request, view=self) or []
        return paginator.get_paginated_response(_rows(request.user, page))


class OneProject(View):
    api_tag = "projects"

    @reads(ProjectRow, about="A project with its taxonomy", name="project")
    def get(self, request: Request, pk: int) -> Response:
        return Response(_rows(request.user, [get_project_for(request.user, pk, Role.ANNOTATOR)])[0])


def _rows(user: User, projects: list[Project]) -> Any:
    roles = dict(Membership.objects.filter(user=user, project__in=projects).values_list("project", "role"))
    if user.is_superuser:
        roles = {}
    return ProjectRow(projects, many=True, context={"roles": roles}).data


class SlideFilters(Filters):
    patient = serializers.CharField(required=False, help_text="Pseudonym.")
    locked = serializers.BooleanField(required=False, help_text="In the locked test set, or not.")


class Slides(View):
    api_tag = "slides and tiles"

    @reads(SlideRow, about="A project's slides", name="slides", filters=SlideFilters, pages=Pages)
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.ANNOTATOR)
        names = {"patient": "patient__code", "locked": "patient__locked"}
        chosen = checked(SlideFilters, request.query_params)
        found = Slide.objects.filter(project=project, **{names[name]: value for name, value in chosen.items()})
        return self.paged(request, found.select_related("patient"), SlideRow)


class OneSlide(View):
    api_tag = "slides and tiles"

    @reads(SlideRow, about="A slide", name="slide")
    def get(self, request: Request, pk: int) -> Response:
        slides = Slide.objects.select_related("project", "patient")
        return Response(SlideRow(get_for(request.user, slides, pk, Role.ANNOTATOR)).data)


class TileFilters(Filters):
    slide = key()
    batch = key("Tiles that have a task in this batch.")
    patient = serializers.CharField(required=False, help_text="Pseudonym.")
    locked = serializers.BooleanField(required=False, help_text="In the locked test set, or not.")
    confirmed = serializers.BooleanField(required=False, help_text="With truth, or without.")


def _tiles_shown_to(user: User, role: Role) -> QuerySet[Tile]:
    """Tiles of a project in which the user has this role, with the truth that may be shown as `shown_truth`."""
    tiles = Tile.objects.select_related("slide__patient", "slide__project")
    if role.covers(Role.REVIEWER):
        return tiles.annotate(shown_truth=F("truth_id"))
    truth = shown_of(Annotation.objects.filter(pk=OuterRef("truth")), user, role)
    return tiles.annotate(shown_truth=Subquery(truth.order_by().values("pk")[:1]))


class Tiles(View):
    api_tag = "slides and tiles"

    @reads(TileRow, about="A project's tiles", name="tiles", filters=TileFilters, pages=Pages)
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.ANNOTATOR)
        role = require_role(request.user, project, Role.ANNOTATOR)
        chosen = checked(TileFilters, request.query_params)
        found = _tiles_shown_to(request.user, role).filter(slide__project=project)
        names = {"slide": "slide", "patient": "slide__patient__code", "locked": "slide__patient__locked"}
        found = found.filter(**{name: chosen[given] for given, name in names.items() if given in chosen})
        if "confirmed" in chosen:
            found = found.filter(truth__isnull=not chosen["confirmed"])
        if "batch" in chosen:
            in_batch = Tile.objects.filter(tasks__batch=chosen["batch"], tasks__batch__project=project)
            found = found.filter(pk__in=in_batch.order_by().values("pk"))
        return self.paged(request, found, TileRow)


class OneTile(View):
    api_tag = "slides and tiles"

    @reads(TileRow, about="A tile", name="tile")
    def get(self, request: Request, pk: int) -> Response:
        tile = get_for(request.user, Tile.objects.select_related("slide__project"), pk, Role.ANNOTATOR)
        role = role_in(request.user, tile.project) or Role.ANNOTATOR
        return Response(TileRow(_tiles_shown_to(request.user, role).get(pk=pk)).data)


class TileImage(View):
    api_tag = "slides and tiles"

    @downloads("image/jpeg", about="A tile's picture: JPEG, 4:4:4", name="tile_image")
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        tile = get_for(request.user, Tile.objects.select_related("slide__project"), pk, Role.ANNOTATOR)
        etag = f'"tile-{pk}"'  # a tile's px never change
        known = get_conditional_response(request._request, etag=etag)
        if known is not None:
            return known
        try:
            data = tile_jpeg(tile)
        except SlideError as error:
            raise Http404(str(error)) from error
        response = part_of(request, data, content_type="image/jpeg", etag=etag)
        patch_cache_control(response, private=True, max_age=MONTH, immutable=True)
        return response


class EventFilters(Filters):
    person = serializers.CharField(required=False, help_text="User name.")
    verb = serializers.CharField(required=False)
    text = serializers.CharField(required=False, help_text="In the subject.")
    first = serializers.DateField(required=False, help_text="First day.")
    last = serializers.DateField(required=False, help_text="Last day.")

    def validate(self, attrs: Any) -> Any:
        wrong = [name for name in ("first", "last") if name in attrs and not 1970 <= attrs[name].year <= 9000]
        if wrong:
            raise serializers.ValidationError({wrong[0]: "A year from 1970 to 9000 is needed."})
        return attrs


class Events(View):
    api_tag = "projects"

    @reads(
        EventRow,
        about="A project's event log, the newest first; for leads",
        name="events",
        filters=EventFilters,
        pages=NewestFirst,
    )
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.LEAD)
        chosen = checked(EventFilters, request.query_params)
        return self.paged(request, events_of(project, chosen), EventRow, NewestFirst)
