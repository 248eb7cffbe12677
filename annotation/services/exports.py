"""Exports: the annotations of a project in a format that others read, as one archive in storage."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import F, Max, QuerySet

from annotation.formats.archive import ArchiveWriter
from annotation.formats.coco import fill_coco
from annotation.formats.crops import fill_crops
from annotation.formats.csv_table import fill_csv
from annotation.formats.labelimg import fill_labelimg
from annotation.formats.records import LabelledBox, LabelledTile
from annotation.formats.slide_pixels import whole_slides
from annotation.formats.voc import fill_voc
from annotation.formats.writing import ImageSource, Output
from annotation.formats.yolo import fill_yolo
from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    Box,
    CellClass,
    Job,
    JobKind,
    Project,
    Slide,
    Task,
    Tile,
    User,
)
from annotation.services.events import record
from annotation.services.export_choice import FORMATS, ExportChoice, check_choice, choice_of, round_numbers
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.policies import CONSENSUS
from annotation.services.storage import sha256_of, store, work_dir
from annotation.services.tiles import TileReader, crop_around, encode_png, tile_jpeg

AT_ONCE = 500  # tiles whose boxes are fetched by one query


@dataclass(frozen=True)
class TrainingFacts:
    """What only the training side knows: each tile's part in the newest snapshot, and that snapshot's hash, if any."""

    parts: Mapping[int, str]
    snapshot_hash: str | None = None


@dataclass(frozen=True)
class Written:
    """What an archive holds."""

    tiles: int
    boxes: int


def queue_export(*, project: Project, choice: ExportChoice, user: User | None) -> Job:
    """Queue an export. Raises ValueError for what the project does not have."""
    check_choice(project, choice)
    subject = FORMATS[choice.format]
    job = create_job(project=project, kind=JobKind.EXPORT, subject=subject, created_by=user, **choice.arguments())
    record(project=project, user=user, verb="asked for export", subject=subject)
    return job


def archive_name(job: Job) -> str:
    """Where an export's archive is put in storage."""
    return f"exports/{job.project_id}/{job.pk}.zip"


def delete_export(*, job: Job, user: User | None) -> None:
    """Delete an export's archive and its row; the event log remembers it. Raises JobError while it is being made.

    The archive goes first: where storage is away (StorageError) the row stays, and nobody waits for it in a
    transaction. A job whose worker was killed may have stored one that its row does not name.
    """
    found = Job.objects.filter(pk=job.pk, kind=JobKind.EXPORT).first()
    if found is not None and not found.is_active:
        for name in {archive_name(found), found.result.get("file") or archive_name(found)}:
            default_storage.delete(name)
    with transaction.atomic():
        found = Job.objects.select_for_update().filter(pk=job.pk, kind=JobKind.EXPORT).first()
        if found is None:
            return
        if found.is_active:
            raise JobError("This export is being made: cancel it first.")
        record(project=found.project, user=user, verb="deleted", subject=found, export=found.pk)
        found.delete()


def truth_tiles(project: Project) -> QuerySet[Tile]:
    """Every tile with a truth, in a fixed order."""
    return (
        Tile.objects.filter(slide__project=project, truth__isnull=False)
        .select_related("slide__patient", "truth__author", "truth__task__batch")
        .prefetch_related("truth__boxes__cell_class")
        .order_by("slide__patient__code", "slide__sha256", "row", "column")
    )


def tile_name(tile: Tile) -> str:
    """A file stem that names the tile and nothing else; the slide's own file name may hold anything."""
    return place_name(tile.slide_id, tile.x, tile.y)


def place_name(slide: int, x: int, y: int) -> str:
    """`tile_name` of the tile of a slide (its key) at x, y (level-0 px)."""
    return f"slide{slide:04d}_x{x:06d}_y{y:06d}"


class _Wanted(NamedTuple):
    """An annotation to be written. Boxes and places are fetched when its turn comes."""

    annotation: int
    tile: int
    author: int
    part: str
    round: int | None


