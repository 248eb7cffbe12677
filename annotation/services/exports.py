"""Exports: the truth of a project in a format that others read, as one archive in storage."""

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.core.files.storage import default_storage
from django.db.models import QuerySet

from annotation.formats.coco import write_coco
from annotation.formats.labelimg import write_labelimg
from annotation.formats.records import LabelledBox, LabelledTile
from annotation.formats.voc import write_voc
from annotation.formats.yolo import write_yolo
from annotation.models import Job, JobKind, Project, Tile, User
from annotation.services.events import record
from annotation.services.jobs import RunningJob, create_job
from annotation.services.storage import store, work_dir
from annotation.services.tiles import tile_jpeg

FORMATS = {
    "yolo": "YOLO (ultralytics)",
    "voc": "Pascal VOC",
    "labelimg-voc": "LabelImg, Pascal VOC flavour",
    "labelimg-yolo": "LabelImg, YOLO flavour",
    "coco": "COCO",
}
# A fixed time in the archive: the same data gives the same bytes.
ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)


def queue_export(*, project: Project, format_name: str, images: bool, part: str, user: User | None) -> Job:
    """Queue an export of the project's truth; `part` is "all", "train", "val" or "test"."""
    if format_name not in FORMATS:
        raise ValueError(f"{format_name} is not a format: {', '.join(FORMATS)}.")
    job = create_job(
        project=project,
        kind=JobKind.EXPORT,
        subject=FORMATS[format_name],
        created_by=user,
        format=format_name,
        images=images,
        part=part,
    )
    record(project=project, user=user, verb="asked for export", subject=FORMATS[format_name])
    return job


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
    return f"slide{tile.slide_id:04d}_x{tile.x:06d}_y{tile.y:06d}"


def labelled_tiles(project: Project, *, parts: Mapping[int, str], part: str = "all") -> Iterator[LabelledTile]:
    """The project's truth as format records. `parts` gives a tile's split; tiles in none are training tiles."""
    for tile in truth_tiles(project):
        split = "test" if tile.slide.patient.locked else parts.get(tile.pk, "train")
        if part not in ("all", split) or tile.truth is None:
            continue
        yield LabelledTile(
            name=tile_name(tile),
            width=tile.width,
            height=tile.height,
            boxes=tuple(
                LabelledBox(box.cell_class.number, box.x, box.y, box.width, box.height)
                for box in tile.truth.boxes.all()
            ),
            split=split,
            suffix=".jpg",
            extra={
                "slide": tile.slide.name,
                "patient": tile.slide.patient.code,
                "slide_x": tile.x,
                "slide_y": tile.y,
                "slide_px_per_tile_px": tile.extent / tile.width,
                "author": tile.truth.author.name,
                "tile": tile.pk,
            },
        )


def run_export(running: RunningJob, *, parts: Mapping[int, str]) -> dict[str, Any]:
    """The export job: write the files, pack them, put the archive into storage."""
    job = running.job
    project, arguments = job.project, job.arguments
    total = truth_tiles(project).count()
    classes = list(project.taxonomy.classes.values_list("name", flat=True))
    written: list[str] = []
    with work_dir(f"export-{job.pk}") as folder:
        shutil.rmtree(folder / "export", ignore_errors=True)  # what a killed attempt left
        tiles = _reported(labelled_tiles(project, parts=parts, part=arguments["part"]), total, running, written)
        write_format(arguments["format"], folder / "export", tiles, classes, images=arguments["images"])
        archive = folder / "export.zip"
        pack(folder / "export", archive)
        name = store(archive, f"exports/{project.pk}/{job.pk}.zip", move=True)
    return {"file": name, "bytes": default_storage.size(name), "message": f"{len(written)} tiles"}


def write_format(
    format_name: str, folder: Path, tiles: Iterator[LabelledTile], classes: list[str], *, images: bool
) -> None:
    """Write the tiles in one of FORMATS below `folder`."""
    image = _image_of if images else None
    if format_name == "yolo":
        write_yolo(folder, tiles, classes, image=image)
    elif format_name == "voc":
        write_voc(folder, tiles, classes, image=image)
    elif format_name == "coco":
        write_coco(folder, tiles, classes, image=image)
    elif format_name == "labelimg-voc":
        write_labelimg(folder, tiles, classes, image=image, flavour="voc")
    else:
        write_labelimg(folder, tiles, classes, image=image, flavour="yolo")


def _image_of(tile: LabelledTile) -> bytes:
    row = Tile.objects.select_related("slide").get(pk=int(str(tile.extra["tile"])))
    return tile_jpeg(row)


def _reported(
    tiles: Iterator[LabelledTile], total: int, running: RunningJob, written: list[str]
) -> Iterator[LabelledTile]:
    for tile in tiles:
        running.report(0.9 * len(written) / max(total, 1), f"{len(written)} of {total} tiles")
        yield tile
        written.append(tile.name)


def pack(folder: Path, archive: Path) -> None:
    """Zip a folder so that the same files give the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), ARCHIVE_TIME)
            info.compress_type = zipfile.ZIP_STORED if path.suffix == ".jpg" else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            zipped.writestr(info, path.read_bytes())
