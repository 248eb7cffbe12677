"""Webhooks: which can be, and what they are told of."""

import json

import pytest
from django.db import transaction

from annotation.models import BatchState, Delivery, DeliveryState, Event, JobKind, Role, WebhookEvent
from annotation.services.batches import open_batch
from annotation.services.jobs import JobError, run_job
from annotation.services.webhooks import (
    MOST_WEBHOOKS,
    WebhookRefused,
    change_webhook,
    check_address,
    delete_webhook,
    make_webhook,
    renew_secret,
    send_again,
    send_test,
)
from inference.services.registry import make_current
from tests import factories
from training.models import RoundState
from training.services.model_notices import tell_model_done

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(settings):
    settings.WEBHOOK_HOSTS = ["hooks.lab", "CI.lab:8443", "[::1]"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://marrow.lab"]
    return factories.make_project()


@pytest.fixture
def lead(project):
    return factories.make_member(project, Role.LEAD, "lea")


# ---- which addresses ----


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.lab",
        "https://hooks.lab/a?b=c",
        "https://HOOKS.lab:443/",
        "http://ci.lab:8443/x",
        "https://ci.lab:8443/x",
        "http://[::1]/",
    ],
)
def test_an_allowed_host_is_taken(project, url):
    check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.lab/",
        "https://hooks.lab.evil.example/",
        "https://evil.example/hooks.lab",
        "https://evil.example#hooks.lab",
        "http://hooks.lab:8080/",
        "https://hooks.lab:80/",
        "https://ci.lab/",
        "https://hooks.lab@evil.example/",
        "https://me:secret@hooks.lab/",
        "https://hooks.lab/#part",
        "https://hooks.lab\\@evil.example/",
        "ftp://hooks.lab/",
        "file:///etc/passwd",
        "gopher://hooks.lab/",
        "//hooks.lab/",
        "hooks.lab",
        "https://",
        "https://hooks.lab:none/",
        "https://hooks.lab:99999/",
        "https://hooks.lab/a b",
        "https://hooks.lab/a\r\nHost: b",
        "https://hooks.lab/é",
        "http://[::1",
        "http://127.0.0.1/",
        "http://2130706433/",
        "",
    ],
)
def test_every_other_is_refused(project, url):
    with pytest.raises(WebhookRefused):
        check_address(url)


def test_without_the_labs_word_no_host_is_allowed(project, settings):
    settings.WEBHOOK_HOSTS = []
    with pytest.raises(WebhookRefused, match="not among the hosts that MARROWLOOP_WEBHOOK_HOSTS allows"):
        check_address("https://hooks.lab/")


# ---- made, changed, deleted ----


def test_a_webhook_is_made_with_a_secret_that_nobody_else_has(project, lead):
    first = make_webhook(project=project, url="https://hooks.lab/1", events=["batch.ready"], user=lead)
    second = make_webhook(project=project, url="https://hooks.lab/2", events=WebhookEvent.values, user=lead)
    assert first.secret.startswith("whsec_")
    assert first.secret != second.secret
    assert (first.active, first.events, len(second.events)) == (True, ["batch.ready"], 4)
    event = Event.objects.filter(verb="made webhook").order_by("pk").first()
    assert (event.user, event.subject) == (lead, "https://hooks.lab/1")
    assert first.secret not in str(event.data)


def test_what_cannot_be_is_refused(project, lead):
    make_webhook(project=project, url="https://hooks.lab/1", events=["batch.ready"], user=lead)
    for url, events in [
        ("https://hooks.lab/1", ["batch.ready"]),
        ("https://hooks.lab/2", []),
        ("https://hooks.lab/2", ["test"]),
        ("https://elsewhere.lab/", ["batch.ready"]),
        (f"https://hooks.lab/{'x' * 500}", ["batch.ready"]),
    ]:
        with pytest.raises(WebhookRefused):
            make_webhook(project=project, url=url, events=events, user=lead)
    for number in range(MOST_WEBHOOKS - 1):
        factories.make_webhook(project, f"https://hooks.lab/more/{number}")
    with pytest.raises(WebhookRefused, match="at most"):
        make_webhook(project=project, url="https://hooks.lab/2", events=["batch.ready"], user=lead)


