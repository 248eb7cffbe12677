"""Importing annotations: files are staged, read, tried out, and only then written, all at once.

Three jobs of one kind, each a row of its own: "read" finds the format and the class names, "try" says what would
happen with what the lead has chosen, "write" does exactly that. Nothing is written by the first two. What a job has
read it keeps beside the upload (kept_tiles.py), so that the jobs after it parse the files again only where they must be
read in another way.
"""

import json
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from uuid import uuid4

import numpy as np
from django.core.files.uploadedfile import UploadedFile
from django.db import connection, transaction
from django.db.models import Max, OuterRef, Subquery
from django.utils import timezone

from annotation.formats.archives import open_archive
from annotation.formats.files import FileTree
from annotation.formats.records import FormatError
from annotation.formats.trees import TREE_FORMATS, find_format, images_of, propose_first_pixel
from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    Box,
    Change,
    Job,
    JobKind,
    JobState,
    Project,
    Slide,
    Task,
    TaskState,
    Tile,
    User,
)
from annotation.prepared import insert_rows
from annotation.services.annotations import author_of
from annotation.services.events import record
from annotation.services.jobs import JobError, JobLost, RunningJob, create_job
from annotation.services.kept_tiles import BOX_COLUMNS, KeptTiles, ReadAs, keep_tiles, opened_kept
from annotation.services.label_plans import (
    ImportSettings,
    Plan,
    PlannedTile,
    TileMatcher,
    concerned_tasks,
    listed,
    make_plan,
)
from annotation.services.policies import answer, settle_answered, unanswered
from annotation.services.slides import display_name, enter_slide, store_slide
from annotation.services.storage import discard, held, keep_upload, store, work_dir

READ, TRY, WRITE = "read", "try", "write"
LABEL_SUFFIXES = (".zip", ".xml", ".json", ".txt", ".yaml", ".csv")
_CHUNK = 2000


class UploadRefused(ValueError):
    """Uploaded files that cannot be an import; the text names the file and the reason."""


def stage_labels(
    *, project: Project, uploads: "Sequence[UploadedFile[Any]]", file_format: str = "", user: User | None
) -> Job:
    """Put one zip archive, or the single files of a folder, into storage and queue the job that reads them.

    `file_format` is one of TREE_FORMATS, or empty: found by content. Raises UploadRefused; then nothing is stored.
    """
    names = [display_name(upload.name or "") for upload in uploads]
    if file_format and file_format not in TREE_FORMATS:
        raise UploadRefused(f"{file_format} is not a format: {', '.join(TREE_FORMATS)}.")
    empty = [name for name, upload in zip(names, uploads, strict=True) if not upload.size and not name.endswith(".txt")]
    if not names or empty:
        raise UploadRefused(f"{empty[0]}: the file is empty (0 bytes)." if empty else "There is no file.")
    archives = [name for name in names if PurePath(name).suffix.lower() == ".zip"]
    if archives and len(names) > 1:
        raise UploadRefused(f"{archives[0]}: give one zip archive, or the files without one.")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UploadRefused(f"{repeated[0]}: two files have this name. Put the folders into a zip archive.")
    key = f"imports/{project.pk}/{uuid4()}.zip"
    if archives:
        keep_upload(uploads[0], key)
    else:
        _store_together(uploads, names, key)
    subject = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return create_job(
        project=project,
        kind=JobKind.IMPORT_LABELS,
        subject=subject,
        created_by=user,
        step=READ,
        file=key,
        format=file_format,
    )


