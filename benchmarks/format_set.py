"""What benchmarks/formats.py measures: tiles with boxes by chance, exports of them, imports. Runs inside a site."""

import random
import resource
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from django.core.files.uploadedfile import UploadedFile
from django.db import connection, transaction
from django.db.models import OuterRef, Subquery

from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    Box,
    CellClass,
    Job,
    JobState,
    Patient,
    Project,
    Slide,
    Tile,
)
from annotation.prepared import insert_rows
from annotation.services.export_choice import ExportChoice
from annotation.services.exports import TrainingFacts, labelled_tiles, write_archive
from annotation.services.jobs import run_job
from annotation.services.label_imports import queue_dry_run, queue_writing, run_label_import, stage_labels
from annotation.services.label_plans import ImportSettings
from annotation.services.projects import create_project, create_taxonomy
from annotation.taxonomies import PRESETS

PATIENTS = 40
TAXONOMY = "hct"
SIDE = 512  # px
SMALLEST, LARGEST = 20.0, 60.0  # px, of a box's side
AT_ONCE = 5000  # rows in one INSERT


@transaction.atomic
def make_set(*, tiles: int, boxes: int) -> None:
    """A project of so many tiles with so many boxes as truth, every twentieth tile empty; with no boxes, no truth.

    The slides have no file.
    """
    project = create_project(name="Benchmark", taxonomy=create_taxonomy(spec=PRESETS[TAXONOMY]), lead=None)
    author = Author.objects.create(project=project, kind=AuthorKind.IMPORT, name="by chance")
    Tile.objects.bulk_create(_tiles(project, tiles), AT_ONCE)
    if not boxes:
        return
    keys = Tile.objects.filter(slide__project=project).order_by("pk").values_list("pk", flat=True)
    Annotation.objects.bulk_create([Annotation(uuid=uuid4(), tile_id=key, author=author) for key in keys], AT_ONCE)
    own = Annotation.objects.filter(tile=OuterRef("pk"), author=author).values("pk")[:1]
    Tile.objects.filter(slide__project=project).update(truth=Subquery(own))
    _insert_boxes(project, boxes)


