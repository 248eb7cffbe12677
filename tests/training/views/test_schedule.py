import pytest
from django.urls import reverse

from annotation.models import Role
from tests import factories
from training.models import Schedule, ScheduleMode
from training.services.schedule import ScheduleSettings, change_schedule, schedule_of

pytestmark = pytest.mark.django_db

FORM = {"mode": "times", "new_tiles": "40", "at": "02:30", "weekdays": ["1", "5"], "start_next": "on"}
PAGES = ("project_schedule", "schedule_pause", "schedule_resume")


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def page(client, project):
    response = client.get(reverse("project_schedule", args=[project.pk]))
    assert response.status_code == 200
    return response.content.decode()


def post(client, project, **data):
    return client.post(reverse("project_schedule", args=[project.pk]), FORM | data)


def test_storing_works(client, project):
    response = post(client, project)
    assert response["Location"] == reverse("project_schedule", args=[project.pk])
    found = Schedule.objects.get()
    assert (found.mode, found.new_tiles, found.weekdays, found.start_next) == (ScheduleMode.TIMES, 40, "15", True)
    assert f"{found.at:%H:%M}" == "02:30"
    shown = page(client, project)
    assert 'value="02:30"' in shown
    assert "(UTC)" in shown
    assert shown.count("checked") == 4  # the mode, two days, the option


def test_storing_twice_changes_the_one_schedule(client, project):
    post(client, project)
    post(client, project, mode="hand")
    assert Schedule.objects.get().mode == ScheduleMode.BY_HAND


@pytest.mark.parametrize(
    "data",
    [{"mode": "other"}, {"new_tiles": "0"}, {"new_tiles": ""}, {"at": "25:00"}, {"weekdays": []}, {"weekdays": ["8"]}],
)
def test_what_cannot_be_is_refused(client, project, data):
    response = post(client, project, **data)
    assert response.status_code == 422
    assert "errorlist" in response.content.decode()
    assert not Schedule.objects.exists()


def test_the_page_without_a_schedule_says_that_it_is_by_hand(client, project):
    shown = page(client, project)
    assert "By hand" in shown
    assert "It has not run yet." in shown
    assert "Pause" not in shown
    assert not Schedule.objects.exists()


def test_pause_and_resume_work(client, project):
    change_schedule(project=project, settings=ScheduleSettings(mode=ScheduleMode.TIMES), user=None)
    assert "Pause" in page(client, project)
    client.post(reverse("schedule_pause", args=[project.pk]))
    assert schedule_of(project).paused
    assert "Resume" in page(client, project)
    client.post(reverse("schedule_pause", args=[project.pk]))
    assert schedule_of(project).paused
    client.post(reverse("schedule_resume", args=[project.pk]))
    assert not schedule_of(project).paused


def test_the_page_shows_what_happened_last(client, project):
    factories.make_round(project)
    change_schedule(project=project, settings=ScheduleSettings(mode=ScheduleMode.TIMES), user=None)
    Schedule.objects.update(last_outcome="Nothing was done: Round 1 is training.", last_run_at="2026-03-04T02:00Z")
    shown = page(client, project)
    assert "Nothing was done: Round 1 is training." in shown
    assert "4 Mar 2026, 02:00" in shown


@pytest.mark.parametrize("role", Role)
def test_the_list_of_rounds_says_when_the_next_run_is(client, project, role):
    factories.make_round(project)
    client.force_login(factories.make_member(project, role))
    shown = client.get(reverse("project_rounds", args=[project.pk])).content.decode()
    assert "By hand: a lead closes the round on its page." in shown
    assert (reverse("project_schedule", args=[project.pk]) in shown) == (role == Role.LEAD)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("role", "status"), [(None, 404), (Role.ANNOTATOR, 403), (Role.REVIEWER, 403)])
def test_only_a_lead_may(client, project, name, role, status):
    client.force_login(factories.make_member(project, role) if role else factories.make_user())
    assert client.post(reverse(name, args=[project.pk]), FORM).status_code == status
    assert not Schedule.objects.exists()


@pytest.mark.parametrize("name", ["schedule_pause", "schedule_resume"])
def test_pausing_rejects_get(client, project, name):
    assert client.get(reverse(name, args=[project.pk])).status_code == 405
