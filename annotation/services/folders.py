"""Registered folders: slides too large to upload are read where they lie on the server, and their folder is watched.

A file is imported once two looks have found it with the same size and time of change: until then somebody may still be
copying it. Nothing in a registered folder is ever written, moved or deleted.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Count, QuerySet
from django.utils import timezone

from annotation.models import (
    FileState,
    FolderFile,
    Job,
    JobKind,
    JobState,
    PatientRule,
    Project,
    Slide,
    SlideFolder,
    User,
)
from annotation.models.folder import STANDINGS
from annotation.models.job import ACTIVE
from annotation.services.events import record
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.projects import NotAllowed
from annotation.services.slide_files import OutsideRoots, PlacedFile, allowed, placed, placed_now
from annotation.services.slides import SlideFacts, display_name, patient_code_from
from annotation.services.storage import digest_of
from annotation.slides.image import READABLE_SUFFIXES
from annotation.slides.reader import group_files

MOST_FILES = 20_000  # below one registered folder
MOST_SHOWN = 500  # folders in a list
MOST_COUNTED = 2_000  # files of a folder in a list, or of a preview
MOST_WAITING = 20  # imports of a folder in the queue: other jobs come in between
LOOKS_KEPT = 20
TOLD = ("settled", "importing", "refused", "changed", "vanished")  # of how files stand, by a look
SOON = timedelta(minutes=1)
LONGEST_NAME = 600
ROW_CHUNK = 500
COMPARED = ("size", "modified", "state", "problem", "job", "slide")

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A slide file below a folder: its path there, bytes, ns since 1970; or why it is not read."""

    name: str
    size: int = 0
    modified: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Subfolder:
    """A folder to choose. slides: how many lie directly in it, at most MOST_COUNTED + 1."""

    path: Path
    slides: int

    @property
    def count(self) -> str:
        return f"more than {MOST_COUNTED}" if self.slides > MOST_COUNTED else str(self.slides)


def roots() -> list[Subfolder]:
    """The folders under which slides may be registered, as far as they are there."""
    return [Subfolder(root, _count(root)) for root in settings.SLIDE_ROOTS if root.is_dir()]


def subfolders(folder: Path) -> list[Subfolder]:
    """The folders in a folder, by name; links are not followed. Raises OSError."""
    with os.scandir(folder) as entries:
        inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and _is_shown(entry.name)]
    return [Subfolder(folder / name, _count(folder / name)) for name in sorted(inner)[:MOST_SHOWN]]


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name.isprintable()


