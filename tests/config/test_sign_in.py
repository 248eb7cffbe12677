import pytest
from django.urls import reverse

from tests import factories

RIGHT, WRONG = "a right and long password", "a wrong password"


@pytest.fixture(autouse=True)
def _quick_hashes(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def reader(db):
    user = factories.make_user("reader")
    user.set_password(RIGHT)
    user.save()
    return user


def sign_in(client, name, password):
    return client.post(reverse("login"), {"username": name, "password": password})


def test_the_right_password_leads_home(client, reader):
    response = sign_in(client, "reader", RIGHT)
    assert response.status_code == 302
    assert response["Location"] == reverse("home")


def test_a_wrong_password_is_refused_with_a_text(client, reader):
    response = sign_in(client, "reader", WRONG)
    assert response.status_code == 200
    assert b"correct username and password" in response.content


def test_the_fifth_wrong_password_locks_the_pair_out(client, reader):
    statuses = [sign_in(client, "reader", WRONG).status_code for _ in range(5)]
    assert statuses[:4] == [200] * 4
    assert statuses[4] in (403, 429)


def test_the_right_password_is_refused_while_locked_and_the_page_says_why(client, reader):
    for _ in range(5):
        sign_in(client, "reader", WRONG)
    response = sign_in(client, "reader", RIGHT)
    assert response.status_code in (403, 429)
    page = response.content.decode()
    assert "Too many failed sign-ins" in page
    assert "15 minutes" in page
    assert "_auth_user_id" not in client.session


def test_another_user_of_the_same_machine_is_not_locked(client, reader):
    other = factories.make_user("other")
    other.set_password(RIGHT)
    other.save()
    for _ in range(6):
        sign_in(client, "reader", WRONG)
    assert sign_in(client, "other", RIGHT).status_code == 302


def test_the_same_user_elsewhere_is_not_locked(client, reader):
    for _ in range(6):
        sign_in(client, "reader", WRONG)
    response = client.post(reverse("login"), {"username": "reader", "password": RIGHT}, REMOTE_ADDR="198.51.100.7")
    assert response.status_code == 302


def test_four_wrong_passwords_and_a_right_one_start_the_count_anew(client, reader):
    for _ in range(4):
        sign_in(client, "reader", WRONG)
    assert sign_in(client, "reader", RIGHT).status_code == 302
    client.logout()
    assert sign_in(client, "reader", WRONG).status_code == 200


def test_signing_in_never_leads_to_another_host(client, reader):
    response = client.post(
        reverse("login") + "?next=https://elsewhere.example/",
        {"username": "reader", "password": RIGHT, "next": "https://elsewhere.example/"},
    )
    assert response["Location"] == reverse("home")


def test_signing_out_ends_the_session(client, reader):
    client.force_login(reader)
    client.post(reverse("logout"))
    assert client.get(reverse("home")).status_code == 302
