"""What each round and each hour of expert time bought: the reads behind the curve page and its files."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Q

from annotation.csv_cells import safe_cell
from annotation.models import Annotation, AuthorKind, Box, CellClass, Project, Purpose, Task, TaskKind, TaskState, Tile
from annotation.selectors import class_rows, truth_counts
from training.class_chart import ClassPoint
from training.curve_chart import CurvePoint
from training.engine.plateau import Measured, Plateau, plateau
from training.models import RoundState, Snapshot

CHOSEN_BY_CHANCE = "random"  # how the reasons of such tasks begin
# Of fewer tiles or boxes nothing follows about what chance would find.
FEWEST_RANDOM_TILES, FEWEST_RANDOM_BOXES = 20, 5
FATES = ("kept", "moved", "reclassified", "deleted")  # of a pre-label box
DECIMALS = 4

Row = Mapping[str, Any]  # of selectors.round_rows


def evaluated(rows: Sequence[Row]) -> list[Row]:
    """The rounds that are points of the curve: they are over, and their models have been measured."""
    return [row for row in rows if row["map50"] is not None and row["state"] == RoundState.DONE]


def hours_until(rows: Sequence[Row]) -> dict[int, float]:
    """Expert-hours up to and including each round, by its number. A cancelled round's hours count too."""
    hours, total = {}, 0.0
    for row in rows:
        total += row["hours"]
        hours[row["number"]] = total
    return hours


def curve_points(rows: Sequence[Row], hours_per_day: float) -> list[CurvePoint]:
    """The curve's points from `round_rows`."""
    hours = hours_until(rows)
    return [_point(row, hours[row["number"]], hours_per_day) for row in evaluated(rows)]


def _point(row: Row, hours: float, hours_per_day: float) -> CurvePoint:
    low, high = row["interval"] or (None, None)
    tiles, boxes = size_of(row["round"].snapshot)
    return CurvePoint(
        row["number"],
        row["map50"],
        low,
        high,
        expert_hours=hours,
        expert_days=hours / hours_per_day,
        tiles=tiles,
        boxes=boxes,
        assisted=row["round"].mode == "assisted",
        alike=row["alike"],
    )


def size_of(snapshot: Snapshot | None) -> tuple[int | None, int | None]:
    """How many tiles and boxes a snapshot holds. It never changes, so it is counted once."""
    if snapshot is None:
        return None, None
    key = f"snapshot-size-{snapshot.pk}-{snapshot.content_hash[:16]}"
    size: tuple[int, int] | None = cache.get(key)
    if size is None:
        tiles = snapshot.tiles.values("annotation")
        size = snapshot.tiles.count(), Box.objects.filter(annotation__in=tiles).count()
        cache.set(key, size, None)
    return size


def plateau_of(rows: Sequence[Row]) -> Plateau:
    """Whether the last two rounds gained anything, in words too."""
    hours = hours_until(rows)
    return plateau(
        [
            Measured(
                round_number=row["number"],
                value=row["map50"],
                interval=row["interval"],
                resampled=row["evaluation"].metrics.get("map50_resampled", ()),
                truth=f"{row['evaluation'].part} {row['evaluation'].truth_hash}",
                hours=hours[row["number"]],
            )
            for row in evaluated(rows)
        ]
    )


# AP of each class


def class_points(classes: Sequence[CellClass], rows: Sequence[Row]) -> list[tuple[CellClass, list[ClassPoint]]]:
    """For each class that has been measured, its AP@0.5 in each evaluated round."""
    points = evaluated(rows)
    found = [{one["name"]: one["ap50"] for one in row["evaluation"].metrics["classes"]} for row in points]
    return [
        (
            one,
            [
                ClassPoint(row["number"], aps.get(one.name), row["alike"])
                for row, aps in zip(points, found, strict=True)
            ],
        )
        for one in classes
        if any(aps.get(one.name) is not None for aps in found)
    ]


# Rare classes


@dataclass(frozen=True)
class Chance:
    """Boxes of rare classes on the tiles that were chosen at random. `rate`: per tile; None where they are too few."""

    tiles: int
    boxes: int

    @property
    def rate(self) -> float | None:
        enough = self.tiles >= FEWEST_RANDOM_TILES and self.boxes >= FEWEST_RANDOM_BOXES
        return self.boxes / self.tiles if enough else None


