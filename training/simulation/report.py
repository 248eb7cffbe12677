"""What is told of a simulation: tables, figures, result.json, a manifest. All follows from the rounds in its folder."""

import csv
import hashlib
import io
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from training.simulation.figure import figures, rare_ap
from training.simulation.operators import Operators
from training.simulation.plan import ARMS
from training.simulation.results import Curves, Estimate, Point, common_levels, hours_share, hours_to_reach, map50_at
from training.simulation.settings import Settings
from training.simulation.tree import FACTORS, VARIED_ARMS

HOURS_PER_DAY = 6.0  # active hours of an expert-day, as a project's default
PACKAGES = ("marrowloop", "torch", "torchvision", "ultralytics-opencv-headless", "openvino", "timm", "numpy", "django")
SHARES = {"c": "hours_share_assisted_rare", "e": "hours_share_paper"}
DECIMALS = 4

Table = list[list[str]]  # the first row is the heading
Varied = Mapping[tuple[str, float], Curves]  # by an error's name and the factor of its frequency


def write_report(
    curves: Curves, settings: Settings, facts: Mapping[str, Any], folder: Path, *, varied: Varied, matplotlib: Path
) -> dict[str, Any]:
    """Write every file into the folder; returns what is in result.json.

    facts: of the source, as `known.json` says. varied: of `simulate_variations`. matplotlib: its settings' folder.
    """
    rare = rare_names(facts)
    result = result_of(curves, settings, facts)
    tables = tables_of(curves, settings, facts, varied)
    files: dict[str, bytes] = {
        "points.csv": points_csv(curves, settings.operators).encode(),
        "points.json": (points_json(curves) + "\n").encode(),
        "result.json": (json.dumps(result, indent=1) + "\n").encode(),
        "tables.md": as_markdown(tables).encode(),
        **figures(curves, settings.operators, rare=rare, hours_per_day=HOURS_PER_DAY, settings=matplotlib),
    }
    files["manifest.json"] = (json.dumps(_manifest(settings, facts, files), indent=1) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        partial = folder / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)
    return result


def rare_names(facts: Mapping[str, Any]) -> list[str]:
    return [facts["names"][number] for number in facts["rare"]]