def wanted_annotations(project: Project, choice: ExportChoice, parts: Mapping[int, str]) -> list[_Wanted]:
    """The chosen annotations by patient, slide, row, column and author, which no key of the database decides.

    Only their keys are held, so that a hundred thousand tiles take some tens of MiB. `parts` gives a tile's split;
    tiles in none are training tiles, those of locked patients are test tiles whatever it says.
    """
    slides = {
        pk: (code, sha256, locked)
        for pk, code, sha256, locked in Slide.objects.filter(project=project).values_list(
            "pk", "patient__code", "sha256", "patient__locked"
        )
    }
    rounds = round_numbers(project)
    of_tile = _newest_rounds(rounds)
    authors = dict(Author.objects.values_list("pk", "name"))
    found: list[tuple[Any, ...]] = []
    rows = _chosen(project, choice).values_list(
        "pk", "tile_id", "author_id", "task__batch_id", "tile__slide_id", "tile__row", "tile__column"
    )
    for pk, tile, author, batch, slide, row, column in rows.iterator(chunk_size=10_000):
        code, sha256, locked = slides[slide]
        part = "test" if locked else parts.get(tile, "train")
        of_round = rounds.get(batch) if batch is not None else of_tile.get(tile)
        if choice.part in ("all", part) and (not choice.rounds or of_round in choice.rounds):
            wanted = _Wanted(pk, tile, author, part, of_round)
            found.append((code, sha256, row, column, authors[author], wanted))
    found.sort()
    return [one[-1] for one in found]


def _chosen(project: Project, choice: ExportChoice) -> QuerySet[Annotation]:
    annotations = Annotation.objects.order_by().filter(tile__slide__project=project)
    if choice.patients:
        annotations = annotations.filter(tile__slide__patient__code__in=choice.patients)
    if choice.readers:
        annotations = annotations.filter(author__name__in=choice.readers)
    if choice.annotations == "truth":
        return annotations.filter(tile__truth=F("pk"))
    drawn = annotations.exclude(author__kind=AuthorKind.MODEL).exclude(
        author__kind=AuthorKind.IMPORT, author__name=CONSENSUS
    )
    newest = drawn.values("tile", "author").annotate(newest=Max("pk")).values("newest")
    return Annotation.objects.order_by().filter(pk__in=newest)


def _newest_rounds(rounds: Mapping[int, int]) -> dict[int, int]:
    """Of each tile that was in a round's batch, the newest such round: for annotations that no task asked for."""
    found: dict[int, int] = {}
    tasks = Task.objects.order_by().filter(batch__in=list(rounds)).values_list("tile_id", "batch_id")
    for tile, batch in tasks.iterator(chunk_size=10_000):
        found[tile] = max(rounds[batch], found.get(tile, 0))
    return found


def labelled_tiles(
    project: Project, choice: ExportChoice, *, parts: Mapping[int, str]
) -> tuple[int, Iterator[LabelledTile]]:
    """How many annotations were chosen, and each as a format record, one after the other."""
    wanted = wanted_annotations(project, choice, parts)
    return len(wanted), _records(project, choice, wanted)


def _records(project: Project, choice: ExportChoice, wanted: Sequence[_Wanted]) -> Iterator[LabelledTile]:
    numbers = dict(CellClass.objects.values_list("pk", "number"))
    chosen = CellClass.objects.filter(name__in=choice.classes).values_list("pk", flat=True)
    classes = set(chosen) if choice.classes else None
    authors = dict(Author.objects.values_list("pk", "name"))
    slides = {slide.pk: slide for slide in Slide.objects.filter(project=project).select_related("patient")}
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        boxes = _boxes(some, numbers, classes)
        places: dict[int, Any] = {
            pk: facts
            for pk, *facts in Tile.objects.filter(pk__in={one.tile for one in some}).values_list(
                "pk", "slide_id", "x", "y", "extent", "width", "height"
            )
        }
        for one in some:
            slide_id, x, y, extent, width, height = places[one.tile]
            slide = slides[slide_id]
            name = place_name(slide_id, x, y)
            yield LabelledTile(
                name=name if choice.annotations == "truth" else f"{name}_r{one.author:03d}",
                width=width,
                height=height,
                boxes=boxes.get(one.annotation, ()),
                split=one.part,
                suffix=".jpg",
                extra={
                    "slide": slide.name,
                    "patient": slide.patient.code,
                    "slide_x": x,
                    "slide_y": y,
                    "slide_px_per_tile_px": extent / width,
                    "slide_number": slide_id,
                    "slide_width": slide.width,
                    "slide_height": slide.height,
                    "mpp": slide.mpp,
                    "author": authors[one.author],
                    "round": one.round,
                    "tile": one.tile,
                },
            )


def _boxes(
    wanted: Sequence[_Wanted], numbers: Mapping[int, int], classes: set[int] | None
) -> dict[int, tuple[LabelledBox, ...]]:
    """The boxes of each annotation in the order in which they were drawn, of the given classes (keys) only."""
    rows = (
        Box.objects.filter(annotation__in=[one.annotation for one in wanted])
        .order_by("annotation_id", "pk")
        .values_list("annotation_id", "cell_class_id", "x", "y", "width", "height")
    )
    return {
        annotation: tuple(
            LabelledBox(numbers[cell_class], x, y, width, height)
            for _, cell_class, x, y, width, height in boxes
            if classes is None or cell_class in classes
        )
        for annotation, boxes in groupby(rows, key=itemgetter(0))
    }


