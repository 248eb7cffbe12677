import threading

import pytest
from django.db import connection

from annotation.models import User
from annotation.services.preferences import InvalidPreference, change_editor_preferences, editor_preferences
from tests import factories

pytestmark = pytest.mark.django_db

DEFAULTS = {"brightness": 0, "contrast": 0, "gamma": 1, "saturation": 1, "threshold": 0, "labels": True}


def stored(user):
    return User.objects.get(pk=user.pk).preferences


def test_they_are_complete_before_anything_was_set():
    assert editor_preferences(factories.make_user()) == DEFAULTS


def test_a_change_leaves_the_others_as_they_are():
    user = factories.make_user()
    change_editor_preferences(user=user, changes={"gamma": 1.5, "labels": False})
    change_editor_preferences(user=user, changes={"gamma": 2})
    user.refresh_from_db()
    assert stored(user) == {"editor": {"gamma": 2, "labels": False}}
    assert editor_preferences(user) == DEFAULTS | {"gamma": 2, "labels": False}


def test_what_else_is_kept_with_the_user_stays():
    user = factories.make_user(preferences={"pages": {"dense": True}})
    change_editor_preferences(user=user, changes={"contrast": -1})
    assert stored(user) == {"pages": {"dense": True}, "editor": {"contrast": -1}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("brightness", -1),
        ("brightness", 1),
        ("contrast", 0.5),
        ("gamma", 0.2),
        ("gamma", 5),
        ("saturation", 3),
        ("threshold", 1),
        ("labels", False),
    ],
)
def test_a_value_at_the_end_of_its_range_is_taken(field, value):
    user = factories.make_user()
    change_editor_preferences(user=user, changes={field: value})
    assert stored(user) == {"editor": {field: value}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("brightness", -1.01),
        ("contrast", 1.01),
        ("gamma", 0.19),
        ("gamma", 10**400),
        ("gamma", float("nan")),
        ("saturation", float("inf")),
        ("saturation", "1"),
        ("threshold", True),
        ("threshold", None),
        ("threshold", [0.5]),
        ("labels", 1),
        ("labels", "true"),
        ("zoom", 1),
        ("", 1),
    ],
)
def test_one_wrong_value_stores_nothing_and_is_named(field, value):
    user = factories.make_user()
    with pytest.raises(InvalidPreference) as refused:
        change_editor_preferences(user=user, changes={"contrast": 0.5} | {field: value})
    assert refused.value.field == field
    assert stored(user) == {}


@pytest.mark.django_db(transaction=True)
def test_two_settings_that_arrive_at_once_are_both_kept():
    user = factories.make_user()
    start, failures = threading.Barrier(2), []

    def change(**changes):
        start.wait()
        try:
            change_editor_preferences(user=user, changes=changes)
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=change, kwargs=one) for one in ({"gamma": 2}, {"contrast": 0.5})]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stored(user) == {"editor": {"gamma": 2, "contrast": 0.5}}
