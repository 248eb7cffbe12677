"""Choosing a batch's tiles: from the database into arrays, and back into tiles with their reasons.

Of each tile of the pool a few numbers are in memory, never its row or its cells: a pool may have 100,000 tiles.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from django.db.models import Count, F, QuerySet
from numpy.typing import NDArray

from annotation.models import Box, CellClass, Project, Slide, Tile
from annotation.selectors import examples_of, pool_of, truth_counts
from annotation.services.slide_files import is_there
from annotation.services.tiles import read_tile
from inference.engine.embeddings import DIMENSIONS, Describing, unpack
from inference.models import ModelVersion, TileScore
from inference.selection.alike import directions, likeness_of
from inference.selection.batch import Known, Wanted, select_batch
from inference.selection.pool import Choice, Pool, without_implausible
from inference.services.model_exports import choose_tiles as spread_over
from inference.services.pre_labels import ROWS, Progress, describing_detector, score_tiles

STRATEGIES = {
    "rare": "rare cells first",
    "uncertain": "where the model is in doubt",
    "diverse": "unlike what is confirmed",
    "like": "cells like examples",
    "random": "random",
    "mix": "a mix",
}
EXAMPLES = 48  # of each group that is looked for
KNOWN_TILES = 400  # confirmed tiles that diverse tiles are to differ from
TICKED = "the ticked cells"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Selection:
    """What a lead sets for the choice of a batch.

    size: tiles. strategy: a key of STRATEGIES. mix: percent of each strategy but the mix, used by the mix alone; what
    lacks to 100 is random. quotas: expected boxes by class number, that the batch should hold before anything else.
    audit: percent of the batch drawn at random. patient_cap: the most tiles of one patient; 0: twice an equal share.
    like, like_boxes: class numbers whose confirmed boxes, and keys of single boxes, that are examples.
    """

    size: int = 250
    strategy: str = "rare"
    mix: dict[str, int] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=dict)
    audit: int = 10
    patient_cap: int = 0
    like: list[int] = field(default_factory=list)
    like_boxes: list[int] = field(default_factory=list)

    @property
    def shares(self) -> dict[str, int]:
        """Percent of each strategy; they sum to 100."""
        if self.strategy != "mix":
            return {self.strategy: 100}
        shares = {name: share for name, share in self.mix.items() if share and name != "random"}
        rest = 100 - sum(shares.values())
        return shares | ({"random": rest} if rest else {})


@dataclass(frozen=True)
class Chosen:
    """A batch's tiles, as many in reserve, and the boxes per class that are expected on each, by tile key.

    left_out: the names of slides whose files are gone, or have changed: nobody could look at their tiles.
    """

    choices: list[Choice]
    reserve: list[Choice]
    expected: dict[int, list[float]]
    left_out: list[str] = field(default_factory=list)


def confirmed_counts(project: Project) -> Counter[int]:
    """Boxes per class number in the truth of the training patients."""
    return truth_counts(confirmed_tiles(project))


def confirmed_tiles(project: Project) -> QuerySet[Tile]:
    """The tiles with truth of the training patients."""
    return Tile.objects.filter(slide__project=project, truth__isnull=False, slide__patient__locked=False)


def densest(project: Project) -> float:
    """The most boxes per px that a confirmed tile of the training patients holds: plain images differ in size."""
    counts = confirmed_tiles(project).annotate(boxes=Count("truth__boxes")).values_list("boxes", "width", "height")
    return max((boxes / (width * height) for boxes, width, height in counts.iterator()), default=0.0)


def choose_tiles(
    *, project: Project, selection: Selection, seed: int, version: ModelVersion | None, on_progress: Progress
) -> Chosen:
    """The chosen tiles with their reasons; the version looks first at those of the pool that it has not seen.

    Without a model version every choice is random, with no audit: there is nothing to expect yet.
    Slides whose files are gone, or have changed, are left out.
    """
    missing = _missing(project)
    left_out = [slide.name for slide in missing]
    pool, areas = _empty_pool(project, missing)
    classes = list(project.taxonomy.classes.all())
    if version is None:
        choices, reserve = select_batch(
            pool, Wanted(selection.size, {"random": 100}, audit=0), Known(np.zeros(0, np.int64), []), seed
        )
        return Chosen(choices, reserve, {}, left_out)
    shares = selection.shares
    detector = score_tiles(tile_ids=pool.tile_ids.tolist(), version=version, on_progress=on_progress)
    pool, centre = _scored(pool, version, classes)
    groups: dict[str, Floats] = {}
    if "like" in shares:
        groups = _examples(project, selection, classes, detector or describing_detector(version), centre)
        pool = _compared(pool, version, list(groups.values()), centre)
    known_tiles = _known_tiles(project, version, centre, on_progress) if "diverse" in shares else None
    counts = confirmed_counts(project)
    known = Known(
        confirmed=np.array([counts[one.number] for one in classes], np.int64),
        class_names=[one.name for one in classes],
        groups=list(groups),
        tiles=known_tiles,
    )
    wanted = Wanted(
        size=selection.size,
        shares=shares,
        audit=selection.audit,
        cap=selection.patient_cap,
        quotas=[selection.quotas.get(str(one.number), 0) for one in classes],
    )
    pool = without_implausible(pool, densest(project) * areas)
    choices, reserve = select_batch(pool, wanted, known, seed)
    rows = {one.tile_id: pool.expected[one.row].astype(np.float64) for one in (*choices, *reserve)}
    return Chosen(choices, reserve, {tile: row.round(4).tolist() for tile, row in rows.items()}, left_out)


def still_free(chosen: Chosen, project: Project) -> Chosen:
    """What was chosen without the tiles that have left the pool since; those in reserve take their places.

    A place goes to the best one of the strategy that had chosen its tile, an audit to an audit, as long as there is
    one, and then to the best of all. Inside a transaction that holds the pool, which nobody changes any more: a tile
    whose truth is being written at this moment is not waited for, and counts as gone.
    """
    keys = [choice.tile_id for choice in (*chosen.choices, *chosen.reserve)]
    rows = pool_of(project).filter(pk__in=keys).select_for_update(of=("self",), skip_locked=True, no_key=True)
    free = set(rows.values_list("pk", flat=True))
    reserve = [choice for choice in chosen.reserve if choice.tile_id in free]
    choices: list[Choice] = []
    for choice in chosen.choices:
        found: Choice | None = choice
        if choice.tile_id not in free:
            alike = (one for one in reserve if (one.strategy, one.audit) == (choice.strategy, choice.audit))
            found = next(alike, next(iter(reserve), None))
            reserve = [one for one in reserve if one is not found]
        choices += [found] if found else []
    return replace(chosen, choices=choices, reserve=reserve)


def summed(expected: Sequence[Sequence[float]]) -> dict[str, float]:
    """The boxes per class number that are expected on some tiles together, as a batch keeps it."""
    if not len(expected):
        return {}
    return {str(number): round(float(value), 2) for number, value in enumerate(np.sum(expected, axis=0))}


def _missing(project: Project) -> list[Slide]:
    """The slides of the pool whose files are gone, or are no longer what was imported."""
    slides = project.slides.filter(pk__in=pool_of(project).order_by().values("slide")).order_by("name")
    return [slide for slide in slides if not is_there(slide)]


def _empty_pool(project: Project, besides: Collection[Slide]) -> tuple[Pool, NDArray[np.float64]]:
    """The pool with nothing known of its tiles, slide by slide, and the area of each tile in px.

    besides: slides that are left out.
    """
    rows = pool_of(project).exclude(slide__in=besides).order_by("slide_id", "row", "column")
    columns = rows.values_list("pk", "slide__patient_id", "width", "height").iterator(chunk_size=ROWS)
    table = np.fromiter((value for row in columns for value in row), np.int64).reshape(-1, 4)
    codes = dict(project.patients.values_list("pk", "code"))
    keys, patients = np.unique(table[:, 1], return_inverse=True)
    pool = Pool(
        tile_ids=table[:, 0],
        patients=patients.reshape(-1),
        patient_codes=[codes[int(key)] for key in keys],
        expected=np.zeros((len(table), project.taxonomy.classes.count()), np.float32),
    )
    return pool, (table[:, 2] * table[:, 3]).astype(np.float64)


def _scores(version: ModelVersion, pool: Pool, *fields: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Each tile of the pool that the version has scored: its row in the pool, and these fields of its score."""
    order = np.argsort(pool.tile_ids)
    ordered = pool.tile_ids[order]
    scores = TileScore.objects.filter(model_version=version).values_list("tile_id", *fields)
    for tile, *values in scores.iterator(chunk_size=ROWS):
        place = int(np.searchsorted(ordered, tile))
        if place < len(ordered) and ordered[place] == tile:
            yield int(order[place]), tuple(values)