@dataclass(frozen=True)
class Yield:
    """Boxes of rare classes in a batch's confirmed tiles, and how many as many random tiles would have had."""

    tiles: int
    boxes: int
    by_chance: float | None

    @property
    def times(self) -> float | None:
        """How many times as many as by chance."""
        return self.boxes / self.by_chance if self.by_chance else None


@dataclass(frozen=True)
class RareYields:
    """codes: the rare classes. of_round: by round number, of rounds with confirmed tiles."""

    codes: list[str]
    chance: Chance
    of_round: dict[int, Yield]


def rare_yields(project: Project, rows: Sequence[Row]) -> RareYields:
    """What selection brought. Rare is what is rare among today's confirmed boxes, the same classes for every round."""
    counts = truth_counts(Tile.objects.filter(slide__project=project))
    codes = [row["code"] for row in class_rows(project, counts) if row["rare"]]
    rare = project.taxonomy.classes.filter(code__in=codes)
    answered = Task.objects.filter(state=TaskState.SUBMITTED, tile__truth__isnull=False)
    training = answered.filter(batch__project=project, batch__purpose=Purpose.TRAINING)
    chance = _chance(training.filter(reason__startswith=CHOSEN_BY_CHANCE).values("tile"), rare)
    batches = {row["round"].batch_id: row["number"] for row in rows if row["round"].batch_id}
    found = (
        answered.filter(batch__in=batches)
        .order_by()
        .values_list("batch")
        .annotate(
            tiles=Count("tile", distinct=True),
            boxes=Count("tile__truth__boxes", filter=Q(tile__truth__boxes__cell_class__in=rare), distinct=True),
        )
    )
    of_round = {
        batches[batch]: Yield(tiles, boxes, None if chance.rate is None else chance.rate * tiles)
        for batch, tiles, boxes in found
    }
    return RareYields(codes, chance, of_round)


def _chance(tiles: Any, rare: Any) -> Chance:
    drawn = Tile.objects.filter(pk__in=tiles)
    return Chance(drawn.count(), Box.objects.filter(annotation__in=drawn.values("truth"), cell_class__in=rare).count())


# Expert time


@dataclass
class Work:
    """What one reader did in a round, or all of them. `fates` counts what became of pre-label boxes, and `added` ones
    on the tiles that had pre-labels.
    """

    tiles: int = 0
    boxes: int = 0
    seconds: float = 0.0
    fates: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Work") -> None:
        self.tiles += other.tiles
        self.boxes += other.boxes
        self.seconds += other.seconds
        self.fates.update(other.fates)

    @property
    def hours(self) -> float:
        return self.seconds / 3600

    @property
    def seconds_per_box(self) -> float | None:
        return self.seconds / self.boxes if self.boxes else None

    @property
    def pre_labels(self) -> int:
        """Boxes that a model had drawn on the tiles read."""
        return sum(self.fates[name] for name in FATES)

    @property
    def shares(self) -> list[float | None]:
        """Of the pre-label boxes those kept, moved, reclassified and deleted, in 0..1."""
        return [self.fates[name] / self.pre_labels if self.pre_labels else None for name in FATES]

    @property
    def added(self) -> int | None:
        """Boxes that the model had missed; None where there was no pre-label to miss them."""
        return self.fates["added"] if self.fates else None


def work_of(rows: Sequence[Row]) -> dict[int, dict[str, Work]]:
    """By round number and reader's name. Of a task's revisions the newest one's boxes count, and everybody's time.

    A review is time, not further boxes; what was restored is neither.
    """
    batches = {row["round"].batch_id: row["number"] for row in rows if row["round"].batch_id}
    people = (
        Annotation.objects.filter(task__batch__in=batches, author__kind=AuthorKind.PERSON)
        .exclude(effort__has_key="restored_from")
        .order_by("task", "revision")
        .values_list(
            "task__batch", "task__kind", "author__name", "task", "active_seconds", "effort", "pre_label", named=True
        )
    )
    work: dict[int, dict[str, Work]] = {}
    newest: dict[int, tuple[Work, Work]] = {}  # of each task: whose work it is, and what the reading brought
    for one in people:
        mine = work.setdefault(batches[one.task__batch], {}).setdefault(one.author__name, Work())
        mine.seconds += one.active_seconds
        if one.task__kind == TaskKind.READING:
            newest[one.task] = mine, _reading(one.effort, assisted=one.pre_label is not None)
    for mine, reading in newest.values():
        mine.add(reading)
    return {number: dict(sorted(readers.items())) for number, readers in work.items()}


