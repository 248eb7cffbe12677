"""Annotations with their boxes: read, and added from outside."""

from typing import Any

from django.db.models import F, Prefetch, Q, QuerySet
from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for, require_role
from annotation.api.base import Filters, View, checked, key
from annotation.api.batches import WrongBoxes, wrong_boxes
from annotation.api.errors import Refused
from annotation.api.inputs import ScoredBoxes
from annotation.api.pages import Pages
from annotation.api.rows import AnnotationRow
from annotation.api.schema import Error, reads, writes
from annotation.models import Annotation, AuthorKind, Box, Role, Scope, Tile
from annotation.selectors import shown_of
from annotation.services.annotations import (
    InvalidBoxes,
    NotTaken,
    Outside,
    UsedUUID,
    add_from_outside,
    parse_boxes_of,
)

WHOLE = Prefetch("boxes", Box.objects.select_related("cell_class"))


def _whole(annotations: QuerySet[Annotation]) -> QuerySet[Annotation]:
    return annotations.select_related("author", "tile").prefetch_related(WHOLE)


class AnnotationFilters(Filters):
    tile = key()
    slide = key()
    batch = key("Submitted in this batch.")
    batch_tiles = key("Of any author, on the tiles of this batch.")
    task = key()
    author_kind = serializers.ChoiceField(AuthorKind.choices, required=False)
    author = serializers.CharField(required=False, help_text="The author's name.")
    truth = serializers.BooleanField(required=False, help_text="Only what counts for its tile now, or only the rest.")
    after = serializers.IntegerField(
        required=False, min_value=0, max_value=2**63 - 1, help_text="Only those with a higher id: what has come since."
    )


NAMES = {
    "tile": "tile",
    "slide": "tile__slide",
    "batch": "task__batch",
    "task": "task",
    "author_kind": "author__kind",
    "author": "author__name",
    "after": "pk__gt",
}


class Annotations(View):
    api_tag = "annotations"

    @reads(
        AnnotationRow,
        about="A project's annotations with their boxes; while tiles are read blind, readers see their own",
        name="annotations",
        filters=AnnotationFilters,
        pages=Pages,
    )
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.ANNOTATOR)
        role = require_role(request.user, project, Role.ANNOTATOR)
        chosen = checked(AnnotationFilters, request.query_params)
        found = Annotation.objects.filter(tile__slide__project=project)
        found = found.filter(**{name: chosen[given] for given, name in NAMES.items() if given in chosen})
        if "batch_tiles" in chosen:
            tiles = Tile.objects.filter(tasks__batch=chosen["batch_tiles"], slide__project=project)
            found = found.filter(tile__in=tiles.order_by().values("pk"))
        if "truth" in chosen:
            counts = Q(tile__truth=F("pk"))
            found = found.filter(counts if chosen["truth"] else ~counts | Q(tile__truth=None))
        return self.paged(request, _whole(shown_of(found, request.user, role)), AnnotationRow)


class OneAnnotation(View):
    api_tag = "annotations"

    @reads(AnnotationRow, about="An annotation with its boxes", name="annotation")
    def get(self, request: Request, pk: int) -> Response:
        every = Annotation.objects.select_related("tile__slide__project")
        found = get_for(request.user, every, pk, Role.ANNOTATOR, project=lambda one: one.tile.slide.project)
        role = require_role(request.user, found.tile.slide.project, Role.ANNOTATOR)
        shown = _whole(shown_of(Annotation.objects.filter(pk=pk), request.user, role)).first()
        if shown is None:  # kept from a blind reader, who is not told either that it is there
            raise Http404
        return Response(AnnotationRow(shown).data)


class Addition(serializers.Serializer):
    uuid = serializers.UUIDField(help_text="Made by the client: sent twice, it counts once.")
    kind = serializers.ChoiceField(
        Outside.choices, help_text="A pre-label is what readers start from; truth is what counts as confirmed."
    )
    source = serializers.CharField(max_length=150, help_text="The outside model's name, or where the truth comes from.")
    boxes = ScoredBoxes(help_text="None at all says that the tile has no cell.")


class Added(serializers.Serializer):
    annotation = serializers.IntegerField()
    new = serializers.BooleanField(help_text="False: this UUID had come before.")


def _scores(raw: Any) -> list[float | None]:
    """The score of each box, where there is one. Raises InvalidBoxes."""
    scores = [box.get("score") for box in raw]
    wrong = [
        (index, "score is no number from 0 to 1")
        for index, score in enumerate(scores)
        if score is not None
        and not (isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1)
    ]
    if wrong:
        raise InvalidBoxes(f"Not stored. Box {wrong[0][0] + 1}: {wrong[0][1]}", wrong)
    return [None if score is None else float(score) for score in scores]


class AddAnnotation(View):
    api_tag = "annotations"
    scopes = {"POST": Scope.LEAD}

    @writes(
        Addition,
        {200: Added, 201: Added, 400: WrongBoxes, 409: Error},
        about="Add an annotation to a tile: an outside model's pre-label, or truth from elsewhere; for leads",
        name="add_annotation",
    )
    def post(self, request: Request, pk: int) -> Response:
        tiles = Tile.objects.select_related("slide__project__taxonomy", "slide__patient", "truth")
        tile = get_for(request.user, tiles, pk, Role.LEAD)
        body = checked(Addition, request.data)
        try:
            boxes = parse_boxes_of(body["boxes"], tile=tile, known=tile.project.taxonomy.class_keys)
            annotation, new = add_from_outside(
                tile=tile,
                kind=Outside(body["kind"]),
                source=body["source"],
                uuid=body["uuid"],
                boxes=boxes,
                scores=_scores(body["boxes"]),
                user=request.user,
            )
        except InvalidBoxes as error:
            return Response(wrong_boxes(error), status=400)
        except (UsedUUID, NotTaken) as error:
            raise Refused(str(error)) from error
        return Response({"annotation": annotation.pk, "new": new}, status=201 if new else 200)