def _scored(pool: Pool, version: ModelVersion, classes: Sequence[CellClass]) -> tuple[Pool, Floats]:
    """The pool with what the version sees, and the mean of its tiles' embeddings, float32 (64,)."""
    expected = pool.expected
    doubts = np.zeros((len(pool), 2), np.float32)
    embeddings = np.zeros((len(pool), DIMENSIONS), np.float32)
    for row, values in _scores(version, pool, "expected", "class_doubt", "cell_doubt", "embedding"):
        expected[row], doubts[row] = values[0], values[1:3]
        if values[3] is not None:
            embeddings[row] = unpack(values[3])[0]
    cells = expected.sum(axis=1)
    expected[:, [one.ignored_in_training for one in classes]] = 0  # of these nobody wants more
    centre = _centre(embeddings)
    described = directions(embeddings, centre)
    return replace(pool, expected=expected, doubts=doubts, embeddings=described, cells=cells), centre


def _centre(embeddings: Floats) -> Floats:
    described = embeddings[np.any(embeddings, axis=1)]
    return np.asarray(described.mean(axis=0) if len(described) else np.zeros(DIMENSIONS), np.float32)


def _compared(pool: Pool, version: ModelVersion, examples: Sequence[Floats], centre: Floats) -> Pool:
    """The pool with the likeness of its cells to each group of examples."""
    likeness = np.zeros((len(pool), len(examples)), np.float32)
    for row, (cells,) in _scores(version, pool, "cell_embeddings"):
        if cells:
            likeness[row] = likeness_of(directions(unpack(cells), centre), examples)
    return replace(pool, likeness=likeness)


