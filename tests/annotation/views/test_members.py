import pytest
from django.urls import reverse

from annotation.models import Membership, Project, Role
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    lead = factories.make_user("lead")
    client.force_login(lead)
    return factories.make_project(lead=lead)


def add(client, project, name, role="annotator"):
    return client.post(reverse("member_add", args=[project.pk]), {"user_name": name, "role": role})


def role_of(project, name):
    return Membership.objects.filter(project=project, user__username=name).values_list("role", flat=True).first()


def test_add_works(client, project):
    factories.make_user("reader")
    assert add(client, project, "reader", "reviewer")["Location"] == reverse("project_members", args=[project.pk])
    assert role_of(project, "reader") == "reviewer"


def test_an_unknown_user_is_named(client, project):
    response = add(client, project, "nobody")
    assert response.status_code == 422
    assert "There is no user nobody" in response.content.decode()


def test_an_unknown_role_is_refused(client, project):
    factories.make_user("reader")
    assert add(client, project, "reader", "owner").status_code == 422
    assert role_of(project, "reader") is None


def test_a_user_who_was_switched_off_cannot_be_added(client, project):
    factories.make_user("gone", is_active=False)
    assert add(client, project, "gone").status_code == 422


def test_adding_the_last_lead_as_annotator_is_refused(client, project):
    response = client.post(
        reverse("member_add", args=[project.pk]), {"user_name": "lead", "role": "annotator"}, follow=True
    )
    assert "only lab lead" in response.content.decode()
    assert role_of(project, "lead") == "lead"


def change(client, project, name, role):
    membership = Membership.objects.get(project=project, user__username=name)
    return client.post(reverse("member_change", args=[membership.pk]), {"role": role}, follow=True)


def test_a_role_changes(client, project):
    factories.make_member(project, Role.ANNOTATOR, "reader")
    change(client, project, "reader", "lead")
    assert role_of(project, "reader") == "lead"


@pytest.mark.parametrize("role", ["owner", ""])
def test_a_role_that_there_is_not_is_refused(client, project, role):
    factories.make_member(project, Role.ANNOTATOR, "reader")
    assert "There is no such role" in change(client, project, "reader", role).content.decode()
    assert role_of(project, "reader") == "annotator"


def test_the_last_lead_cannot_step_down(client, project):
    assert "only lab lead" in change(client, project, "lead", "annotator").content.decode()
    assert role_of(project, "lead") == "lead"


def test_remove_works(client, project):
    factories.make_member(project, Role.ANNOTATOR, "reader")
    membership = Membership.objects.get(user__username="reader")
    client.post(reverse("member_remove", args=[membership.pk]))
    assert role_of(project, "reader") is None
    assert client.post(reverse("member_remove", args=[membership.pk])).status_code == 404


def test_the_last_lead_cannot_be_removed(client, project):
    membership = Membership.objects.get(user__username="lead")
    response = client.post(reverse("member_remove", args=[membership.pk]), follow=True)
    assert "only lab lead" in response.content.decode()
    assert role_of(project, "lead") == "lead"


# New projects


def test_staff_make_a_project_and_lead_it(client):
    client.force_login(factories.make_user("boss", is_staff=True))
    response = client.post(reverse("project_new"), {"name": "Marrow", "taxonomy": "hct"})
    project = Project.objects.get(name="Marrow")
    assert response["Location"] == reverse("project_slides", args=[project.pk])
    assert (role_of(project, "boss"), project.taxonomy.classes.count()) == ("lead", 19)


def test_a_name_that_is_taken_is_refused_with_a_text(client):
    taken = factories.make_project().name
    client.force_login(factories.make_user(is_staff=True))
    response = client.post(reverse("project_new"), {"name": taken, "taxonomy": "hct"})
    assert response.status_code == 422
    assert "A project of this name exists" in response.content.decode()


@pytest.mark.parametrize("data", [{"name": "", "taxonomy": "hct"}, {"name": "Marrow", "taxonomy": "other"}])
def test_what_is_missing_is_said(client, data):
    client.force_login(factories.make_user(is_staff=True))
    assert client.post(reverse("project_new"), data).status_code == 422
    assert not Project.objects.exists()


def test_a_lead_who_is_not_staff_may_not_make_projects(client, project):
    assert client.post(reverse("project_new"), {"name": "Marrow", "taxonomy": "hct"}).status_code == 403