def result_of(curves: Curves, settings: Settings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Only of arms that were run. An interval over seeds needs two of them."""
    operators = settings.operators
    shares = {
        SHARES.get(name, f"hours_share_{name}"): hours_share(curves, name, operators) for name in curves if name != "a"
    }
    return {
        **{name: share.to_json() for name, share in shares.items()},
        "best_map50": {
            name: _estimated([max(point.map50 for point in points) for points in of_seed.values()])
            for name, of_seed in curves.items()
        },
        "hours": {
            name: _estimated([points[-1].hours(operators) for points in of_seed.values()])
            for name, of_seed in curves.items()
        },
        "rounds": {name: min(map(len, of_seed.values())) for name, of_seed in curves.items()},
        "seeds": {name: len(of_seed) for name, of_seed in curves.items()},
        "settings": settings.to_json(),
        "source": {
            name: facts[name] for name in ("pool_tiles", "pool_boxes", "test_tiles", "test_boxes", "test_patients")
        },
        "rare": rare_names(facts),
    }


def _estimated(values: Sequence[float]) -> dict[str, Any]:
    estimate = Estimate(values)
    return {"mean": estimate.value, "interval": estimate.interval}


def tables_of(curves: Curves, settings: Settings, facts: Mapping[str, Any], varied: Varied) -> dict[str, Table]:
    """By title; those that have something to say."""
    tables = {
        "Expert-hours to reach a level of mAP@0.5": _levels(curves, settings.operators),
        "mAP@0.5 at equal expert-hours": _equal_hours(curves, settings.operators),
        "Round by round, means over the seeds": _rounds(curves, settings.operators, rare_names(facts)),
        "Hours to the best mAP@0.5 of arm a, as a share of arm a's": _shares(curves, settings.operators),
        "The same when one operator takes half or twice its time": _sensitivity(curves, settings.operators),
        "The same, first seed, when one error is half or twice as frequent": _varied(varied, settings),
    }
    return {title: rows for title, rows in tables.items() if len(rows) > 1}


def _levels(curves: Curves, operators: Operators) -> Table:
    rows = [["mAP@0.5", *(f"{name}: {ARMS[name].words}" for name in curves)]]
    for level in common_levels(curves):
        cells = []
        for of_seed in curves.values():
            hours = [hours_to_reach(points, level, operators) for points in of_seed.values()]
            cells.append(in_words(Estimate([one for one in hours if one is not None]), 2))
        rows.append([f"{level:.2f}", *cells])
    return rows


def _equal_hours(curves: Curves, operators: Operators) -> Table:
    """At the hours of the manual arm's rounds, as far as its first seed's go."""
    base = next(iter(curves.get("a", {}).values()), [])
    rows = [["expert-hours", *(f"{name}: {ARMS[name].words}" for name in curves)]]
    for hours in [point.hours(operators) for point in base]:
        cells = []
        for of_seed in curves.values():
            values = [map50_at(points, hours, operators) for points in of_seed.values()]
            known = [one for one in values if one is not None]
            cells.append(in_words(Estimate(known), 3) if len(known) == len(values) else "-")
        rows.append([f"{hours:.2f}", *cells])
    return rows


def _rounds(curves: Curves, operators: Operators, rare: Sequence[str]) -> Table:
    heading = ["arm", "round", "tiles", "boxes", "hours", "mAP@0.5", "AP of rare classes", "rare boxes in batch"]
    rows = [[*heading, "seconds per box", "pre-labels kept"]]
    for name, of_seed in curves.items():
        for one in zip(*of_seed.values(), strict=False):
            kept = [share for point in one if (share := point.kept) is not None]
            per_box = [seconds for point in one if (seconds := point.seconds_per_box(operators)) is not None]
            rows.append(
                [
                    name,
                    f"{one[0].round}{'' if one[0].assisted else ' (manual)'}",
                    f"{mean(point.tiles for point in one):.0f}",
                    f"{mean(point.boxes for point in one):.0f}",
                    f"{mean(point.hours(operators) for point in one):.2f}",
                    in_words(Estimate([point.map50 for point in one]), 3),
                    f"{mean(rare_ap(point, rare) for point in one):.3f}",
                    f"{mean(point.batch_rare for point in one):.1f}",
                    f"{mean(per_box):.1f}" if per_box else "-",
                    f"{mean(kept):.0%}" if kept else "-",
                ]
            )
    return rows


def _shares(curves: Curves, operators: Operators) -> Table:
    rows = [["arm", "share", "by seed"]]
    for name in curves:
        if name != "a":
            share = hours_share(curves, name, operators)
            by_seed = [f"{one:.2f}" for one in share.reached.values()]
            by_seed += [f"never (more than {one:.2f})" for one in share.at_least.values()]
            rows.append([f"{name}: {ARMS[name].words}", in_words(share.estimate, 2), ", ".join(by_seed) or "-"])
    return rows


def _sensitivity(curves: Curves, operators: Operators) -> Table:
    """Times of operators change no answer and so no training: the same rounds, counted anew."""
    names = [name for name in curves if name != "a"]
    rows = [["operator", *(f"{name}, x {factor:g}" for name in names for factor in FACTORS)]]
    for field in fields(Operators):
        cells = [
            in_words(hours_share(curves, name, operators.scaled(field.name, factor)).estimate, 2)
            for name in names
            for factor in FACTORS
        ]
        rows.append([f"{field.name} ({getattr(operators, field.name):g} s)", *cells])
    return rows


def _varied(varied: Varied, settings: Settings) -> Table:
    names = [name for name in settings.arms if name in VARIED_ARMS and name != "a"]
    rows = [["error", *(f"{name}, x {factor:g}" for name in names for factor in FACTORS)]]
    for error in dict.fromkeys(error for error, _ in varied):
        cells = [
            in_words(hours_share(varied[error, factor], name, settings.operators).estimate, 2)
            for name in names
            for factor in FACTORS
        ]
        rows.append([f"{error} ({getattr(settings.errors, error):g})", *cells])
    return rows


def in_words(estimate: Estimate, decimals: int) -> str:
    """The mean, and the interval where there is one."""
    if estimate.value is None:
        return "-"
    text = f"{estimate.value:.{decimals}f}"
    return (
        text
        if estimate.interval is None
        else f"{text} [{estimate.interval[0]:.{decimals}f}, {estimate.interval[1]:.{decimals}f}]"
    )


def as_markdown(tables: Mapping[str, Table]) -> str:
    return "\n".join(f"## {title}\n\n{_markdown(rows)}\n" for title, rows in tables.items())


def _markdown(rows: Table) -> str:
    heading, *body = rows
    lines = [heading, ["---"] * len(heading), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def points_csv(curves: Curves, operators: Operators) -> str:
    """One line for each round of each arm and seed."""
    classes = sorted({name for point in _every(curves) for name in point.aps})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            *("arm", "seed", "round", "assisted", "tiles", "boxes", "hours", "expert_days"),
            *("map50", "map50_low", "map50_high", "batch_tiles", "batch_boxes", "batch_rare_boxes"),
            *("batch_hours", "seconds_per_box", "pre_labels_kept", *(f"ap50 {name}" for name in classes)),
        ]
    )
    for arm, of_seed in curves.items():
        for seed, points in of_seed.items():
            for point in points:
                hours = point.hours(operators)
                values: list[Any] = [
                    *(arm, seed, point.round, int(point.assisted), point.tiles, point.boxes),
                    *(hours, hours / HOURS_PER_DAY, point.map50, *(point.interval or (None, None))),
                    *(point.batch_tiles, point.batch_boxes, point.batch_rare),
                    *(point.batch_work.seconds(operators) / 3600, point.seconds_per_box(operators), point.kept),
                    *(point.aps.get(name) for name in classes),
                ]
                writer.writerow([_shown(value) for value in values])
    return buffer.getvalue()


def points_json(curves: Curves) -> str:
    """All that was counted, by arm and seed, so that it can be counted again with other times of the operators."""
    return json.dumps(
        {
            arm: {seed: [one.to_json() for one in points] for seed, points in found.items()}
            for arm, found in curves.items()
        }
    )


def _every(curves: Curves) -> Iterable[Point]:
    return (point for of_seed in curves.values() for points in of_seed.values() for point in points)


def _shown(value: Any) -> Any:
    return "" if value is None else round(value, DECIMALS) if isinstance(value, float) else value


def _manifest(settings: Settings, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "settings": settings.to_json(),
        "seeds": list(range(settings.seeds)),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "processors": os.cpu_count(),
        "slides": facts["slides"],
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:  # PackageNotFoundError is one
        return None
