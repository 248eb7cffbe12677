"""The page of the event log."""

import csv
import re

import pytest
from django.urls import reverse

from annotation.models import Event, Role
from annotation.services.annotations import skip
from annotation.services.events import record
from annotation.views.events import EVENTS_PER_PAGE
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def lead(client, project):
    user = factories.make_member(project, Role.LEAD, "the_lead")
    client.force_login(user)
    return user


def text_of(client, project, **query):
    response = client.get(reverse("project_events", args=[project.pk]), query)
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


def test_it_says_who_did_what(client, project, lead):
    batch = factories.make_batch(project, name="Round 7")
    reader = factories.make_member(project, name="ann")
    factories.submit_task(batch.tasks.first(), reader, (0, 1, 2, 30, 40))
    skip(task=batch.tasks.last(), user=reader, reason="out of focus")
    text = text_of(client, project)
    assert "ann skipped" in text
    assert "reason: out of focus" in text
    assert "Marrowloop itself opened the batch Round 7" in text
    assert "1 box" in text


def test_an_annotations_line_leads_to_its_tile(client, project, lead):
    annotation = factories.make_truth(factories.make_tile(project))
    content = client.get(reverse("project_events", args=[project.pk])).content.decode()
    assert reverse("tile_history", args=[annotation.tile_id]) in content


def test_it_shows_what_the_filter_asks_for(client, project, lead):
    record(project=project, user=lead, verb="opened batch", subject="Round 1")
    record(project=project, user=None, verb="registered", subject="model 1")
    table = text_of(client, project, person="the_lead").split("Details")[1]
    assert "Round 1" in table
    assert "model 1" not in table


def test_a_filter_that_finds_nothing_says_so(client, project, lead):
    assert "No such event" in text_of(client, project, text="nothing of this name")


@pytest.mark.parametrize("query", [{"first": "yesterday"}, {"person": "nobody"}, {"verb": "sang"}])
def test_a_filter_that_cannot_be_understood_shows_no_events(client, project, lead, query):
    record(project=project, user=lead, verb="opened batch", subject="Round 1")
    response = client.get(reverse("project_events", args=[project.pk]), query)
    assert response.status_code == 422
    assert "errorlist" in response.content.decode()
    assert "Round 1" not in response.content.decode()
    assert client.get(reverse("events_table", args=[project.pk]), query).status_code == 400


def test_a_long_log_has_pages_that_keep_the_filter(client, project, lead):
    for number in range(EVENTS_PER_PAGE + 1):
        record(project=project, user=lead, verb="opened batch", subject=f"Round {number}")
    record(project=project, user=None, verb="registered", subject="model 1")
    content = client.get(reverse("project_events", args=[project.pk]), {"person": "the_lead"}).content.decode()
    assert f"of {EVENTS_PER_PAGE + 1} events" in content
    assert "person=the_lead&amp;page=2" in content
    second = text_of(client, project, person="the_lead", page=2)
    assert "Round 0" in second
    assert "model 1" not in second


def test_the_export_is_of_what_is_shown_all_pages_of_it(client, project, lead):
    for number in range(EVENTS_PER_PAGE + 1):
        record(project=project, user=lead, verb="opened batch", subject=f"Round {number}")
    record(project=project, user=None, verb="registered", subject="model 1")
    response = client.get(reverse("events_table", args=[project.pk]), {"person": "the_lead"})
    assert response.streaming
    assert response["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(b"".join(response.streaming_content).decode().splitlines()))
    assert len(rows) == 1 + EVENTS_PER_PAGE + 1
    assert {row[1] for row in rows[1:]} == {"the_lead"}


@pytest.mark.parametrize("name", ["project_events", "events_table"])
def test_only_a_lead_reads_the_log(client, project, name):
    for role in (Role.ANNOTATOR, Role.REVIEWER):
        client.force_login(factories.make_member(project, role))
        assert client.get(reverse(name, args=[project.pk])).status_code == 403
    client.force_login(factories.make_user())
    assert client.get(reverse(name, args=[project.pk])).status_code == 404


def test_the_tab_is_the_leads(client, project, lead):
    url = reverse("project_events", args=[project.pk])
    overview = reverse("project", args=[project.pk])
    assert url in client.get(overview).content.decode()
    client.force_login(factories.make_member(project, Role.REVIEWER))
    assert url not in client.get(overview).content.decode()


def test_another_projects_events_are_not_shown(client, project, lead):
    record(project=factories.make_project(), user=lead, verb="opened batch", subject="Round of another")
    assert "Round of another" not in text_of(client, project)


def test_downloads_are_written_down(client, project, lead):
    job, version = factories.make_export(project), factories.make_version(project)
    assert client.get(reverse("export_download", args=[job.pk])).getvalue() == b"PK an archive"
    assert client.get(reverse("model_weights", args=[version.pk])).getvalue()
    downloaded = Event.objects.filter(verb="downloaded").order_by("pk")
    assert [(event.user_name, event.subject) for event in downloaded] == [
        ("the_lead", str(job)),
        ("the_lead", f"marrowloop-{project.pk}-model-1.pt"),
    ]


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize("end", ["first", "last"])
def test_the_calendars_ends_are_days_too(client, project, lead, day, end):
    assert client.get(reverse("project_events", args=[project.pk]), {end: day}).status_code == 200
