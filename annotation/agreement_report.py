"""What a batch tells of its readers: how far they agree with each other, with reviewers, and with the model."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from annotation.agreement import (
    Estimate,
    Floats,
    PairAgreement,
    Reading,
    disagreement,
    fleiss_kappa,
    pair_agreement,
    ratings_of,
)
from annotation.csv_cells import safe_cell
from annotation.models import Annotation, AuthorKind, Batch, CellClass, Task, TaskKind, TaskState, Tile
from annotation.services.policies import maturation_of, readings_of

MOST_DIFFERENT = 12
DECIMALS = 4
REVIEW = "review"
COLUMNS = ("detection", "same_class", "kappa", "weighted_kappa", "missed", "unconfirmed")


@dataclass(frozen=True)
class Pair:
    """Two parties that drew on the same tiles."""

    first: str
    second: str
    tiles: int
    agreement: PairAgreement


@dataclass(frozen=True)
class Difference:
    """A tile on which two people are far apart: by so many cells."""

    tile: Tile
    first: str
    second: str
    cells: float


@dataclass(frozen=True)
class ClassRow:
    """A class, and for each pair the share of its cells on which they agree."""

    cell_class: CellClass
    shares: list[Estimate]


@dataclass(frozen=True)
class Report:
    """readers: every two who read the same tiles. reviews: each reader beside the reviews of their tiles.

    models: the model's boxes beside what experts drew, on tiles of the random audit that were shown without
    pre-labels, on those shown with them, and on the tiles that were chosen. fleiss: of all readers together.
    """

    readers: list[Pair]
    reviews: list[Pair]
    models: list[Pair]
    fleiss: Estimate
    fleiss_cells: int
    fleiss_tiles: int
    classes: list[ClassRow]
    different: list[Difference]

    @property
    def pairs(self) -> list[Pair]:
        """All rows of all tables."""
        return [*self.readers, *self.reviews, *self.models]


@dataclass(frozen=True)
class _Drawn:
    task: Task
    annotation: Annotation
    reading: Reading
    author: str


def report_of(batch: Batch) -> Report:
    """Compare the newest readings and reviews of the batch's tiles."""
    classes = list(batch.project.taxonomy.classes.all())
    weights = maturation_of(classes)
    by_tile: dict[int, list[_Drawn]] = defaultdict(list)
    for one in _drawn_in(batch):
        by_tile[one.task.tile_id].append(one)
    readings = {tile: [one for one in some if one.task.kind == TaskKind.READING] for tile, some in by_tile.items()}
    between = [pair for some in readings.values() for pair in combinations(some, 2)]
    reviewed = [
        (one, review)
        for tile, some in by_tile.items()
        for review in some
        if review.task.kind == TaskKind.REVIEW
        for one in readings[tile]
    ]
    readers = _pairs([(*_by_name(*pair),) for pair in between], weights)
    reviews = _pairs([(one.author, REVIEW, one, review) for one, review in reviewed], weights)
    together = [[one.reading for one in some] for some in readings.values() if len(some) == batch.readers > 1]
    ratings = ratings_of(together, len(classes))
    return Report(
        readers=readers,
        reviews=reviews,
        models=_beside_the_model(batch, readings, weights),
        fleiss=fleiss_kappa(ratings),
        fleiss_cells=sum(map(len, ratings)),
        fleiss_tiles=len(ratings),
        classes=_class_rows(classes, [*readers, *reviews]),
        different=_most_different([*between, *reviewed], weights),
    )


def _drawn_in(batch: Batch) -> list[_Drawn]:
    annotations = (
        Annotation.objects.filter(task__batch=batch, task__state=TaskState.SUBMITTED)
        .select_related("task__tile__slide", "author", "pre_label")
        .order_by("revision")
    )
    newest = list({one.task_id: one for one in annotations}.values())
    tasks = [one.task for one in newest]
    return [
        _Drawn(task, one, reading, one.author.name)
        for one, task, reading in zip(newest, tasks, readings_of(newest), strict=True)
        if task is not None
    ]


def _by_name(first: _Drawn, second: _Drawn) -> tuple[str, str, _Drawn, _Drawn]:
    """In the same order on every tile."""
    one, other = sorted((first, second), key=lambda drawn: drawn.author)
    return one.author, other.author, one, other


