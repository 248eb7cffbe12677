"""Rounds: the list, starting one, following and closing it."""

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import get_for, get_project_for
from annotation.models import Role, TaskState, Tile
from annotation.selectors import class_rows, largest, truth_counts
from annotation.services.batches import progress_of
from annotation.services.projects import NotAllowed
from annotation.views.request import SignedIn, page_of
from inference.models import DetectorKind
from training.forms import RoundForm, recipe_in_words
from training.models import Mode, Round, RoundState
from training.selectors import round_rows, round_steps
from training.services.refresh import refreshes_of, start_refresh, why_not_refresh
from training.services.rounds import (
    RoundSettings,
    cancel_round,
    close_round,
    default_settings,
    next_mode,
    retry_round,
    settings_of,
    start_round,
)
from training.services.runs import classes_not_trained
from training.views.live import live_page, stamp_of

THUMBNAILS = 12
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
    return render(request, "training/rounds.html", context)


@require_http_methods(["GET", "POST"])
def round_new(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    newest = project.rounds.order_by("-number").first()
    mode = next_mode(project)
    initial = RoundForm.initial_of(settings_of(newest) if newest else default_settings()) | {
        "mode": mode,
        "strategy": "rare" if mode == Mode.ASSISTED else "random",
    }
    form = RoundForm(request.POST or None, initial=initial)
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
            "tasks": found.batch.tasks.select_related("tile__slide", "reader")[:THUMBNAILS] if found.batch else [],
            "settings": _described(found),
            "refreshes": list(refreshes_of(found)[:REFRESHES_SHOWN]),
            "can_refresh": can_lead and not why_not_refresh(found),
            "can_close": can_lead and found.state == RoundState.ANNOTATING and submitted,
            "can_retry": can_lead and found.failed,
            "can_cancel": can_lead and not found.is_over,
        }
    )
    return render(request, "training/round.html", context)


def _described(found: Round) -> list[tuple[str, object]]:
    settings = settings_of(found)
    start = settings.weights_file or ("the current model" if settings.from_previous else "scratch")
    rows: list[tuple[str, object]] = [
        ("Tiles", settings.size),
        ("Selection", settings.strategy),
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