def test_a_webhook_is_changed_renewed_and_deleted(project, lead):
    webhook = make_webhook(project=project, url="https://hooks.lab/1", events=["batch.ready"], user=lead)
    old = webhook.secret
    change_webhook(webhook=webhook, url=webhook.url, events=["run.failed"], active=False, user=lead)
    assert (webhook.events, webhook.active) == (["run.failed"], False)
    with pytest.raises(WebhookRefused):
        change_webhook(webhook=webhook, url="http://elsewhere.lab/", events=["run.failed"], active=True, user=lead)
    assert renew_secret(webhook=webhook, user=lead) != old
    webhook.refresh_from_db()
    assert (webhook.url, webhook.secret == old) == ("https://hooks.lab/1", False)
    factories.make_delivery(webhook)
    delete_webhook(webhook=webhook, user=lead)
    assert not Delivery.objects.exists()
    verbs = list(Event.objects.filter(subject="https://hooks.lab/1").order_by("pk").values_list("verb", flat=True))
    assert verbs == ["made webhook", "changed webhook", "renewed secret", "deleted webhook"]


# ---- what they are told ----


def told(event):
    """The messages of this event, each its data."""
    messages = [json.loads(one.body) for one in Delivery.objects.filter(event=event).order_by("pk")]
    assert {message["type"] for message in messages} <= {event}
    return [message["data"] for message in messages]


def about(row, kind):
    return {"id": row.pk, "name": str(row), "url": f"https://marrow.lab/api/{kind}/{row.pk}/"}


def test_a_batch_that_is_ready_is_told_once_to_those_who_want_to_know(project):
    wants = factories.make_webhook(project)
    factories.make_webhook(project, "http://other.lab/", events=["run.failed"])
    factories.make_webhook(project, "http://off.lab/", active=False)
    factories.make_webhook(factories.make_project())
    batch = factories.make_batch(project, state=BatchState.DRAFT)
    open_batch(batch=batch)
    open_batch(batch=batch)
    assert told("batch.ready") == [
        {"project": about(project, "projects"), "batch": about(batch, "batches"), "tiles": 9}
    ]
    delivery = Delivery.objects.get()
    assert (delivery.webhook, delivery.state, delivery.attempts) == (wants, DeliveryState.WAITING, 0)


def test_a_failed_run_is_told_without_its_reason(project):
    factories.make_webhook(project)
    job = factories.make_job(project, kind=JobKind.TRAIN, subject="Round 1")

    def names_a_patient(running):
        raise JobError("Refused to train: patients P07 are in the locked test set.")

    run_job(job_pk=job.pk, function=names_a_patient)
    assert told("run.failed") == [{"project": about(project, "projects"), "job": about(job, "jobs")}]
    assert "P07" not in Delivery.objects.get().body
    run_job(job_pk=factories.make_job(project, kind=JobKind.EXPORT).pk, function=names_a_patient)
    assert len(told("run.failed")) == 1


def test_a_round_that_is_done_is_told_with_its_model(project):
    factories.make_webhook(project)
    version = factories.make_version(project)
    round_ = factories.make_round(project, state=RoundState.DONE, model_version=version)
    tell_model_done(round_)
    [data] = told("round.done")
    assert (data["round"], data["model"]) == (about(round_, "rounds"), about(version, "models"))


def test_a_model_is_told_each_time_that_it_is_promoted(project):
    factories.make_webhook(project)
    first, second = (factories.make_version(project) for _ in range(2))
    for version in (first, first, second, first):
        make_current(version=version)
    assert [data["model"]["id"] for data in told("model.promoted")] == [first.pk, second.pk, first.pk]


def test_what_is_rolled_back_is_not_told(project):
    factories.make_webhook(project)
    batch = factories.make_batch(project, state=BatchState.DRAFT)
    with transaction.atomic():
        open_batch(batch=batch)
        transaction.set_rollback(True)
    assert not Delivery.objects.exists()


def test_a_test_and_what_is_sent_again_need_a_webhook_that_is_on(project):
    webhook = factories.make_webhook(project, active=False)
    delivery = factories.make_delivery(webhook, state=DeliveryState.GIVEN_UP, next_at=None, attempts=8)
    assert send_test(webhook=webhook) is None
    assert not send_again(delivery=delivery)
    webhook.active = True
    webhook.save()
    assert send_test(webhook=webhook).event == "test"
    uuid = delivery.uuid
    assert send_again(delivery=delivery)
    delivery.refresh_from_db()
    assert (delivery.uuid, delivery.state, delivery.attempts) == (uuid, DeliveryState.WAITING, 0)
