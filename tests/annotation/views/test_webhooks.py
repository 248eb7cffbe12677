import pytest
from django.urls import reverse

from annotation.models import Delivery, Role, Webhook
from annotation.services.deliveries import deliver
from tests import factories
from tests.receiver import receiving

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client, settings):
    settings.WEBHOOK_HOSTS = ["hooks.lab"]
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lea"))
    return project


def post(client, name, *arguments, **data):
    return client.post(reverse(name, args=arguments), data, follow=True)


def make(client, project, **data):
    values = {"url": "https://hooks.lab/1", "events": ["batch.ready", "run.failed"]} | data
    return client.post(reverse("webhook_create", args=[project.pk]), values)


def test_the_page_says_how_to_allow_a_host(client, project, settings):
    text = client.get(reverse("project_webhooks", args=[project.pk])).content.decode()
    assert "No webhook yet" in text
    assert "Allowed hosts: hooks.lab." in text
    settings.WEBHOOK_HOSTS = []
    text = client.get(reverse("project_webhooks", args=[project.pk])).content.decode()
    assert "This server sends to no host" in text
    assert "MARROWLOOP_WEBHOOK_HOSTS" in text
    assert (
        reverse("project_webhooks", args=[project.pk])
        in client.get(reverse("project_events", args=[project.pk])).content.decode()
    )


def test_the_secret_is_shown_once(client, project):
    response = make(client, project)
    webhook = Webhook.objects.get()
    assert webhook.secret in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    for page in (reverse("webhook", args=[webhook.pk]), reverse("project_webhooks", args=[project.pk])):
        text = client.get(page).content.decode()
        assert "https://hooks.lab/1" in text
        assert webhook.secret not in text
    renewed = post(client, "webhook_secret", webhook.pk)
    assert webhook.secret not in renewed.content.decode()
    webhook.refresh_from_db()
    assert webhook.secret in renewed.content.decode()
    assert "no-store" in renewed["Cache-Control"]


@pytest.mark.parametrize("wrong", [{"url": ""}, {"url": "https://elsewhere.lab/"}, {"events": []}, {"events": ["all"]}])
def test_what_is_wrong_is_said(client, project, wrong):
    response = make(client, project, **wrong)
    assert (response.status_code, "errorlist" in response.content.decode()) == (422, True)
    assert not Webhook.objects.exists()


def test_a_webhook_is_changed(client, project):
    webhook = factories.make_webhook(project, "https://hooks.lab/1")
    values = {"url": "https://hooks.lab/2", "events": ["run.failed"]}
    assert "is changed" in post(client, "webhook_change", webhook.pk, **values).content.decode()
    webhook.refresh_from_db()
    assert (webhook.url, webhook.events, webhook.active) == ("https://hooks.lab/2", ["run.failed"], False)
    for wrong in ({"url": "https://elsewhere.lab/"}, {"events": []}):
        response = post(client, "webhook_change", webhook.pk, **(values | wrong))
        assert response.status_code == 422
    webhook.refresh_from_db()
    assert webhook.url == "https://hooks.lab/2"


def test_a_test_is_sent_and_seen_and_sent_again(client, project, settings):
    with receiving() as receiver:
        settings.WEBHOOK_HOSTS = [receiver.host]
        webhook = factories.make_webhook(project, receiver.url)
        assert "on its way" in post(client, "webhook_test", webhook.pk).content.decode()
        delivery = Delivery.objects.get()
        receiver.answers.append(418)
        deliver(delivery_pk=delivery.pk)
        text = client.get(reverse("webhook", args=[webhook.pk])).content.decode()
        assert "418 status  418" in text
        assert str(delivery.uuid) in text
        assert "is sent again" in post(client, "delivery_again", delivery.pk).content.decode()
        deliver(delivery_pk=delivery.pk)
        assert "badge-delivered" in client.get(reverse("webhook", args=[webhook.pk])).content.decode()
        assert len(receiver.got) == 2


def test_one_that_is_off_sends_nothing(client, project):
    webhook = factories.make_webhook(project, active=False)
    delivery = factories.make_delivery(webhook)
    assert "switched off" in post(client, "webhook_test", webhook.pk).content.decode()
    assert "switched off" in post(client, "delivery_again", delivery.pk).content.decode()
    assert Delivery.objects.count() == 1


def test_a_webhook_is_deleted(client, project):
    webhook = factories.make_webhook(project)
    factories.make_delivery(webhook)
    assert "is deleted" in post(client, "webhook_delete", webhook.pk).content.decode()
    assert not Webhook.objects.exists()


def test_what_a_server_answers_is_text(client, project):
    webhook = factories.make_webhook(project)
    factories.make_delivery(webhook, answer="<script>alert(1)</script>", body='{"a": "</p><script>"}')
    assert "<script>alert" not in client.get(reverse("webhook", args=[webhook.pk])).content.decode()
