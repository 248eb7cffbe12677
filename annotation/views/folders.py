"""Registered folders: browsing what the settings allow, registering, and what was found there."""

from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import get_for, get_project_for
from annotation.forms import FolderForm
from annotation.models import PatientRule, Project, Role, SlideFolder
from annotation.models.folder import STANDINGS
from annotation.services.folders import (
    MOST_COUNTED,
    files_below,
    patient_by,
    pause_folder,
    register_folder,
    roots,
    standings_of,
    start_look,
    subfolders,
    unregister_folder,
)
from annotation.services.projects import NotAllowed
from annotation.services.slide_files import OutsideRoots, allowed
from annotation.views.request import SignedIn, page_of

PREVIEWED = 12
FILES_PER_PAGE = 50


def _folders() -> QuerySet[SlideFolder]:
    return SlideFolder.objects.select_related("project", "job", "registered_by")


@require_GET
def project_folders(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    rows = [_row(folder) for folder in _folders().filter(project=project)]
    context = page_of(request, project, "slides") | {"rows": rows, "roots": settings.SLIDE_ROOTS}
    return render(request, "annotation/folders.html", context)


def _row(folder: SlideFolder) -> dict[str, Any]:
    counts = standings_of(folder)
    return {
        "folder": folder,
        "imported": counts["imported"],
        "under_way": counts["seen"] + counts["settled"] + counts["importing"],
        "problems": counts["refused"] + counts["changed"] + counts["vanished"],
    }


@require_http_methods(["GET", "POST"])
def folder_new(request: SignedIn, pk: int) -> HttpResponse:
    """?path= is the folder that is looked at; without one, the roots are listed."""
    project = get_project_for(request.user, pk, Role.LEAD)
    path = request.POST.get("path") or request.GET.get("path", "")
    form = FolderForm(request.POST or None)
    status = 200
    if request.method == "POST":
        if form.is_valid():
            data = form.cleaned_data
            try:
                folder = register_folder(
                    project=project,
                    path=path,
                    rule=PatientRule(data["patient_rule"]),
                    facts=form.facts,
                    every_minutes=data["every_minutes"],
                    user=request.user,
                )
            except (OutsideRoots, NotAllowed) as error:
                form.add_error(None, str(error))
            else:
                messages.success(request, f"{folder.path} is registered. Its slides are read where they lie.")
                return redirect("folder", folder.pk)
        status = 422
    return _browse(request, project, path, form, status)


def _browse(request: SignedIn, project: Project, path: str, form: FolderForm, status: int) -> HttpResponse:
    context: dict[str, Any] = page_of(request, project, "slides") | {"form": form, "roots": settings.SLIDE_ROOTS}
    try:
        if path:
            real = allowed(path)
            context |= {"path": real, "above": _above(real), "folders": subfolders(real), "preview": _preview(real)}
        else:
            context |= {"folders": roots()}
    except OutsideRoots as error:
        context |= {"problem": str(error)}
        status = 404 if status == 200 else status
    except OSError as error:
        context |= {"problem": f"{path} cannot be read: {error.strerror}.", "path": ""}
    return render(request, "annotation/folder_new.html", context, status=status)


def _above(path: Path) -> list[Path]:
    """The folders that lead from a root to here."""
    root = next(root for root in settings.SLIDE_ROOTS if path.is_relative_to(root))
    return [folder for folder in reversed(path.parents) if folder.is_relative_to(root)]


def _preview(folder: Path) -> dict[str, Any]:
    """What would be found, as far as is quickly seen: how many, and the first of them with the patient by each rule."""
    found = list(islice(files_below(folder), MOST_COUNTED + 1))
    good = [one for one in found if not one.problem]
    rules = [
        {"label": rule.label, "patients": len({patient_by(rule, folder, one.name) for one in good})}
        for rule in PatientRule
    ]
    return {
        "rules": rules,
        "files": [
            {"file": one, "patients": [patient_by(rule, folder, one.name) for rule in PatientRule]}
            for one in good[:PREVIEWED]
        ],
        "problems": [one for one in found if one.problem][:PREVIEWED],
        "count": len(good),
        "is_more": len(found) > MOST_COUNTED,
    }


@require_GET
def folder(request: SignedIn, pk: int) -> HttpResponse:
    found = get_for(request.user, _folders(), pk, Role.LEAD)
    state = request.GET.get("state", "")
    files = found.files.select_related("job", "slide")
    if state in STANDINGS:
        files = files.filter(STANDINGS[state][1])
    counts = standings_of(found)
    states = [{"value": "", "label": "all", "count": sum(counts.values())}]
    states += [{"value": name, "label": label, "count": counts[name]} for name, (label, _) in STANDINGS.items()]
    context = page_of(request, found.project, "slides") | {
        "folder": found,
        "files": Paginator(files, FILES_PER_PAGE).get_page(request.GET.get("page")),
        "states": states,
        "state": state,
    }
    template = "annotation/folder_files.html" if request.htmx else "annotation/folder.html"
    return render(request, template, context)


@require_POST
def folder_look(request: SignedIn, pk: int) -> HttpResponse:
    start_look(folder=get_for(request.user, _folders(), pk, Role.LEAD), user=request.user)
    return redirect("folder", pk)


@require_POST
def folder_pause(request: SignedIn, pk: int) -> HttpResponse:
    """paused=1 pauses, paused=0 goes on."""
    found = get_for(request.user, _folders(), pk, Role.LEAD)
    pause_folder(folder=found, paused=request.POST.get("paused") == "1", user=request.user)
    return redirect("folder", pk)


@require_POST
def folder_remove(request: SignedIn, pk: int) -> HttpResponse:
    found = get_for(request.user, _folders(), pk, Role.LEAD)
    unregister_folder(folder=found, user=request.user)
    messages.success(request, f"{found.path} is looked into no more. The slides that were imported stay.")
    return redirect("project_folders", found.project_id)
