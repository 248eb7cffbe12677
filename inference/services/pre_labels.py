"""What a model version sees: pre-labels on a batch's tiles, scores on the pool's."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice

from django.db import transaction
from django.db.models import OuterRef, Subquery, prefetch_related_objects

from annotation.models import Annotation, Batch, Box, Slide, Task, Tile
from annotation.services.annotations import MAX_BOXES, MIN_SIDE, pre_label_uuid
from annotation.services.batches import put_aside
from annotation.services.jobs import JobError
from annotation.services.slide_files import is_there
from annotation.services.tiles import read_tiles
from inference.engine.detector import Detections, Detector
from inference.engine.embeddings import Describing, embeddings_of, pack, tile_embedding
from inference.engine.windows import Pixels, detect_images
from inference.models import DetectorKind, ModelVersion, TileScore
from inference.selection.expecting import expected_counts
from inference.selection.uncertain import doubts_of
from inference.services.reading import done_ahead
from inference.services.registry import detector_of

CHUNK = 16  # tiles that go through the detector and into the database together
CHUNK_PIXELS = 10_000_000  # fewer of them where they are large images, which fill the memory
PRE_LABEL_SCORE = 0.25  # from which boxes are shown, unless the version's training has found a lower one
EXPECTED_SCORE = 0.05  # from which cells are expected on a tile, where boxes are shown from PRE_LABEL_SCORE on
LOWEST_SCORE = 0.02  # for versions that show boxes of less: below it there are hundreds on every tile
ROWS = 2000  # tiles of the pool whose rows are in memory at once
SCORE_DECIMALS = 4

Progress = Callable[[int, int], None]


def pre_label_batch(*, batch: Batch, version: ModelVersion, on_progress: Progress) -> int:
    """Draw the version's boxes on every task of the batch that nobody has begun; returns how many tiles were new.

    A task that somebody begins meanwhile keeps what they were shown: the boxes that they send came from there. Safe to
    run again: a tile that this version has labelled is not labelled twice.
    """
    # Neighbours follow each other: a slide's blocks of pixels that two tiles share are decoded once.
    order = ("tile__slide_id", "tile__row", "tile__column")
    untouched = batch.tasks.filter(kind="reading", state="open", revision=0, drafts=None)
    tasks = list(untouched.select_related("tile__slide").order_by(*order))
    tile_keys = [task.tile_id for task in tasks]
    done = set(Annotation.objects.filter(author=version.author, tile__in=tile_keys).values_list("tile_id", flat=True))
    todo = list({task.tile_id: task.tile for task in tasks if task.tile_id not in done}.values())
    numbers = version.taxonomy.class_keys
    labelled = 0
    for tiles, found in _detect(version, todo, min_score=shown_from(version)):
        _write_pre_labels(version, tiles, found, numbers)
        labelled += len(tiles)
        on_progress(labelled, len(todo))
    own = Annotation.objects.filter(author=version.author, tile=OuterRef("tile")).values("pk")
    seen = [task.pk for task in tasks if not task.blind]  # of the others the boxes are kept, to compare
    keys = list(untouched.filter(pk__in=seen).values_list("pk", flat=True))
    # By conditions on the rows alone: those are asked again of a task that somebody leases while its row is waited for.
    Task.objects.filter(pk__in=keys, state="open", revision=0).update(pre_label=Subquery(own))
    return labelled


def put_aside_gone(*, batch: Batch) -> list[str]:
    """Skip what nobody has begun on slides whose files are gone, or have changed, since the batch was chosen.

    Returns the slides' names. Nobody could look at such a tile. Raises JobError, with nothing skipped, if no slide of
    the batch is there: then it is rather the storage, or the disk, that is not.
    """
    waiting = batch.tasks.filter(kind="reading", state="open", revision=0, drafts=None)
    slides = Slide.objects.filter(pk__in=waiting.order_by().values("tile__slide")).order_by("name")
    gone = [slide for slide in slides if not is_there(slide)]
    names = [slide.name for slide in gone]
    if gone and len(gone) == len(slides):
        text = "put the files back where they were, then try this step again."
        raise JobError(f"Every slide of the batch is gone from storage, or has changed: {', '.join(names)}; {text}")
    for slide in gone:
        put_aside(batch=batch, slide=slide, reason=f"{slide.name} is gone from storage, or has changed")
    return names


def shown_from(version: ModelVersion) -> float:
    """The score from which the version's boxes are shown to readers; of two stages, the finder's."""
    return float(version.config.get("shown_from", PRE_LABEL_SCORE))


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


def score_tiles(*, tile_ids: Sequence[int], version: ModelVersion, on_progress: Progress) -> Describing | None:
    """Store what the version sees on each of these tiles; tiles that have a whole score keep it.

    Returns the detector that was loaded for it, or None if no tile was to be scored. However many tiles there are, the
    rows of 2,000 are in memory at once. The embeddings of the project's other versions are forgotten: only the newest
    selection compares them.
    """
    scores = TileScore.objects.filter(model_version=version, embedding__isnull=False)
    known = set(scores.values_list("tile_id", flat=True).iterator())
    todo = [key for key in tile_ids if key not in known]
    if not todo:
        return None
    others = TileScore.objects.filter(model_version__project=version.project_id, embedding__isnull=False)
    others.exclude(model_version=version).update(embedding=None, cell_embeddings=None)
    detector = describing_detector(version)
    scored = 0
    lowest = max(LOWEST_SCORE, EXPECTED_SCORE * shown_from(version) / PRE_LABEL_SCORE)
    for some, found in detect_tiles(detector, _rows_of(todo), min_score=lowest):
        TileScore.objects.bulk_create(
            [_score(version, tile, detections) for tile, detections in zip(some, found, strict=True)],
            update_conflicts=True,
            unique_fields=["model_version", "tile"],
            update_fields=["expected", "class_doubt", "cell_doubt", "embedding", "cell_embeddings"],
        )
        scored += len(some)
        on_progress(scored, len(todo))
    return detector


def describing_detector(version: ModelVersion) -> Describing:
    """Load a version so that its detections carry embeddings: its classifier's, or those of the default backbone."""
    detector = detector_of(version)
    if isinstance(detector, Describing):
        return detector
    from inference.engine.backbone import Backbone, DescribedDetector

    return DescribedDetector(detector, Backbone())


