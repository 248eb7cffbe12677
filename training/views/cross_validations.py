"""Cross-validations: the list, starting one, following it, its figures."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import get_for, get_project_for
from annotation.models import JobState, Project, Role
from annotation.services.jobs import retry_job
from annotation.services.projects import NotAllowed
from annotation.views.request import SignedIn, page_of
from inference.models import DetectorKind
from training.fold_table import Spread, as_csv, fold_table
from training.forms import CrossValidationForm, recipe_in_words
from training.models import CrossValidation
from training.services.cross_validation import settings_of, start_cross_validation
from training.services.rounds import default_settings
from training.services.rounds import settings_of as round_settings
from training.services.training_settings import TrainingSettings
from training.views.live import live_page, stamp_of


@require_GET
def project_cross_validations(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    found = project.cross_validations.select_related("job", "snapshot")
    rows = [
        {
            "found": one,
            "settings": settings_of(one),
            "done": len(one.done),
            "map50": Spread.of(fold["metrics"]["map50"] for fold in one.done),
        }
        for one in found
    ]
    return render(request, "training/cross_validations.html", page_of(request, project, "rounds") | {"rows": rows})


@require_http_methods(["GET", "POST"])
def cross_validation_new(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    form = CrossValidationForm(request.POST or None, initial=_initial(project))
    if request.method == "POST" and form.is_valid():
        try:
            started = start_cross_validation(
                project=project, folds=form.cleaned_data["folds"], settings=form.settings(), user=request.user
            )
        except NotAllowed as error:
            form.add_error("folds", str(error))
        else:
            return redirect("cross_validation", started.pk)
    context = page_of(request, project, "rounds") | {"form": form}
    return render(request, "training/cross_validation_form.html", context, status=422 if form.errors else 200)


def _initial(project: Project) -> dict[str, Any]:
    """As the newest round trains, and from scratch."""
    newest = project.rounds.order_by("-number").first()
    settings = round_settings(newest) if newest else default_settings()
    return CrossValidationForm.initial_of(settings) | {"folds": 5, "start_from": "scratch"}


def _found(request: SignedIn, pk: int, role: Role) -> CrossValidation:
    rows = CrossValidation.objects.select_related("project__taxonomy", "job", "snapshot")
    return get_for(request.user, rows, pk, role)


@require_GET
def cross_validation(request: SignedIn, pk: int) -> HttpResponse:
    found = _found(request, pk, Role.ANNOTATOR)
    shared = page_of(request, found.project, "rounds")
    job, done = found.job, found.done
    active = job is not None and job.is_active
    stamp = stamp_of(job.pk if job else None, job.state if job else None, len(done), len(found.folds))
    over = job is None or job.state == JobState.SUCCEEDED
    live = {"jobs": [] if over else [job], "active": active, "can_act": shared["can_lead"], "stamp": stamp}
    answer = live_page(request, stamp, live)
    if answer is not None:
        return answer
    stopped = job is not None and job.state in (JobState.FAILED, JobState.CANCELLED)
    context = (
        shared
        | live
        | {
            "found": found,
            "done": done,
            "folds": [{"number": number} | fold for number, fold in enumerate(found.folds, start=1)],
            "table": fold_table(list(found.project.taxonomy.classes.all()), done) if done else None,
            "settings": _described(found),
            "can_retry": shared["can_lead"] and stopped,
        }
    )
    return render(request, "training/cross_validation.html", context)


def _described(found: CrossValidation) -> list[tuple[str, object]]:
    settings = settings_of(found)
    rows: list[tuple[str, object]] = [
        ("Folds", found.fold_count),
        ("Kind of detector", DetectorKind(settings.kind).label),
        ("Detector", settings.model),
        ("Epochs", settings.epochs),
        *_classifier(settings),
        ("Image size", f"{settings.image_size} px"),
        ("Tiles per step", settings.batch_size),
        ("Seed", settings.seed),
        ("Starts from", settings.weights_file or "scratch"),
        *recipe_in_words(settings),
    ]
    return rows + ([("Snapshot", found.snapshot.content_hash[:12])] if found.snapshot else [])


def _classifier(settings: TrainingSettings) -> list[tuple[str, object]]:
    """What is set of the second of two stages."""
    if settings.kind != DetectorKind.TWO_STAGE:
        return []
    backbone = f"{settings.backbone}, {settings.backbone_file}" if settings.backbone else "EfficientNet-Lite0"
    return [("Epochs of the classifier", settings.classifier_epochs), ("Backbone", backbone)]


@require_POST
def cross_validation_retry(request: SignedIn, pk: int) -> HttpResponse:
    """Go on with the fold that failed or was cancelled; those that are done stay."""
    found = _found(request, pk, Role.LEAD)
    if found.job is None or not retry_job(job=found.job, user=request.user):
        messages.error(request, "This cross-validation has not stopped.")
    return redirect("cross_validation", pk)


@require_GET
def cross_validation_table(request: SignedIn, pk: int) -> HttpResponse:
    found = _found(request, pk, Role.ANNOTATOR)
    if not found.done:
        raise Http404("No fold has been measured yet.")
    name = f"marrowloop-{found.project_id}-cross-validation-{found.pk}.csv"
    return HttpResponse(
        as_csv(list(found.project.taxonomy.classes.all()), found.folds),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
