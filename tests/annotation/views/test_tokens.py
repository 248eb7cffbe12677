from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from annotation.models import ApiToken
from annotation.services.tokens import recognise_token
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def user(client):
    user = factories.make_user("ann")
    client.force_login(user)
    return user


def make(client, **data):
    return client.post(reverse("token_create"), {"name": "notebook", "scope": "read", "expires_on": ""} | data)


def test_a_token_is_shown_once(client, user):
    response = make(client)
    secret = response.context["secret"]
    assert recognise_token(secret).user == user
    assert secret in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    page = client.get(reverse("tokens")).content.decode()
    assert "notebook" in page
    assert secret not in page


@pytest.mark.parametrize("wrong", [{"name": ""}, {"scope": "everything"}, {"expires_on": "soon"}])
def test_what_is_wrong_is_said(client, user, wrong):
    assert make(client, **wrong).status_code == 422
    assert not ApiToken.objects.exists()


def test_a_last_day_that_has_passed_is_refused(client, user):
    yesterday = timezone.localdate() - timedelta(days=1)
    response = make(client, expires_on=yesterday.isoformat())
    assert response.status_code == 422
    assert "has passed" in response.content.decode()


def test_revoke_works(client, user):
    secret = make(client).context["secret"]
    response = client.post(reverse("token_revoke", args=[ApiToken.objects.get().pk]), follow=True)
    assert "works no longer" in response.content.decode()
    assert recognise_token(secret) is None
    again = client.post(reverse("token_revoke", args=[ApiToken.objects.get().pk]))
    assert again.status_code == 302


def test_the_tokens_of_others_are_not_there(client, user):
    factories.make_token(factories.make_user("other"))
    assert ApiToken.objects.get().beginning not in client.get(reverse("tokens")).content.decode()
    assert client.post(reverse("token_revoke", args=[ApiToken.objects.get().pk])).status_code == 404
    assert ApiToken.objects.get().revoked_at is None


def test_every_page_links_to_them(client, user):
    assert f'href="{reverse("tokens")}"' in client.get(reverse("home")).content.decode()
