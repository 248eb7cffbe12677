"""Importing slides: staged, checked, tiled, and only then entered, all at once."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction

from annotation.models import Job, JobKind, Patient, Project, Slide, Tile, Tiling, User
from annotation.services.events import record
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.storage import keep_upload, local_path, sha256_of, store
from annotation.slides.image import READABLE_SUFFIXES, ImageReader, open_reader
from annotation.slides.reader import SlideError, SlideInfo, SlideReader, check_readable, group_files, tile_extent
from annotation.slides.tiling import find_tiles

ROW_CHUNK = 2000

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class SlideFacts:
    """What the lead says of a slide; `mpp` only where the file does not say it. A plain image is not tiled."""

    patient: str
    site: str = ""
    preparation: str = ""
    mpp: float | None = None
    tiling: str = "paper"


def patient_code_from(name: str) -> str:
    """The file's name without folder and suffix: what a slide's patient is called when nobody says otherwise."""
    return PurePath(name.replace("\\", "/")).name.rsplit(".", 1)[0][:60] or "unnamed"


def display_name(name: str) -> str:
    """An uploaded file's name as it is shown: without folders and control characters, never used as a path."""
    base = PurePath(name.replace("\\", "/")).name
    return "".join(letter for letter in base if letter.isprintable())[:255] or "unnamed"


def stage_uploads(
    *, project: Project, uploads: "Sequence[UploadedFile[Any]]", facts: SlideFacts, user: User | None
) -> list[Job]:
    """Put uploaded files into storage and queue one import job per slide.

    Files that belong together (a DICOM series) make one slide. `facts.patient` empty: each file's own name. Raises
    SlideError naming the first file that cannot be a slide by its suffix; then nothing is staged.
    """
    names = [display_name(upload.name or "") for upload in uploads]
    for name, upload in zip(names, uploads, strict=True):
        _check_name(name, upload.size or 0)
    folder = f"staging/{uuid4()}"
    staged: dict[Path, tuple[str, str]] = {}
    for index, (name, upload) in enumerate(zip(names, uploads, strict=True)):
        key = f"{folder}/{index}{PurePath(name).suffix.lower()}"
        keep_upload(upload, key)
        staged[local_path(key)] = (key, name)
    jobs = []
    for group in group_files(list(staged)):
        name = staged[group[0]][1]
        own = SlideFacts(**(asdict(facts) | {"patient": facts.patient or patient_code_from(name)}))
        jobs.append(
            create_job(
                project=project,
                kind=JobKind.IMPORT_SLIDE,
                subject=name,
                created_by=user,
                files=[staged[path][0] for path in group],
                facts=asdict(own),
            )
        )
    return jobs


def _check_name(name: str, size: int) -> None:
    if PurePath(name).suffix.lower() not in READABLE_SUFFIXES:
        readable = ", ".join(sorted(READABLE_SUFFIXES))
        raise SlideError(f"{name}: not a slide or image format that Marrowloop reads ({readable}).", code="unreadable")
    if size == 0:
        raise SlideError(f"{name}: the file is empty (0 bytes).", code="empty")


def queue_folder(*, project: Project, paths: Sequence[Path], facts: SlideFacts, user: User | None) -> list[Job]:
    """Queue one import job per slide among files that the worker can read where they lie; they are not moved."""
    jobs = []
    for group in group_files(sorted(paths)):
        own = asdict(facts) | {"patient": facts.patient or patient_code_from(group[0].name)}
        arguments = {"paths": [str(path.resolve()) for path in group], "facts": own}
        jobs.append(
            create_job(project=project, kind=JobKind.IMPORT_SLIDE, subject=group[0].name, created_by=user, **arguments)
        )
    return jobs


def import_staged(running: RunningJob) -> dict[str, object]:
    """The import job: from staging into the project, or a message that says why not."""
    job = running.job
    staged = [str(key) for key in job.arguments.get("files", [])]
    facts = SlideFacts(**job.arguments["facts"])
    try:
        paths = [local_path(key) for key in staged] or [Path(path) for path in job.arguments["paths"]]
        slide = import_slide(
            project=job.project,
            paths=paths,
            name=job.subject,
            facts=facts,
            user=job.created_by,
            on_progress=lambda part, text: running.report(part, text),
        )
    except FileNotFoundError as error:
        done = _of_earlier_attempt(job)
        if done is None:
            raise JobError(f"{job.subject}: the file is gone; upload it again.", code="missing") from error
        slide = done
    except SlideError as error:
        done = _of_earlier_attempt(job) if error.code == "duplicate" else None
        if done is None:
            if not error.code.startswith("mpp-"):  # with the pixel size stated, the same file may go in
                _discard(staged)
            raise JobError(str(error), code=error.code) from error
        slide = done
    _discard(staged)
    return {"slide": slide.pk, "message": tile_count(slide)}