def run_export(running: RunningJob, *, facts: TrainingFacts) -> dict[str, Any]:
    """The export job: write the archive and put it into storage."""
    job = running.job
    choice = choice_of(job.arguments)
    with work_dir(f"export-{job.pk}") as folder:
        archive = folder / "export.zip"

        def report(done: int, total: int) -> None:
            running.report(0.95 * done / max(total, 1), f"{done} of {total} tiles")

        for left in folder.glob(".export-*"):  # by an attempt that was killed
            shutil.rmtree(left)
        try:
            written = write_archive(archive, job.project, choice, facts, report=report)
        except ValueError as error:
            raise JobError(str(error)) from error
        running.check()
        sha256, size = sha256_of(archive), archive.stat().st_size
        name = store(archive, archive_name(job), move=True, called=str(job))
    counts = {"tiles": written.tiles, "boxes": written.boxes}
    return {"file": name, "bytes": size, "sha256": sha256, "message": f"{written.tiles} tiles"} | counts


def write_archive(
    path: Path,
    project: Project,
    choice: ExportChoice,
    facts: TrainingFacts,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Write the chosen part of the project as a zip archive at `path`, which appears only when it is complete.

    The same data and choice give the same bytes. Raises FormatError and SlideError, ValueError for an unknown choice.
    """
    check_choice(project, choice)
    classes = list(project.taxonomy.classes.values_list("name", flat=True))
    total, tiles = labelled_tiles(project, choice, parts=facts.parts)
    counts = {"tiles": 0, "boxes": 0}
    slides: set[object] = set()
    with ArchiveWriter(path) as archive, ExitStack() as stack:
        counted = _counted(tiles, counts, slides, lambda: report(counts["tiles"], total))
        _fill(archive, choice, counted, classes, stack.enter_context(TileReader()))
        archive.add_manifest(
            {
                "made_by": "Marrowloop",
                "project": project.name,
                "taxonomy": {"name": project.taxonomy.name, "version": project.taxonomy.version, "classes": classes},
                "snapshot": facts.snapshot_hash,
                "choice": choice.arguments(),
                "slides": _digests(project, slides),
                **counts,
            }
        )
    return Written(**counts)


def _digests(project: Project, slides: set[object]) -> dict[str, str]:
    """The sha256 of these slides by their numbers, which tiles are named after: another server has others."""
    known = Slide.objects.filter(project=project).order_by("pk").values_list("pk", "sha256")
    return {str(number): sha256 for number, sha256 in known if number in slides}


def _counted(
    tiles: Iterable[LabelledTile], counts: dict[str, int], slides: set[object], report: Callable[[], None]
) -> Iterator[LabelledTile]:
    for tile in tiles:
        report()
        yield tile
        counts["tiles"] += 1
        counts["boxes"] += len(tile.boxes)
        slides.add(tile.extra["slide_number"])


def _fill(
    output: Output, choice: ExportChoice, tiles: Iterator[LabelledTile], classes: list[str], reader: TileReader
) -> None:
    image = _images(reader) if choice.images else None
    if choice.format == "yolo":
        fill_yolo(output, tiles, classes, image=image)
    elif choice.format == "voc":
        fill_voc(output, tiles, classes, image=image)
    elif choice.format == "coco":
        records = whole_slides(tiles) if choice.coordinates == "slide" else tiles
        fill_coco(output, records, classes, image=image)
    elif choice.format == "csv":
        fill_csv(output, tiles, classes)
    elif choice.format == "crops":
        fill_crops(output, tiles, classes, crops=lambda tile: _crops(tile, reader))
    else:
        fill_labelimg(output, tiles, classes, image=image, flavour="voc" if choice.format == "labelimg-voc" else "yolo")


def _row(tile: LabelledTile) -> Tile:
    return Tile.objects.select_related("slide").get(pk=int(str(tile.extra["tile"])))


def _images(reader: TileReader) -> ImageSource:
    return lambda tile: tile_jpeg(_row(tile), reader.read)


def _crops(tile: LabelledTile, reader: TileReader) -> list[bytes]:
    """A PNG for each of the tile's boxes, cut as the editor's film strip shows them but from lossless pixels."""
    pixels = reader.read(_row(tile))
    return [encode_png(crop_around(pixels, box)) for box in tile.boxes]
