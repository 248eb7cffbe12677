"""A batch: what is in it, who has what."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for
from annotation.models import Batch, BatchState, Role, TaskState
from annotation.selectors import readers_of
from annotation.services.batches import close_batch, progress_of
from annotation.views.request import SignedIn, page_of

TASKS_PER_PAGE = 60


def batch_for(request: SignedIn, pk: int, role: Role) -> Batch:
    return get_for(request.user, Batch.objects.select_related("project__taxonomy"), pk, role)


@require_GET
def batch(request: SignedIn, pk: int) -> HttpResponse:
    found = batch_for(request, pk, Role.ANNOTATOR)
    shared = page_of(request, found.project, "rounds")
    done, total = progress_of(found)
    tasks = found.tasks.select_related("tile__slide", "reader")
    state = request.GET.get("state", "")
    if state in TaskState.values:
        tasks = tasks.filter(state=state)
    round_ = getattr(found, "round", None)
    context = shared | {
        "batch": found,
        "round": round_,
        "done": done,
        "skipped": found.tasks.filter(state=TaskState.SKIPPED).count(),
        "total": total,
        "readers": readers_of(found),
        "tasks": Paginator(tasks, TASKS_PER_PAGE).get_page(request.GET.get("page")),
        "can_annotate": found.state == BatchState.OPEN and done < total,
        # A round's batch is closed by closing the round, which then trains.
        "can_close": found.state == BatchState.OPEN and round_ is None and shared["can_lead"],
    }
    return render(request, "annotation/batch.html", context)


@require_POST
def batch_close(request: SignedIn, pk: int) -> HttpResponse:
    found = batch_for(request, pk, Role.LEAD)
    if getattr(found, "round", None) is not None:
        messages.error(request, f"{found} belongs to a round: close the round instead.")
    elif close_batch(batch=found, user=request.user):
        messages.success(request, f"{found} is closed.")
    else:
        messages.info(request, f"{found} was not open.")
    return redirect("batch", pk)
