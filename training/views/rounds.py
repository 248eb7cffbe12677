"""Rounds: the list, starting one, following and closing it."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRefresh

from annotation.access import get_for, get_project_for
from annotation.models import Role, Task, TaskKind, TaskState, Tile
from annotation.selectors import class_rows, largest, truth_counts
from annotation.services.batches import progress_of
from annotation.services.policies import in_words as reading_in_words
from annotation.services.projects import NotAllowed
from annotation.views.request import SignedIn, page_of
from inference.models import DetectorKind
from inference.services.choosing import confirmed_counts, confirmed_tiles, in_words
from training.forms import recipe_in_words
from training.models import Mode, Round, RoundState
from training.round_form import RoundForm, proposed_round
from training.selectors import round_rows, round_steps
from training.services.refresh import refreshes_of, start_refresh, why_not_refresh
from training.services.rounds import (
    RoundSettings,
    cancel_round,
    chooser_of,
    close_round,
    release_round,
    retry_round,
    settings_of,
    start_round,
    swap_task,
)
from training.services.runs import classes_not_trained
from training.views.live import live_page, stamp_of
from training.views.schedule import next_run_of

THUMBNAILS = 12
REVIEWED_PER_PAGE = 60
REFRESHES_SHOWN = 3


@require_GET
def project_rounds(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    shared = page_of(request, project, "rounds")
    rows = round_rows(project)
    context = shared | {
        "rounds": rows,
        "can_start": shared["can_lead"] and all(row["round"].is_over for row in rows),
    }
    return render(request, "training/rounds.html", context | next_run_of(project))


@require_http_methods(["GET", "POST"])
def round_new(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    newest = project.rounds.order_by("-number").first()
    form = RoundForm(request.POST or None, initial=proposed_round(project), project=project)
    if request.method == "POST" and form.is_valid():
        try:
            started = start_round(
                project=project, mode=Mode(form.cleaned_data["mode"]), settings=form.settings(), user=request.user
            )
        except NotAllowed as error:
            form.add_error(None, str(error))
        else:
            return redirect("round", started.pk)
    number = (newest.number if newest else 0) + 1
    context = page_of(request, project, "rounds") | {"form": form, "number": number}
    return render(request, "training/round_form.html", context, status=422 if form.errors else 200)


def _round_for(request: SignedIn, pk: int, role: Role) -> Round:
    return get_for(
        request.user,
        Round.objects.select_related(
            "project__taxonomy", "batch__project__taxonomy", "job", "snapshot", "model_version"
        ),
        pk,
        role,
    )


@require_GET
def round_(request: SignedIn, pk: int) -> HttpResponse:
    found = _round_for(request, pk, Role.ANNOTATOR)
    shared = page_of(request, found.project, "rounds")
    can_lead = shared["can_lead"]
    done, total = progress_of(found.batch) if found.batch else (0, 0)
    job = found.job
    active = job is not None and job.is_active
    stamp = stamp_of(found.state, job.pk if job else None, job.state if job else None)
    live = {"jobs": [job] if job else [], "active": active, "can_act": can_lead, "stamp": stamp}
    answer = live_page(request, stamp, live)
    if answer is not None:
        return answer
    counts = (
        truth_counts(Tile.objects.filter(tasks__batch=found.batch))
        if found.batch
        else truth_counts(Tile.objects.none())
    )
    expected = found.batch.expected if found.batch else {}
    every = truth_counts(Tile.objects.filter(slide__project=found.project))
    rows = class_rows(found.project, counts, expected, project_counts=every)
    reviewing = _review(found, request.GET.get("page")) if found.state == RoundState.REVIEWING else {}
    submitted = found.batch is not None and found.batch.tasks.filter(state=TaskState.SUBMITTED).exists()
    context = (
        shared
        | live
        | {
            "round": found,
            "steps": round_steps(found, done, total),
            "done": done,
            "total": total,
            "class_counts": rows,
            "class_max": largest(rows),
            "has_expected": bool(expected),
            "tasks": _first_tasks(found),
            "settings": _described(found),
            "refreshes": list(refreshes_of(found)[:REFRESHES_SHOWN]),
            "can_refresh": can_lead and not why_not_refresh(found),
            "can_release": can_lead and found.state == RoundState.REVIEWING,
            "can_close": can_lead and found.state == RoundState.ANNOTATING and submitted,
            "can_retry": can_lead and found.failed,
            "can_cancel": can_lead and not found.is_over,
        }
        | reviewing
    )
    return render(request, "training/round.html", context)


def _first_tasks(found: Round) -> Iterable[Task]:
    """One task of each of the batch's first tiles."""
    if found.batch is None:
        return []
    readings = found.batch.tasks.filter(kind=TaskKind.READING, replica=0)
    return readings.select_related("tile__slide", "reader")[:THUMBNAILS]


