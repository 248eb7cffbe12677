"""Importing slides: staged, checked, tiled, and only then entered, all at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction

from annotation.models import Job, JobKind, Patient, Project, Slide, Tile, Tiling, User
from annotation.services.events import record
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.slide_files import OutsideRoots, allowed, is_there, placed, placed_now
from annotation.services.storage import digest_of, discard, held, keep_upload, store
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
        check_name(name, upload.size or 0)
    folder = f"staging/{uuid4()}"
    keys = [f"{folder}/{index}{PurePath(name).suffix.lower()}" for index, name in enumerate(names)]
    try:
        for key, upload in zip(keys, uploads, strict=True):
            keep_upload(upload, key)
        staged = {key: (name, facts) for key, name in zip(keys, names, strict=True)}
        return queue_staged(project=project, staged=staged, user=user)
    except BaseException:
        discard(keys)
        raise


def queue_staged(*, project: Project, staged: dict[str, tuple[str, SlideFacts]], user: User | None) -> list[Job]:
    """Queue one import job per slide among staged files: {name in storage: (name for people, facts)}."""
    return _queue(project, _series_of(list(staged)), staged, user)


@transaction.atomic
def _queue(
    project: Project, groups: Sequence[Sequence[str]], staged: dict[str, tuple[str, SlideFacts]], user: User | None
) -> list[Job]:
    jobs = []
    for group in groups:
        name, facts = staged[group[0]]
        own = SlideFacts(**(asdict(facts) | {"patient": facts.patient or patient_code_from(name)}))
        jobs.append(
            create_job(
                project=project,
                kind=JobKind.IMPORT_SLIDE,
                subject=name,
                created_by=user,
                files=list(group),
                facts=asdict(own),
            )
        )
    return jobs


def _series_of(keys: Sequence[str]) -> list[list[str]]:
    """Stored files, those of one slide together. Only DICOM files are looked into, so only they must lie here."""
    dicom = [key for key in keys if key.endswith(".dcm")]
    with held(dicom) as paths:
        here = dict(zip(dicom, paths, strict=True))
        key_of = {here.get(key, Path(key)): key for key in keys}
        return [[key_of[path] for path in group] for group in group_files(list(key_of))]


def check_name(name: str, size: int) -> None:
    """Raises SlideError for what cannot be a slide by its name or its size in bytes."""
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
        with ExitStack() as stack:
            paths = [Path(path) for path in job.arguments.get("paths", [])]
            if staged:
                running.report(0.0, "fetching the file", at_once=True)
                paths = stack.enter_context(held(staged, called=job.subject))
            slide = import_slide(
                project=job.project,
                paths=paths,
                in_place=bool(job.arguments.get("in_place")),
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
        done = _of_earlier_attempt(job) or _moved(job) if error.code == "duplicate" else None
        if done is None:
            if not error.code.startswith("mpp-"):  # with the pixel size stated, the same file may go in
                discard(staged)
            raise JobError(str(error), code=error.code) from error
        slide = done
    discard(staged)
    return {"slide": slide.pk, "message": tile_count(slide)}


def tile_count(slide: Slide) -> str:
    """The number of a slide's tiles, in words."""
    count = slide.tiles.count()
    return f"{count} tile{'' if count == 1 else 's'}"


def _of_earlier_attempt(job: Job) -> Slide | None:
    """The slide, if an earlier attempt entered it and was killed before it could say so."""
    if job.attempt < 2:
        return None
    return Slide.objects.filter(project=job.project, name=job.subject, imported_at__gte=job.created_at).first()


def _moved(job: Job) -> Slide | None:
    """The slide of a registered folder whose file was moved or renamed to what is imported here: now read there."""
    if not job.arguments.get("in_place"):
        return None
    paths = [Path(path) for path in job.arguments["paths"]]
    slide = Slide.objects.filter(project=job.project, sha256=digest_of(paths)).first()
    if slide is None or not all(map(placed, slide.files)) or is_there(slide):
        return None
    with transaction.atomic():
        Slide.objects.filter(pk=slide.pk).update(files=_places(paths, job.subject))
        record(project=job.project, user=job.created_by, verb="found again", subject=slide, path=str(paths[0]))
    return slide


def import_slide(
    *,
    project: Project,
    paths: Sequence[Path],
    name: str,
    facts: SlideFacts,
    user: User | None,
    in_place: bool = False,
    on_progress: Report = lambda part, text: None,
) -> Slide:
    """Check a slide or a plain image, cut its tiles and enter both at once; the first path is the one to open.

    `in_place`: the files lie in a registered folder and stay there. Raises SlideError naming the file and the reason;
    then neither file nor row is left behind.
    """
    places = _places(paths, name) if in_place else []
    checked = check_slide(project=project, paths=paths, name=name, facts=facts, on_progress=on_progress)
    if in_place and _places(paths, name) != places:
        raise SlideError(f"{name}: the file changed while it was read.", code="changed")
    on_progress(0.85, "storing the slide")
    files = places or store_slide(project=project, checked=checked)
    with _said_in_words(project, checked.digest, name), transaction.atomic():
        slide = enter_slide(project=project, checked=checked, files=files, user=user)
        tiles = len(checked.found.tiles)
        record(project=project, user=user, verb="imported slide", subject=name, tiles=tiles, sha256=checked.digest)
    return slide


def _places(paths: Sequence[Path], name: str) -> list[str]:
    try:
        return [placed_now(allowed(path)).name for path in paths]
    except OutsideRoots as error:
        raise SlideError(f"{name}: {error}", code="missing") from error


@dataclass(frozen=True)
class _Found:
    """What a file holds: its facts, and its tiles, which have no slide yet."""

    info: SlideInfo
    tiling: str
    tiles: list[Tile]


@dataclass(frozen=True)
class CheckedSlide:
    """A slide that can be entered: its files, where they lie now, and what they hold."""

    name: str
    paths: tuple[Path, ...]
    digest: str
    facts: SlideFacts
    found: _Found


def check_slide(
    *,
    project: Project,
    paths: Sequence[Path],
    name: str,
    facts: SlideFacts,
    on_progress: Report = lambda part, text: None,
) -> CheckedSlide:
    """Read a slide or a plain image and cut its tiles; nothing is stored. Raises SlideError."""
    check_name(name, paths[0].stat().st_size)
    on_progress(0.02, "reading the file")
    digest = digest_of(paths)
    _refuse_known(project, digest, name)
    return CheckedSlide(name, tuple(paths), digest, facts, _examine(paths[0], name, facts, on_progress))


def store_slide(*, project: Project, checked: CheckedSlide) -> list[str]:
    """Put a slide's files into storage; returns their names there, which follow from what the files hold."""
    folder = f"slides/{project.pk}/{checked.digest}"
    return [
        store(path, f"{folder}/{index}{path.suffix.lower()}", called=checked.name)
        for index, path in enumerate(checked.paths)
    ]


def enter_slide(*, project: Project, checked: CheckedSlide, files: list[str], user: User | None) -> Slide:
    """Write the rows of a stored slide and its tiles, in the caller's transaction."""
    facts, found = checked.facts, checked.found
    patient, _ = Patient.objects.get_or_create(project=project, code=facts.patient or patient_code_from(checked.name))
    slide = Slide.objects.create(
        project=project,
        patient=patient,
        name=checked.name,
        files=files,
        sha256=checked.digest,
        bytes=sum(path.stat().st_size for path in checked.paths),
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
    return slide


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
