"""The log in words; and that nothing that is deleted later takes a line of it away."""

import csv
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from annotation.csv_cells import safe_cell
from annotation.event_log import EventFilter, csv_lines, details_of, events_of, log_rows, words_of
from annotation.models import Event, Project, Role, User
from annotation.models.annotation import ImmutableError
from annotation.services.events import record
from annotation.services.projects import remove_member
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


def lines():
    """Every line of the log as the database has it, without asking for what it points at."""
    return list(Event.objects.order_by("pk").values())


# What stays


def test_a_user_who_is_deleted_is_still_named(project):
    user = factories.make_user("gone", first_name="Gone")
    record(project=project, user=user, verb="opened batch", subject="Round 1")
    before = lines()
    user.delete()
    assert lines() == before
    (row,) = log_rows([Event.objects.first()])
    assert (row["who"], row["words"], row["event"].subject) == ("gone", "opened the batch", "Round 1")
    assert "gone" in str(Event.objects.first())


def test_a_slide_that_is_deleted_is_still_named(project):
    slide = factories.make_slide(project, tiles=0, name="marrow.tif")
    record(project=project, user=None, verb="imported slide", subject=slide, tiles=9)
    before = lines()
    slide.delete()
    assert lines() == before
    assert Event.objects.first().subject == "marrow.tif"


def test_a_project_that_is_deleted_leaves_its_log(project):
    name, key = project.name, project.pk
    factories.make_member(project, Role.LEAD)
    factories.make_patient(project)
    before = lines()
    project.delete()
    assert not Project.objects.filter(pk=key).exists()
    assert lines() == before
    assert (Event.objects.first().project_id, Event.objects.first().subject) == (key, name)
    connection.check_constraints()


def test_a_member_who_is_taken_out_stays_in_the_log(project):
    lead = factories.make_member(project, Role.LEAD, "lead")
    member = factories.make_member(project, name="ann")
    remove_member(membership=project.memberships.get(user=member), user=lead)
    member.delete()
    assert str(Event.objects.first()).endswith("lead removed member ann")


def test_a_line_cannot_be_changed_or_deleted(project):
    event = Event.objects.first()
    event.verb = "other"
    every = [
        event.save,
        event.delete,
        Event.objects.all().delete,
        project.event_set.all().delete,
        lambda: Event.objects.update(verb="other"),
        lambda: project.event_set.update(verb="other"),
        lambda: Event.objects.bulk_update([event], ["verb"]),
    ]
    before = lines()
    for write in every:
        with pytest.raises(ImmutableError), transaction.atomic():
            write()
    assert lines() == before


def test_the_admin_shows_the_log_and_changes_nothing(client, project):
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    event = Event.objects.first()
    before = lines()
    project.delete()
    change, delete = (reverse(f"admin:annotation_event_{act}", args=[event.pk]) for act in ("change", "delete"))
    assert client.get(change).status_code == 200
    assert client.post(change, {"verb": "other"}).status_code == 403
    assert client.post(delete, {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [event.pk], "post": "yes"}
    client.post(reverse("admin:annotation_event_changelist"), chosen)
    assert lines() == before


def test_deleting_a_user_leaves_the_log(project):
    user = factories.make_user("gone")
    record(project=project, user=user, verb="opened batch", subject="Round 1")
    before = lines()
    user.delete()
    assert not User.objects.filter(username="gone").exists()
    assert lines() == before


# Words


def test_every_line_reads_as_a_sentence(project):
    record(project=project, user=None, verb="selecting ended", subject="Round 3")
    (row,) = log_rows([Event.objects.first()])
    assert f"{row['who']} {row['words']} {row['event'].subject}" == "Marrowloop itself selected the tiles of Round 3"
    assert words_of("submitted") == "submitted"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"boxes": 1, "annotation": 7}, ["1 box"]),
        ({"boxes": 3, "tiles": 1}, ["3 boxes", "1 tile"]),
        ({"reason": "out of focus"}, ["reason: out of focus"]),
        ({"sha256": "a" * 64}, ["sha256: aaaaaaaaaaaa"]),
        ({"classes": {"NEU": {"before": ["1"]}, "ERY": {}}}, ["classes: NEU, ERY"]),
        ({"from_previous": True, "weights_file": "", "other": None}, ["from previous: yes"]),
        ({"text": "x" * 100}, [f"text: {'x' * 79}…"]),
        ({}, []),
    ],
)
def test_details_are_said_in_words(data, words):
    assert details_of(data) == words


