from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation.models import ApiToken, Event, Scope
from annotation.services import tokens
from annotation.services.tokens import TooManyTokens, make_token, recognise_token, revoke_token
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def user():
    return factories.make_user("ann")


def test_a_token_is_recognised_and_is_nowhere_in_the_database(user):
    row, secret = make_token(user=user, name="notebook", scope=Scope.READ)
    assert recognise_token(secret) == row
    stored = " ".join(str(value) for value in ApiToken.objects.values().get().values())
    assert secret not in stored
    assert secret.startswith(row.beginning)
    assert len(secret) > 40


def test_no_two_tokens_are_the_same(user):
    made = {make_token(user=user, name="notebook", scope=Scope.READ)[1] for _ in range(5)}
    assert len(made) == 5


@pytest.mark.parametrize("wrong", ["", "marrow_", "x" * 5000, "\ud800", "é"])
def test_anything_else_is_not(user, wrong):
    _, secret = make_token(user=user, name="notebook", scope=Scope.READ)
    assert recognise_token(wrong) is None
    assert recognise_token(secret + wrong) is None or not wrong


def test_a_revoked_token_works_no_longer_and_is_revoked_once(user):
    row, secret = make_token(user=user, name="notebook", scope=Scope.LEAD)
    assert revoke_token(token=row, user=user)
    assert recognise_token(secret) is None
    assert not revoke_token(token=row, user=user)
    assert list(Event.objects.filter(user=user).order_by("pk").values_list("verb", flat=True)) == [
        "made token",
        "revoked token",
    ]


def test_a_token_works_on_its_last_day_and_not_after(user):
    today = timezone.localdate()
    row, secret = make_token(user=user, name="notebook", scope=Scope.READ, expires_on=today)
    assert recognise_token(secret) == row
    ApiToken.objects.update(expires_on=today - timedelta(days=1))
    assert recognise_token(secret) is None


def test_a_user_who_was_switched_off_has_no_token_that_works(user):
    _, secret = make_token(user=user, name="notebook", scope=Scope.READ)
    user.is_active = False
    user.save()
    assert recognise_token(secret) is None


def test_the_day_of_its_last_use_is_written_once_a_day(user):
    row, secret = make_token(user=user, name="notebook", scope=Scope.READ)
    assert row.last_used_on is None
    recognise_token(secret)
    assert ApiToken.objects.get().last_used_on == timezone.localdate()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        recognise_token(secret)
    assert len(queries) == 1


def test_a_user_has_so_many_tokens_and_no_more(user, monkeypatch):
    monkeypatch.setattr(tokens, "MOST_TOKENS", 2)
    rows = [make_token(user=user, name="notebook", scope=Scope.READ)[0] for _ in range(2)]
    with pytest.raises(TooManyTokens):
        make_token(user=user, name="notebook", scope=Scope.READ)
    revoke_token(token=rows[0], user=user)
    make_token(user=user, name="notebook", scope=Scope.READ)