def _store_together(uploads: "Sequence[UploadedFile[Any]]", names: Sequence[str], key: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "files.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as zipped:
            for name, upload in zip(names, uploads, strict=True):
                with zipped.open(name, "w") as target:
                    for chunk in upload.chunks():
                        target.write(chunk)
        store(path, key, move=True)


def is_readable(job: Job) -> bool:
    """Whether the job has read the files, which are still there, and found nothing that speaks against importing."""
    is_read = job.arguments["step"] == READ and job.state == JobState.SUCCEEDED and not job.result["problems_count"]
    return is_read and "gone" not in job.arguments


def _check_files(job: Job) -> None:
    if "gone" in job.arguments:
        raise UploadRefused(f"The files of {job.subject} are deleted; upload them again.")


@transaction.atomic
def queue_dry_run(*, read: Job, settings: ImportSettings, user: User | None) -> Job:
    """Queue the job that says what would happen with these settings. Raises UploadRefused."""
    _check_files(read)
    record(project=read.project, user=user, verb="asked for dry run", subject=read.subject)
    return create_job(
        project=read.project,
        kind=JobKind.IMPORT_LABELS,
        subject=read.subject,
        created_by=user,
        step=TRY,
        file=read.arguments["file"],
        read=read.pk,
        settings=settings.as_json(),
    )


@transaction.atomic
def queue_writing(*, tried: Job, user: User | None) -> Job:
    """Queue the import that this dry run has described; asked twice, there is one. Raises UploadRefused."""
    tried = Job.objects.select_for_update().get(pk=tried.pk)
    if tried.arguments["step"] != TRY or "digest" not in tried.result or tried.result["problems_count"]:
        raise UploadRefused("Only what a dry run has found without problems can be imported.")
    known = tried.project.jobs.filter(kind=JobKind.IMPORT_LABELS, arguments__tried=tried.pk).first()
    if known is not None:
        return known
    _check_files(tried)
    record(project=tried.project, user=user, verb="asked to import", subject=tried.subject)
    return create_job(
        project=tried.project,
        kind=JobKind.IMPORT_LABELS,
        subject=tried.subject,
        created_by=user,
        step=WRITE,
        file=tried.arguments["file"],
        read=tried.arguments["read"],
        tried=tried.pk,
        settings=tried.arguments["settings"],
        digest=tried.result["digest"],
    )


def run_label_import(running: RunningJob) -> dict[str, Any]:
    """The job: one of the three steps."""
    steps = {READ: _read, TRY: _try_out, WRITE: _write}
    return steps[running.job.arguments["step"]](running)


@contextmanager
def _opened(running: RunningJob) -> Iterator[FileTree]:
    """The upload's files. Raises FormatError, JobError."""
    job = running.job
    with work_dir(f"labels-{job.pk}") as folder, ExitStack() as stack:
        shutil.rmtree(folder / "files", ignore_errors=True)  # what a killed attempt left
        try:
            (archive,) = stack.enter_context(held([job.arguments["file"]], called=job.subject))
        except FileNotFoundError as error:
            raise JobError(f"{job.subject}: the files are gone; upload them again.", code="missing") from error
        tree = open_archive(
            archive,
            folder / "files",
            file=job.subject,
            on_progress=lambda done, total: running.report(0.2 * done / total, f"{done} of {total} images unpacked"),
        )
        yield stack.enter_context(tree)


def _read(running: RunningJob) -> dict[str, Any]:
    try:
        with work_dir(f"tiles-{running.job.pk}") as folder, _opened(running) as tree:
            return _what_is_found(running, tree, folder / "tiles")
    except FormatError as error:
        count = len(error.problems)
        words = f"refused: {count} problem{'' if count == 1 else 's'}"
        return listed(problems=error.problems) | {"message": words}


def _what_is_found(running: RunningJob, tree: FileTree, path: Path) -> dict[str, Any]:
    """Read the files, put what was read into storage, and say what it is."""
    running.report(0.3, "reading labels", at_once=True)
    job = running.job
    proposal = propose_first_pixel(tree)
    read_as = ReadAs(job.arguments["format"] or find_format(tree), proposal.first_pixel, "clip")
    matcher = TileMatcher(job.project)
    _keep(running, tree, path, read_as, matcher)
    with opened_kept(path) as kept:
        if kept is None:
            raise JobError(f"{job.subject}: what was read of it is damaged.", code="damaged")
        facts, found = kept.facts, _counted(kept, matcher)
    store(path, _kept_name(job.arguments["file"], job.pk), move=True, called=job.subject)
    return {
        "format": read_as.file_format,
        "first_pixel": read_as.first_pixel,
        "first_pixel_reason": proposal.reason,
        "files": len(tree.names),
        "images": facts.images,
        "tiles": facts.tiles,
        **found,
        "unlabelled": facts.unlabelled,
        "message": _on_tiles(found["boxes"], facts.tiles) + _not_read(len(facts.passed_over)),
    } | listed(problems=[], bad_boxes=[*facts.left_out, *facts.cut], passed_over=facts.passed_over)


def _counted(kept: KeptTiles, matcher: TileMatcher) -> dict[str, Any]:
    """How many boxes there are in all and of each class, tiles with none, and tiles that the project has."""
    names = kept.facts.classes
    boxes, tiles = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    empty = known = 0
    for block in kept.blocks():
        class_ids, of_tile = block.rows[:, 0].astype(np.int64), np.repeat(np.arange(len(block.counts)), block.counts)
        boxes += np.bincount(class_ids, minlength=len(names))
        pairs = np.unique(of_tile * len(names) + class_ids)
        tiles += np.bincount(pairs % max(len(names), 1), minlength=len(names))
        empty += block.counts.count(0)
        known += sum(matcher.size(name) is not None for name in block.names)
    columns = zip(names, boxes.tolist(), tiles.tolist(), strict=True)
    return {
        "boxes": int(boxes.sum()),
        "empty": empty,
        "known": known,
        "classes": [{"name": name, "boxes": of_class, "tiles": on} for name, of_class, on in columns],
    }


def _not_read(tasks: int) -> str:
    return f"; predictions of {tasks} task{'' if tasks == 1 else 's'} are not read" if tasks else ""


def _on_tiles(boxes: int, tiles: int) -> str:
    return f"{boxes} box{'' if boxes == 1 else 'es'} on {tiles} tile{'' if tiles == 1 else 's'}"


def _keep(running: RunningJob, tree: FileTree, path: Path, read_as: ReadAs, matcher: TileMatcher) -> None:
    """Read the files into a new file. Raises FormatError."""

    def report(done: int) -> None:
        running.report(0.3 + 0.2 * done / (done + 10_000), f"{done} tiles read")

    path.unlink(missing_ok=True)  # what a killed attempt left
    keep_tiles(path, tree, read_as, known_size=matcher.size, on_progress=report)


def _kept_name(key: str, job_pk: int) -> str:
    """Where a job keeps in storage what it has read of an upload."""
    return str(PurePosixPath(key).with_suffix(f".{job_pk}.tiles"))


def _settings(job: Job) -> ImportSettings:
    return ImportSettings(**job.arguments["settings"])


def _try_out(running: RunningJob) -> dict[str, Any]:
    project = running.job.project
    try:
        with _planned(running, _settings(running.job), keep=True) as plan:
            result = plan.as_json(project)
    except FormatError as error:
        result = Plan(problems=list(error.problems)).as_json(project)
    count = result["problems_count"]
    words = f"{count} problem{'' if count == 1 else 's'}" if count else "can be imported"
    return result | {"message": words if count else words + _left_empty(result["all_bad"])}


def _left_empty(tiles: int) -> str:
    if not tiles:
        return ""
    which = "a tile is left without a box, because none of its boxes"
    if tiles > 1:
        which = f"{tiles} tiles are left without a box, because none of their boxes"
    return f"; {which} can be kept"


@contextmanager
def _planned(running: RunningJob, settings: ImportSettings, *, keep: bool = False) -> Iterator[Plan]:
    """The plan of an import. New images are there inside only; `keep`: what had to be read anew is put into storage.

    Raises FormatError, JobError.
    """
    job = running.job
    running.report(0.2, "looking up tiles", at_once=True)
    matcher = TileMatcher(job.project)
    with ExitStack() as stack:
        kept = _kept(stack, job, settings.read_as, matcher)
        tree, read_anew = None, None
        if kept is None or kept.facts.images:
            tree = stack.enter_context(_opened(running))
        if kept is None and tree is not None:
            read_anew = stack.enter_context(work_dir(f"tiles-{job.pk}")) / "tiles"
            running.report(0.3, "reading labels", at_once=True)
            _keep(running, tree, read_anew, settings.read_as, matcher)
            kept = stack.enter_context(opened_kept(read_anew))
        if kept is None:
            raise JobError(f"{job.subject}: what was read of it is damaged.", code="damaged")
        plan = make_plan(
            project=job.project,
            kept=kept,
            images=images_of(tree, settings.file_format) if tree else None,
            matcher=matcher,
            settings=settings,
            on_progress=running.report,
        )
        if keep and read_anew is not None and not plan.problems:
            store(read_anew, _kept_name(job.arguments["file"], job.pk), move=True, called=job.subject)
        yield plan


def _kept(stack: ExitStack, job: Job, read_as: ReadAs, matcher: TileMatcher) -> KeptTiles | None:
    """What an earlier job has read of the files, if reading them now would find the same."""
    for pk in (job.arguments.get("tried"), job.arguments["read"]):
        if pk is None:
            continue
        try:
            (path,) = stack.enter_context(held([_kept_name(job.arguments["file"], pk)], called=job.subject))
        except FileNotFoundError:
            continue
        kept = stack.enter_context(opened_kept(path))
        if kept is None or not kept.facts.are_of(read_as):
            continue
        if all(matcher.size(name) == size for name, size in kept.facts.asked.items()):
            return kept
    return None


def _write(running: RunningJob) -> dict[str, Any]:
    job, settings = running.job, _settings(running.job)
    if not job.result:  # else an earlier attempt was killed when all was written
        try:
            with _planned(running, settings) as plan:
                job.result = _write_plan(running, plan, settings)
        except FormatError as error:
            raise JobError(f"Nothing was imported. {error}", code="unreadable") from error
    _delete_files(job.project, job.arguments["file"], "imported")
    result: dict[str, Any] = job.result
    return result


def _delete_files(project: Project, key: str, why: str) -> None:
    """Delete an upload, and what was kept of it; its jobs keep their reports and say why it is gone."""
    jobs = project.jobs.filter(kind=JobKind.IMPORT_LABELS, arguments__file=key)
    names = [key, *(_kept_name(key, job.pk) for job in jobs)]
    for job in jobs:
        Job.objects.filter(pk=job.pk).update(arguments=job.arguments | {"gone": why})
    discard(names)


@transaction.atomic
def discard_import(*, job: Job, user: User | None) -> None:
    """Delete the files of an import that is not wanted; nothing that was written is undone. Raises JobError."""
    jobs = job.project.jobs.filter(kind=JobKind.IMPORT_LABELS, arguments__file=job.arguments["file"])
    if any(one.is_active for one in jobs.select_for_update()):
        raise JobError("A job is at work on these files: cancel it first.")
    if "gone" in job.arguments:
        return
    record(project=job.project, user=user, verb="discarded import", subject=job.subject)
    _delete_files(job.project, job.arguments["file"], "discarded")


def _write_plan(running: RunningJob, plan: Plan, settings: ImportSettings) -> dict[str, Any]:
    """Store the new images' files, then write all rows, and the job's result with them, in one transaction."""
    job = running.job
    project, user = job.project, job.created_by
    if plan.problems:
        raise FormatError(plan.problems)
    # Another import may have written the very same.
    if not plan.is_all_there and plan.digest() != job.arguments["digest"]:
        raise _changed()
    result = _result(job, plan)
    fresh = [one for one in plan.tiles if not one.already]
    stored: dict[str, list[str]] = {}
    try:
        for done, one in enumerate(fresh):
            running.report(0.7 + 0.2 * done / len(fresh), f"{done} of {len(fresh)} tiles stored")
            if one.new is not None:
                stored[one.new.digest] = store_slide(project=project, checked=one.new)
        running.report(0.9, f"writing {len(fresh)} annotations", at_once=True)
        with transaction.atomic():
            batches: set[int] = set()
            for start in range(0, len(fresh), _CHUNK):
                running.note(0.9 + 0.1 * start / len(fresh), f"writing {len(fresh)} annotations")
                batches |= _write_some(running.job, fresh[start : start + _CHUNK], stored, settings)
            settle_answered(batches=batches)
            if fresh:
                counts = {"tiles": len(fresh), "boxes": sum(one.box_count for one in fresh)}
                subject = running.job.subject
                verb, becomes = "imported annotations", settings.becomes
                record(project=project, user=user, verb=verb, subject=subject, **counts, becomes=becomes)
            running.keep_result(result)
    except JobLost:
        raise  # another attempt has begun, and needs the same files
    except BaseException:
        _forget(project, stored)
        raise
    return result


def _changed() -> JobError:
    return JobError("The project has changed since the dry run: make a new one.", code="changed")


def _result(job: Job, plan: Plan) -> dict[str, Any]:
    """The dry run's numbers with those that may have changed since: others are the same files' and settings'."""
    tried: dict[str, Any] = Job.objects.get(pk=job.arguments["tried"]).result
    already = sum(one.already for one in plan.tiles)
    changed = {"already": already, "replaced": plan.replaced, "tasks": plan.tasks}
    fresh = len(plan.tiles) - already
    words = _on_tiles(tried["boxes"], fresh) if fresh else "all of it was there already"
    return tried | changed | {"message": words}


def _forget(project: Project, stored: dict[str, list[str]]) -> None:
    """Take the files of an import that came to nothing out of storage again, but not those that a slide has."""
    known = set(Slide.objects.filter(project=project, sha256__in=stored).values_list("sha256", flat=True))
    for digest, names in stored.items():
        if digest not in known:
            discard(names)


def _author(job: Job, settings: ImportSettings) -> Author:
    if settings.reader is not None:
        return author_of(user=User.objects.get(pk=settings.reader))
    # What readers start from is a model's to all who look: hidden from blind readers, and nobody's reading.
    kind = AuthorKind.MODEL if settings.becomes == "pre-labels" else AuthorKind.IMPORT
    author, _ = Author.objects.get_or_create(project=job.project, kind=kind, name=job.subject[:150])
    return author


def _write_some(
    job: Job, planned: Sequence[PlannedTile], stored: dict[str, list[str]], settings: ImportSettings
) -> set[int]:
    """Write the annotations of these tiles, in the caller's transaction; returns the batches whose tasks they answer.

    Raises JobError when a tile has another truth than the plan says.
    """
    if settings.becomes == "truth":
        _hold(planned)
    author, numbers = _author(job, settings), job.project.taxonomy.class_keys
    keys: list[int] = []
    for one in planned:
        if one.new is not None:
            files = stored[one.new.digest]
            slide = enter_slide(project=job.project, checked=one.new, files=files, user=job.created_by)
            keys.append(slide.tiles.get().pk)
        else:
            keys.append(one.tile or 0)
    annotations = _insert_annotations(author, planned, keys, settings)
    scored = settings.becomes == "pre-labels"
    change = "" if scored else Change.ADDED.value
    rows = np.frombuffer(b"".join(one.packed for one in planned)).reshape(-1, BOX_COLUMNS)
    owners = np.repeat(annotations, [one.box_count for one in planned]).tolist()
    *sides, scores = rows[:, 1:].T.tolist()
    columns = (
        owners,
        [numbers[number] for number in rows[:, 0].astype(np.int64).tolist()],
        *sides,
        [score if scored and score >= 0 else None for score in scores],
        repeat(change),
    )
    names = ("annotation_id", "cell_class_id", "x", "y", "width", "height", "score", "change")
    insert_rows(Box, names, zip(*columns, strict=False))
    return _take_effect(author, annotations, keys, settings)


def _hold(planned: Sequence[PlannedTile]) -> None:
    """Let no one give the tiles a truth until all is written. Raises JobError where somebody has, since the plan."""
    replaced = {one.tile: one.replaces for one in planned if one.tile is not None}
    # The tasks first, as a submission does it: two that hold what the other one waits for would never end. Not their
    # keys: drafts and annotations that name them can be written meanwhile.
    tasks = unanswered(list(replaced)).order_by("pk").select_for_update(of=("self",), no_key=True)
    list(tasks.values_list("pk", flat=True))
    tiles = Tile.objects.filter(pk__in=replaced).order_by("pk").select_for_update(no_key=True)
    if dict(tiles.values_list("pk", "truth")) != replaced:
        raise _changed()


def _insert_annotations(
    author: Author, planned: Sequence[PlannedTile], keys: list[int], settings: ImportSettings
) -> list[int]:
    """Insert an annotation for each of the tiles; returns their keys."""
    native, now = connection.features.has_native_uuid_field, connection.ops.adapt_datetimefield_value(timezone.now())
    counts = {one.box_count for one in planned}
    efforts = {one: json.dumps({} if settings.becomes == "pre-labels" else _effort(one)) for one in counts}
    before = Annotation.objects.aggregate(last=Max("pk", default=0))["last"]
    insert_rows(
        Annotation,
        (
            "uuid",
            "tile_id",
            "author_id",
            "supersedes_id",
            "submitted_at",
            "active_seconds",
            "wall_seconds",
            "effort",
        ),
        (
            (
                one.uuid if native else one.uuid.hex,
                key,
                author.pk,
                one.replaces,
                now,
                0.0,
                0.0,
                efforts[one.box_count],
            )
            for one, key in zip(planned, keys, strict=True)
        ),
    )
    known = dict(Annotation.objects.filter(author=author, pk__gt=before).values_list("uuid", "pk"))
    return [known[one.uuid] for one in planned]


def _effort(boxes: int) -> dict[str, int]:
    return dict.fromkeys(Change.values, 0) | {Change.ADDED.value: boxes, "deleted": 0}


def _take_effect(author: Author, annotations: list[int], keys: list[int], settings: ImportSettings) -> set[int]:
    """Make them the tiles' truth and answer open tasks, or show them in the tasks that nobody has begun.

    Returns the keys of the batches whose tasks are answered.
    """
    # The newest of this author on the tile; a list of their keys would be gone through anew for each tile.
    first, last = min(annotations), max(annotations)
    written = Annotation.objects.filter(author=author, pk__gte=first, pk__lte=last).order_by("-pk").values("pk")
    if settings.becomes == "truth":
        own = written.filter(tile=OuterRef("pk"))[:1]
        Tile.objects.filter(pk__in=keys).update(truth=Subquery(own))
        return answer(tiles=keys)
    if settings.becomes == "pre-labels":
        tasks = list(concerned_tasks("pre-labels", keys).values_list("pk", flat=True))
        shown = written.filter(tile=OuterRef("tile"))[:1]
        Task.objects.filter(pk__in=tasks, state=TaskState.OPEN, revision=0).update(pre_label=Subquery(shown))
    return set()
