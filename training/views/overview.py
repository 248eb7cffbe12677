"""Home and the project's overview: where everybody starts."""

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from annotation.access import get_project_for, may_create_projects, projects_of, require_role, role_in
from annotation.models import Batch, Project, Role, TaskKind, TaskState, Tile, User
from annotation.selectors import (
    batches_to_continue,
    class_rows,
    expert_hours,
    largest,
    pool_of,
    truth_counts,
    work_in,
)
from annotation.services.jobs import active_jobs
from annotation.views.request import SignedIn, page_of
from inference.services.registry import current_version
from training.curve import curve_points, plateau_of
from training.curve_chart import curve_chart
from training.models import RoundState
from training.selectors import round_rows, score_of
from training.services.rounds import MANUAL_ROUNDS
from training.views.live import live_page, stamp_of

CURVE_WIDTH, CURVE_HEIGHT = 1080, 300


@require_GET
def home(request: SignedIn) -> HttpResponse:
    rows = []
    for project in projects_of(request.user).select_related("taxonomy"):
        role = role_in(request.user, project)
        round_ = project.rounds.order_by("-number").first()
        score = score_of(current_version(project))
        rows.append(
            {
                "project": project,
                "role": role.label if role else "",
                "round_name": f"{round_}, {round_.get_state_display()}" if round_ else "",
                "map50": score.map50 if score else None,
                "confirmed": Tile.objects.filter(slide__project=project, truth__isnull=False).count(),
            }
        )
    batches = batches_to_continue(request.user)
    for row in batches:
        row["url"] = annotate_url(row["batch"], row["kind"])
    context = {
        "continue_batches": batches,
        "projects": rows,
        "can_create": may_create_projects(request.user),
    }
    return render(request, "annotation/home.html", context)


def annotate_url(batch: Batch, kind: TaskKind) -> str:
    """Where a batch's tiles are read, or reviewed."""
    return reverse("batch_annotate", args=[batch.pk]) + ("?review=1" if kind == TaskKind.REVIEW else "")


@require_GET
def project(request: SignedIn, pk: int) -> HttpResponse:
    found = get_project_for(request.user, pk, Role.ANNOTATOR)
    shared = page_of(request, found, "overview")
    jobs = list(active_jobs(found).order_by("pk"))
    rounds = round_rows(found)
    tiles = Tile.objects.filter(slide__project=found)
    stamp = stamp_of([(job.pk, job.state) for job in jobs], [(row["number"], row["state"]) for row in rounds])
    answer = live_page(request, stamp, {"jobs": jobs, "can_act": shared["can_lead"], "active": bool(jobs)})
    if answer is not None:
        return answer
    counts = class_rows(found, truth_counts(tiles))
    score = score_of(current_version(found))
    context = shared | {
        "stamp": stamp,
        "jobs": jobs,
        "active": bool(jobs),
        "can_act": shared["can_lead"],
        "map50": score.map50 if score else None,
        "map50_interval": score.interval if score else None,
        "interval_over": score.evaluation.metrics.get("interval_over") if score else None,
        "measured_on": score.evaluation if score else None,
        "expert_hours": expert_hours(found),
        "confirmed_tiles": tiles.filter(truth__isnull=False).count(),
        "pool_tiles": pool_of(found).count(),
        "curve": curve_chart(curve_points(rounds, found.hours_per_expert_day), width=CURVE_WIDTH, height=CURVE_HEIGHT),
        "plateau": plateau_of(rounds),
        "rounds": rounds,
        "class_counts": counts,
        "class_max": largest(counts),
        "next_step": next_step(found, request.user, require_role(request.user, found, Role.ANNOTATOR)),
    }
    return render(request, "annotation/project.html", context)


def next_step(project: Project, user: User, role: Role) -> dict[str, Any] | None:
    """The one thing to do next: where a batch has work for the user, that; for the lead else where the loop stands."""
    for row in work_in(project, user, role):
        review = row["kind"] == TaskKind.REVIEW
        return {
            "label": f"{'Review' if review else 'Annotate'} {row['batch']}",
            "url": annotate_url(row["batch"], row["kind"]),
            "method": "get",
            "why": "Its reviews are waiting." if review else "Its batch is waiting for readers.",
        }
    if not role.covers(Role.LEAD):
        return None
    if not project.slides.exists():
        url = reverse("project_slides", args=[project.pk]) + "#import"
        return {"label": "Import slides", "url": url, "method": "get", "why": "A project begins with its slides."}
    round_ = project.rounds.exclude(state__in=[RoundState.DONE, RoundState.CANCELLED]).select_related("job").first()
    if round_ is None:
        number = project.rounds.count() + 1
        first = not project.patients.filter(locked=True).exists()
        why = (
            "Lock the test patients on the slides page first: it is fixed with the first round."
            if first
            else ("Manual, as in the paper." if number <= MANUAL_ROUNDS else "The current model draws the boxes first.")
        )
        url = reverse("round_new", args=[project.pk])
        return {"label": f"Start round {number}", "url": url, "method": "get", "why": why}
    url = reverse("round", args=[round_.pk])
    if round_.failed:
        return {"label": f"See why {round_} stopped", "url": url, "method": "get", "why": "A step failed."}
    if round_.state == RoundState.REVIEWING:
        return {"label": f"Release {round_}", "url": url, "method": "get", "why": "Its batch waits for a look at it."}
    if round_.state == RoundState.ANNOTATING:
        tasks = round_.batch.tasks.filter(state__in=[TaskState.OPEN, TaskState.LEASED]).count() if round_.batch else 0
        if tasks:
            why = f"{tasks} {'tile is' if tasks == 1 else 'tiles are'} still with the other readers."
            return {"label": f"See {round_}", "url": url, "method": "get", "why": why}
        return {"label": f"Close {round_} and train", "url": url, "method": "get", "why": "Every tile is read."}
    return {"label": f"Watch {round_}", "url": url, "method": "get", "why": f"It is {round_.state}."}
