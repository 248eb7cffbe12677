"""Exports: ask for one, download it as long as it is there, delete it."""

from functools import partial
from typing import Any

from django.contrib import messages
from django.core.files.storage import default_storage
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.cache import get_conditional_response
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, get_project_for
from annotation.api.ranges import part_of_file
from annotation.forms import ExportForm
from annotation.models import Job, JobKind, JobState, Project, Role, User
from annotation.services.events import record
from annotation.services.export_choice import choice_of
from annotation.services.exports import delete_export, queue_export
from annotation.services.jobs import JobError
from annotation.services.storage import open_stored
from annotation.views.request import SignedIn, page_of

EXPORTS_PER_PAGE = 25


def _page(request: SignedIn, project: Project, form: ExportForm, status: int = 200) -> HttpResponse:
    jobs = project.jobs.filter(kind=JobKind.EXPORT).select_related("created_by")
    page = Paginator(jobs, EXPORTS_PER_PAGE).get_page(request.GET.get("page"))
    exports = [_facts(job) for job in page]
    context = page_of(request, project, "exports") | {"form": form, "exports": exports, "page": page}
    return render(request, "annotation/exports.html", context, status=status)


def _facts(job: Job) -> dict[str, Any]:
    words, result = choice_of(job.arguments).words(), job.result
    return {"job": job, "chosen": words, "size": result.get("bytes"), "sha256": result.get("sha256")}


@require_GET
def project_exports(request: SignedIn, pk: int) -> HttpResponse:
    """The page; with `?facts=` and an export's number only what is known of that one."""
    project = get_project_for(request.user, pk, Role.REVIEWER)
    if asked := request.GET.get("facts", ""):
        jobs = project.jobs.filter(kind=JobKind.EXPORT).select_related("created_by")
        job = get_object_or_404(jobs, pk=int(asked) if asked.isdecimal() and len(asked) < 19 else 0)
        return render(
            request, "annotation/export_facts.html", page_of(request, project, "exports") | {"item": _facts(job)}
        )
    return _page(request, project, ExportForm(project=project))


@require_POST
def export_create(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.REVIEWER)
    form = ExportForm(request.POST, project=project)
    if not form.is_valid():
        return _page(request, project, form, status=422)
    queue_export(project=project, choice=form.choice, user=request.user)
    return redirect("project_exports", pk)


@require_GET
def export_download(request: SignedIn, pk: int) -> HttpResponseBase:
    return archive_of(request, pk, request.user)


def archive_of(request: HttpRequest, pk: int, user: User) -> HttpResponseBase:
    """The archive of a finished export, or the range of it that the request asks for. Raises Http404."""
    jobs = Job.objects.select_related("project").filter(kind=JobKind.EXPORT, state=JobState.SUCCEEDED)
    job = get_for(user, jobs, pk, Role.REVIEWER)
    name, etag = job.result["file"], f'"export-{job.pk}-{job.attempt}"'
    known = get_conditional_response(request, etag=etag)
    if known is not None:
        return known
    try:
        size = default_storage.size(name)
        stem = f"marrowloop-{job.project_id}-{job.arguments['format']}-{job.pk}.zip"
        answer = part_of_file(
            request, partial(open_stored, name), size, name=stem, content_type="application/zip", etag=etag
        )
    except FileNotFoundError as error:
        raise Http404("The archive is gone from storage; make the export again.") from error
    if answer.status_code == 200 or answer.get("Content-Range", "").startswith("bytes 0-"):  # once, not for each part
        record(project=job.project, user=user, verb="downloaded", subject=job)
    return answer


@require_POST
def export_delete(request: SignedIn, pk: int) -> HttpResponse:
    jobs = Job.objects.select_related("project").filter(kind=JobKind.EXPORT)
    job = get_for(request.user, jobs, pk, Role.LEAD)
    try:
        delete_export(job=job, user=request.user)
    except JobError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{job} of {job.created_at:%Y-%m-%d} is deleted.")
    return redirect("project_exports", job.project_id)
