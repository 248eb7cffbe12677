import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404

from annotation.access import get_project_for, may_create_projects, projects_of, require_role, role_in
from annotation.models import Role
from tests import factories

pytestmark = pytest.mark.django_db

ROLES = list(Role)


@pytest.mark.parametrize("held", ROLES)
@pytest.mark.parametrize("needed", ROLES)
def test_a_role_may_do_all_that_those_before_it_may(held, needed):
    project = factories.make_project()
    user = factories.make_member(project, held)
    if ROLES.index(held) >= ROLES.index(needed):
        assert require_role(user, project, needed) == held
    else:
        with pytest.raises(PermissionDenied):
            require_role(user, project, needed)


def test_a_stranger_is_told_that_there_is_nothing():
    with pytest.raises(Http404):
        get_project_for(factories.make_user(), factories.make_project().pk, Role.ANNOTATOR)


def test_a_role_in_one_project_is_none_in_another():
    user = factories.make_member(factories.make_project(), Role.LEAD)
    with pytest.raises(Http404):
        require_role(user, factories.make_project(), Role.ANNOTATOR)


def test_a_superuser_is_lead_everywhere():
    user = factories.make_user(is_superuser=True)
    project = factories.make_project()
    assert role_in(user, project) == Role.LEAD
    assert list(projects_of(user)) == [project]


def test_a_user_who_was_switched_off_has_no_role():
    project = factories.make_project()
    user = factories.make_member(project, Role.LEAD, is_active=False)
    assert role_in(user, project) is None


def test_a_user_sees_only_their_projects():
    project = factories.make_project()
    factories.make_project()
    assert list(projects_of(factories.make_member(project))) == [project]


def test_only_staff_may_make_projects():
    assert may_create_projects(factories.make_user(is_staff=True))
    assert not may_create_projects(factories.make_member(factories.make_project(), Role.LEAD))