def example_boxes(project: Project, classes: Sequence[CellClass], keys: Sequence[int]) -> dict[str, list[Box]]:
    """Confirmed boxes to look for the like of, by what they are: of each class, and those of these keys.

    None is of a locked patient. What has none is left out.
    """
    found = {one.name: examples_of(project, one, EXAMPLES) for one in classes}
    found[TICKED] = list(ticked_boxes(project, keys))
    return {name: boxes for name, boxes in found.items() if boxes}


def ticked_boxes(project: Project, keys: Sequence[int]) -> QuerySet[Box]:
    """Those of these boxes that are confirmed in the project, and of no locked patient."""
    return Box.objects.filter(
        pk__in=keys,
        annotation__tile__truth=F("annotation"),
        annotation__tile__slide__project=project,
        annotation__tile__slide__patient__locked=False,
    ).select_related("cell_class", "annotation__tile__slide__patient")


def _examples(
    project: Project, selection: Selection, classes: Sequence[CellClass], detector: Describing, centre: Floats
) -> dict[str, Floats]:
    wanted = [one for one in classes if one.number in selection.like]
    groups = example_boxes(project, wanted, selection.like_boxes)
    return {name: directions(_described(boxes, detector), centre) for name, boxes in groups.items()}


def _described(boxes: Sequence[Box], detector: Describing) -> Floats:
    by_tile: dict[int, list[Box]] = {}
    for box in boxes:
        by_tile.setdefault(box.annotation.tile_id, []).append(box)
    rows = []
    for some in by_tile.values():
        places = np.array([(box.x, box.y, box.width, box.height) for box in some])
        rows.append(detector.describe(read_tile(some[0].annotation.tile), places))
    return np.concatenate(rows)


def _known_tiles(project: Project, version: ModelVersion, centre: Floats, on_progress: Progress) -> Floats:
    """Embeddings of confirmed tiles, evenly over the slides, around the pool's mean: float32 (m, 64)."""
    keys = list(confirmed_tiles(project).order_by("slide_id", "row", "column").values_list("pk", flat=True))
    some = spread_over(keys, KNOWN_TILES)
    score_tiles(tile_ids=some, version=version, on_progress=on_progress)
    scores = TileScore.objects.filter(model_version=version, tile__in=some, embedding__isnull=False)
    rows = [unpack(data)[0] for data in scores.values_list("embedding", flat=True) if data is not None]
    described = np.array([row for row in rows if row.any()], np.float32).reshape(-1, DIMENSIONS)
    return directions(described, centre)


def in_words(selection: Selection, class_names: Mapping[int, str]) -> list[tuple[str, str]]:
    """What is set for the choice of a batch, as labels and values; only what is not as usual beyond the strategy."""
    words = ", ".join(f"{share} % {STRATEGIES.get(name, name)}" for name, share in selection.shares.items())
    words = words.removeprefix("100 % ")
    rows = [("Selection", words), ("Random audit", f"{selection.audit} %")]
    if selection.patient_cap:
        rows.append(("Most of a patient", f"{selection.patient_cap} tiles"))
    quotas = [f"{count} {class_names.get(int(number), number)}" for number, count in selection.quotas.items() if count]
    if quotas:
        rows.append(("Quotas", ", ".join(quotas)))
    if "like" in selection.shares:
        names = [class_names.get(number, str(number)) for number in selection.like]
        names += [f"{len(selection.like_boxes)} ticked cells"] if selection.like_boxes else []
        rows.append(("Looks for", ", ".join(names)))
    return rows
