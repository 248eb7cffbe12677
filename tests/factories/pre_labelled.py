"""Open batches with given pre-labels, as if a model version had drawn them: for the editor's tests and benchmark."""

import random
from collections.abc import Sequence
from pathlib import Path

from django.db import transaction

from annotation.geometry import boxes_of_tile
from annotation.models import Annotation, Batch, Box, Project, Slide, Task, Tile
from annotation.services.annotations import pre_label_uuid
from annotation.services.batches import create_batch, open_batch
from annotation.services.truth import Truth, countable_tiles, read_truth
from inference.models import ModelVersion
from tests.factories import make_version

# class number, x, y, width, height (tile px), score
Drawn = tuple[int, float, float, float, float, float]


@transaction.atomic
def make_pre_labelled_batch(
    *, project: Project, name: str, tiles: Sequence[Tile], boxes: Sequence[Sequence[Drawn]]
) -> Batch:
    """An open batch of these tiles, handed out in this order; `boxes[i]` are the pre-label boxes of `tiles[i]`."""
    version = make_version(project)
    batch = create_batch(project=project, name=name, choices=[(tile.pk, "by chance") for tile in tiles])
    tasks = {task.tile_id: task for task in batch.tasks.select_related("tile")}
    for tile, drawn in zip(tiles, boxes, strict=True):
        tasks[tile.pk].pre_label = _write(version, tile, drawn)
    Task.objects.bulk_update(tasks.values(), ["pre_label"])
    open_batch(batch=batch)
    batch.refresh_from_db()
    return batch


def _write(version: ModelVersion, tile: Tile, drawn: Sequence[Drawn]) -> Annotation:
    numbers = dict(version.taxonomy.classes.values_list("number", "pk"))
    annotation = Annotation.objects.create(
        uuid=pre_label_uuid(author=version.author, tile=tile), tile=tile, author=version.author
    )
    Box.objects.bulk_create(
        Box(
            annotation=annotation,
            cell_class_id=numbers[number],
            x=x,
            y=y,
            width=width,
            height=height,
            score=score,
            class_scores=_class_scores(number, score, len(numbers)),
        )
        for number, x, y, width, height, score in drawn
    )
    return annotation


def _class_scores(number: int, score: float, classes: int) -> list[float]:
    """What the class vector of such a box looks like: the others share what is left."""
    rest = round((1 - score) / max(1, classes - 1), 4)
    return [score if one == number else rest for one in range(classes)]


def truth_as_pre_labels(*, project: Project, files: Sequence[Path], tiles: int) -> list[tuple[Tile, list[Drawn]]]:
    """Real tiles with their true boxes, spread over the truth files' slides; always the same ones.

    A model's scores are made up: between 0.3 and 1, by the box's place in the list.
    """
    numbers = dict(project.taxonomy.classes.values_list("name", "number"))
    found = []
    for path in files:
        truth = read_truth(path)
        slide = Slide.objects.get(project=project, name=truth.slide)
        found += [(tile, _true_boxes(truth, tile, numbers)) for tile in countable_tiles(truth, slide)]
    random.Random(0).shuffle(found)
    return [(tile, drawn) for tile, drawn in found if drawn][:tiles]


def _true_boxes(truth: Truth, tile: Tile, numbers: dict[str, int]) -> list[Drawn]:
    indices, boxes = boxes_of_tile(truth.boxes, tile.x, tile.y, tile.extent, tile.width)
    scores = random.Random(f"{tile.x} {tile.y}")
    return [
        (numbers[truth.class_names[index]], *(round(side, 2) for side in box), round(scores.uniform(0.3, 1), 4))
        for index, box in zip(indices, boxes.tolist(), strict=True)
        if min(box[2:]) >= 4
    ]
