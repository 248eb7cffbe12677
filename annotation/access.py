"""The only permission gate: every view and API endpoint gets its object through here.

A stranger to the project is told that there is no such thing (404), so that nothing can be learned by guessing
numbers. A member without the role is refused (403).
"""

from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404

from annotation.models import (
    ApiToken,
    Membership,
    Notice,
    Policy,
    Project,
    Role,
    Scope,
    Task,
    TaskKind,
    Upload,
    User,
)
from annotation.prepared import Prepared

M = TypeVar("M", bound=Model)
ROLE = Prepared(lambda user, project: Membership.objects.filter(user=user, project=project).values_list("role"))


def role_in(user: User, project: Project) -> Role | None:
    """The user's role in the project; a superuser is lead everywhere."""
    if not user.is_active:
        return None
    if user.is_superuser:
        return Role.LEAD
    found = ROLE.first(user.pk, project.pk)
    return Role(found[0]) if found else None


def require_role(user: User, project: Project, role: Role) -> Role:
    """Raise Http404 for a stranger, PermissionDenied for a member whose role does not suffice."""
    held = role_in(user, project)
    if held is None:
        raise Http404
    if not held.covers(role):
        raise PermissionDenied(f"Only a {role.label} of {project.name} may do this.")
    return held


def get_for(
    user: User, rows: QuerySet[M] | Prepared, pk: int, role: Role, *, project: Callable[[Any], Project] | None = None
) -> M:
    """The row with this key, if the user has the role in its project. rows: a prepared query takes the key.

    Raises Http404 if there is none or the user is a stranger, PermissionDenied if the role does not suffice.
    """
    row: M | None = rows.get(pk) if isinstance(rows, Prepared) else get_object_or_404(rows, pk=pk)
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


def notices_of(user: User) -> QuerySet[Notice]:
    """What the user has been told, the newest first; nothing of a project that the user has left."""
    return Notice.objects.filter(user=user, project__in=projects_of(user).order_by())


def get_notice_for(user: User, pk: int) -> Notice:
    """One of the user's own notices. Raises Http404."""
    found = notices_of(user).filter(pk=pk).first()
    if found is None:
        raise Http404
    return found


def get_task_for(user: User, tasks: QuerySet[Task] | Prepared, pk: int) -> Task:
    """A task, for whom may see what is drawn in it. Raises Http404, PermissionDenied.

    A review is for reviewers. Of independent readers none sees what another has.
    """
    task: Task = get_for(user, tasks, pk, Role.ANNOTATOR)
    foreign = task.reader_id not in (None, user.pk)
    if task.kind == TaskKind.REVIEW or (foreign and task.batch.policy == Policy.INDEPENDENT):
        require_role(user, task.project, Role.REVIEWER)
    return task


def get_upload_for(user: User, pk: int) -> Upload:
    """One of the user's own uploads, while the user may still import slides. Raises Http404, PermissionDenied."""
    found = get_for(user, Upload.objects.select_related("project"), pk, Role.LEAD)
    if found.user_id != user.pk:
        raise Http404
    return found


def get_token_for(user: User, pk: int) -> ApiToken:
    """One of the user's own tokens. Raises Http404."""
    found = ApiToken.objects.filter(user=user, pk=pk).first()
    if found is None:
        raise Http404
    return found


def require_scope(token: ApiToken, scope: Scope) -> None:
    """Raise PermissionDenied if the token's scope does not suffice; the user's role is asked besides."""
    if not Scope(token.scope).covers(scope):
        raise PermissionDenied(f"The token may {Scope(token.scope).label} only: this needs the scope {scope.label}.")


def may_create_projects(user: User) -> bool:
    return user.is_staff


def require_staff(user: User, what: str) -> None:
    """Raise PermissionDenied for anybody but an administrator; `what` says what only one may do."""
    if not user.is_staff:
        raise PermissionDenied(f"Only an administrator may {what}.")
