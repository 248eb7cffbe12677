"""The page of one model version: its figures beside another's, its worst errors, what may be done with it."""

from collections.abc import Sequence
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotation.access import role_in
from annotation.models import Job, JobKind, JobState, Role
from annotation.views.request import SignedIn, page_of
from inference.models import ModelVersion
from inference.services.onnx_files import onnx_file, onnx_job
from inference.services.registry import rolls_back
from training.models import Evaluation, RoundState
from training.selectors import (
    Comparison,
    comparison_of,
    evaluation_job,
    has_test_set,
    score_of,
    snapshot_of,
    tiles_trained_on,
)
from training.services.evaluations import queue_evaluation
from training.views.live import live_page, stamp_of
from training.views.model_report import report
from training.views.models import version_for


@require_GET
def model(request: SignedIn, pk: int) -> HttpResponse:
    version = version_for(request, pk, Role.ANNOTATOR)
    shared = page_of(request, version.project, "models")
    role, round_ = role_in(request.user, version.project), getattr(version, "round", None)
    other, comparison = compared(request, version)
    jobs = _jobs_of(version) + ([job for job in _jobs_of(other) if job.is_active] if other else [])
    stamp = stamp_of([(job.pk, job.state) for job in jobs])
    live = {
        "jobs": jobs,
        "active": any(job.is_active for job in jobs),
        "can_act": shared["can_lead"],
        "stamp": stamp,
        "live_query": f"&{urlencode({'with': other.pk})}" if other else "",
    }
    answer = live_page(request, stamp, live)
    if answer is not None:
        return answer
    evaluation = evaluation_shown(version, comparison)
    theirs = comparison.theirs if comparison else None
    measurable = has_test_set(version.project)
    context = (
        shared
        | live
        | {
            "version": version,
            "round": round_,
            "tiles": tiles_trained_on(version),
            "evaluation": evaluation,
            "others": version.project.model_versions.exclude(pk=version.pk),
            "other": other,
            "comparison": comparison,
            "query": f"?{urlencode({'with': other.pk})}" if other else "",
            "has_test_set": measurable,
            "rolls_back": rolls_back(version),
            "can_download": role is not None and role.covers(Role.REVIEWER),
            "onnx": onnx_file(version),
            "evaluating": any(job.is_active and job.kind == JobKind.EVALUATE for job in jobs),
            "exporting": any(job.is_active and job.kind == JobKind.EXPORT_MODEL for job in jobs),
            "can_evaluate": shared["can_lead"] and (measurable or snapshot_of(version) is not None),
        }
        | (report(version, evaluation, theirs) if evaluation else {})
    )
    return render(request, "inference/model.html", context)


def _jobs_of(version: ModelVersion) -> list[Job]:
    """What is being done with the version, and what of it has failed."""
    round_ = getattr(version, "round", None)
    of_round = round_.job if round_ and round_.state == RoundState.EVALUATING else None
    jobs = [job for job in (of_round, evaluation_job(version), onnx_job(version)) if job is not None]
    return [job for job in jobs if job.is_active or job.state == JobState.FAILED]


def compared(request: SignedIn, version: ModelVersion) -> tuple[ModelVersion | None, Comparison | None]:
    """The version that `?with=<key>` names, if it is another one of the same project, and the comparison with it."""
    key = request.GET.get("with", "")
    other = version.project.model_versions.exclude(pk=version.pk).filter(pk=key).first() if key.isdecimal() else None
    return other, comparison_of(version, other) if other else None


def evaluation_shown(version: ModelVersion, comparison: Comparison | None) -> Evaluation | None:
    """The evaluation that is compared; without a comparison, the newest."""
    if comparison is not None and comparison.mine is not None:
        return comparison.mine
    score = score_of(version)
    return score.evaluation if score else None


@require_POST
def model_evaluate(request: SignedIn, pk: int) -> HttpResponse:
    """Measure the version, and the one it is compared with, on today's test set."""
    version = version_for(request, pk, Role.LEAD)
    versions: Sequence[ModelVersion] = [version]
    other = request.POST.get("with", "")
    if other:
        found = version.project.model_versions.filter(pk=other).first() if other.isdecimal() else None
        if found is None:
            raise Http404
        versions = [version, found]
    for one in versions:
        queue_evaluation(version=one, user=request.user)
    messages.success(request, f"Evaluating {' and '.join(map(str, versions))}.")
    query = {"with": other} if other else None
    return redirect(reverse("model", args=[pk], query=query))
