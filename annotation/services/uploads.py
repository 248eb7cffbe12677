"""Slide files that come in chunks: a slide is 5 to 10 GB, and neither a broken connection nor a restart begins it anew.

A file comes from its beginning on, one chunk after the other, so that one number says what is here. Each chunk carries
a checksum and its place: damaged, it is not taken; sent twice, it does no harm. Whoever changes an upload holds the
lock of its file, so that two tabs that send the same file help each other instead of writing over each other.
"""

import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePath
from typing import BinaryIO
from uuid import UUID, uuid4

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import F, QuerySet, Sum
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from annotation.models import Job, Project, Upload, User
from annotation.services.events import record
from annotation.services.slides import SlideFacts, check_name, display_name, queue_staged
from annotation.services.storage import store

MOST_FILES = 2000  # in one selection
MOST_FINISHED = 200  # at once: the files of one series, each of them open
CLAIMS_SPACE_FOR = timedelta(days=1)  # an upload that rests for longer no longer keeps others from the disk


class UploadRefused(ValueError):
    """A text for the user that names the file and the reason."""


class NoSpace(UploadRefused):
    """The disk of the server is full, or would be."""


class DamagedChunk(UploadRefused):
    """Its bytes are not those that the browser read."""


class MisplacedChunk(UploadRefused):
    """Another byte of the file comes next: byte `upload.received`."""

    def __init__(self, text: str, upload: Upload) -> None:
        super().__init__(text)
        self.upload = upload


class UploadGone(UploadRefused):
    """Somebody has discarded the upload."""


@dataclass(frozen=True)
class LocalFile:
    """What the browser says of a file that somebody chose there."""

    name: str
    size: int
    modified: int
    fingerprint: str


def start_uploads(*, project: Project, files: Sequence[LocalFile], facts: SlideFacts, user: User) -> list[Upload]:
    """One upload for each file: the one that has stopped, where the same file is known, else a new one.

    Raises SlideError or UploadRefused naming the first file that cannot be taken; then none is started.
    """
    if len(files) > MOST_FILES:
        raise UploadRefused(f"{len(files)} files were chosen: at most {MOST_FILES} go up at once.")
    for file in files:
        check_name(display_name(file.name), file.size)
    with transaction.atomic():
        started = [_start(project, file, facts, user) for file in files]
        _check_space(started)
    return [_with_its_bytes(upload) for upload in started]


def _start(project: Project, file: LocalFile, facts: SlideFacts, user: User) -> Upload:
    same = asdict(file) | {"name": display_name(file.name), "project": project, "user": user, "job": None}
    now = {"facts": asdict(facts), "changed_at": timezone.now()}
    upload, _ = Upload.objects.update_or_create(**same, defaults=now)
    return upload


def _check_space(started: Sequence[Upload]) -> None:
    """The files, and a copy of the largest: what is imported is copied once more before its staged file goes."""
    recent = unfinished_uploads().filter(changed_at__gt=timezone.now() - CLAIMS_SPACE_FOR)
    coming = recent.aggregate(bytes=Sum(F("size") - F("received")))["bytes"] or 0
    needed = coming + max((upload.size for upload in started), default=0)
    free = shutil.disk_usage(_folder()).free
    if needed > free:
        names = started[0].name if len(started) == 1 else f"These {len(started)} files"
        raise NoSpace(
            f"{names}: not enough space on the server's disk. With what else is being uploaded, and the copy that is "
            f"made while a slide is imported, {filesizeformat(needed)} are needed; {filesizeformat(free)} are free."
        )


def _with_its_bytes(upload: Upload) -> Upload:
    """Somebody may have thrown the uploads folder away: then the file begins anew."""
    if upload.received and not upload.staging:
        with _locked(upload) as file:
            _forget_lost_bytes(upload, file)
    return upload


def _forget_lost_bytes(upload: Upload, file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) < upload.received:
        Upload.objects.filter(pk=upload.pk).update(received=0)
        upload.received = 0


def unfinished_uploads() -> QuerySet[Upload]:
    """Those whose import has not begun."""
    return Upload.objects.filter(job=None)


def take_chunk(*, upload: Upload, offset: int, data: bytes | bytearray, checksum: str) -> int:
    """Put a chunk where it belongs; returns how many bytes of the file are here.

    `checksum`: "sha-256:" or "crc-32:" and hex digits, of the chunk. Raises UploadRefused; then nothing has changed.
    """
    if not data or offset < 0 or offset + len(data) > upload.size:
        text = f"{upload.name}: bytes {offset} to {offset + len(data)} are none of a file of {upload.size} bytes."
        raise MisplacedChunk(text, upload)
    _check_sum(upload, data, checksum)
    with _locked(upload) as file:
        _refresh(upload)
        if upload.staging:
            return upload.received
        _forget_lost_bytes(upload, file)
        if offset + len(data) <= upload.received:
            return upload.received
        if offset != upload.received:
            raise MisplacedChunk(f"{upload.name}: byte {upload.received} comes next, not {offset}.", upload)
        _write(upload, file, offset, data)
        upload.received = offset + len(data)
        # Only now: what a killed process has written beyond `received` is written again.
        Upload.objects.filter(pk=upload.pk).update(received=upload.received, changed_at=timezone.now())
    return upload.received


def _check_sum(upload: Upload, data: bytes | bytearray, checksum: str) -> None:
    kind, _, digest = checksum.partition(":")
    if kind == "sha-256":
        found = hashlib.sha256(data).hexdigest()
    elif kind == "crc-32":
        found = f"{zlib.crc32(data):08x}"
    else:
        raise DamagedChunk(f"{upload.name}: a chunk came without a SHA-256 or CRC-32 checksum.")
    if found != digest:
        raise DamagedChunk(f"{upload.name}: a chunk was damaged on its way.")


