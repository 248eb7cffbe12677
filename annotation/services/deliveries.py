"""Sending what webhooks are told: signed, tried again with growing pauses for a day, then given up.

Signed as the Standard Webhooks say (github.com/standard-webhooks, version 1 of the scheme): HMAC-SHA256 over id, time
and body. At least once: a message is claimed by a conditional UPDATE that also sets when it is tried next, so that a
worker that dies on it loses nothing; the receiver knows a message that comes twice by its id.
"""

import hmac
import logging
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit, urlunsplit

from celery import current_app
from django.db import transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from annotation.models import Delivery, DeliveryState, NoticeKind, Role
from annotation.services.notices import notify
from annotation.services.webhooks import SECRET_PREFIX, WebhookRefused, check_address

logger = logging.getLogger(__name__)

# How long after each attempt the next one comes; there is one attempt more than there are pauses.
PAUSES = (
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=8),
    timedelta(hours=8),
)
MOST_ATTEMPTS = len(PAUSES) + 1
LAST_LOST = timedelta(minutes=1)  # after which the worker of a last attempt has died on it
STEP_SECONDS = 5.0  # for the connection, and for each part of the answer
WHOLE_SECONDS = 10.0  # for all of it; well below the shortest pause, so that no two attempts overlap
LONGEST_ANSWER = 300
AT_A_TIME = 200
KEPT = timedelta(days=90)  # of messages that are delivered or given up


@dataclass(frozen=True)
class Answer:
    """status: None if there was no answer; then `text` says why."""

    status: int | None
    text: str

    @property
    def is_taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def sweep_deliveries(*, now: datetime | None = None) -> None:
    """Hand what is due to the worker, one task each. Sent twice, it is claimed once."""
    due = Delivery.objects.filter(
        state=DeliveryState.WAITING, next_at__lte=now or timezone.now(), webhook__active=True
    ).order_by("next_at", "pk")
    for pk in due.values_list("pk", flat=True)[:AT_A_TIME]:
        current_app.send_task("webhooks.deliver", args=[pk], queue="short")


def forget_old_deliveries(*, now: datetime | None = None) -> int:
    """Delete the messages that are over for long; returns how many. What waits stays, also of a webhook that is off."""
    over = Delivery.objects.exclude(state=DeliveryState.WAITING)
    return over.filter(last_at__lt=(now or timezone.now()) - KEPT).delete()[0]


def deliver(*, delivery_pk: int, now: datetime | None = None) -> None:
    """Try once, if it is due and nobody else does."""
    now = now or timezone.now()
    due = Delivery.objects.filter(
        pk=delivery_pk, state=DeliveryState.WAITING, next_at__lte=now, webhook__active=True
    ).select_related("webhook__project")
    delivery = due.first()
    if delivery is None:
        return
    if delivery.attempts >= MOST_ATTEMPTS:  # the worker died on the last one
        _give_up(delivery)
        return
    pause = PAUSES[delivery.attempts] if delivery.attempts < len(PAUSES) else LAST_LOST
    claim = Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.WAITING, next_at=delivery.next_at)
    if not claim.update(attempts=F("attempts") + 1, next_at=now + pause, last_at=now):
        return
    delivery.refresh_from_db()
    _note(delivery, _send(delivery, now))


def _note(delivery: Delivery, answer: Answer) -> None:
    """Write down what came of an attempt."""
    said = {"status": answer.status, "answer": answer.text}
    mine = Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.WAITING)
    if answer.is_taken:
        mine.update(state=DeliveryState.DELIVERED, next_at=None, **said)
        return
    mine.filter(next_at=delivery.next_at).update(**said)
    if delivery.attempts >= MOST_ATTEMPTS:
        _give_up(delivery)


@transaction.atomic
def _give_up(delivery: Delivery) -> None:
    """Try no more, and tell the leads: once a day, not once for each message."""
    mine = Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.WAITING, next_at=delivery.next_at)
    if not mine.update(state=DeliveryState.GIVEN_UP, next_at=None):
        return
    webhook = delivery.webhook
    host = urlsplit(webhook.url).netloc
    logger.error("delivery %s to webhook %s given up", delivery.pk, webhook.pk)
    notify(
        project=webhook.project,
        role=Role.LEAD,
        kind=NoticeKind.WEBHOOK_FAILED,
        subject=f"webhook {webhook.pk}, {timezone.localdate().isoformat()}",
        text=f"The webhook at {host} did not take a message for a day: it is given up. It can be sent again.",
        path=reverse("webhook", args=[webhook.pk]),
    )


def _send(delivery: Delivery, now: datetime) -> Answer:
    body = delivery.body.encode()
    try:
        parts = check_address(delivery.webhook.url)  # what the lab allows may have changed
    except WebhookRefused as error:
        return Answer(None, str(error)[:LONGEST_ANSWER])
    headers = signed_headers(str(delivery.uuid), int(now.timestamp()), body, delivery.webhook.secret)
    return _post(parts, body, headers | {"Content-Type": "application/json", "User-Agent": "Marrowloop"})


def signed_headers(message: str, seconds: int, body: bytes, secret: str) -> dict[str, str]:
    """The three headers of the Standard Webhooks. seconds: since 1970."""
    key = b64decode(secret.removeprefix(SECRET_PREFIX))
    signature = hmac.digest(key, f"{message}.{seconds}.".encode() + body, "sha256")
    return {
        "webhook-id": message,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{b64encode(signature).decode()}",
    }


def _post(parts: SplitResult, body: bytes, headers: dict[str, str]) -> Answer:
    """Send it, and wait WHOLE_SECONDS at most.

    The standard library's client: it follows no redirect and asks no proxy of the environment, and lets us hang up on
    a server that sends a byte now and then for ever.
    """
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=STEP_SECONDS, context=context)
    else:
        connection = HTTPConnection(host, port, timeout=STEP_SECONDS)
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    over = threading.Event()
    with closing(connection):
        try:
            connection.connect()
            with _hung_up_after(connection.sock, over):
                connection.request("POST", target, body, headers)
                response = connection.getresponse()
                if over.is_set():
                    raise TimeoutError
                text = b""
                with suppress(OSError, HTTPException):  # the status is what counts
                    text = response.read(LONGEST_ANSWER)
                return Answer(response.status, _shown(response.status, text))
        except (OSError, HTTPException, ValueError) as error:
            late = over.is_set() or isinstance(error, TimeoutError)
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            why = "no answer in time" if late else reason
            return Answer(None, why[:LONGEST_ANSWER])


@contextmanager
def _hung_up_after(connection: socket.socket, over: threading.Event) -> Iterator[None]:
    """Within this block the connection is cut when WHOLE_SECONDS are over."""

    def cut() -> None:
        over.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(WHOLE_SECONDS, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shown(status: int, text: bytes) -> str:
    """The beginning of an answer, as much of it as can be shown."""
    if 300 <= status < 400:
        return "Redirects are not followed: register the address that it leads to."
    words = text.decode("utf-8", "replace")
    return "".join(one if one.isprintable() else " " for one in words)[:LONGEST_ANSWER].strip()
