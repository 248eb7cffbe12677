"""Sessions and users of requests."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from annotation.models import User
from tests.factories import make_user

pytestmark = pytest.mark.django_db
PASSWORD = "long-enough-for-a-test"


@pytest.fixture
def signed_in(client: Client) -> Client:
    user = make_user("reader")
    user.set_password(PASSWORD)
    user.save()
    assert client.post("/sign-in/", {"username": "reader", "password": PASSWORD}).status_code == 302
    assert is_in(client)
    return client


def is_in(client: Client) -> bool:
    return client.get("/").status_code == 200


def test_a_session_ends_at_its_time(signed_in: Client) -> None:
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert not is_in(signed_in)


def test_a_session_that_is_deleted_is_over(signed_in: Client) -> None:
    Session.objects.all().delete()
    assert not is_in(signed_in)


def test_a_user_who_may_no_longer_come_in_is_out_at_once(signed_in: Client) -> None:
    User.objects.filter(username="reader").update(is_active=False)
    assert not is_in(signed_in)


def test_another_password_ends_every_session(signed_in: Client) -> None:
    user = User.objects.get(username="reader")
    user.set_password(PASSWORD + "!")
    user.save()
    assert not is_in(signed_in)


@pytest.mark.parametrize("key", ["", "short", "' OR 1=1 --", "x" * 200, "4611686018427387904"])
def test_a_made_up_session_lets_nobody_in(client: Client, key: str) -> None:
    make_user("reader")
    client.cookies["sessionid"] = key
    assert not is_in(client)
