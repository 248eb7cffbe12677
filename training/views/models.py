"""Model versions with what they scored. They lie in training, because evaluations do."""

from typing import Any

from django.contrib import messages
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, get_project_for
from annotation.models import CellClass, Role
from annotation.views.request import SignedIn, page_of
from inference.models import ModelVersion
from inference.services.registry import make_current
from training.models import Part, Snapshot
from training.selectors import score_of

SHADES = 10


def _version_for(request: SignedIn, pk: int, role: Role) -> ModelVersion:
    return get_for(request.user, ModelVersion.objects.select_related("project", "taxonomy"), pk, role)


def _tiles_trained_on(version: ModelVersion) -> int | None:
    snapshot = Snapshot.objects.filter(project=version.project_id, content_hash=version.snapshot_hash).first()
    return snapshot.tiles.filter(part=Part.TRAIN).count() if snapshot else None


@require_GET
def project_models(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    rows = []
    for version in project.model_versions.select_related("round"):
        score = score_of(version)
        round_ = getattr(version, "round", None)
        rows.append(
            {
                "version": version,
                "round_number": round_.number if round_ else None,
                "map50": score.map50 if score else None,
                "interval": score.interval if score else None,
                "tiles": _tiles_trained_on(version),
            }
        )
    context = page_of(request, project, "models") | {"versions": rows}
    return render(request, "inference/models.html", context)


@require_GET
def model(request: SignedIn, pk: int) -> HttpResponse:
    version = _version_for(request, pk, Role.ANNOTATOR)
    score = score_of(version)
    classes = list(version.taxonomy.classes.all())
    evaluation = score.evaluation if score else None
    context = page_of(request, version.project, "models") | {
        "version": version,
        "round": getattr(version, "round", None),
        "map50": score.map50 if score else None,
        "interval": score.interval if score else None,
        "evaluation": evaluation,
        "tiles": _tiles_trained_on(version),
        "test_tiles": evaluation.tiles if evaluation else None,
        "test_boxes": evaluation.boxes if evaluation else None,
        "test_patients": evaluation.patients if evaluation else None,
        "class_metrics": _class_rows(classes, evaluation.metrics) if evaluation else [],
        "confusion": _confusion(classes, evaluation.metrics) if evaluation else None,
    }
    return render(request, "inference/model.html", context)


def _class_rows(classes: list[CellClass], metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per class that was evaluated; those that training ignores were not."""
    of_name = {one.name: one for one in classes}
    judged = [(of_name[row["name"]], row) for row in metrics["classes"]]
    return [
        {
            "code": one.code,
            "name": one.name,
            "colour": one.colour,
            "ap": row["ap50"],
            "precision": row["precision"],
            "recall": row["recall"],
            "f1": row["f1"],
            "average_iou": row["average_iou"],
            "lamr": row["log_average_miss_rate"],
            "count_mse": row["count_mse"],
            "count": row["truth_count"],
        }
        for one, row in judged
    ]


def _confusion(classes: list[CellClass], metrics: dict[str, Any]) -> dict[str, Any]:
    """The row-normalised matrix for the page: rows are truth, columns detections, background last."""
    codes = [one.code for one in classes] + ["BG"]
    names = [one.name for one in classes] + ["background"]
    rows = []
    for row, values in enumerate(metrics["confusion"]):
        cells = [
            {
                "value": value,
                "shade": round((value or 0.0) * SHADES),
                "diagonal": row == column,
                "title": f"{names[row]} found as {names[column]}: {value or 0.0:.1%}",
            }
            for column, value in enumerate(values)
        ]
        rows.append({"code": codes[row], "name": names[row], "cells": cells})
    return {"columns": codes, "rows": rows}


@require_POST
def model_make_current(request: SignedIn, pk: int) -> HttpResponse:
    version = _version_for(request, pk, Role.LEAD)
    make_current(version=version, user=request.user)
    messages.success(request, f"{version} is the current model: the next pre-labels are its.")
    return redirect("project_models", version.project_id)


@require_GET
def model_weights(request: SignedIn, pk: int) -> HttpResponseBase:
    version = _version_for(request, pk, Role.REVIEWER)
    if not default_storage.exists(version.weights):
        raise Http404("The weights are gone from storage.")
    return FileResponse(
        default_storage.open(version.weights),
        as_attachment=True,
        filename=f"marrowloop-{version.project_id}-model-{version.number}.pt",
        content_type="application/octet-stream",
    )
