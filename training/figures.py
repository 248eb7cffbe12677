"""Figures for papers and slides, as SVG or PDF: of an evaluation, and the curve. No Django; matplotlib is loaded by the
first one.

Only matplotlib's objects are used, never pyplot, which keeps state between requests.
"""

import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.curve_chart import AXES, ROUNDS, CurvePoint, y_range, y_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = {"svg": "image/svg+xml", "pdf": "application/pdf"}
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}  # the same bytes every time
LINE_STYLES = ("-", "--", "-.", ":")  # with the colour: no class is told by colour alone
COLOUR = "#0f5e7d"
DARK_ENOUGH = 0.55  # luminance, 0 to 1
# The same figure gives the same bytes, and text stays text, so that it can be searched and edited.
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "marrowloop", "pdf.fonttype": 42}
ONE_COLUMN = (3.35, 2.6)  # inches: 85 mm wide, as most journals print it
PRINT = {"font.size": 8, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6}
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
    return save_figure(
        lambda figure: fill(figure, figure.add_subplot(), subject), (6.4, 5.2), SETTINGS, file_format, settings_folder
    )


def draw_curve(points: Sequence[CurvePoint], axis: str, file_format: str, *, settings_folder: Path) -> bytes:
    """The learning curve over one of AXES, one column of a paper wide. Raises KeyError for another axis."""
    label = AXES[axis].label
    return save_figure(
        lambda figure: _curve(figure.add_subplot(), points, axis, label),
        ONE_COLUMN,
        SETTINGS | PRINT,
        file_format,
        settings_folder,
    )


def save_figure(
    fill: Callable[["Figure"], None],
    inches: tuple[float, float],
    settings: Mapping[Any, Any],
    file_format: str,
    settings_folder: Path,
) -> bytes:
    """A figure of this size that `fill` draws, as a file of one of UNDATED."""
    os.environ.setdefault("MPLCONFIGDIR", str(settings_folder))
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with _ONE_AT_A_TIME, matplotlib.rc_context(dict(settings)):
        figure = Figure(figsize=inches, layout="constrained")
        fill(figure)
        figure.savefig(buffer, format=file_format, metadata=UNDATED[file_format])
    return buffer.getvalue()


def _curve(axes: "Axes", points: Sequence[CurvePoint], axis: str, label: str) -> None:
    """Hollow: manual rounds; filled: with pre-labels; a square, not joined: measured on other tiles or boxes."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    place = AXES[axis].place
    placed = [(x, point) for point in points if (x := place(point)) is not None]
    alike = [(x, point.value) for x, point in placed if point.alike]
    axes.plot([x for x, _ in alike], [y for _, y in alike], "-", color=COLOUR, linewidth=1)
    for x, point in placed:
        if point.low is not None and point.high is not None:
            ends = [[point.value - point.low], [point.high - point.value]]
            axes.errorbar(x, point.value, ends, fmt="none", ecolor=COLOUR, elinewidth=0.8, capsize=2)
        marker, fill = "o" if point.alike else "s", COLOUR if point.assisted else "white"
        axes.plot(x, point.value, marker, color=COLOUR, markerfacecolor=fill, markersize=4, markeredgewidth=1)
    begins = [(one + other) / 2 for (one, first), (other, next_) in pairwise(placed) if next_.assisted > first.assisted]
    if begins:
        axes.axvline(begins[0], color="#565c66", linestyle=":", linewidth=0.8)
        words, where = "pre-labels", ("data", "axes fraction")
        axes.annotate(words, (begins[0], 0.03), xytext=(3, 0), xycoords=where, textcoords="offset points", fontsize=7)
    if axis == ROUNDS:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    # As on the page: a curve whose values hardly differ must look flat.
    lowest, highest, step = y_range([point for _, point in placed])
    axes.set(xlabel=label, ylabel="mAP@0.5", ylim=(lowest, highest), yticks=y_steps(lowest, highest, step))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d8dbdf", linewidth=0.5)
    axes.set_axisbelow(True)


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
