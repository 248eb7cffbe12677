"""Messages on their way: to a real HTTP server, which takes them, refuses them, or is of no help."""

import subprocess
import threading
from base64 import b64decode
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from annotation.models import Delivery, DeliveryState, Notice, Role, Webhook
from annotation.services import deliveries
from annotation.services.deliveries import (
    KEPT,
    MOST_ATTEMPTS,
    PAUSES,
    WHOLE_SECONDS,
    deliver,
    forget_old_deliveries,
    signed_headers,
    sweep_deliveries,
)
from annotation.services.webhooks import renew_secret, send_again
from annotation.tasks import throw_away_uploads
from config.celery import app
from tests import factories
from tests.receiver import receiving

pytestmark = pytest.mark.django_db


@pytest.fixture
def receiver(settings):
    with receiving() as receiver:
        settings.WEBHOOK_HOSTS = [receiver.host]
        yield receiver


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def delivery(project, receiver):
    webhook = factories.make_webhook(project, receiver.url)
    return factories.make_delivery(webhook, body='{"type": "test", "data": {"name": "Zoë"}}')


def attempt(delivery, now=None):
    deliver(delivery_pk=delivery.pk, now=now)
    delivery.refresh_from_db()
    return delivery


def signature_by_openssl(headers, body, secret):
    """The same by code that is not ours."""
    key = b64decode(secret.removeprefix("whsec_")).hex()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key}", "-binary"]
    binary = subprocess.run(command, input=signed, capture_output=True, check=True).stdout
    return "v1," + subprocess.run(["base64"], input=binary, capture_output=True, check=True).stdout.decode().strip()


