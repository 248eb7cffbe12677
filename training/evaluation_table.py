"""The paper's Table 2 of an evaluation, for the model page and as CSV, beside another version's where there is one."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from annotation.models import CellClass
from training.engine.metrics import average_row

SAME = 0.0005  # differences below this are shown as none
DECIMALS = 4


@dataclass(frozen=True)
class Column:
    key: str
    label: str
    lower_is_better: bool = False


COLUMNS = (
    Column("precision", "Precision"),
    Column("recall", "Recall"),
    Column("f1", "F1"),
    Column("average_iou", "Average IoU"),
    Column("log_average_miss_rate", "LAMR", lower_is_better=True),
    Column("ap50", "AP@0.5"),
    Column("ap50_95", "AP@[.5:.95]"),
    Column("count_mse", "Count MSE", lower_is_better=True),
)


class Cell(TypedDict):
    """A figure; `difference` to the other version's in words, `verdict`: better, worse, same or "" (nothing known)."""

    value: float | None
    difference: str
    verdict: str


class Row(TypedDict):
    """One class, or the average of the classes (whose code and colour are empty)."""

    code: str
    name: str
    colour: str
    count: int
    cells: list[Cell]


class Table(TypedDict):
    """All that the template draws."""

    columns: tuple[Column, ...]
    rows: list[Row]
    average: Row


def evaluation_table(
    classes: Sequence[CellClass], metrics: Mapping[str, Any], other: Mapping[str, Any] | None = None
) -> Table:
    """One row per class that was evaluated (those that training ignores were not), and their average.

    other: the metrics of another version on the same tiles; classes are matched by name.
    """
    of_name = {one.name: one for one in classes}
    others = {row["name"]: row for row in other["classes"]} if other else {}
    rows = [
        Row(
            code=of_name[row["name"]].code,
            name=row["name"],
            colour=of_name[row["name"]].colour,
            count=row["truth_count"],
            cells=_cells(row, others.get(row["name"], {})),
        )
        for row in metrics["classes"]
    ]
    average = _cells(average_row(metrics["classes"]), average_row(other["classes"]) if other else {})
    total = sum(row["count"] for row in rows)
    return {
        "columns": COLUMNS,
        "rows": rows,
        "average": Row(code="", name="Average", colour="", count=total, cells=average),
    }


def _cells(row: Mapping[str, Any], other: Mapping[str, Any]) -> list[Cell]:
    return [_cell(column, row.get(column.key), other.get(column.key)) for column in COLUMNS]


def _cell(column: Column, value: float | None, other: float | None) -> Cell:
    if value is None or other is None:
        return {"value": value, "difference": "", "verdict": ""}
    difference = value - other
    if abs(difference) < SAME:
        return {"value": value, "difference": "±0", "verdict": "same"}
    better = (difference < 0) == column.lower_is_better
    sign = "+" if difference > 0 else "−"
    return {
        "value": value,
        "difference": f"{sign}{abs(difference):.3f}",
        "verdict": "better" if better else "worse",
    }


def as_csv(table: Table) -> str:
    """The table with its average row, comma-separated; what cannot be said is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["code", "class", "boxes", *(column.key for column in table["columns"])])
    for row in [*table["rows"], table["average"]]:
        values = [cell["value"] for cell in row["cells"]]
        writer.writerow(
            [row["code"], row["name"], row["count"], *("" if one is None else round(one, DECIMALS) for one in values)]
        )
    return buffer.getvalue()