def _rows_of(keys: Sequence[int]) -> Iterator[Tile]:
    """The tiles of these keys, slide by slide, in the order of the keys."""
    for start in range(0, len(keys), ROWS):
        some = Tile.objects.select_related("slide").in_bulk(keys[start : start + ROWS])
        yield from (some[key] for key in keys[start : start + ROWS] if key in some)


def _score(version: ModelVersion, tile: Tile, found: Detections) -> TileScore:
    class_scores = found.class_scores
    # The finder's score; of a one-stage detector, whose class scores do not share it, that of its best class.
    presence = class_scores.sum(axis=1) if version.kind == DetectorKind.TWO_STAGE else found.scores
    # On the scale on which boxes are shown from PRE_LABEL_SCORE on: scores of a young detector are all low.
    presence = presence ** (math.log(PRE_LABEL_SCORE) / math.log(shown_from(version)))
    doubts = doubts_of(class_scores, presence)
    return TileScore(
        model_version=version,
        tile=tile,
        expected=[round(float(value), SCORE_DECIMALS) for value in expected_counts(class_scores, presence)],
        class_doubt=round(doubts[0], SCORE_DECIMALS),
        cell_doubt=round(doubts[1], SCORE_DECIMALS),
        embedding=pack(tile_embedding(found)[None]),
        cell_embeddings=pack(embeddings_of(found)),
    )


def _detect(
    version: ModelVersion, tiles: list[Tile], *, min_score: float
) -> Iterator[tuple[list[Tile], list[Detections]]]:
    if tiles:
        yield from detect_tiles(detector_of(version), tiles, min_score=min_score)


def detect_tiles(
    detector: Detector, tiles: Iterable[Tile], *, min_score: float
) -> Iterator[tuple[list[Tile], list[Detections]]]:
    """The detections of every tile, of any sizes, some tiles at a time and in their order.

    Meanwhile the detector looks at the next tiles, and those after them are read from their slides.
    """

    def look(chunk: list[tuple[Tile, Pixels]]) -> tuple[list[Tile], list[Detections]]:
        images = [pixels for _, pixels in chunk]
        return [tile for tile, _ in chunk], detect_images(detector, images, min_score=min_score)

    read = done_ahead(lambda some: list(read_tiles(some)), _chunks(tiles))
    with closing(read):
        yield from done_ahead(look, read, threads=1)


def _chunks(tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
    """The tiles in pieces, each with its slide: the threads that read must not ask the database."""
    chunk: list[Tile] = []
    for tile in tiles:
        chunk.append(tile)
        if len(chunk) == CHUNK or sum(one.width * one.height for one in chunk) >= CHUNK_PIXELS:
            prefetch_related_objects(chunk, "slide")
            yield chunk
            chunk = []
    if chunk:
        prefetch_related_objects(chunk, "slide")
        yield chunk
