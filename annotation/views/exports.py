"""Exports: ask for one, download it."""

from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, get_project_for
from annotation.forms import ExportForm
from annotation.models import Job, JobKind, JobState, Project, Role
from annotation.services.exports import FORMATS, queue_export
from annotation.views.request import SignedIn, page_of

SHOWN = 50


def _page(request: SignedIn, project: Project, form: ExportForm, status: int = 200) -> HttpResponse:
    splits = dict(ExportForm.base_fields["split"].choices)  # type: ignore[attr-defined]
    exports = [
        {
            "job": job,
            "format": FORMATS.get(job.arguments["format"], job.arguments["format"]),
            "split": splits.get(job.arguments["part"], job.arguments["part"]),
            "with_images": job.arguments["images"],
            "size": job.result.get("bytes"),
        }
        for job in project.jobs.filter(kind=JobKind.EXPORT)[:SHOWN]
    ]
    context = page_of(request, project, "exports") | {"form": form, "exports": exports}
    return render(request, "annotation/exports.html", context, status=status)


@require_GET
def project_exports(request: SignedIn, pk: int) -> HttpResponse:
    return _page(request, get_project_for(request.user, pk, Role.REVIEWER), ExportForm())


@require_POST
def export_create(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.REVIEWER)
    form = ExportForm(request.POST)
    if not form.is_valid():
        return _page(request, project, form, status=422)
    data = form.cleaned_data
    queue_export(
        project=project,
        format_name=data["format"],
        images=data["with_images"],
        part=data["split"],
        user=request.user,
    )
    return redirect("project_exports", pk)


@require_GET
def export_download(request: SignedIn, pk: int) -> HttpResponseBase:
    jobs = Job.objects.select_related("project").filter(kind=JobKind.EXPORT, state=JobState.SUCCEEDED)
    job = get_for(request.user, jobs, pk, Role.REVIEWER)
    name = job.result["file"]
    if not default_storage.exists(name):
        raise Http404("The archive is gone from storage; make the export again.")
    stem = f"marrowloop-{job.project_id}-{job.arguments['format']}-{job.pk}.zip"
    return FileResponse(default_storage.open(name), as_attachment=True, filename=stem, content_type="application/zip")
