"""The schedule of a project: when its rounds are closed and trained."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from annotation.access import get_project_for
from annotation.models import Project, Role
from annotation.views.request import SignedIn, page_of
from training.models import ScheduleMode
from training.schedule_form import ScheduleForm
from training.schedule_words import next_run_in_words
from training.services.schedule import change_schedule, pause_schedule, schedule_of, standing_of


@require_http_methods(["GET", "POST"])
def project_schedule(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    schedule = schedule_of(project)
    form = ScheduleForm(request.POST or None, initial=ScheduleForm.initial_of(schedule))
    if request.method == "POST" and form.is_valid():
        change_schedule(project=project, settings=form.settings(), user=request.user)
        messages.success(request, "The schedule is stored.")
        return redirect("project_schedule", pk)
    context = page_of(request, project, "rounds") | next_run_of(project)
    context |= {
        "form": form,
        "time_zone": settings.TIME_ZONE,
        "can_pause": schedule.mode != ScheduleMode.BY_HAND,
    }
    return render(request, "training/schedule.html", context, status=422 if form.errors else 200)


def next_run_of(project: Project) -> dict[str, Any]:
    """What a page says of the next run: the schedule, and one sentence."""
    schedule = schedule_of(project)
    return {"schedule": schedule, "next_run": next_run_in_words(schedule, standing_of(project))}


@require_POST
def schedule_pause(request: SignedIn, pk: int) -> HttpResponse:
    return _pause(request, pk, paused=True)


@require_POST
def schedule_resume(request: SignedIn, pk: int) -> HttpResponse:
    return _pause(request, pk, paused=False)


def _pause(request: SignedIn, pk: int, *, paused: bool) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    pause_schedule(project=project, paused=paused, user=request.user)
    return redirect("project_schedule", pk)
