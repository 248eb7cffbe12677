"""Imports of annotations: upload, map the classes, try it out, write."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, get_project_for
from annotation.formats.trees import TREE_FORMATS
from annotation.import_forms import ImportSettingsForm, ImportUploadForm
from annotation.models import Job, JobKind, JobState, Project, Role, User
from annotation.services.jobs import JobError
from annotation.services.label_imports import (
    TRY,
    UploadRefused,
    discard_import,
    is_readable,
    queue_dry_run,
    queue_writing,
    stage_labels,
)
from annotation.services.label_plans import BAD_BOXES, BECOMES, TARGETS
from annotation.views.request import SignedIn, page_of

SHOWN = 50
STEPS = {"read": "Found in the files", "try": "Dry run", "write": "Import"}


def _page(request: SignedIn, project: Project, form: ImportUploadForm, status: int = 200) -> HttpResponse:
    jobs = project.jobs.filter(kind=JobKind.IMPORT_LABELS)[:SHOWN]
    context = page_of(request, project, "imports") | {"form": form, "imports": jobs}
    return render(request, "annotation/imports.html", context, status=status)


@require_GET
def project_imports(request: SignedIn, pk: int) -> HttpResponse:
    return _page(request, get_project_for(request.user, pk, Role.LEAD), ImportUploadForm())


@require_POST
def import_create(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    form = ImportUploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return _page(request, project, form, status=422)
    try:
        job = stage_labels(
            project=project,
            uploads=form.cleaned_data["files"],
            file_format=form.cleaned_data["format"],
            user=request.user,
        )
    except UploadRefused as error:
        form.add_error("files", f"{error} Nothing was uploaded.")
        return _page(request, project, form, status=422)
    return redirect("label_import", job.pk)


def _import_for(request: SignedIn, pk: int) -> Job:
    jobs = Job.objects.select_related("project__taxonomy", "created_by").filter(kind=JobKind.IMPORT_LABELS)
    return get_for(request.user, jobs, pk, Role.LEAD)


def _job_page(request: SignedIn, job: Job, form: ImportSettingsForm | None, status: int = 200) -> HttpResponse:
    context = page_of(request, job.project, "imports") | {
        "job": job,
        "step": job.arguments["step"],
        "title": STEPS[job.arguments["step"]],
        "read_pk": job.arguments.get("read"),
        "result": job.result if job.state == JobState.SUCCEEDED else None,
        "format": TREE_FORMATS.get(job.result.get("format", "")),
        "form": form,
        "gone": job.arguments.get("gone"),
        "chosen": _chosen(job),
    }
    return render(request, "annotation/label_import.html", context, status=status)


def _chosen(job: Job) -> list[tuple[str, str]]:
    """What the lead has settled, in words."""
    settings = job.arguments.get("settings")
    if settings is None:
        return []
    names = dict(job.project.taxonomy.classes.values_list("number", "name"))
    reader = User.objects.filter(pk=settings["reader"]).first()
    rows = [
        ("Format", TREE_FORMATS[settings["file_format"]]),
        ("They become", BECOMES[settings["becomes"]] + (f": {reader}" if reader else "")),
        ("Onto", TARGETS[settings["targets"]]),
        ("Bad boxes", BAD_BOXES[settings["bad_boxes"]]),
    ]
    if settings["file_format"] == "voc":
        rows.append(("Corners counted from", str(settings["first_pixel"])))
    return rows + [
        (f"Class {name}", "left out" if number is None else names.get(number, "?"))
        for name, number in settings["classes"].items()
    ]


@require_GET
def label_import(request: SignedIn, pk: int) -> HttpResponse:
    job = _import_for(request, pk)
    return _job_page(request, job, ImportSettingsForm(job=job) if is_readable(job) else None)


@require_POST
def import_try(request: SignedIn, pk: int) -> HttpResponse:
    job = _import_for(request, pk)
    if not is_readable(job):
        raise Http404("These files cannot be imported.")
    form = ImportSettingsForm(request.POST, job=job)
    if not form.is_valid():
        return _job_page(request, job, form, status=422)
    try:
        tried = queue_dry_run(read=job, settings=form.settings(), user=request.user)
    except UploadRefused as error:
        messages.error(request, str(error))
        return redirect("label_import", pk)
    return redirect("label_import", tried.pk)


@require_POST
def import_write(request: SignedIn, pk: int) -> HttpResponse:
    job = _import_for(request, pk)
    if job.arguments["step"] != TRY:
        raise Http404("Only a dry run can be carried out.")
    try:
        written = queue_writing(tried=job, user=request.user)
    except UploadRefused as error:
        messages.error(request, str(error))
        return redirect("label_import", pk)
    return redirect("label_import", written.pk)


@require_POST
def import_discard(request: SignedIn, pk: int) -> HttpResponse:
    job = _import_for(request, pk)
    try:
        discard_import(job=job, user=request.user)
    except JobError as error:
        messages.error(request, str(error))
        return redirect("label_import", pk)
    messages.success(request, f"The files of {job.subject} are deleted.")
    return redirect("project_imports", job.project_id)