def _pairs(rows: Iterable[tuple[str, str, _Drawn, _Drawn]], weights: Floats) -> list[Pair]:
    together: dict[tuple[str, str], list[tuple[Reading, Reading]]] = defaultdict(list)
    for first, second, one, other in rows:
        together[first, second].append((one.reading, other.reading))
    return [Pair(*names, len(some), pair_agreement(some, weights)) for names, some in sorted(together.items())]


def _beside_the_model(batch: Batch, readings: dict[int, list[_Drawn]], weights: Floats) -> list[Pair]:
    """The boxes of the model that pre-labelled the batch, beside those of experts; blind tiles have them too."""
    authors = set(
        batch.tasks.filter(pre_label__author__kind=AuthorKind.MODEL).values_list("pre_label__author", flat=True)
    )
    drawn = Annotation.objects.filter(author__in=authors, tile__in=readings).order_by("pk")
    of_model = {one.tile_id: one for one in drawn}
    names = {False: "chosen tiles, with pre-labels", True: "random audit, with pre-labels"}
    rows: dict[str, list[tuple[Annotation, Reading]]] = {"random audit, without pre-labels": []}
    rows |= {name: [] for name in (names[True], names[False])}
    for tile, some in readings.items():
        for one in some:
            shown = one.annotation.pre_label
            if one.task.blind and tile in of_model:
                rows["random audit, without pre-labels"].append((of_model[tile], one.reading))
            elif shown is not None and shown.author_id in authors:
                rows[names[one.task.audit]].append((shown, one.reading))
    return [Pair("model", name, len(some), pair_agreement(_both(some), weights)) for name, some in rows.items() if some]


def _both(rows: Sequence[tuple[Annotation, Reading]]) -> list[tuple[Reading, Reading]]:
    return list(zip(readings_of([one for one, _ in rows]), [reading for _, reading in rows], strict=True))


def _class_rows(classes: Sequence[CellClass], pairs: Sequence[Pair]) -> list[ClassRow]:
    columns = [pair.agreement.of_classes for pair in pairs]
    rows = [ClassRow(one, [column[place] for column in columns]) for place, one in enumerate(classes)]
    return [row for row in rows if any(share.value is not None for share in row.shares)]


def _most_different(pairs: Sequence[tuple[_Drawn, _Drawn]], weights: Floats) -> list[Difference]:
    apart = [
        Difference(one.task.tile, first, second, disagreement(one.reading, other.reading, weights))
        for first, second, one, other in (_by_name(*pair) for pair in pairs)
    ]
    worst: dict[int, Difference] = {}  # of each tile the two who are farthest apart
    for one in sorted((one for one in apart if one.cells), key=lambda one: (-one.cells, one.tile.pk)):
        worst.setdefault(one.tile.pk, one)
    return list(worst.values())[:MOST_DIFFERENT]


def as_csv(report: Report) -> str:
    """One row per pair, one for all readers together where there are more than two; what cannot be said is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    names = [*COLUMNS, *(f"same {row.cell_class.name}" for row in report.classes), "fleiss_kappa"]
    ends = [safe_cell(f"{name}{end}") for name in names for end in ("", "_low", "_high")]
    writer.writerow(["first", "second", "tiles", "both", "only_first", "only_second", *ends])
    people = len(report.readers) + len(report.reviews)  # of whom the classes are told, in this order
    for place, pair in enumerate(report.pairs):
        found = pair.agreement
        of_classes = [row.shares[place] if place < people else Estimate(None) for row in report.classes]
        estimates = [*(getattr(found, name) for name in COLUMNS), *of_classes, Estimate(None)]
        row = [safe_cell(pair.first), safe_cell(pair.second), pair.tiles]
        writer.writerow([*row, found.both, found.only_first, found.only_second, *_cells(estimates)])
    if report.fleiss.value is not None:
        nothing = [Estimate(None)] * (len(names) - 1)
        row = ["all readers", "", report.fleiss_tiles]
        writer.writerow([*row, report.fleiss_cells, "", "", *_cells([*nothing, report.fleiss])])
    return buffer.getvalue()


def _cells(estimates: Sequence[Estimate]) -> list[float | str]:
    values = [value for one in estimates for value in (one.value, *(one.interval or (None, None)))]
    return ["" if value is None else round(value, DECIMALS) for value in values]
