"""Who is in a project, in which role; and new projects."""

from collections.abc import Callable

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import get_for, get_project_for, may_create_projects
from annotation.forms import MemberForm, ProjectForm
from annotation.models import Membership, Project, Role
from annotation.services.projects import NotAllowed, create_project, create_taxonomy, remove_member, set_member
from annotation.taxonomies import PRESETS
from annotation.views.request import SignedIn, page_of


@require_http_methods(["GET", "POST"])
def project_new(request: SignedIn) -> HttpResponse:
    if not may_create_projects(request.user):
        raise PermissionDenied("Only staff may make projects.")
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        taxonomy = create_taxonomy(spec=PRESETS[form.cleaned_data["taxonomy"]])
        try:
            with transaction.atomic():
                project = create_project(name=form.cleaned_data["name"], taxonomy=taxonomy, lead=request.user)
        except IntegrityError:
            form.add_error("name", "A project of this name exists.")
        else:
            return redirect("project_slides", project.pk)
    status = 422 if form.errors else 200
    return render(request, "annotation/project_form.html", {"form": form}, status=status)


def _page(request: SignedIn, project: Project, form: MemberForm, status: int = 200) -> HttpResponse:
    context = page_of(request, project, "members") | {
        "members": project.memberships.select_related("user").order_by("user__username"),
        "roles": Role.choices,
        "form": form,
    }
    return render(request, "annotation/members.html", context, status=status)


@require_GET
def project_members(request: SignedIn, pk: int) -> HttpResponse:
    return _page(request, get_project_for(request.user, pk, Role.ANNOTATOR), MemberForm())


@require_POST
def member_add(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    form = MemberForm(request.POST)
    if not form.is_valid():
        return _page(request, project, form, status=422)
    member, role = form.cleaned_data["user_name"], Role(form.cleaned_data["role"])
    _try(request, lambda: set_member(project=project, member=member, role=role, user=request.user))
    return redirect("project_members", pk)


def _member_for(request: SignedIn, pk: int) -> Membership:
    return get_for(request.user, Membership.objects.select_related("project", "user"), pk, Role.LEAD)


@require_POST
def member_change(request: SignedIn, pk: int) -> HttpResponse:
    membership = _member_for(request, pk)
    role = request.POST.get("role", "")
    if role not in Role.values:
        messages.error(request, "There is no such role.")
    else:
        _try(
            request,
            lambda: set_member(project=membership.project, member=membership.user, role=Role(role), user=request.user),
        )
    return redirect("project_members", membership.project_id)


@require_POST
def member_remove(request: SignedIn, pk: int) -> HttpResponse:
    membership = _member_for(request, pk)
    _try(request, lambda: remove_member(membership=membership, user=request.user))
    return redirect("project_members", membership.project_id)


def _try(request: SignedIn, write: Callable[[], object]) -> None:
    try:
        write()
    except NotAllowed as error:
        messages.error(request, str(error))