def _reading(effort: Mapping[str, Any], *, assisted: bool) -> Work:
    counts = {name: int(effort.get(name, 0)) for name in (*FATES, "added")}
    boxes = sum(counts.values()) - counts["deleted"]
    return Work(tiles=1, boxes=boxes, fates=Counter(counts) if assisted else Counter())


def total_of(readers: Mapping[str, Work]) -> Work:
    total = Work()
    for one in readers.values():
        total.add(one)
    return total


# Files

WORK_COLUMNS = [
    "tiles_read_by_people",
    "boxes_by_people",
    "hours",
    "seconds_per_box",
    "pre_label_boxes",
    *FATES,
    "added",
]


def rounds_csv(project: Project, rows: Sequence[Row]) -> str:
    """One line per round with every figure of the page; what cannot be said is an empty field.

    `alike` is 1 where the round was measured on the same tiles and boxes as the newest model.
    """
    classes = list(project.taxonomy.classes.filter(ignored_in_training=False))
    per_day = project.hours_per_expert_day
    points = {point.round_number: point for point in curve_points(rows, per_day)}
    hours, rare, work = hours_until(rows), rare_yields(project, rows), work_of(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(
        [
            *("round", "state", "mode", "model", "measured_on", "alike", "test_tiles", "test_boxes", "test_patients"),
            *("map50", "map50_low", "map50_high", "gain", "tiles_in_batch", "tiles_done"),
            *("confirmed_tiles", "confirmed_boxes", "expert_hours_so_far", "expert_days_so_far"),
            *("rare_boxes", "rare_boxes_by_chance", *WORK_COLUMNS),
            *(safe_cell(f"ap50 {one.code}") for one in classes),
        ]
    )
    for row in rows:
        number, evaluation = row["number"], row["evaluation"]
        point, found = points.get(number), rare.of_round.get(number)
        low, high = row["interval"] or (None, None)
        aps = {one["name"]: one["ap50"] for one in evaluation.metrics["classes"]} if evaluation else {}
        measured = (
            [evaluation.part, int(row["alike"]), evaluation.tiles, evaluation.boxes, evaluation.patients]
            if evaluation
            else [None] * 5
        )
        version = row["round"].model_version
        values = [
            *(number, row["state"], row["round"].mode, version.number if version else None, *measured),
            *(row["map50"], low, high, row["gain"], row["tiles"], row["tiles_done"]),
            *((point.tiles, point.boxes) if point else size_of(row["round"].snapshot)),
            *(hours[number], hours[number] / per_day),
            *((found.boxes, found.by_chance) if found else (None, None)),
            *_work_cells(total_of(work.get(number, {}))),
            *(aps.get(one.name) for one in classes),
        ]
        writer.writerow(_shown(values))
    return buffer.getvalue()


def readers_csv(rows: Sequence[Row]) -> str:
    """One line per round and reader; what cannot be said is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["round", "reader", *WORK_COLUMNS])
    for number, readers in sorted(work_of(rows).items()):
        for name, one in readers.items():
            writer.writerow(_shown([number, safe_cell(name), *_work_cells(one)]))
    return buffer.getvalue()


def _work_cells(work: Work) -> list[float | None]:
    counts = [work.fates[name] for name in FATES] if work.fates else [None] * len(FATES)
    pre_labels = work.pre_labels if work.fates else None
    return [work.tiles, work.boxes, work.hours, work.seconds_per_box, pre_labels, *counts, work.added]


def _shown(values: Sequence[Any]) -> list[Any]:
    rounded = [round(value, DECIMALS) if isinstance(value, float) else value for value in values]
    return ["" if value is None else value for value in rounded]
