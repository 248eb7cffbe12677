"""The project's cell classes: their page, their hotkeys and colours, and examples of each."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_project_for
from annotation.forms import TaxonomyForm
from annotation.models import Project, Role, Tile
from annotation.selectors import confirmed_boxes, examples_of, truth_counts
from annotation.services.projects import KeysRefused, change_keys
from annotation.taxonomies import RESERVED_HOTKEYS, hotkey_label
from annotation.views.request import SignedIn, page_of

EXAMPLES = 12


def _form(project: Project, data: Any = None) -> TaxonomyForm:
    return TaxonomyForm(data, classes=list(project.taxonomy.classes.all()))


def _page(request: SignedIn, project: Project, form: TaxonomyForm, status: int = 200) -> HttpResponse:
    counts = truth_counts(Tile.objects.filter(slide__project=project))
    rows = [
        {
            "class": one,
            "hotkey": form[f"hotkey-{one.number}"],
            "hotkey_label": hotkey_label(one.hotkey),
            "colour": form[f"colour-{one.number}"],
            "count": counts[one.number],
        }
        for one in project.taxonomy.classes.all()
    ]
    context = page_of(request, project, "taxonomy") | {
        "rows": rows,
        "form": form,
        "other_projects": project.taxonomy.projects.exclude(pk=project.pk).count(),
        "reserved": sorted(key for key in RESERVED_HOTKEYS if key.isalpha()),
    }
    return render(request, "annotation/taxonomy.html", context, status=status)


@require_GET
def project_taxonomy(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    return _page(request, project, _form(project))


@require_POST
def taxonomy_change(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    form = _form(project, request.POST)
    if not form.is_valid():
        return _page(request, project, form, status=422)
    keys, colours = form.values("hotkey"), form.values("colour")
    try:
        changed = change_keys(taxonomy=project.taxonomy, keys=keys, colours=colours, user=request.user)
    except KeysRefused as error:
        for number, attribute, reason in error.problems:
            form.add_error(f"{attribute}-{number}", reason)
        return _page(request, project, form, status=422)
    if changed:
        messages.success(request, f"{changed} class{'' if changed == 1 else 'es'} changed.")
    else:
        messages.info(request, "Nothing was changed.")
    return redirect("project_taxonomy", pk)


@require_GET
def class_examples(request: SignedIn, pk: int, number: int) -> JsonResponse:
    """What the class looks like in this project: `{"class", "name", "confirmed", "examples": [...]}`, at most 12."""
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    cell_class = project.taxonomy.classes.filter(number=number).first()
    if cell_class is None:
        raise Http404("The taxonomy has no class of this number.")
    examples = [
        {
            "box": box.pk,
            "crop": reverse("box_crop", args=[box.pk]),
            "slide": box.annotation.tile.slide.name,
            "patient": box.annotation.tile.slide.patient.code,
        }
        for box in examples_of(project, cell_class, EXAMPLES)
    ]
    confirmed = confirmed_boxes(project, cell_class).count()
    return JsonResponse({"class": number, "name": cell_class.name, "confirmed": confirmed, "examples": examples})