def test_the_signature_is_that_of_the_standard():
    # The example of the Standard Webhooks' reference implementation.
    headers = signed_headers(
        "msg_loFOjxBNrRLzqYUf",
        1731705121,
        b'{"event_type":"ping","data":{"success":true}}',
        "whsec_plJ3nmyCDGBKInavdOK15jsl",
    )
    assert headers["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_a_message_is_delivered_and_its_signature_holds(delivery, receiver):
    before = int(timezone.now().timestamp())
    attempt(delivery)
    assert (delivery.state, delivery.attempts, delivery.status, delivery.next_at) == ("delivered", 1, 204, None)
    [(headers, body)] = receiver.got
    assert body.decode() == delivery.body
    assert (headers["Content-Type"], headers["webhook-id"]) == ("application/json", str(delivery.uuid))
    assert before <= int(headers["webhook-timestamp"]) <= before + 60
    assert headers["webhook-signature"] == signature_by_openssl(headers, body, delivery.webhook.secret)
    assert receiver.paths == ["/hook?of=marrow"]
    attempt(delivery)
    assert len(receiver.got) == 1


def test_what_was_refused_is_sent_again_later_under_the_same_id(delivery, receiver):
    receiver.answers += [500, 503]
    now = timezone.now()
    attempt(delivery, now)
    assert (delivery.state, delivery.status, delivery.answer) == ("waiting", 500, "status  500")
    assert delivery.next_at == now + PAUSES[0]
    attempt(delivery, now + PAUSES[0] - timedelta(seconds=1))
    assert len(receiver.got) == 1
    attempt(delivery, now + PAUSES[0])
    attempt(delivery, delivery.next_at)
    assert (delivery.state, delivery.attempts, delivery.status) == ("delivered", 3, 204)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    stamps = {headers["webhook-timestamp"] for headers, _ in receiver.got}
    assert len(stamps) == 3
    for headers, body in receiver.got:
        assert headers["webhook-signature"] == signature_by_openssl(headers, body, delivery.webhook.secret)


def test_after_a_day_it_is_given_up_and_the_leads_are_told_once(project, delivery, receiver):
    lead = factories.make_member(project, Role.LEAD)
    factories.make_member(project, Role.REVIEWER)
    other = factories.make_delivery(delivery.webhook)
    receiver.answers += [500] * 2 * MOST_ATTEMPTS
    for one in (delivery, other):
        first = now = one.next_at
        while one.state == DeliveryState.WAITING:
            attempt(one, now)
            now = one.next_at or now
        assert (one.state, one.attempts, one.next_at) == ("given-up", MOST_ATTEMPTS, None)
        assert timedelta(hours=20) < now - first < timedelta(hours=28)
    assert len(receiver.got) == 2 * MOST_ATTEMPTS
    notice = Notice.objects.get()
    assert (notice.user, notice.kind, notice.path) == (lead, "webhook-failed", f"/webhooks/{delivery.webhook_id}/")
    assert receiver.host in notice.text
    attempt(delivery, timezone.now() + timedelta(days=30))
    assert len(receiver.got) == 2 * MOST_ATTEMPTS

    assert send_again(delivery=delivery)
    attempt(delivery)
    assert (delivery.state, delivery.attempts) == ("delivered", 1)


def test_a_redirect_is_not_followed(delivery, receiver):
    for status in (301, 302, 307, 308):
        receiver.answers.append(status)
        send_again(delivery=delivery)
        attempt(delivery)
        assert (delivery.state, delivery.status) == ("waiting", status)
        assert "not followed" in delivery.answer
    assert set(receiver.paths) == {"/hook?of=marrow"}


def test_a_host_that_is_no_longer_allowed_is_sent_nothing(delivery, receiver, settings):
    settings.WEBHOOK_HOSTS = []
    attempt(delivery)
    assert (delivery.state, delivery.status, receiver.got) == ("waiting", None, [])
    assert "MARROWLOOP_WEBHOOK_HOSTS" in delivery.answer


def test_a_new_secret_signs_what_waits(delivery, receiver):
    receiver.answers.append(401)
    attempt(delivery)
    old, new = delivery.webhook.secret, renew_secret(webhook=delivery.webhook, user=None)
    attempt(Delivery.objects.get(), delivery.next_at)
    (first, body), (second, _) = receiver.got
    assert first["webhook-signature"] == signature_by_openssl(first, body, old)
    assert second["webhook-signature"] == signature_by_openssl(second, body, new)
    assert second["webhook-signature"] != signature_by_openssl(second, body, old)


def test_nobody_listens(delivery, receiver, settings):
    settings.WEBHOOK_HOSTS = ["127.0.0.1:1"]
    Webhook.objects.update(url="http://127.0.0.1:1/")
    attempt(delivery)
    assert (delivery.state, delivery.status) == ("waiting", None)
    assert "refused" in delivery.answer


def test_a_server_that_speaks_no_tls_is_no_answer(delivery, receiver):
    Webhook.objects.update(url=receiver.url.replace("http:", "https:"))
    attempt(delivery)
    assert (delivery.state, delivery.status, receiver.got) == ("waiting", None, [])
    assert "SSL" in delivery.answer


def test_the_time_for_all_of_it_is_shorter_than_the_shortest_pause():
    assert timedelta(seconds=2 * WHOLE_SECONDS) < min(PAUSES)


def test_a_server_that_does_not_answer_is_left(delivery, receiver, monkeypatch):
    monkeypatch.setattr(deliveries, "STEP_SECONDS", 0.2)
    receiver.answers.append(lambda handler: receiver.over.wait())
    attempt(delivery)
    assert (delivery.state, delivery.status, delivery.answer) == ("waiting", None, "no answer in time")


def test_a_server_that_dribbles_for_ever_is_left(delivery, receiver, monkeypatch):
    monkeypatch.setattr(deliveries, "WHOLE_SECONDS", 0.5)

    def dribble(handler):
        try:
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-A: ")
            while not receiver.over.wait(0.05):
                handler.wfile.write(b"a")
        except OSError:  # hung up
            pass

    receiver.answers.append(dribble)
    attempt(delivery)
    assert (delivery.state, delivery.status, delivery.answer) == ("waiting", None, "no answer in time")


def test_a_long_answer_is_cut_and_what_cannot_be_shown_is_left_out(delivery, receiver):
    def much(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"\x00\xff" + b"x" * 100_000)

    receiver.answers.append(much)
    attempt(delivery)
    assert delivery.state == "delivered"
    assert set(delivery.answer) == {"�", "x"}
    assert len(delivery.answer) < 301


def test_what_is_no_http_is_no_answer(delivery, receiver):
    receiver.answers.append(lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"))
    attempt(delivery)
    assert (delivery.state, delivery.status) == ("waiting", None)


# ---- a worker that dies ----


class Killed(BaseException):
    pass


@pytest.fixture
def deadly(monkeypatch):
    """The worker dies after sending, before it has written down what came of it."""

    def die(*arguments):
        raise Killed

    def kill(delivery, now):
        with monkeypatch.context() as patched:
            patched.setattr(deliveries, "_note", die)
            with pytest.raises(Killed):
                deliver(delivery_pk=delivery.pk, now=now)
        delivery.refresh_from_db()

    return kill


def test_what_was_sent_by_a_worker_that_died_is_sent_again_under_the_same_id(delivery, receiver, deadly):
    now = timezone.now()
    deadly(delivery, now)
    assert (delivery.state, delivery.attempts, delivery.next_at) == ("waiting", 1, now + PAUSES[0])
    attempt(delivery, now + timedelta(seconds=1))  # the broker hands the task out again
    assert len(receiver.got) == 1
    attempt(delivery, delivery.next_at)
    assert (delivery.state, delivery.attempts) == ("delivered", 2)
    (first, _), (second, _) = receiver.got
    assert first["webhook-id"] == second["webhook-id"] == str(delivery.uuid)


def test_a_message_that_always_kills_its_worker_is_given_up(project, delivery, receiver, deadly):
    factories.make_member(project, Role.LEAD)
    for _ in range(MOST_ATTEMPTS):
        deadly(delivery, delivery.next_at)
    attempt(delivery, delivery.next_at)
    assert (delivery.state, delivery.attempts, len(receiver.got)) == ("given-up", MOST_ATTEMPTS, MOST_ATTEMPTS)
    assert Notice.objects.count() == 1


def test_what_is_due_is_handed_to_the_worker(delivery, receiver, monkeypatch):
    sent = []
    monkeypatch.setattr(app, "send_task", lambda name, args, queue: sent.append((name, args, queue)))
    off = factories.make_webhook(delivery.webhook.project, "http://127.0.0.1:2/", active=False)
    factories.make_delivery(off)
    factories.make_delivery(delivery.webhook, next_at=timezone.now() + timedelta(minutes=1))
    factories.make_delivery(delivery.webhook, state="delivered", next_at=None)
    sweep_deliveries()
    assert sent == [("webhooks.deliver", [delivery.pk], "short")]


def test_a_webhook_that_is_off_is_sent_nothing(delivery, receiver):
    Webhook.objects.update(active=False)
    attempt(delivery)
    assert (receiver.got, delivery.state) == ([], "waiting")
    Webhook.objects.update(active=True)
    attempt(delivery)
    assert delivery.state == "delivered"


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_one_sends(delivery, receiver, monkeypatch):
    looked = threading.Barrier(3)
    queryset = Delivery.objects.get_queryset().__class__
    update = queryset.update

    def together(rows, **values):
        if "attempts" in values:
            looked.wait(timeout=60)
        return update(rows, **values)

    monkeypatch.setattr(queryset, "update", together)

    def work():
        try:
            deliver(delivery_pk=delivery.pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.got) == 1


# Long ago


def test_messages_that_are_over_for_long_are_forgotten_and_what_waits_stays(project):
    now = timezone.now()
    webhook = factories.make_webhook(project, active=False)
    old, recent = {"last_at": now - KEPT - timedelta(days=1)}, {"last_at": now - KEPT + timedelta(days=1)}
    stays = [factories.make_delivery(webhook), factories.make_delivery(webhook, **old, attempts=1)]
    for state in (DeliveryState.DELIVERED, DeliveryState.GIVEN_UP):
        factories.make_delivery(webhook, state=state, next_at=None, **old)
        stays.append(factories.make_delivery(webhook, state=state, next_at=None, **recent))
    throw_away_uploads()
    assert set(Delivery.objects.all()) == set(stays)
    assert forget_old_deliveries(now=now + timedelta(days=2)) == 2