def tile_count(slide: Slide) -> str:
    """The number of a slide's tiles, in words."""
    count = slide.tiles.count()
    return f"{count} tile{'' if count == 1 else 's'}"


def _discard(staged: Sequence[str]) -> None:
    for key in staged:
        default_storage.delete(key)


def _of_earlier_attempt(job: Job) -> Slide | None:
    """The slide, if an earlier attempt entered it and was killed before it could say so."""
    if job.attempt < 2:
        return None
    return Slide.objects.filter(project=job.project, name=job.subject, imported_at__gte=job.created_at).first()


def import_slide(
    *,
    project: Project,
    paths: Sequence[Path],
    name: str,
    facts: SlideFacts,
    user: User | None,
    on_progress: Report = lambda part, text: None,
) -> Slide:
    """Check a slide or a plain image, cut its tiles and enter both at once; the first path is the one to open.

    Raises SlideError naming the file and the reason; then neither file nor row is left behind.
    """
    _check_name(name, paths[0].stat().st_size)
    on_progress(0.02, "reading the file")
    digest = _digest(paths)
    _refuse_known(project, digest, name)
    found = _examine(paths[0], name, facts, on_progress)
    on_progress(0.85, "storing the slide")
    folder = f"slides/{project.pk}/{digest}"
    files = [store(path, f"{folder}/{index}{path.suffix.lower()}") for index, path in enumerate(paths)]
    with _said_in_words(project, digest, name), transaction.atomic():
        patient, _ = Patient.objects.get_or_create(project=project, code=facts.patient or patient_code_from(name))
        slide = Slide.objects.create(
            project=project,
            patient=patient,
            name=name,
            files=files,
            sha256=digest,
            bytes=sum(path.stat().st_size for path in paths),
            vendor=found.info.vendor,
            width=found.info.width,
            height=found.info.height,
            mpp=found.info.mpp,
            objective_power=found.info.objective_power,
            site=facts.site,
            preparation=facts.preparation,
            tiling=found.tiling,
            imported_by=user,
        )
        for tile in found.tiles:
            tile.slide = slide
        Tile.objects.bulk_create(found.tiles, batch_size=ROW_CHUNK)
        record(project=project, user=user, verb="imported slide", subject=name, tiles=len(found.tiles), sha256=digest)
    return slide


@dataclass(frozen=True)
class _Found:
    """What a file holds: its facts, and its tiles, which have no slide yet."""

    info: SlideInfo
    tiling: str
    tiles: list[Tile]


def _examine(path: Path, name: str, facts: SlideFacts, on_progress: Report) -> _Found:
    with open_reader(path, name=name, mpp=facts.mpp) as reader:
        if isinstance(reader, ImageReader):
            return _Found(reader.info, Tiling.IMAGE, [_whole_image(reader.info)])
        return _Found(replace(reader.info, mpp=reader.mpp), facts.tiling, _slide_tiles(reader, facts, on_progress))


def _whole_image(info: SlideInfo) -> Tile:
    """The one tile of a plain image: its px are level-0 px. Somebody chose the image, so it is taken blank or not."""
    return Tile(row=0, column=0, x=0, y=0, extent=info.width, width=info.width, height=info.height)


def _slide_tiles(reader: SlideReader, facts: SlideFacts, on_progress: Report) -> list[Tile]:
    check_readable(reader)
    on_progress(0.2, "looking for cells")
    positions = find_tiles(
        reader,
        tiling="edge" if facts.tiling == "edge" else "paper",
        on_progress=lambda part: on_progress(0.2 + 0.6 * part, "looking for cells"),
    )
    extent = tile_extent(reader.mpp)
    return [Tile(row=one.row, column=one.column, x=one.x, y=one.y, extent=extent) for one in positions]


def _refuse_known(project: Project, digest: str, name: str) -> None:
    known = Slide.objects.filter(project=project, sha256=digest).select_related("patient").first()
    if known is not None:
        raise SlideError(
            f"{name}: already in this project as {known.name} (patient {known.patient}), imported "
            f"{known.imported_at:%Y-%m-%d}.",
            code="duplicate",
        )


@contextmanager
def _said_in_words(project: Project, digest: str, name: str) -> Iterator[None]:
    """Of two imports of one file at once, the second is refused by the database."""
    try:
        yield
    except IntegrityError:
        _refuse_known(project, digest, name)
        raise


def _digest(paths: Sequence[Path]) -> str:
    hashes = [sha256_of(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()