def _tiles(project: Project, tiles: int) -> list[Tile]:
    per_slide = -(-tiles // PATIENTS)
    columns = 1 + int(per_slide**0.5)
    made: list[Tile] = []
    for number in range(PATIENTS):
        patient = Patient.objects.create(project=project, code=f"P{number:02d}", locked=number % 5 == 0)
        slide = Slide.objects.create(
            project=project,
            patient=patient,
            name=f"P{number:02d}.svs",
            files=[],
            sha256=f"{number:064x}",
            bytes=1,
            vendor="aperio",
            width=columns * SIDE,
            height=columns * SIDE,
            mpp=0.25,
            tiling="edge",
        )
        places = [divmod(index, columns) for index in range(min(per_slide, tiles - len(made)))]
        made += [
            Tile(slide=slide, row=row, column=column, x=column * SIDE, y=row * SIDE, extent=SIDE)
            for row, column in places
        ]
    return made


def _insert_boxes(project: Project, boxes: int) -> None:
    labels = list(Annotation.objects.filter(tile__slide__project=project).order_by("pk").values_list("pk", flat=True))
    filled = [key for place, key in enumerate(labels) if place % 20]
    classes = [one.pk for one in project.taxonomy.classes.all()]
    chance = random.Random(0)

    def rows() -> Iterator[tuple[int, int, float, float, float, float, str]]:
        for number in range(boxes):
            width, height = chance.uniform(SMALLEST, LARGEST), chance.uniform(SMALLEST, LARGEST)
            x, y = chance.uniform(0, SIDE - width), chance.uniform(0, SIDE - height)
            yield filled[number % len(filled)], chance.choice(classes), x, y, width, height, ""

    insert_rows(Box, ("annotation_id", "cell_class_id", "x", "y", "width", "height", "change"), rows())


class _Clock:
    """Seconds, those on a processor, and the most memory that this process held by then (MiB)."""

    def __init__(self) -> None:
        self._began, self._began_cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, Any]:
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._began_cpu
        return {"s": seconds, "cpu_s": cpu, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def export(*, format_name: str, file: Path) -> dict[str, Any]:
    """Export everything without images."""
    project = Project.objects.select_related("taxonomy").get()
    clock = _Clock()
    written = write_archive(file, project, ExportChoice(format_name), TrainingFacts({}))
    return clock.read() | {"bytes": file.stat().st_size, "tiles": written.tiles, "boxes": written.boxes}


def import_back(*, file: Path) -> dict[str, Any]:
    """Import an archive that was exported as truth of tiles that have none, by the three jobs of the page."""
    project = Project.objects.select_related("taxonomy").get()
    whole = _Clock()
    with file.open("rb") as handle:
        upload: UploadedFile[Any] = UploadedFile(handle, file.name, "application/zip", file.stat().st_size)
        job = stage_labels(project=project, uploads=[upload], user=None)
    steps = {"read": _run(job)}
    numbers = dict(project.taxonomy.classes.values_list("name", "number"))
    settings = ImportSettings(
        file_format=job.result["format"],
        classes={one["name"]: numbers[one["name"]] for one in job.result["classes"]},
        first_pixel=job.result["first_pixel"],
    )
    tried = queue_dry_run(read=job, settings=settings, user=None)
    steps["try"] = _run(tried)
    written = queue_writing(tried=tried, user=None)
    steps["write"] = _run(written)
    return whole.read() | steps | {name: written.result[name] for name in ("tiles", "boxes")}


def _run(job: Job) -> dict[str, Any]:
    clock = _Clock()
    run_job(job_pk=job.pk, function=run_label_import)
    job.refresh_from_db()
    if job.state != JobState.SUCCEEDED or job.result.get("problems"):
        raise RuntimeError(f"{job}: {job.message} {job.result.get('problems')}")
    return clock.read()


def worst_px_error(*, other: Path) -> float:
    """The greatest difference of an edge, in tile px, between this site's truth and another's with the same tiles.

    Raises ValueError if a tile, a box or a class is another.
    """
    own, others = _truth(Path(connection.settings_dict["NAME"])), _truth(other)
    if own.shape != others.shape or not np.array_equal(own[:, :2], others[:, :2]):
        raise ValueError("tiles, boxes or classes are not the same")
    worst = np.abs(own[:, 2:4] - others[:, 2:4]).max()  # left and top
    return float(max(worst, np.abs(own[:, 2:4] + own[:, 4:] - others[:, 2:4] - others[:, 4:]).max()))


def _truth(database: Path) -> "np.ndarray":
    """float64 rows of tile, class, x, y, width, height; a tile without boxes has one row of its key."""
    tile, box, cell_class = (model._meta.db_table for model in (Tile, Box, CellClass))
    query = (
        f"SELECT tile.id, number, box.x, box.y, box.width, box.height FROM {tile} tile "
        f"LEFT JOIN {box} box ON box.annotation_id = tile.truth_id LEFT JOIN {cell_class} ON cell_class_id = "
        f"{cell_class}.id WHERE truth_id IS NOT NULL ORDER BY tile.id, box.id"
    )
    with closing(sqlite3.connect(database)) as opened:
        rows = np.array(opened.execute(query).fetchall(), np.float64)
    return np.nan_to_num(rows, nan=-1.0)


def supervision_writes(*, format_name: str, folder: Path) -> dict[str, Any]:
    """What supervision takes to write the same boxes, from arrays that it is given."""
    import supervision

    warnings.simplefilter("ignore")  # images in memory are to go in a later version; files would have to be made first
    project = Project.objects.select_related("taxonomy").get()
    classes = list(project.taxonomy.classes.values_list("name", flat=True))
    _, tiles = labelled_tiles(project, ExportChoice(format_name), parts={})
    blank = np.zeros((SIDE, SIDE, 3), np.uint8)
    annotations = {}
    for tile in tiles:
        rows = np.array([box[:5] for box in tile.boxes], np.float64).reshape(-1, 5)
        corners = np.hstack([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:]])
        annotations[f"{tile.name}.jpg"] = supervision.Detections(corners, class_id=rows[:, 0].astype(int))
    data = supervision.DetectionDataset(classes, dict.fromkeys(annotations, blank), annotations)
    folder.mkdir()
    clock = _Clock()
    if format_name == "yolo":
        data.as_yolo(annotations_directory_path=str(folder), data_yaml_path=str(folder / "data.yaml"))
    elif format_name == "voc":
        data.as_pascal_voc(annotations_directory_path=str(folder))
    else:
        data.as_coco(annotations_path=str(folder / "instances.json"))
    return clock.read()
