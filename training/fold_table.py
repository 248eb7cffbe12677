"""A cross-validation in figures: each class's mean and standard deviation over the folds, for the page and as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, TypedDict

from annotation.models import CellClass
from training.engine.metrics import average_row
from training.evaluation_table import COLUMNS, DECIMALS, Column

Fold = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """mean: of the folds in which the figure can be said; None if there is none.

    deviation: the sample standard deviation (n - 1) over them; None for fewer than two.
    """

    mean: float | None
    deviation: float | None
    folds: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        known = [value for value in values if value is not None]
        return cls(mean(known) if known else None, stdev(known) if len(known) > 1 else None, len(known))


class Row(TypedDict):
    """One class, or the average of the classes (whose code and colour are empty)."""

    code: str
    name: str
    colour: str
    count: int
    cells: list[Spread]


class Table(TypedDict):
    """All that the template draws."""

    columns: tuple[Column, ...]
    rows: list[Row]
    average: Row
    map50: Spread


def fold_table(classes: Sequence[CellClass], folds: Sequence[Fold]) -> Table:
    """The folds that have been measured; a class that no held-out patient has is not said in that fold."""
    of_name = {one.name: one for one in classes}
    figures = [fold["metrics"] for fold in folds if fold.get("metrics")]
    per_class = [{row["name"]: row for row in one["classes"]} for one in figures]
    names = list(dict.fromkeys(name for rows in per_class for name in rows))
    rows = [
        Row(
            code=of_name[name].code,
            name=name,
            colour=of_name[name].colour,
            count=sum(rows[name]["truth_count"] for rows in per_class),
            cells=_cells([rows[name] for rows in per_class if rows[name]["truth_count"]]),
        )
        for name in names
        if name in of_name
    ]
    averages = [average_row(one["classes"]) for one in figures]
    total = sum(row["count"] for row in rows)
    return {
        "columns": COLUMNS,
        "rows": rows,
        "average": Row(code="", name="Average", colour="", count=total, cells=_cells(averages)),
        "map50": Spread.of(one["map50"] for one in figures),
    }


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[Spread]:
    return [Spread.of(row.get(column.key) for row in rows) for column in COLUMNS]


def as_csv(classes: Sequence[CellClass], folds: Sequence[Fold]) -> str:
    """One line per fold and class, then each class's mean and standard deviation; an empty field cannot be said.

    The class "Average" is the mean over the classes of a fold; its ap50 is the fold's mAP@0.5.
    """
    codes = {one.name: one.code for one in classes}
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["fold", "patients", "code", "class", "boxes", *(column.key for column in COLUMNS)])
    for number, fold in enumerate(folds, start=1):
        if not fold.get("metrics"):
            continue
        rows = fold["metrics"]["classes"]
        patients = " ".join(fold["patients"])
        for row in rows:
            values = [row.get(column.key) for column in COLUMNS]
            writer.writerow(
                [number, patients, codes.get(row["name"], ""), row["name"], row["truth_count"], *_shown(values)]
            )
        average = average_row(rows)
        values = [average.get(column.key) for column in COLUMNS]
        writer.writerow([number, patients, "", "Average", sum(row["truth_count"] for row in rows), *_shown(values)])
    table = fold_table(classes, folds)
    for word, key in (("mean", "mean"), ("standard deviation", "deviation")):
        for line in [*table["rows"], table["average"]]:
            values = [getattr(cell, key) for cell in line["cells"]]
            writer.writerow([word, "", line["code"], line["name"], line["count"], *_shown(values)])
    return buffer.getvalue()


def _shown(values: Iterable[float | None]) -> list[float | str]:
    return ["" if value is None else round(value, DECIMALS) for value in values]
