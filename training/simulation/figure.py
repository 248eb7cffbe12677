"""The figure of a simulation: mAP@0.5 against what it cost, and the rare classes beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from training.figures import PRINT, SETTINGS, save_figure
from training.simulation.operators import Operators
from training.simulation.plan import ARMS
from training.simulation.results import Curves, Estimate, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (7.2, 5.6)  # two columns of a paper
# Colours that stay apart for colour-blind readers (Okabe & Ito 2008), and a marker each.
LOOKS = {
    "a": ("#000000", "o"),
    "b": ("#56b4e9", "v"),
    "c": ("#0072b2", "s"),
    "d": ("#e69f00", "D"),
    "e": ("#d55e00", "^"),
    "e1": ("#cc79a7", "P"),
}
PNG_DPI = 150


def draw_simulation(
    curves: Curves, operators: Operators, *, rare: Sequence[str], hours_per_day: float, file_format: str, settings: Path
) -> bytes:
    """As one of training.figures.UNDATED. rare: the names of the rare classes. settings: matplotlib's folder."""
    days = hours_per_day

    def fill(figure: "Figure") -> None:
        (first, second), (third, fourth) = figure.subplots(2, 2)
        _panel(first, curves, lambda point: point.hours(operators) / days, lambda point: point.map50)
        first.set(xlabel=f"expert-days of {hours_per_day:g} active hours", ylabel="mAP@0.5")
        _panel(second, curves, lambda point: point.tiles, lambda point: point.map50)
        second.set(xlabel="confirmed tiles", ylabel="mAP@0.5")
        _panel(third, curves, lambda point: point.boxes, lambda point: point.map50)
        third.set(xlabel="confirmed boxes", ylabel="mAP@0.5")
        _panel(fourth, curves, lambda point: point.hours(operators) / days, lambda point: rare_ap(point, rare))
        fourth.set(xlabel=f"expert-days of {hours_per_day:g} active hours", ylabel="AP@0.5, mean of rare classes")
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=1, frameon=False)

    look = SETTINGS | PRINT | {"savefig.dpi": PNG_DPI}
    return save_figure(fill, INCHES, look, file_format, settings)


def rare_ap(point: Point, rare: Sequence[str]) -> float:
    """The mean AP@0.5 of these classes; one that could not be measured counts nothing."""
    return mean([point.aps.get(name) or 0.0 for name in rare]) if rare else 0.0


def _panel(axes: "Axes", curves: Curves, across: Callable[[Point], float], up: Callable[[Point], float]) -> None:
    """The mean over seeds with its 95 % interval; thin lines: the seeds. Hollow: manual rounds."""
    for name, of_seed in curves.items():
        colour, marker = LOOKS[name]
        for points in of_seed.values():
            axes.plot(list(map(across, points)), list(map(up, points)), "-", color=colour, linewidth=0.4, alpha=0.5)
        rounds = list(zip(*of_seed.values(), strict=False))  # as far as every seed has come
        xs = [mean(map(across, one)) for one in rounds]
        ys = [Estimate(list(map(up, one))) for one in rounds]
        axes.plot(xs, [one.value or 0.0 for one in ys], "-", color=colour, linewidth=1.2)
        for x, estimate, one in zip(xs, ys, rounds, strict=True):
            value = estimate.value or 0.0
            if estimate.interval:
                low, high = estimate.interval
                axes.errorbar(
                    x, value, [[value - low], [high - value]], fmt="none", ecolor=colour, elinewidth=0.7, capsize=1.5
                )
            fill = colour if one[0].assisted else "white"
            label = f"{name}: {ARMS[name].words}" if one is rounds[-1] else None
            axes.plot(
                x, value, marker, color=colour, markerfacecolor=fill, markersize=4, markeredgewidth=0.9, label=label
            )
        _mark_assistance(axes, name, xs)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d8dbdf", linewidth=0.5)
    axes.set_axisbelow(True)


def _mark_assistance(axes: "Axes", name: str, xs: Sequence[float]) -> None:
    """Where the arm's readers first see pre-labels."""
    begins = ARMS[name].assisted_from
    if begins is not None and begins <= len(xs):
        axes.axvline((xs[begins - 2] + xs[begins - 1]) / 2, color=LOOKS[name][0], linestyle=":", linewidth=0.7)


def figures(
    curves: Curves, operators: Operators, *, rare: Sequence[str], hours_per_day: float, settings: Path
) -> Mapping[str, bytes]:
    """Every format, by file name."""
    return {
        f"figure.{file_format}": draw_simulation(
            curves, operators, rare=rare, hours_per_day=hours_per_day, file_format=file_format, settings=settings
        )
        for file_format in ("svg", "pdf", "png")
    }
