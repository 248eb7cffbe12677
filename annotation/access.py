"""The only permission gate: every view and API endpoint gets its object through here.

A stranger to the project is told that there is no such thing (404), so that nothing can be learned by guessing
numbers. A member without the role is refused (403).
"""

from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404

from annotation.models import Membership, Project, Role, User

M = TypeVar("M", bound=Model)


def role_in(user: User, project: Project) -> Role | None:
    """The user's role in the project; a superuser is lead everywhere."""
    if not user.is_active:
        return None
    if user.is_superuser:
        return Role.LEAD
    role = Membership.objects.filter(user=user, project=project).values_list("role", flat=True).first()
    return Role(role) if role else None


def require_role(user: User, project: Project, role: Role) -> Role:
    """Raise Http404 for a stranger, PermissionDenied for a member whose role does not suffice."""
    held = role_in(user, project)
    if held is None:
        raise Http404
    if not held.covers(role):
        raise PermissionDenied(f"Only a {role.label} of {project.name} may do this.")
    return held


def get_for(
    user: User, queryset: QuerySet[M], pk: int, role: Role, *, project: Callable[[Any], Project] | None = None
) -> M:
    """The row with this key, if the user has the role in its project.

    Raises Http404 if there is none or the user is a stranger, PermissionDenied if the role does not suffice.
    """
    row = queryset.filter(pk=pk).first()
    if row is None:
        raise Http404
    owner: Project = project(row) if project else row.project  # type: ignore[attr-defined]
    require_role(user, owner, role)
    return row


def get_project_for(user: User, pk: int, role: Role) -> Project:
    return get_for(user, Project.objects.select_related("taxonomy"), pk, role, project=lambda row: row)


def projects_of(user: User) -> QuerySet[Project]:
    """Every project that the user may see."""
    projects = Project.objects.order_by("name")
    return projects if user.is_superuser else projects.filter(memberships__user=user)


def may_create_projects(user: User) -> bool:
    return user.is_staff


def require_staff(user: User, what: str) -> None:
    """Raise PermissionDenied for anybody but an administrator; `what` says what only one may do."""
    if not user.is_staff:
        raise PermissionDenied(f"Only an administrator may {what}.")
