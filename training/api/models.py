"""Model versions: what they scored, and their weights."""

from typing import Any

from django.db.models import Prefetch, QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for
from annotation.api.base import View
from annotation.api.pages import Pages
from annotation.api.schema import Error, reads
from annotation.models import Role, Scope
from inference.models import DetectorKind, ModelVersion
from training.models import Evaluation, Part
from training.views.model_files import weights_of

# As `training.selectors.newest_evaluation` chooses it: the locked test set counts wherever there is one.
EVALUATIONS = Prefetch("evaluations", Evaluation.objects.order_by("part", "-pk"), to_attr="best_first")


class ScoreRow(serializers.Serializer):
    """mAP at IoU 0.5 with its 95 % interval, and where it was measured."""

    map50 = serializers.FloatField(source="metrics.map50", allow_null=True)
    map50_interval = serializers.ListField(
        source="metrics.map50_interval", child=serializers.FloatField(), default=None, allow_null=True
    )
    part = serializers.ChoiceField(Part.choices)
    tiles = serializers.IntegerField()
    boxes = serializers.IntegerField()
    patients = serializers.IntegerField()
    truth_hash = serializers.CharField(help_text="Equal hashes: measured on the same tiles and boxes.")
    created_at = serializers.DateTimeField()


class EvaluationRow(ScoreRow):
    metrics = serializers.DictField(help_text="All that was measured, by class and over all; see docs/models.md.")


class ModelRow(serializers.Serializer):
    id = serializers.IntegerField()
    number = serializers.IntegerField()
    kind = serializers.ChoiceField(DetectorKind.choices)
    is_current = serializers.BooleanField()
    taxonomy = serializers.CharField()
    round = serializers.IntegerField(source="round.id", default=None, allow_null=True)
    snapshot = serializers.CharField(source="snapshot_hash")
    weights_sha256 = serializers.CharField()
    classifier_sha256 = serializers.CharField()
    created_at = serializers.DateTimeField()
    score = serializers.SerializerMethodField(help_text="The newest, on the locked test set where there is one.")

    @extend_schema_field(ScoreRow(allow_null=True))
    def get_score(self, version: Any) -> Any:
        return ScoreRow(version.best_first[0]).data if version.best_first else None


class WholeModelRow(ModelRow):
    config = serializers.DictField(help_text="What it was trained with.")
    evaluations = EvaluationRow(many=True, source="best_first")


def _versions() -> QuerySet[ModelVersion]:
    return ModelVersion.objects.select_related("project", "taxonomy", "round").prefetch_related(EVALUATIONS)


class Models(View):
    api_tag = "rounds and models"

    @reads(ModelRow, about="A project's model versions", name="models", pages=Pages)
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.ANNOTATOR)
        return self.paged(request, _versions().filter(project=project), ModelRow)


class OneModel(View):
    api_tag = "rounds and models"

    @reads(WholeModelRow, about="A model version with all its metrics", name="model")
    def get(self, request: Request, pk: int) -> Response:
        return Response(WholeModelRow(get_for(request.user, _versions(), pk, Role.ANNOTATOR)).data)


class Weights(View):
    api_tag = "rounds and models"
    scopes = {"GET": Scope.LEAD}

    @extend_schema(
        operation_id="weights",
        summary="A model's weights: a .pt file, of a two-stage version a .zip of its two; for reviewers",
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            (200, "application/zip"): OpenApiTypes.BINARY,
            (401, "application/json"): Error,
            (403, "application/json"): Error,
            (404, "application/json"): Error,
            (503, "application/json"): Error,
        },
    )
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        return weights_of(get_for(request.user, _versions(), pk, Role.REVIEWER), request.user)
