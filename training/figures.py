"""Figures of an evaluation for papers and slides, as SVG or PDF. No Django; matplotlib is loaded by the first one.

Only matplotlib's objects are used, never pyplot, which keeps state between requests.
"""

import io
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = {"svg": "image/svg+xml", "pdf": "application/pdf"}
LINE_STYLES = ("-", "--", "-.", ":")  # with the colour: no class is told by colour alone
COLOUR = "#0f5e7d"
DARK_ENOUGH = 0.55  # luminance, 0 to 1
_ONE_AT_A_TIME = threading.Lock()  # matplotlib does not promise that threads may draw side by side


@dataclass(frozen=True)
class Subject:
    """What figures show. classes: (code, colour) of each row of the metrics. codes: of each row of the matrix."""

    title: str
    classes: Sequence[tuple[str, str]]
    codes: Sequence[str]
    metrics: Mapping[str, Any]


def draw(name: str, subject: Subject, file_format: str, *, settings_folder: Path) -> bytes:
    """One of FIGURES as a file of one of FORMATS. Raises KeyError for another.

    settings_folder: where matplotlib keeps its list of fonts, unless the environment says otherwise.
    """
    fill = FIGURES[name]
    os.environ.setdefault("MPLCONFIGDIR", str(settings_folder))
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text, so that it can be searched and edited; the same figure gives the same bytes.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "marrowloop", "pdf.fonttype": 42})
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    buffer = io.BytesIO()
    undated = {"Date": None} if file_format == "svg" else {"CreationDate": None}
    with _ONE_AT_A_TIME:
        fill(figure, figure.add_subplot(), subject)
        figure.savefig(buffer, format=file_format, metadata=undated)
    return buffer.getvalue()


def _precision_recall(figure: "Figure", axes: "Axes", subject: Subject) -> None:
    rows = zip(subject.metrics["classes"], subject.classes, strict=True)
    for index, (row, (code, colour)) in enumerate(rows):
        curve = row.get("curve")
        if curve:
            recalls = np.arange(len(curve["precision"])) / 100
            style = LINE_STYLES[index % len(LINE_STYLES)]
            axes.plot(recalls, curve["precision"], style, color=_on_white(colour), label=f"{code} ({row['ap50']:.2f})")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall", ylabel="Precision", title=subject.title)
    axes.grid(color="#d8dbdf", linewidth=0.6)
    if axes.lines:
        figure.legend(loc="outside right upper", title="AP@0.5", fontsize="small")


def _on_white(colour: str) -> tuple[float, float, float]:
    """A class's colour, darkened as far as a line on white paper needs it."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    share = min(1.0, DARK_ENOUGH / max(0.2126 * red + 0.7152 * green + 0.0722 * blue, 1e-6))
    return red * share, green * share, blue * share


def _confusion(figure: "Figure", axes: "Axes", subject: Subject) -> None:
    matrix = np.array(subject.metrics["confusion"], dtype=float)
    image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    places = range(len(subject.codes))
    axes.set_xticks(places, subject.codes, rotation=90)
    axes.set_yticks(places, subject.codes)
    axes.set(xlabel="Model", ylabel="Truth", title=subject.title)
    for (row, column), value in np.ndenumerate(matrix):
        if value >= 0.005:
            colour = "white" if value > 0.5 else "black"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize="x-small")
    figure.colorbar(image, label="Share of the truth's row")


def _average_precision(figure: "Figure", axes: "Axes", subject: Subject) -> None:
    known = [
        (code, row)
        for row, (code, _) in zip(subject.metrics["classes"], subject.classes, strict=True)
        if row["ap50"] is not None
    ]
    places = np.arange(len(known))
    axes.barh(places - 0.2, [row["ap50"] for _, row in known], 0.4, color=COLOUR, label="AP@0.5")
    strict = [row.get("ap50_95") or 0.0 for _, row in known]
    axes.barh(places + 0.2, strict, 0.4, color="white", edgecolor=COLOUR, hatch="///", label="AP@[.5:.95]")
    axes.set_yticks(places, [code for code, _ in known])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="Average precision", title=subject.title)
    figure.legend(loc="outside lower right", ncols=2)


FIGURES = {
    "precision-recall": _precision_recall,
    "confusion": _confusion,
    "average-precision": _average_precision,
}
