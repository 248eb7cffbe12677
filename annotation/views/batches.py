"""A batch: what is in it, who has what, and how far its readers agree."""

from collections.abc import Callable

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for
from annotation.agreement_report import as_csv, report_of
from annotation.models import Batch, BatchState, Role, TaskKind, TaskState, User
from annotation.prepared import Prepared
from annotation.selectors import readers_of
from annotation.services.batches import assign_tasks, has_work_for, progress_of, reopen_batch, stop_batch
from annotation.services.policies import in_words
from annotation.services.projects import NotAllowed
from annotation.views.request import SignedIn, page_of

TASKS_PER_PAGE = 60
WHOLE_BATCH = Prepared(lambda batch: Batch.objects.select_related("project__taxonomy").filter(pk=batch))


def batch_for(request: SignedIn, pk: int, role: Role) -> Batch:
    found: Batch = get_for(request.user, WHOLE_BATCH, pk, role)
    return found


@require_GET
def batch(request: SignedIn, pk: int) -> HttpResponse:
    found = batch_for(request, pk, Role.ANNOTATOR)
    shared = page_of(request, found.project, "rounds")
    done, total = progress_of(found)
    reviewed, reviews = progress_of(found, TaskKind.REVIEW)
    is_reviewer = shared["role"] != Role.ANNOTATOR.label
    state = request.GET.get("state", "")
    waiting = found.tasks.filter(state=TaskState.OPEN)  # reviews too
    tasks = found.tasks.select_related("tile__slide", "reader")
    if state in TaskState.values:
        tasks = tasks.filter(state=state)
    can_lead = shared["can_lead"]
    open_now = found.state == BatchState.OPEN
    context = shared | {
        "batch": found,
        "round": getattr(found, "round", None),
        "done": done,
        "total": total,
        "reviewed": reviewed,
        "reviews": reviews,
        "skipped": found.tasks.filter(state=TaskState.SKIPPED).count(),
        "readers": readers_of(found),
        "state": state,
        "states": _states(found),
        "tasks": Paginator(tasks, TASKS_PER_PAGE).get_page(request.GET.get("page")),
        "policy": in_words(found),
        "can_annotate": has_work_for(found, request.user),
        "can_review": is_reviewer and has_work_for(found, request.user, TaskKind.REVIEW),
        "can_compare": is_reviewer and done > 0,
        "can_close": open_now and can_lead,
        "can_reopen": can_lead and found.state == BatchState.CLOSED and not _why_not_reopen(found),
        "can_assign": can_lead and found.state != BatchState.CLOSED and waiting.exists(),
    }
    if context["can_assign"]:
        context["members"] = found.project.memberships.select_related("user").order_by("user__username")
        context["patients"] = (
            waiting.values("tile__slide__patient__code")
            .annotate(tiles=Count("pk"))
            .order_by("tile__slide__patient__code")
        )
    return render(request, "annotation/batch.html", context)


def _states(found: Batch) -> list[dict[str, object]]:
    counts = dict(found.tasks.order_by().values_list("state").annotate(count=Count("pk")))
    every = {"value": "", "label": "All", "count": sum(counts.values())}
    named = [
        {"value": one.value, "label": str(one.label).capitalize(), "count": counts.get(one, 0)} for one in TaskState
    ]
    return [every, *named]


def _why_not_reopen(found: Batch) -> str:
    """Why a closed batch cannot be handed out again now; empty if it can."""
    round_ = getattr(found, "round", None)
    if round_ is None or round_.is_over or round_.state == "annotating":
        return ""
    return f"{round_} is {round_.get_state_display()}: wait until it is done."


def _act(request: SignedIn, pk: int, act: Callable[[Batch], str]) -> HttpResponse:
    found = batch_for(request, pk, Role.LEAD)
    try:
        messages.success(request, act(found))
    except NotAllowed as error:
        messages.error(request, str(error))
    return redirect("batch", pk)


@require_POST
def batch_close(request: SignedIn, pk: int) -> HttpResponse:
    def act(found: Batch) -> str:
        stop_batch(batch=found, user=request.user)
        return f"{found} is closed. What is submitted stays; it can be reopened."

    return _act(request, pk, act)


@require_POST
def batch_reopen(request: SignedIn, pk: int) -> HttpResponse:
    def act(found: Batch) -> str:
        reason = _why_not_reopen(found)
        if reason:
            raise NotAllowed(reason)
        left = reopen_batch(batch=found, user=request.user)
        return f"{found} is open again: {left} tile{'' if left == 1 else 's'} left to read."

    return _act(request, pk, act)


@require_POST
def batch_assign(request: SignedIn, pk: int) -> HttpResponse:
    """`reader` (a user's key, or empty for everybody), and `task` keys or a `patient`."""

    def act(found: Batch) -> str:
        key = request.POST.get("reader", "")
        members = User.objects.filter(memberships__project=found.project)
        reader = members.filter(pk=int(key)).first() if key.isdecimal() else None
        if key and reader is None:
            raise NotAllowed("That reader is no longer a member of the project.")
        ticked = [int(one) for one in request.POST.getlist("task") if one.isdecimal()]
        changed = assign_tasks(
            batch=found,
            reader=reader,
            user=request.user,
            tasks=ticked or None,
            patient=request.POST.get("patient", ""),
        )
        whom = f"kept for {reader.get_username()}" if reader else "for everybody"
        return f"{changed} tile{'' if changed == 1 else 's'} now {whom}."

    return _act(request, pk, act)


@require_GET
def batch_agreement(request: SignedIn, pk: int) -> HttpResponse:
    found = batch_for(request, pk, Role.REVIEWER)
    report = report_of(found)
    context = page_of(request, found.project, "rounds") | {
        "batch": found,
        "round": getattr(found, "round", None),
        "policy": in_words(found),
        "report": report,
        "blind": found.tasks.filter(blind=True).count(),
    }
    return render(request, "annotation/agreement.html", context)


@require_GET
def batch_agreement_csv(request: SignedIn, pk: int) -> HttpResponse:
    found = batch_for(request, pk, Role.REVIEWER)
    name = f"agreement-batch-{found.pk}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(as_csv(report_of(found)), content_type="text/csv; charset=utf-8", headers=headers)