def _review(found: Round, page: str | None) -> dict[str, Any]:
    """What the page of a batch shows that waits for its release."""
    batch = found.batch
    if batch is None:
        return {}
    counts = confirmed_counts(found.project)
    rows = class_rows(found.project, counts, batch.expected)
    confirmed = dict(
        confirmed_tiles(found.project).values_list("slide__patient__code").annotate(tiles=Count("pk")).order_by()
    )
    readings = batch.tasks.filter(replica=0)
    patients = (
        readings.values("tile__slide__patient__code")
        .annotate(tiles=Count("pk"), audits=Count("pk", filter=Q(audit=True)))
        .order_by("-tiles", "tile__slide__patient__code")
    )
    tasks = readings.select_related("tile__slide").order_by("position", "pk")
    shown = Paginator(tasks, REVIEWED_PER_PAGE).get_page(page)
    return {
        "tasks": shown,
        "page_number": shown.number,
        "total": shown.paginator.count,
        "class_counts": rows,
        "class_max": largest(rows),
        "has_expected": bool(batch.expected),
        "patients": [
            {
                "code": row["tile__slide__patient__code"],
                "tiles": row["tiles"],
                "audits": row["audits"],
                "confirmed": confirmed.get(row["tile__slide__patient__code"], 0),
            }
            for row in patients
        ],
    }


def _described(found: Round) -> list[tuple[str, object]]:
    settings = settings_of(found)
    start = settings.weights_file or ("the current model" if settings.from_previous else "scratch")
    selection = [("Selection", "random")]
    if found.mode == Mode.ASSISTED or _chosen_by_model(found):
        selection = in_words(settings, dict(found.project.taxonomy.classes.values_list("number", "name")))
    rows: list[tuple[str, object]] = [
        ("Tiles", settings.size),
        *selection,
        ("Reading", reading_in_words(settings)),
        ("Detector", f"{settings.kind}, {settings.model}"),
        ("Epochs", _epochs(settings)),
        ("Image size", f"{settings.image_size} px"),
        ("Tiles per step", settings.batch_size),
        ("Seed", settings.seed),
        ("Starts from", start),
        *recipe_in_words(settings),
    ]
    if found.snapshot is not None:
        rows += [("Snapshot", found.snapshot.content_hash[:12]), ("Split", found.snapshot.split_note)]
        without = ", ".join(one.name for one in classes_not_trained(found.snapshot))
        rows += [("No box to train on", without)] if without else []
    if found.model_version is not None:
        rows.append(("Model", str(found.model_version)))
    return rows


def _chosen_by_model(found: Round) -> bool:
    """Whether a model has chosen the batch, or will: where there was none it was left to chance, whatever was set."""
    return bool(found.batch.expected) if found.batch else chooser_of(found) is not None


def _epochs(settings: RoundSettings) -> str:
    if settings.kind != DetectorKind.TWO_STAGE:
        return str(settings.epochs)
    backbone = f", backbone {settings.backbone}" if settings.backbone else ""
    return f"{settings.epochs}, and {settings.classifier_epochs} of the classifier{backbone}"


def _act(request: SignedIn, pk: int, write: Callable[..., object]) -> HttpResponse:
    found = _round_for(request, pk, Role.LEAD)
    try:
        write(round_=found, user=request.user)
    except NotAllowed as error:
        messages.error(request, str(error))
    return redirect("round", pk)


@require_POST
def round_release(request: SignedIn, pk: int) -> HttpResponse:
    return _act(request, pk, release_round)


@require_POST
def round_swap(request: SignedIn, pk: int, task: int) -> HttpResponse:
    """Exchange a tile. `tile` names the one that was seen, `page` the page that it is on."""
    found = _round_for(request, pk, Role.LEAD)
    seen = Task.objects.filter(batch=found.batch, pk=task).select_related("batch__project", "tile__slide").first()
    if seen is None:
        raise Http404
    page = request.POST.get("page", "")
    try:
        if request.POST.get("tile") != str(seen.tile_id):
            raise NotAllowed(f"This place has another tile by now, {seen.tile}: look at it first.")
        swap_task(round_=found, task=seen, user=request.user)
    except NotAllowed as error:
        messages.error(request, str(error))
        if request.htmx:
            return HttpResponseClientRefresh()
    if not request.htmx:
        query = f"?page={page}" if page.isdecimal() else ""
        return redirect(f"{reverse('round', args=[pk])}{query}#task-{task}")
    found.refresh_from_db()
    context = _review(found, page) | {
        "round": found,
        "task": Task.objects.select_related("tile__slide").get(pk=task),
        "can_release": True,
    }
    return render(request, "training/review_swapped.html", context)


@require_POST
def round_close(request: SignedIn, pk: int) -> HttpResponse:
    return _act(request, pk, close_round)


@require_POST
def round_refresh(request: SignedIn, pk: int) -> HttpResponse:
    return _act(request, pk, start_refresh)


@require_POST
def round_retry(request: SignedIn, pk: int) -> HttpResponse:
    return _act(request, pk, retry_round)


@require_POST
def round_cancel(request: SignedIn, pk: int) -> HttpResponse:
    return _act(request, pk, cancel_round)
