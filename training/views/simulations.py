"""Simulated rounds: what the loop would buy on this project; the list, starting one, following it, its report."""

import mimetypes

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import get_for, get_project_for
from annotation.models import Job, JobKind, JobState, Role
from annotation.services.jobs import JobError, retry_job
from annotation.services.projects import NotAllowed
from annotation.services.storage import open_stored
from annotation.views.request import SignedIn, page_of, sent_file
from training.services.simulations import (
    delete_simulation,
    known_tiles,
    settings_of,
    simulations_of,
    start_simulation,
)
from training.simulation_form import SimulationForm
from training.simulation_words import assumptions, headlines, in_short, settings_in_words
from training.views.live import live_page, stamp_of

# What is offered first, by file name.
DOWNLOADS = {
    "figure.svg": "SVG",
    "figure.pdf": "PDF",
    "points.csv": "CSV",
    "tables.md": "Tables",
    "result.json": "JSON",
    "manifest.json": "Manifest",
}


@require_GET
def project_simulations(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    rows = [
        {
            "job": job,
            "settings": settings_of(job),
            "shares": in_short(job.result, settings_of(job)) if job.state == JobState.SUCCEEDED else "",
        }
        for job in simulations_of(project)
    ]
    context = page_of(request, project, "rounds") | {"rows": rows, "missing": known_tiles(project).missing}
    return render(request, "training/simulations.html", context)


@require_http_methods(["GET", "POST"])
def simulation_new(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    known = known_tiles(project)
    form = SimulationForm(request.POST or None, known=known)
    if request.method == "POST" and form.is_valid():
        try:
            started = start_simulation(project=project, settings=form.settings(), user=request.user)
        except NotAllowed as error:
            form.add_error("batch", str(error))
        else:
            return redirect("simulation", started.pk)
    context = page_of(request, project, "rounds") | {"form": form, "known": known}
    return render(request, "training/simulation_form.html", context, status=422 if form.errors else 200)


def _found(request: SignedIn, pk: int, role: Role) -> Job:
    jobs = Job.objects.select_related("project", "created_by").filter(kind=JobKind.SIMULATE)
    return get_for(request.user, jobs, pk, role)


@require_GET
def simulation(request: SignedIn, pk: int) -> HttpResponse:
    job = _found(request, pk, Role.ANNOTATOR)
    shared = page_of(request, job.project, "rounds")
    over = job.state == JobState.SUCCEEDED
    stamp = stamp_of(job.pk, job.state)
    live = {"jobs": [] if over else [job], "active": job.is_active, "can_act": shared["can_lead"], "stamp": stamp}
    answer = live_page(request, stamp, live)
    if answer is not None:
        return answer
    settings = settings_of(job)
    context = (
        shared
        | live
        | {
            "job": job,
            "can_retry": shared["can_lead"] and job.state in (JobState.FAILED, JobState.CANCELLED),
            "settings": settings_in_words(settings),
            "assumptions": assumptions(settings),
        }
    )
    if over:
        files = job.result["files"]
        context |= {
            "headlines": headlines(job.result, settings),
            "result": job.result["result"],
            "tables": job.result["tables"],
            "downloads": [(name, label) for name, label in DOWNLOADS.items() if name in files],
        }
    return render(request, "training/simulation.html", context)


@require_POST
def simulation_retry(request: SignedIn, pk: int) -> HttpResponse:
    """Go on with the first round that is missing."""
    if not retry_job(job=_found(request, pk, Role.LEAD), user=request.user):
        messages.error(request, "This simulation has not stopped.")
    return redirect("simulation", pk)


@require_POST
def simulation_delete(request: SignedIn, pk: int) -> HttpResponse:
    job = _found(request, pk, Role.LEAD)
    try:
        delete_simulation(job=job, user=request.user)
    except JobError as error:
        messages.error(request, str(error))
        return redirect("simulation", pk)
    messages.success(request, f"The simulation of {job.created_at:%Y-%m-%d} is deleted.")
    return redirect("project_simulations", job.project_id)


@require_GET
def simulation_file(request: SignedIn, pk: int, name: str) -> HttpResponseBase:
    """A file of the report; the page shows the figure from here too."""
    job = _found(request, pk, Role.ANNOTATOR)
    stored = job.result.get("files", {}).get(name)
    if stored is None:
        raise Http404("There is no such file.")
    try:
        file = open_stored(stored)
    except FileNotFoundError as error:
        raise Http404("The file is gone from storage.") from error
    content_type = mimetypes.guess_type(name)[0] or "text/plain; charset=utf-8"
    return sent_file(file, f"marrowloop-{job.project_id}-simulation-{job.pk}-{name}", content_type)
