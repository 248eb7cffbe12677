"""Webhooks and jobs through the API."""

import pytest

from annotation.models import BatchState, Event, JobState, Role, Webhook
from tests import factories
from tests.annotation.api.asking import program

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(settings):
    settings.WEBHOOK_HOSTS = ["hooks.lab"]
    return factories.make_project()


@pytest.fixture
def lead(project):
    return program(project)


def test_a_webhook_is_made_and_its_secret_told_once(project, lead):
    made = lead.send("webhooks", project.pk, body={"url": "https://hooks.lab/1"})
    webhook = Webhook.objects.get()
    assert (made.status_code, made.json()["secret"], made["Cache-Control"]) == (201, webhook.secret, "no-store")
    row = lead.read("webhook", webhook.pk)
    assert (row["url"], len(row["events"]), row["active"]) == ("https://hooks.lab/1", 4, True)
    assert lead.read("webhooks", project.pk)["results"] == [row]
    assert "secret" not in row


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "url"),
        ({"url": "https://elsewhere.lab/"}, "MARROWLOOP_WEBHOOK_HOSTS"),
        ({"url": "https://hooks.lab/", "events": []}, "events"),
        ({"url": "https://hooks.lab/", "events": ["all"]}, "events"),
        ({"url": "https://hooks.lab/", "event": ["batch.ready"]}, "event"),
    ],
)
def test_one_that_cannot_be_is_refused_by_name(project, lead, body, named):
    response = lead.send("webhooks", project.pk, body=body)
    assert (response.status_code, named in response.json()["error"]) == (400, True)
    assert not Webhook.objects.exists()


def test_a_webhook_is_changed_and_what_is_left_out_stays(project, lead):
    webhook = factories.make_webhook(project, "https://hooks.lab/1")
    factories.make_webhook(project, "https://hooks.lab/2")
    row = lead.send("webhook", webhook.pk, body={"events": ["round.done", "batch.ready"]}, method="patch").json()
    assert (row["url"], row["events"], row["active"]) == ("https://hooks.lab/1", ["batch.ready", "round.done"], True)
    row = lead.send("webhook", webhook.pk, body={"active": False, "url": "https://hooks.lab/3"}, method="patch").json()
    assert (row["url"], len(row["events"]), row["active"]) == ("https://hooks.lab/3", 2, False)
    assert lead.read("webhook", webhook.pk) == row
    assert lead.send("webhook", webhook.pk, body={}, method="patch").json() == row
    assert Event.objects.filter(verb="changed webhook").count() == 3
    for body, named in [
        ({"url": "https://hooks.lab/2"}, "registered already"),
        ({"url": "https://elsewhere.lab/"}, "MARROWLOOP_WEBHOOK_HOSTS"),
        ({"events": []}, "events"),
        ({"secret": "whsec_1"}, "There is no such field."),
    ]:
        response = lead.send("webhook", webhook.pk, body=body, method="patch")
        assert (response.status_code, named in response.json()["error"]) == (400, True), body
    assert lead.read("webhook", webhook.pk) == row


def test_a_webhook_is_tested_unless_it_is_off(project, lead):
    webhook = factories.make_webhook(project)
    sent = lead.send("webhook_test", webhook.pk)
    assert (sent.status_code, sent.json()["event"], sent.json()["state"]) == (201, "test", "waiting")
    assert lead.read("deliveries", webhook.pk)["results"] == [sent.json()]
    Webhook.objects.update(active=False)
    refused = lead.send("webhook_test", webhook.pk)
    assert (refused.status_code, "switched off" in refused.json()["error"]) == (409, True)
    assert webhook.deliveries.count() == 1


def test_its_messages_are_listed_the_newest_first(project, lead):
    webhook = factories.make_webhook(project)
    first = factories.make_delivery(webhook)
    second = factories.make_delivery(webhook, state="delivered", next_at=None, attempts=1, status=200)
    rows = lead.read("deliveries", webhook.pk)["results"]
    assert [row["uuid"] for row in rows] == [str(second.uuid), str(first.uuid)]
    assert (rows[0]["state"], rows[0]["status"], rows[0]["attempts"]) == ("delivered", 200, 1)
    assert len(lead.read("deliveries", webhook.pk, state="waiting")["results"]) == 1


def test_a_webhook_is_deleted(project, lead):
    webhook = factories.make_webhook(project)
    assert lead.send("webhook", webhook.pk, method="delete").status_code == 204
    assert lead.get("webhook", webhook.pk).status_code == 404


def test_a_job_is_followed_and_cancelled(project, lead):
    job = factories.make_job(project)
    row = program(project, Role.ANNOTATOR).read("job", job.pk)
    assert (row["kind"], row["state"], row["progress"]) == ("export", "queued", 0)
    assert lead.send("job_cancel", job.pk).json()["state"] == "cancelled"
    over = lead.send("job_cancel", job.pk)
    assert (over.status_code, "is over" in over.json()["error"]) == (409, True)
    running = factories.make_job(project, state=JobState.RUNNING)
    assert lead.send("job_cancel", running.pk).json()["state"] == "running"
    running.refresh_from_db()
    assert running.cancel_requested


def test_a_batch_is_closed_once(project, lead):
    batch = factories.make_batch(project)
    assert lead.send("batch_close", batch.pk).json()["state"] == "closed"
    batch.refresh_from_db()
    assert batch.state == BatchState.CLOSED
    assert lead.send("batch_close", batch.pk).status_code == 409


def test_a_draft_batch_is_not_closed_by_itself(project, lead):
    batch = factories.make_batch(project, state=BatchState.DRAFT)
    answer = lead.send("batch_close", batch.pk)
    assert (answer.status_code, "cancel its round" in answer.json()["error"]) == (409, True)
    batch.refresh_from_db()
    assert batch.state == BatchState.DRAFT
