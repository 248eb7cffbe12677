"""The curve: what each round and each hour of expert time bought, as a page and as files."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_project_for
from annotation.models import Project, Role
from annotation.services.projects import NotAllowed
from annotation.services.storage import cache_dir
from annotation.views.request import SignedIn, page_of
from training.class_chart import class_chart, round_axes
from training.curve import (
    FATES,
    FEWEST_RANDOM_BOXES,
    FEWEST_RANDOM_TILES,
    class_points,
    curve_points,
    evaluated,
    plateau_of,
    rare_yields,
    readers_csv,
    rounds_csv,
    total_of,
    work_of,
)
from training.curve_chart import AXES, ROUNDS, curve_chart
from training.figures import FORMATS, draw_curve
from training.selectors import has_test_set, round_rows
from training.services.curve import set_hours_per_expert_day

CURVE_WIDTH, CURVE_HEIGHT = 1080, 340
FILES = ("rounds", "readers")


@require_GET
def project_curve(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    axis = _axis(request)
    rows = round_rows(project)
    points = evaluated(rows)
    classes = class_points(list(project.taxonomy.classes.all()), rows)
    rare = rare_yields(project, rows)
    work = work_of(rows)
    yields = [(row, rare.of_round[row["number"]]) for row in rows if row["number"] in rare.of_round]
    context = page_of(request, project, "overview") | {
        "curve": curve_chart(
            curve_points(rows, project.hours_per_expert_day), width=CURVE_WIDTH, height=CURVE_HEIGHT, axis=axis
        ),
        "axes": [{"value": value, "label": one.label, "current": value == axis} for value, one in AXES.items()],
        "axis": axis,
        "query": "" if axis == ROUNDS else f"?x={axis}",
        "plateau": plateau_of(rows),
        "measured_on": points[-1]["evaluation"] if points else None,
        "unlike": [row for row in points if not row["alike"]],
        "has_test_set": has_test_set(project),
        "points": points,
        "class_axes": round_axes([row["number"] for row in points]),
        "classes": [{"class": one, "points": some, "chart": class_chart(some, name=one.name)} for one, some in classes],
        "rare": rare,
        "rare_rows": [{"row": row, "yield": one} for row, one in yields],
        "rare_max": max([1.0, *(max(one.boxes, one.by_chance or 0.0) for _, one in yields)]),
        "fewest_random": (FEWEST_RANDOM_TILES, FEWEST_RANDOM_BOXES),
        "fates": FATES,
        "work": [
            {"row": row, "total": total_of(work[row["number"]]), "readers": work[row["number"]].items()}
            for row in rows
            if row["number"] in work
        ],
    }
    return render(request, "training/curve.html", context)


def _axis(request: SignedIn) -> str:
    axis = request.GET.get("x", ROUNDS)
    return axis if axis in AXES else ROUNDS


@require_POST
def curve_hours(request: SignedIn, pk: int) -> HttpResponse:
    """Set how many active hours are an expert-day."""
    project = get_project_for(request.user, pk, Role.LEAD)
    try:
        hours = float(request.POST.get("hours", ""))
    except ValueError:
        hours = 0.0
    try:
        set_hours_per_expert_day(project=project, hours=hours, user=request.user)
    except NotAllowed as error:
        messages.error(request, str(error))
    return redirect(reverse("project_curve", args=[pk], query={"x": "days"}))


@require_GET
def curve_table(request: SignedIn, pk: int, name: str) -> HttpResponse:
    """All of the curve's figures as CSV: one line per round, or per round and reader."""
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    if name not in FILES:
        raise Http404("There is no such table.")
    rows = round_rows(project)
    content = rounds_csv(project, rows) if name == "rounds" else readers_csv(rows)
    return _attachment(content, "text/csv; charset=utf-8", f"{_stem(project)}-{name}.csv")


@require_GET
def curve_figure(request: SignedIn, pk: int, file_format: str) -> HttpResponse:
    """The curve over the axis that `?x=` names, fit for a paper."""
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    points = curve_points(round_rows(project), project.hours_per_expert_day)
    if file_format not in FORMATS or not points:
        raise Http404("There is no such figure." if points else "No round has been evaluated yet.")
    axis = _axis(request)
    content = draw_curve(points, axis, file_format, settings_folder=cache_dir() / "matplotlib")
    return _attachment(content, FORMATS[file_format], f"{_stem(project)}-{axis}.{file_format}")


def _stem(project: Project) -> str:
    return f"marrowloop-{project.pk}-curve"


def _attachment(content: Any, content_type: str, name: str) -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(content, content_type=content_type, headers=headers)
