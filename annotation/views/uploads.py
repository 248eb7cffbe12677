"""Slide files in chunks, as static/js/chunks.mjs sends them: started, sent one by one, finished slide by slide."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from annotation.access import get_for, get_project_for, get_upload_for
from annotation.forms import SlideFactsForm
from annotation.models import Role, Upload
from annotation.services.uploads import (
    DamagedChunk,
    LocalFile,
    MisplacedChunk,
    NoSpace,
    UploadGone,
    UploadRefused,
    discard_upload,
    finish_uploads,
    start_uploads,
    take_chunk,
)
from annotation.slides.reader import SlideError
from annotation.views.request import SignedIn, json_body

PIECE = 1024 * 1024
MOST_BYTES = 2**63 - 1
STATUS = {MisplacedChunk: 409, UploadGone: 410, DamagedChunk: 422, NoSpace: 507}


def _refusal(error: UploadRefused | SlideError) -> JsonResponse:
    place: dict[str, object] = {}
    if isinstance(error, MisplacedChunk):
        place = {"upload": error.upload.pk, "received": error.upload.received}
    return JsonResponse({"error": str(error)} | place, status=STATUS.get(type(error), 422))


@require_POST
def uploads_start(request: SignedIn, pk: int) -> HttpResponse:
    """The body: {"files": [{"name", "size", "modified", "fingerprint"}], "facts": the form's fields}."""
    project = get_project_for(request.user, pk, Role.LEAD)
    try:
        body = json_body(request)
        files = _files_of(body)
        form = SlideFactsForm(dict(body["facts"]))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        return JsonResponse({"error": f"The request cannot be understood: {error}"}, status=400)
    if not form.is_valid():
        problems = [f"{form[name].label}: {' '.join(map(str, errors))}" for name, errors in form.errors.items()]
        return JsonResponse({"error": " ".join(problems)}, status=422)
    try:
        uploads = start_uploads(project=project, files=files, facts=form.facts, user=request.user)
    except (SlideError, UploadRefused) as error:
        return _refusal(error)
    return JsonResponse({"uploads": [_as_json(upload) for upload in uploads]})


def _files_of(body: dict[str, Any]) -> list[LocalFile]:
    files = [
        LocalFile(str(one["name"]), int(one["size"]), int(one["modified"]), str(one["fingerprint"])[:80])
        for one in body["files"]
    ]
    if any(max(file.size, abs(file.modified)) > MOST_BYTES or file.size < 0 for file in files):
        raise ValueError("a size or time that no file has")
    return files


def _as_json(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.pk,
        "received": upload.received,
        "chunk": reverse("upload_chunk", args=[upload.pk]),
        "discard": reverse("upload_discard", args=[upload.pk]),
    }


@require_POST
def upload_chunk(request: SignedIn, pk: int) -> HttpResponse:
    """The body is the chunk itself, ?offset= its place in the file, the header X-Checksum its checksum."""
    upload = get_upload_for(request.user, pk)
    try:
        length, offset = int(request.headers.get("Content-Length") or 0), int(request.GET.get("offset", ""))
    except ValueError:
        return JsonResponse({"error": "Content-Length and ?offset= must be numbers of bytes."}, status=400)
    if length > settings.UPLOAD_CHUNK_BYTES:
        most = settings.UPLOAD_CHUNK_BYTES
        return JsonResponse({"error": f"A chunk has at most {most} bytes, not {length}."}, status=413)
    try:
        data = _read(request, length)
        received = take_chunk(upload=upload, offset=offset, data=data, checksum=request.headers.get("X-Checksum", ""))
    except UnreadablePostError:
        return JsonResponse({"error": "The connection broke."}, status=400)
    except UploadRefused as error:
        return _refusal(error)
    return JsonResponse({"received": received})


def _read(request: HttpRequest, length: int) -> bytearray:
    """The body, held in memory once."""
    data = bytearray()
    while len(data) < length and (piece := request.read(min(PIECE, length - len(data)))):
        data += piece
    return data


@require_POST
def uploads_finish(request: SignedIn, pk: int) -> HttpResponse:
    """The body: {"uploads": [ids]}, whole files that may belong together. Answers with the import jobs."""
    project = get_project_for(request.user, pk, Role.LEAD)
    try:
        keys = [int(key) for key in json_body(request)["uploads"]]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        return JsonResponse({"error": f"The request cannot be understood: {error}"}, status=400)
    own = Upload.objects.filter(project=project, user=request.user, pk__in=keys)
    uploads = list(own.select_related("project", "job"))
    if not uploads or len(uploads) < len(set(keys)):
        return _refusal(UploadGone("An upload was discarded. Choose its file again."))
    try:
        jobs = finish_uploads(uploads=uploads, user=request.user)
    except UploadRefused as error:
        return _refusal(error)
    return JsonResponse({"jobs": [{"id": job.pk, "url": reverse("job", args=[job.pk])} for job in jobs]})


@require_POST
def upload_discard(request: SignedIn, pk: int) -> HttpResponse:
    """By its user or by another lead of the project."""
    upload = get_for(request.user, Upload.objects.select_related("project"), pk, Role.LEAD)
    try:
        discard_upload(upload=upload, user=request.user)
    except UploadRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"What was here of {upload.name} is discarded.")
    return redirect("project_slides", upload.project_id)