def _count(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(1 for _ in islice((one for one in entries if _is_slide(one.name)), MOST_COUNTED + 1))
    except OSError:
        return 0


def _is_slide(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(READABLE_SUFFIXES)


def files_below(folder: Path, below: str = "") -> Iterator[Found]:
    """Every slide file of a folder and of those below it, in the order of names. Raises OSError for the folder itself.

    Links to folders are not followed, links to files only where they stay under an allowed root.
    """
    with os.scandir(folder) as entries:
        inner = sorted(entries, key=lambda entry: entry.name)
    for entry in inner:
        name = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith("."):
                yield from _files_of_subfolder(Path(entry.path), name)
        elif _is_slide(entry.name):
            yield _found(entry, name)


def _files_of_subfolder(folder: Path, name: str) -> Iterator[Found]:
    try:
        yield from files_below(folder, f"{name}/")
    except OSError as error:
        yield Found(_storable(name), problem=f"The folder cannot be read: {error.strerror}.")


def _found(entry: "os.DirEntry[str]", name: str) -> Found:
    if _storable(name) != name:
        return Found(_storable(name), problem="Its name is too long, or is not UTF-8.")
    try:
        if entry.is_symlink():
            allowed(entry.path)
        stat = entry.stat()
    except OutsideRoots:
        return Found(name, problem="A link that leads out of the folders that the settings allow, or to nothing.")
    except OSError as error:
        return Found(name, problem=f"It cannot be read: {error.strerror}.")
    return Found(name, stat.st_size, stat.st_mtime_ns)


def _storable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace").replace("\0", "")[:LONGEST_NAME]


def patient_by(rule: str, folder: Path, name: str) -> str:
    """The patient's code of the file with this name below a folder, by the rule that the lead has chosen."""
    place = PurePosixPath(name)
    if rule == PatientRule.BEGINNING:
        beginning = place.stem.replace(" ", "_").split("_")[0]
        return patient_code_from(f"{beginning or place.stem}.")
    if rule == PatientRule.FOLDER:
        return patient_code_from(f"{place.parent.name or folder.name}.")
    if rule == PatientRule.TOP and len(place.parts) > 1:
        return patient_code_from(f"{place.parts[0]}.")
    return patient_code_from(name)


@transaction.atomic
def register_folder(
    *, project: Project, path: Path | str, rule: PatientRule, facts: SlideFacts, every_minutes: int, user: User
) -> SlideFolder:
    """Register a folder and look into it at once. Raises OutsideRoots, NotAllowed."""
    real = allowed(path)
    if not real.is_dir() or len(str(real)) > LONGEST_NAME:
        raise OutsideRoots(f"{path} is not a folder, or its path is too long.")
    for other in project.folders.all():
        if real.is_relative_to(other.path) or Path(other.path).is_relative_to(real):
            raise NotAllowed(f"{real}: {other.path} is registered already, and one lies in the other.")
    try:
        with transaction.atomic():
            folder = SlideFolder.objects.create(
                project=project,
                path=str(real),
                patient_rule=rule,
                facts=asdict(facts),
                every_minutes=every_minutes,
                registered_by=user,
                next_look_at=timezone.now(),
            )
    except IntegrityError as error:
        raise NotAllowed(f"{real} is registered already.") from error
    record(project=project, user=user, verb="registered", subject=folder, patient=rule.label, minutes=every_minutes)
    start_look(folder=folder, user=user)
    return folder


@transaction.atomic
def unregister_folder(*, folder: SlideFolder, user: User) -> None:
    """Look no more. Slides that were imported stay, and are still read in place."""
    record(project=folder.project, user=user, verb="unregistered", subject=folder)
    folder.delete()


@transaction.atomic
def pause_folder(*, folder: SlideFolder, paused: bool, user: User) -> None:
    """Look by schedule no more, or again, beginning now."""
    if SlideFolder.objects.filter(pk=folder.pk, paused=not paused).update(paused=paused, next_look_at=timezone.now()):
        record(project=folder.project, user=user, verb="paused" if paused else "resumed", subject=folder)


@transaction.atomic
def start_look(*, folder: SlideFolder, user: User | None, now: datetime | None = None) -> Job:
    """Queue a look, unless one is under way: then that one."""
    folder = SlideFolder.objects.select_for_update().get(pk=folder.pk)
    if folder.job is not None and folder.job.is_active:
        return folder.job
    folder.job = create_job(
        project=folder.project, kind=JobKind.LOOK, subject=folder.path, created_by=user, folder=folder.pk
    )
    folder.next_look_at = (now or timezone.now()) + timedelta(minutes=folder.every_minutes)
    folder.save(update_fields=["job", "next_look_at"])
    return folder.job


def look_due(*, now: datetime | None = None) -> int:
    """Look into the folders whose time has come, and refill the queue of imports; returns how many looks were begun."""
    now = now or timezone.now()
    watched = SlideFolder.objects.filter(paused=False)
    for folder in watched.filter(files__state=FileState.SETTLED).distinct():
        queue_settled(folder=folder)
    begun = 0
    for folder in watched.filter(next_look_at__lte=now):
        later = now + timedelta(minutes=folder.every_minutes)
        mine = SlideFolder.objects.filter(pk=folder.pk, next_look_at=folder.next_look_at)
        if mine.update(next_look_at=later):  # of two workers one looks
            start_look(folder=folder, user=None, now=now)
            begun += 1
    return begun


def run_look(running: RunningJob) -> dict[str, object]:
    """The job of a look: what lies in the folder against what the last look found there."""
    folder = SlideFolder.objects.select_related("project").filter(pk=running.job.arguments["folder"]).first()
    if folder is None:
        return {"message": "The folder is no longer registered."}
    try:
        real = allowed(folder.path)
        found = _found_below(real, running)
    except (OutsideRoots, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise JobError(f"{folder.path} could not be looked into: {reason}", code="missing") from error
    look = _Look(folder, real, running)
    look.compare(found)
    queue_settled(folder=folder)
    _forget_old_looks(folder)
    counts = standings_of(folder)
    if counts["seen"]:  # it may be being copied: it is looked at again soon
        SlideFolder.objects.filter(pk=folder.pk).update(next_look_at=timezone.now() + SOON)
    words = [f"{len(found)} file{'' if len(found) == 1 else 's'}", f"{look.new} new"]
    words += [f"{counts[name]} {STANDINGS[name][0]}" for name in TOLD if counts[name]]
    return {"message": ", ".join(words)}


def standings_of(folder: SlideFolder) -> dict[str, int]:
    """How many of a folder's files stand how, by the keys of STANDINGS."""
    counts: dict[str, int] = folder.files.aggregate(
        **{name: Count("pk", filter=rows) for name, (_, rows) in STANDINGS.items()}
    )
    return counts


def _found_below(folder: Path, running: RunningJob) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for one in files_below(folder):
        found[one.name] = one
        if len(found) > MOST_FILES:
            raise JobError(f"{folder} holds more than {MOST_FILES} slides and images: register its subfolders instead.")
        running.report(0.0, f"{len(found)} files found")
    return found


class _Look:
    """Compares the rows of a folder with its files, each by itself."""

    def __init__(self, folder: SlideFolder, path: Path, running: RunningJob) -> None:
        self.folder, self.path, self.running = folder, path, running
        self.new = 0

    def compare(self, found: dict[str, Found]) -> None:
        known = {row.name: row for row in self.folder.files.select_related("job", "slide")}
        slides = self._slides_of(known.values())
        gone, settled, changed = [], [], []
        for index, row in enumerate(known.values()):
            self.running.report(index / len(known), "comparing")
            before = _values(row)
            was_seen = row.state == FileState.SEEN
            if row.slide is None and row.job is not None and row.job.state == JobState.SUCCEEDED:
                row.slide = slides.get(row.job.result.get("slide", 0))
            one = found.get(row.name)
            if one is not None:
                self._judge(row, one)
            elif row.slide is not None and self._place_in(row.slide, row) is not None:
                row.state, row.problem = FileState.VANISHED, "It is no longer in the folder."
            elif row.job is None or not row.job.is_active:
                gone.append(row.pk)
            if was_seen and row.state == FileState.SETTLED:
                settled.append(row.pk)  # nothing else of it has changed
            elif _values(row) != before:
                changed.append(row)
        fresh = [_row(self.folder, one) for name, one in found.items() if name not in known]
        self.new = len(fresh)
        # In parts, so that nobody else has to wait for long: each row is true by itself.
        for keys in _parts(gone):
            FolderFile.objects.filter(pk__in=keys).delete()
        for keys in _parts(settled):
            FolderFile.objects.filter(pk__in=keys).update(state=FileState.SETTLED)
        for rows in _parts(changed):
            FolderFile.objects.bulk_update(rows, COMPARED)
        for rows in _parts(fresh):
            FolderFile.objects.bulk_create(rows, ignore_conflicts=True)

    def _slides_of(self, rows: Iterable[FolderFile]) -> dict[int, Slide]:
        keys = [row.job.result.get("slide") for row in rows if row.job is not None and row.slide_id is None]
        return Slide.objects.in_bulk([key for key in keys if key])

    def _judge(self, row: FolderFile, one: Found) -> None:
        same = (row.size, row.modified) == (one.size, one.modified)
        if row.slide is not None:
            self._judge_imported(row, row.slide, one, same)
        elif one.problem:
            row.state, row.problem, row.job = FileState.REFUSED, one.problem, None
        elif row.job is not None and (row.job.is_active or same):
            pass
        elif not same or row.state == FileState.REFUSED:
            row.state, row.problem, row.job = FileState.SEEN, "", None
        elif row.state == FileState.SEEN:
            row.state = FileState.SETTLED
        row.size, row.modified = one.size, one.modified

    def _judge_imported(self, row: FolderFile, slide: Slide, one: Found, same: bool) -> None:
        known = self._place_in(slide, row)
        if one.problem:
            row.state, row.problem = FileState.CHANGED, one.problem
        elif known is not None and (known.size, known.modified) == (one.size, one.modified):
            row.state, row.problem = FileState.TAKEN, ""
        elif same and row.state == FileState.CHANGED:
            pass
        elif known is not None and known.size == one.size and self._holds_the_same(slide):
            row.state, row.problem = FileState.TAKEN, ""
        else:
            row.state = FileState.CHANGED
            row.problem = "It is no longer what was imported: neither replaced nor read."

    def _place_in(self, slide: Slide, row: FolderFile) -> PlacedFile | None:
        """The slide's file that the row is; a link's own path is its target's."""
        path = self.path / row.name
        paths = (path, path.resolve())
        return next((known for known in map(placed, slide.files) if known and known.path in paths), None)

    def _holds_the_same(self, slide: Slide) -> bool:
        """Only its time of change is another: then the slide is read again."""
        self.running.report(0.5, f"reading {slide.name} again", at_once=True)
        try:
            now = [placed_now(known.path) for known in map(placed, slide.files) if known]
            if digest_of([one.path for one in now]) != slide.sha256:
                return False
        except OSError:
            return False
        slide.files = [one.name for one in now]
        Slide.objects.filter(pk=slide.pk).update(files=slide.files)
        return True


def _values(row: FolderFile) -> tuple[object, ...]:
    return row.size, row.modified, row.state, row.problem, row.job_id, row.slide_id


def _parts(rows: list[T]) -> Iterator[list[T]]:
    return (rows[start : start + ROW_CHUNK] for start in range(0, len(rows), ROW_CHUNK))


def _row(folder: SlideFolder, one: Found) -> FolderFile:
    state = FileState.REFUSED if one.problem else FileState.SEEN
    return FolderFile(
        folder=folder, name=one.name, size=one.size, modified=one.modified, state=state, problem=one.problem
    )


@transaction.atomic
def queue_settled(*, folder: SlideFolder) -> int:
    """Queue imports of files that have stopped growing, as many as there is room for; returns how many."""
    folder = SlideFolder.objects.select_for_update().get(pk=folder.pk)
    room = MOST_WAITING - folder.files.filter(job__state__in=ACTIVE).values("job").distinct().count()
    queued = 0
    for rows in _slides_among(folder):
        if queued >= room:
            break
        _queue_import(folder, rows)
        queued += 1
    return queued


def _slides_among(folder: SlideFolder) -> Iterator[list[FolderFile]]:
    """The settled files of each slide. DICOM files wait until all those beside them have settled."""
    real = Path(folder.path)
    growing = {_place(row) for row in _series_files(folder, FileState.SEEN)}
    for row in folder.files.filter(state=FileState.SETTLED).exclude(name__iendswith=".dcm"):
        yield [row]
    settled: dict[str, list[FolderFile]] = {}
    for row in _series_files(folder, FileState.SETTLED):
        settled.setdefault(_place(row), []).append(row)
    for place, rows in settled.items():
        if place not in growing:
            paths = {real / row.name: row for row in rows}
            yield from ([paths[path] for path in group] for group in group_files(list(paths)))


def _series_files(folder: SlideFolder, state: FileState) -> QuerySet[FolderFile]:
    return folder.files.filter(state=state, name__iendswith=".dcm")


def _place(row: FolderFile) -> str:
    return str(PurePosixPath(row.name).parent)


def _queue_import(folder: SlideFolder, rows: list[FolderFile]) -> None:
    patient = patient_by(folder.patient_rule, Path(folder.path), rows[0].name)
    job = create_job(
        project=folder.project,
        kind=JobKind.IMPORT_SLIDE,
        subject=display_name(rows[0].name),
        created_by=folder.registered_by,
        paths=[str(Path(folder.path) / row.name) for row in rows],
        in_place=True,
        facts=asdict(replace(SlideFacts(**folder.facts), patient=patient)),
    )
    FolderFile.objects.filter(pk__in=[row.pk for row in rows]).update(state=FileState.TAKEN, job=job)


def _forget_old_looks(folder: SlideFolder) -> None:
    """A folder that is looked into every few minutes must not bury the other jobs."""
    looks = Job.objects.filter(project=folder.project, kind=JobKind.LOOK, arguments__folder=folder.pk)
    old = looks.filter(state=JobState.SUCCEEDED).order_by("-pk").values_list("pk", flat=True)[LOOKS_KEPT:]
    Job.objects.filter(pk__in=list(old)).delete()
