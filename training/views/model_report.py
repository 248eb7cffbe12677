"""An evaluation as the page of its model version draws it."""

from typing import Any

from django.urls import reverse

from annotation.models import CellClass
from inference.models import ModelVersion
from training.evaluation_table import evaluation_table
from training.models import Evaluation
from training.precision_recall_chart import axes, class_chart

SHADES = 10
CONFIDENCE = 0.25  # of evaluations that do not say theirs
ERROR_KINDS = {
    "missed": ("Missed", "cells without a box; those of which nothing was seen first, of the rarest class first"),
    "false": ("False", "boxes without a cell, or a second box on one; the surest first"),
    "confused": ("Confused", "cells found as another class; the surest first"),
}


def report(version: ModelVersion, evaluation: Evaluation, theirs: Evaluation | None) -> dict[str, Any]:
    """Table, matrix, curves and worst errors; `theirs`: another version's on the same tiles and boxes."""
    classes = list(version.taxonomy.classes.all())
    metrics, others = evaluation.metrics, theirs.metrics if theirs else None
    table = evaluation_table(classes, metrics, others)
    return {
        "map50": metrics["map50"],
        "map50_95": metrics.get("map50_95"),
        "interval": metrics.get("map50_interval"),
        "interval_over": metrics.get("interval_over"),
        "confidence": metrics.get("confidence", CONFIDENCE),
        "table": table,
        "class_metrics": table["rows"],
        "confusion": _confusion(classes, metrics),
        "axes": axes(),
        "curves": _curves(classes, metrics, others),
        "errors": _errors(classes, metrics),
    }


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


def _curves(classes: list[CellClass], metrics: dict[str, Any], others: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One chart per class that occurs in the truth; none of evaluations of before curves were kept."""
    of_name = {one.name: one for one in classes}
    of_other = {row["name"]: row.get("curve") for row in others["classes"]} if others else {}
    confidence = metrics.get("confidence", CONFIDENCE)
    return [
        {
            "code": of_name[row["name"]].code,
            "name": row["name"],
            "colour": of_name[row["name"]].colour,
            "ap": row["ap50"],
            "chart": class_chart(
                row["curve"], name=row["name"], confidence=confidence, other=of_other.get(row["name"])
            ),
        }
        for row in metrics["classes"]
        if row.get("curve")
    ]


def _errors(classes: list[CellClass], metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The three groups of worst errors; none of evaluations of before they were kept."""
    if "errors" not in metrics:
        return []
    of_number = {one.number: one for one in classes}
    return [
        {
            "kind": kind,
            "label": label,
            "text": text,
            "rows": [_error(row, of_number) for row in metrics["errors"][kind]],
        }
        for kind, (label, text) in ERROR_KINDS.items()
    ]


def _error(row: dict[str, Any], of_number: dict[int, CellClass]) -> dict[str, Any]:
    place = dict(zip(("x", "y", "width", "height"), row["box"], strict=True))
    return {
        "truth": of_number.get(row["truth"]),
        "found": of_number.get(row["found"]),
        "score": row["score"],
        "crop": reverse("tile_crop", args=[row["tile"]], query=place),
        "tile": reverse("tile", args=[row["tile"]]),
    }
