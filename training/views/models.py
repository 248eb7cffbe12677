"""Model versions with what they scored. They lie in training, because evaluations do."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, get_project_for
from annotation.models import Job, JobKind, JobState, Project, Role
from annotation.views.request import SignedIn, page_of
from inference.forms import ModelImportForm
from inference.models import ModelVersion
from inference.services.registry import make_current, rolls_back
from training.selectors import score_of, tiles_trained_on
from training.views.live import live_page, stamp_of

IMPORTS_SHOWN = 5


def version_for(request: SignedIn, pk: int, role: Role) -> ModelVersion:
    """The model version with this key, for a member of at least this role."""
    return get_for(request.user, ModelVersion.objects.select_related("project", "taxonomy"), pk, role)


@require_GET
def project_models(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    return models_page(request, project, ModelImportForm())


def models_page(request: SignedIn, project: Project, form: ModelImportForm, status: int = 200) -> HttpResponse:
    """The list of versions, with what is being imported and, for an administrator, the form to import with."""
    shared, imports = page_of(request, project, "models"), _imports_of(project)
    stamp = stamp_of([(job.pk, job.state) for job in imports])
    live = {
        "jobs": imports,
        "active": any(job.is_active for job in imports),
        "can_act": shared["can_lead"],
        "stamp": stamp,
    }
    answer = live_page(request, stamp, live)
    if answer is not None:
        return answer
    context = (
        shared
        | live
        | {
            "versions": [_row(version) for version in project.model_versions.select_related("project", "round")],
            "form": form,
            "can_import": shared["can_lead"] and request.user.is_staff,
        }
    )
    return render(request, "inference/models.html", context, status=status)


def _row(version: ModelVersion) -> dict[str, Any]:
    score, round_ = score_of(version), getattr(version, "round", None)
    return {
        "version": version,
        "round_number": round_.number if round_ else None,
        "map50": score.map50 if score else None,
        "interval": score.interval if score else None,
        "tiles": tiles_trained_on(version),
        "rolls_back": rolls_back(version),
    }


def _imports_of(project: Project) -> list[Job]:
    """Imports under way, and the newest one if it failed."""
    imports = list(project.jobs.filter(kind=JobKind.IMPORT_MODEL)[:IMPORTS_SHOWN])
    return [job for place, job in enumerate(imports) if job.is_active or (place == 0 and job.state == JobState.FAILED)]


@require_POST
def model_make_current(request: SignedIn, pk: int) -> HttpResponse:
    version = version_for(request, pk, Role.LEAD)
    back = rolls_back(version)
    make_current(version=version, user=request.user)
    said = f"Rolled back: {version} is the current model again" if back else f"{version} is the current model"
    messages.success(request, f"{said}; the next pre-labels are its.")
    return redirect("project_models", version.project_id)