def test_what_made_an_annotation_leads_to_its_tile(project):
    annotation = factories.make_truth(factories.make_tile(project))
    (row,) = log_rows([Event.objects.first()])
    assert row["tile"] == annotation.tile_id


# Filters


@pytest.fixture
def log(project, monkeypatch):
    """Four lines on three days, at noon."""
    ann = factories.make_user("ann")
    Event.objects.all()._raw_delete(Event.objects.db)
    facts = [
        (1, ann, "submitted", "a.tif row 1"),
        (2, ann, "skipped", "a.tif row 2"),
        (2, None, "training ended", "Round 1"),
        (3, None, "registered", "model 1"),
    ]
    for day, user, verb, subject in facts:
        moment = datetime(2026, 3, day, 12, tzinfo=ZoneInfo("UTC"))
        monkeypatch.setattr(timezone, "now", lambda moment=moment: moment)
        record(project=project, user=user, verb=verb, subject=subject)
    monkeypatch.undo()
    record(project=factories.make_project(), user=ann, verb="submitted", subject="elsewhere")
    return project


@pytest.mark.parametrize(
    ("chosen", "subjects"),
    [
        ({}, ["model 1", "Round 1", "a.tif row 2", "a.tif row 1"]),
        ({"person": "ann"}, ["a.tif row 2", "a.tif row 1"]),
        ({"person": "(itself)"}, ["model 1", "Round 1"]),
        ({"verb": "skipped"}, ["a.tif row 2"]),
        ({"text": "A.TIF"}, ["a.tif row 2", "a.tif row 1"]),
        ({"first": date(2026, 3, 2)}, ["model 1", "Round 1", "a.tif row 2"]),
        ({"last": date(2026, 3, 2)}, ["Round 1", "a.tif row 2", "a.tif row 1"]),
        ({"first": date(2026, 3, 2), "last": date(2026, 3, 2), "person": "ann"}, ["a.tif row 2"]),
        ({"person": "ann", "verb": "registered"}, []),
    ],
)
def test_what_is_chosen_is_shown_the_newest_first(log, chosen, subjects):
    assert [event.subject for event in events_of(log, chosen)] == subjects


def test_the_filter_offers_who_and_what_is_in_the_log(log):
    form = EventFilter(project=log)
    assert form.fields["person"].choices == [
        ("", "everybody"),
        ("(itself)", "Marrowloop itself"),
        ("ann", "ann"),
    ]
    assert [value for value, _ in form.fields["verb"].choices] == [
        "",
        "registered",
        "skipped",
        "submitted",
        "training ended",
    ]


# Export


def test_the_export_has_a_line_for_each_event(log):
    rows = list(csv.reader(csv_lines(events_of(log, {"person": "ann"}))))
    assert rows == [
        ["time", "person", "act", "subject", "details"],
        ["2026-03-02T12:00:00+00:00", "ann", "skipped", "a.tif row 2", "{}"],
        ["2026-03-01T12:00:00+00:00", "ann", "submitted", "a.tif row 1", "{}"],
    ]


def test_no_cell_of_the_export_is_a_formula(project):
    user = factories.make_user("@ann")
    record(project=project, user=user, verb="skipped", subject='=HYPERLINK("x")', reason="+1")
    row = list(csv.reader(csv_lines(Event.objects.filter(pk=Event.objects.first().pk))))[1]
    assert row[1:] == ["'@ann", "skipped", '\'=HYPERLINK("x")', '{"reason": "+1"}']


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1"])
def test_what_would_begin_a_formula_is_made_text(text):
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "ann", "a=1", " =1", "'=1"])
def test_other_text_stays_as_it_is(text):
    assert safe_cell(text) == text
