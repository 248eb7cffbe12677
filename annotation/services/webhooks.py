"""Webhooks: registered by leads, told of a project's news. A message is a row here; the worker sends it (deliveries).

A message names what it is about by keys, names and addresses of the API: no patient, no box, no reason of a failure.
"""

import json
import secrets
from base64 import b64encode
from collections.abc import Collection
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

from celery import current_app
from django.conf import settings
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone

from annotation.models import Delivery, DeliveryState, Project, User, Webhook, WebhookEvent
from annotation.models.webhook import LONGEST_URL, TEST_EVENT
from annotation.services.addresses import address_of
from annotation.services.events import record

SECRET_PREFIX = "whsec_"  # noqa: S105  of the Standard Webhooks, as is the base64 after it
SECRET_BYTES = 32
MOST_WEBHOOKS = 20
PORTS = {"http": 80, "https": 443}


class WebhookRefused(ValueError):
    """An address or a choice of events that cannot be; the text says why."""


def check_address(url: str) -> SplitResult:
    """The parts of an address that the lab lets us send to. Raises WebhookRefused.

    Hosts are allowed by name in MARROWLOOP_WEBHOOK_HOSTS, none without it: whoever may register an address could
    otherwise make this server ask others inside the hospital's network. A name on the list is trusted, so that what it
    resolves to is not looked at.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise WebhookRefused(f"This is not an address: {error}.") from error
    if parts.scheme not in PORTS or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise WebhookRefused("An address begins with http:// or https://, names a host and has no spaces.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise WebhookRefused("An address holds no user, no password and no #.")
    shown = f"[{host}]" if ":" in host else host
    named = shown if port == PORTS[parts.scheme] else f"{shown}:{port}"
    if not {named, f"{shown}:{port}"} & {one.strip().lower() for one in settings.WEBHOOK_HOSTS}:
        raise WebhookRefused(f"{named} is not among the hosts that MARROWLOOP_WEBHOOK_HOSTS allows.")
    return parts


def _check(project: Project, url: str, events: Collection[str], *, besides: Webhook | None = None) -> list[str]:
    """The events in their order. Raises WebhookRefused."""
    check_address(url)
    if len(url) > LONGEST_URL:
        raise WebhookRefused("This address is too long.")
    if project.webhooks.filter(url=url).exclude(pk=besides.pk if besides else 0).exists():
        raise WebhookRefused("This address is registered already.")
    unknown = sorted(set(events) - set(WebhookEvent.values))
    if unknown or not events:
        known = ", ".join(WebhookEvent.values)
        raise WebhookRefused(f"{unknown[0]} is no event: {known}." if unknown else f"Choose an event: {known}.")
    return [one for one in WebhookEvent.values if one in events]


@transaction.atomic
def make_webhook(*, project: Project, url: str, events: Collection[str], user: User | None) -> Webhook:
    """Register an address. Raises WebhookRefused."""
    Project.objects.select_for_update().get(pk=project.pk)  # of two at once with the same address one is told
    chosen = _check(project, url, events)
    if project.webhooks.count() >= MOST_WEBHOOKS:
        raise WebhookRefused(f"A project has at most {MOST_WEBHOOKS} webhooks.")
    webhook = Webhook.objects.create(project=project, url=url, events=chosen, secret=_new_secret(), made_by=user)
    record(project=project, user=user, verb="made webhook", subject=webhook, events=chosen)
    return webhook


@transaction.atomic
def change_webhook(
    *,
    webhook: Webhook,
    url: str | None = None,
    events: Collection[str] | None = None,
    active: bool | None = None,
    user: User | None,
) -> None:
    """Change what is registered; what is None stays. While it is off nothing new is told, what waits goes on waiting.

    Raises WebhookRefused.
    """
    Project.objects.select_for_update().get(pk=webhook.project_id)
    webhook.refresh_from_db(fields=["url", "events", "active"])
    address = webhook.url if url is None else url
    chosen = _check(webhook.project, address, webhook.events if events is None else events, besides=webhook)
    webhook.url, webhook.events = address, chosen
    webhook.active = webhook.active if active is None else active
    webhook.save(update_fields=["url", "events", "active"])
    facts = {"events": chosen, "switched_on": webhook.active}
    record(project=webhook.project, user=user, verb="changed webhook", subject=webhook, **facts)


@transaction.atomic
def renew_secret(*, webhook: Webhook, user: User | None) -> str:
    """A new secret, which signs all that is sent from now on, also what waits; the old one is gone.

    A receiver that does not know it yet refuses, and is tried again (see deliveries), so that nothing is lost.
    """
    secret = _new_secret()
    Webhook.objects.filter(pk=webhook.pk).update(secret=secret)
    record(project=webhook.project, user=user, verb="renewed secret", subject=webhook)
    return secret


@transaction.atomic
def delete_webhook(*, webhook: Webhook, user: User | None) -> None:
    """Nothing is sent there any more, and what was sent is forgotten; the event log remembers the webhook."""
    record(project=webhook.project, user=user, verb="deleted webhook", subject=webhook)
    webhook.delete()


def _new_secret() -> str:
    return SECRET_PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


@transaction.atomic
def announce(*, project: Project, event: WebhookEvent, subject: str, **about: Any) -> None:
    """Tell every webhook that wants to know of the event. Called again about the same subject, it tells none twice."""
    for webhook in project.webhooks.filter(active=True):
        if event in webhook.events:
            _queue(webhook, event, subject, about)


@transaction.atomic
def send_test(*, webhook: Webhook) -> Delivery | None:
    """Queue a message of the event "test"; None if the webhook is off."""
    return _queue(webhook, TEST_EVENT, f"test {uuid4()}", {}) if webhook.active else None


@transaction.atomic
def send_again(*, delivery: Delivery) -> bool:
    """Send at once what was delivered, given up or waits, under the same id; False if the webhook is off."""
    if not delivery.webhook.active:
        return False
    changed = Delivery.objects.filter(pk=delivery.pk)
    changed.update(state=DeliveryState.WAITING, attempts=0, next_at=timezone.now())
    _send_on_commit(delivery.pk)
    return True


def about(row: models.Model, address: str) -> dict[str, Any]:
    """What a message says of a row: its key, its name and where the API has it."""
    return {"id": row.pk, "name": str(row), "url": address_of(reverse(address, args=[row.pk]))}


def _queue(webhook: Webhook, event: str, subject: str, data: dict[str, Any]) -> Delivery | None:
    """Write the message down; None if it was before. The form is that of the Standard Webhooks: type, time, data."""
    now = timezone.now()
    whole = {"project": about(webhook.project, "api_project"), **data}
    body = json.dumps({"type": event, "timestamp": now.isoformat(), "data": whole})
    delivery, new = Delivery.objects.get_or_create(
        webhook=webhook, event=event, subject=subject, defaults={"body": body, "next_at": now}
    )
    if not new:
        return None
    _send_on_commit(delivery.pk)
    return delivery


def _send_on_commit(delivery_pk: int) -> None:
    # Where the broker is away, nothing breaks: the worker looks for what waits.
    transaction.on_commit(
        lambda: current_app.send_task("webhooks.deliver", args=[delivery_pk], queue="short"), robust=True
    )
