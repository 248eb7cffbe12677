"""Jobs: the list, one of them, cancel and retry."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import trigger_client_event

from annotation.access import get_for, get_project_for
from annotation.models import Job, JobState, Role
from annotation.services.jobs import cancel_job, retry_job
from annotation.views.request import SignedIn, page_of

JOBS_PER_PAGE = 50


@require_GET
def project_jobs(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    state = request.GET.get("state", "")
    counts = dict(project.jobs.order_by().values_list("state").annotate(jobs=Count("pk")))
    states = [{"value": "", "label": "all", "count": sum(counts.values())}]
    states += [{"value": one.value, "label": one.label, "count": counts.get(one.value, 0)} for one in JobState]
    jobs = project.jobs.filter(state=state) if state in JobState.values else project.jobs.all()
    context = page_of(request, project, "jobs") | {
        "jobs": Paginator(jobs, JOBS_PER_PAGE).get_page(request.GET.get("page")),
        "states": states,
        "state": state,
    }
    return render(request, "annotation/jobs.html", context)


@require_GET
def job(request: SignedIn, pk: int) -> HttpResponse:
    """The page, or for htmx the fragment, which asks again by itself only while the job is active."""
    found = get_for(request.user, Job.objects.select_related("project", "created_by"), pk, Role.ANNOTATOR)
    shared = page_of(request, found.project, "jobs")
    context = shared | {"job": found, "can_act": shared["can_lead"]}
    if not request.htmx:
        return render(request, "annotation/job.html", context)
    answer = render(request, "components/job_progress.html", context)
    # What a page shows of a job's result can follow this event.
    return answer if found.is_active else trigger_client_event(answer, "job-ended")


@require_POST
def job_cancel(request: SignedIn, pk: int) -> HttpResponse:
    found = get_for(request.user, Job.objects.select_related("project"), pk, Role.LEAD)
    cancel_job(job=found, user=request.user)
    if request.htmx:
        found.refresh_from_db()
        return render(request, "components/job_progress.html", {"job": found, "can_act": True})
    messages.info(request, f"{found}: cancelling.")
    return redirect("job", pk)


@require_POST
def job_retry(request: SignedIn, pk: int) -> HttpResponse:
    """Run a failed job again; for an import that lacks it, with the mpp that the lead gives."""
    found = get_for(request.user, Job.objects.select_related("project"), pk, Role.LEAD)
    changes = {}
    if found.needs_mpp:
        try:
            mpp = float(request.POST.get("mpp", ""))
        except ValueError:
            mpp = 0.0
        if not 0.02 <= mpp <= 5:
            messages.error(request, f"{found.subject}: give the pixel size in µm, between 0.02 and 5.")
            return redirect("project_slides", found.project_id)
        changes = {"facts": found.arguments["facts"] | {"mpp": mpp}}
    if retry_job(job=found, user=request.user, **changes):
        messages.success(request, f"{found}: queued again.")
    else:
        messages.info(request, f"{found} has not failed.")
    return redirect("project_slides" if changes else "project_jobs", found.project_id)
