"""Choosing a batch's tiles: from the database into arrays, and back into (tile, reason) pairs."""

from collections import Counter

import numpy as np
from django.db.models import Count

from annotation.models import Box, Project, Tile
from inference.models import ModelVersion, TileScore
from inference.selection.pool import Choice, Pool, without_implausible
from inference.selection.random import select_random
from inference.selection.rare import select_rare
from inference.services.pre_labels import Progress, pool_tiles, score_pool

STRATEGIES = {"rare": "rare cells first", "random": "random"}


def confirmed_counts(project: Project) -> Counter[int]:
    """Boxes per class number in the truth of the training patients."""
    counts: Counter[int] = Counter()
    rows = Box.objects.filter(
        annotation__in=Tile.objects.filter(
            slide__project=project, truth__isnull=False, slide__patient__locked=False
        ).values("truth")
    ).values_list("cell_class__number", flat=True)
    counts.update(rows)
    return counts


def densest(project: Project) -> float:
    """The most boxes per px that a confirmed tile of the training patients holds: plain images differ in size."""
    confirmed = Tile.objects.filter(slide__project=project, truth__isnull=False, slide__patient__locked=False)
    counts = confirmed.annotate(boxes=Count("truth__boxes")).values_list("boxes", "width", "height")
    return max((boxes / (width * height) for boxes, width, height in counts), default=0.0)


def choose_tiles(
    *, project: Project, strategy: str, size: int, seed: int, version: ModelVersion | None, on_progress: Progress
) -> tuple[list[Choice], dict[str, float]]:
    """The chosen tiles with their reasons, and the boxes per class number that the version expects on them.

    Without a model version every strategy is random: there is nothing to expect yet.
    """
    tiles = pool_tiles(project)
    classes = list(project.taxonomy.classes.all())
    if version is not None:
        score_pool(tiles=tiles, version=version, on_progress=on_progress)
    areas = np.array([tile.width * tile.height for tile in tiles], dtype=np.float64)
    pool = without_implausible(_pool(tiles, version, len(classes)), densest(project) * areas)
    if strategy == "rare" and version is not None:
        counts = confirmed_counts(project)
        choices = select_rare(
            pool,
            size,
            confirmed=np.array([counts[one.number] for one in classes], dtype=np.int64),
            class_names=[one.name for one in classes],
            seed=seed,
        )
    else:
        choices = select_random(pool, size, seed)
    return choices, _expected(pool, choices) if version is not None else {}


def _pool(tiles: list[Tile], version: ModelVersion | None, classes: int) -> Pool:
    scores: dict[int, list[float]] = {}
    if version is not None:
        scores = dict(TileScore.objects.filter(model_version=version).values_list("tile_id", "expected"))
    nothing = [0.0] * classes
    return Pool(
        tile_ids=np.array([tile.pk for tile in tiles], dtype=np.int64),
        patients=[tile.slide.patient.code for tile in tiles],
        expected=np.array([scores.get(tile.pk, nothing) for tile in tiles], dtype=np.float32).reshape(-1, classes),
    )


def _expected(pool: Pool, choices: list[Choice]) -> dict[str, float]:
    chosen = np.isin(pool.tile_ids, [choice.tile_id for choice in choices])
    return {str(number): round(float(value), 2) for number, value in enumerate(pool.expected[chosen].sum(axis=0))}