def _write(upload: Upload, file: BinaryIO, offset: int, data: bytes | bytearray) -> None:
    try:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise NoSpace(f"{upload.name}: the server's disk takes no more ({error.strerror}).") from error


def _refresh(upload: Upload) -> None:
    try:
        upload.refresh_from_db()
    except Upload.DoesNotExist as error:
        raise UploadGone(f"{upload.name}: this upload was discarded. Choose the file again.") from error


def finish_uploads(*, uploads: Sequence[Upload], user: User) -> list[Job]:
    """Put whole files of one project into staging and queue one import job for each slide among them.

    Killed half-way, or asked for twice, it goes on or gives the same jobs. Raises UploadRefused naming a file that is
    not whole.
    """
    if len(uploads) > MOST_FINISHED:
        raise UploadRefused(f"{len(uploads)} files: at most {MOST_FINISHED} make one slide.")
    with ExitStack() as stack:
        for upload in sorted(uploads, key=lambda one: one.pk):
            stack.enter_context(_locked(upload))
            _refresh(upload)
        waiting = [upload for upload in uploads if upload.job_id is None]
        _choose_staging(waiting)
        for upload in waiting:
            _move(upload)
        with transaction.atomic():
            _queue(waiting, user)
        for upload in uploads:
            _forget_files(upload)
    return list({upload.job.pk: upload.job for upload in uploads if upload.job}.values())


def _choose_staging(uploads: Sequence[Upload]) -> None:
    """One folder for files that are imported together, written down before the first of them is moved there."""
    for upload in uploads:
        if not upload.is_whole:
            text = f"{upload.name}: {upload.received} of {upload.size} bytes are here."
            raise MisplacedChunk(text, upload)
    known = next((upload.staging for upload in uploads if upload.staging), f"staging/{uuid4()}")
    for upload in uploads:
        upload.staging = upload.staging or known
        Upload.objects.filter(pk=upload.pk).update(staging=upload.staging)


def _move(upload: Upload) -> None:
    part = _part(upload)
    if part.stat().st_size == upload.size:
        store(part, _staged(upload), move=True)
    elif not default_storage.exists(_staged(upload)):
        upload.received = 0
        Upload.objects.filter(pk=upload.pk).update(received=0, staging="")
        raise MisplacedChunk(f"{upload.name}: its bytes are gone from the server. Send it again.", upload)


def _queue(uploads: Sequence[Upload], user: User) -> None:
    staged = {_staged(upload): (upload.name, SlideFacts(**upload.facts)) for upload in uploads}
    if not staged:
        return
    for job in queue_staged(project=uploads[0].project, staged=staged, user=user):
        for upload in uploads:
            if _staged(upload) in job.arguments["files"]:
                upload.job = job
                Upload.objects.filter(pk=upload.pk).update(job=job, changed_at=timezone.now())


def discard_upload(*, upload: Upload, user: User | None) -> None:
    """Throw away what has come of a file. Raises UploadRefused once its import has begun."""
    with _locked(upload):
        _refresh(upload)
        if upload.job_id is not None:
            raise UploadRefused(f"{upload.name} is whole, and its import has begun.")
        with transaction.atomic():
            Upload.objects.filter(pk=upload.pk).delete()
            record(project=upload.project, user=user, verb="discarded upload", subject=upload, bytes=upload.received)
        _forget_files(upload)
        if upload.staging:
            default_storage.delete(_staged(upload))


def throw_away_old(*, now: datetime | None = None) -> int:
    """Discard the uploads that nothing has been added to for too many days; returns how many."""
    last = (now or timezone.now()) - timedelta(days=settings.UPLOAD_DAYS)
    old = unfinished_uploads().filter(changed_at__lt=last).select_related("project")
    for upload in old:
        discard_upload(upload=upload, user=None)
    Upload.objects.filter(job__isnull=False, changed_at__lt=last).delete()
    for path in (*_folder().iterdir(), *_folder("locks").iterdir()):  # of a project that was deleted
        if path.stat().st_mtime < last.timestamp() and not Upload.objects.filter(key=UUID(path.name)).exists():
            path.unlink(missing_ok=True)
    return len(old)


def _folder(name: str = "parts") -> Path:
    folder = Path(settings.DATA_DIR) / "uploads" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _part(upload: Upload) -> Path:
    return _folder() / str(upload.key)


def _lock(upload: Upload) -> Path:
    return _folder("locks") / str(upload.key)


def _staged(upload: Upload) -> str:
    return f"{upload.staging}/{upload.pk}{PurePath(upload.name).suffix.lower()}"


@contextmanager
def _locked(upload: Upload) -> Iterator[BinaryIO]:
    """The upload's file, made where it is missing. The lock ends with the process that holds it.

    The lock is a file of its own: the upload's is moved away when it is whole, and who then made it anew would hold
    another one.
    """
    with _lock(upload).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        descriptor = os.open(_part(upload), os.O_RDWR | os.O_CREAT, 0o640)
        with os.fdopen(descriptor, "r+b") as file:
            yield file


def _forget_files(upload: Upload) -> None:
    """Of an upload that is over, as its row says: who waits for the lock, or makes it anew, finds that out."""
    _part(upload).unlink(missing_ok=True)
    _lock(upload).unlink(missing_ok=True)
