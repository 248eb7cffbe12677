"""What a model version sees: pre-labels on a batch's tiles, expected counts on the pool's."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from django.db import transaction
from django.db.models import OuterRef, Subquery, prefetch_related_objects

from annotation.models import Annotation, Batch, Box, Project, Task, Tile
from annotation.selectors import pool_of
from annotation.services.annotations import MAX_BOXES, MIN_SIDE, pre_label_uuid
from annotation.services.tiles import read_tiles
from inference.engine.detector import Detections, Detector
from inference.engine.windows import detect_images
from inference.models import ModelVersion, TileScore
from inference.services.reading import done_ahead
from inference.services.registry import detector_of

CHUNK = 16  # tiles that go through the detector and into the database together
CHUNK_PIXELS = 10_000_000  # fewer of them where they are large images, which fill the memory
PRE_LABEL_SCORE = 0.25
EXPECTED_SCORE = 0.05
SCORE_DECIMALS = 4

Progress = Callable[[int, int], None]


def pre_label_batch(*, batch: Batch, version: ModelVersion, on_progress: Progress) -> int:
    """Draw the version's boxes on every task of the batch that nobody has begun; returns how many tiles were new.

    Safe to run again: a tile that this version has labelled is not labelled twice.
    """
    # Neighbours follow each other: a slide's blocks of pixels that two tiles share are decoded once.
    order = ("tile__slide_id", "tile__row", "tile__column")
    tasks = list(batch.tasks.filter(state="open", revision=0).select_related("tile__slide").order_by(*order))
    tile_keys = [task.tile_id for task in tasks]
    done = set(Annotation.objects.filter(author=version.author, tile__in=tile_keys).values_list("tile_id", flat=True))
    todo = list({task.tile_id: task.tile for task in tasks if task.tile_id not in done}.values())
    numbers = dict(version.taxonomy.classes.values_list("number", "pk"))
    labelled = 0
    for tiles, found in _detect(version, todo, min_score=PRE_LABEL_SCORE):
        _write_pre_labels(version, tiles, found, numbers)
        labelled += len(tiles)
        on_progress(labelled, len(todo))
    own = Annotation.objects.filter(author=version.author, tile=OuterRef("tile")).values("pk")
    Task.objects.filter(pk__in=[task.pk for task in tasks]).update(pre_label=Subquery(own))
    return labelled


@transaction.atomic
def _write_pre_labels(
    version: ModelVersion, tiles: list[Tile], found: list[Detections], numbers: dict[int, int]
) -> None:
    annotations = Annotation.objects.bulk_create(
        Annotation(uuid=pre_label_uuid(author=version.author, tile=tile), tile=tile, author=version.author)
        for tile in tiles
    )
    Box.objects.bulk_create(
        box
        for annotation, detections in zip(annotations, found, strict=True)
        # The best come first, and more than so many nobody could confirm.
        for box in islice(_boxes(annotation, annotation.tile, detections, numbers), MAX_BOXES)
    )


def _boxes(annotation: Annotation, tile: Tile, found: Detections, numbers: dict[int, int]) -> Iterator[Box]:
    for box, score, number, scores in zip(
        found.boxes.astype(float), found.scores, found.class_ids, found.class_scores, strict=True
    ):
        left, top = max(box[0], 0.0), max(box[1], 0.0)
        right, bottom = min(box[0] + box[2], float(tile.width)), min(box[1] + box[3], float(tile.height))
        x, y = round(left, 2), round(top, 2)
        width, height = round(right - x, 2), round(bottom - y, 2)
        if width < MIN_SIDE or height < MIN_SIDE:
            continue
        yield Box(
            annotation=annotation,
            cell_class_id=numbers[int(number)],
            x=x,
            y=y,
            width=width,
            height=height,
            score=round(float(score), SCORE_DECIMALS),
            class_scores=[round(float(one), SCORE_DECIMALS) for one in scores],
        )


def score_pool(*, tiles: list[Tile], version: ModelVersion, on_progress: Progress) -> None:
    """Store how many boxes of each class the version expects on each tile; tiles that have a score keep it."""
    known = set(TileScore.objects.filter(model_version=version).values_list("tile_id", flat=True))
    todo = [tile for tile in tiles if tile.pk not in known]
    scored = 0
    for some, found in _detect(version, todo, min_score=EXPECTED_SCORE):
        TileScore.objects.bulk_create(
            [
                TileScore(model_version=version, tile=tile, expected=expected_counts(detections))
                for tile, detections in zip(some, found, strict=True)
            ],
            ignore_conflicts=True,
        )
        scored += len(some)
        on_progress(scored, len(todo))


def expected_counts(found: Detections) -> list[float]:
    """The expected number of boxes per class: the sum of the class scores over the boxes."""
    sums = found.class_scores.sum(axis=0) if len(found) else np.zeros(found.class_scores.shape[1])
    return [round(float(value), SCORE_DECIMALS) for value in sums]


def pool_tiles(project: Project) -> list[Tile]:
    """The tiles that can be chosen, in a fixed order."""
    return list(pool_of(project).select_related("slide__patient").order_by("slide_id", "row", "column"))


def _detect(
    version: ModelVersion, tiles: list[Tile], *, min_score: float
) -> Iterator[tuple[list[Tile], list[Detections]]]:
    if tiles:
        yield from detect_tiles(detector_of(version), tiles, min_score=min_score)


def detect_tiles(
    detector: Detector, tiles: Iterable[Tile], *, min_score: float
) -> Iterator[tuple[list[Tile], list[Detections]]]:
    """The detections of every tile, of any sizes, some tiles at a time and in their order.

    The next tiles are read from their slides meanwhile.
    """
    tiles = list(tiles)
    prefetch_related_objects(tiles, "slide")  # here: the threads that read must not ask the database
    for chunk in done_ahead(lambda some: list(read_tiles(some)), _chunks(tiles)):
        yield [tile for tile, _ in chunk], detect_images(detector, [pixels for _, pixels in chunk], min_score=min_score)


def _chunks(tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
    chunk: list[Tile] = []
    for tile in tiles:
        chunk.append(tile)
        if len(chunk) == CHUNK or sum(one.width * one.height for one in chunk) >= CHUNK_PIXELS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
