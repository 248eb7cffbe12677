"""What happens to a connection that the database has ended while nobody used it."""

import psycopg
import pytest
from django.db import connection

from annotation.models import Project
from tests.factories import make_project


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_was_ended_is_made_anew() -> None:
    make_project()
    connection.health_check_enabled = True
    try:
        connection.health_check_done = False
        assert Project.objects.count() == 1
        before = connection.connection
        connection.health_check_done = False  # as at the next request
        assert Project.objects.count() == 1
        assert connection.connection is before
        if connection.vendor == "postgresql":
            _end(connection.connection)
        connection.health_check_done = False
        assert Project.objects.count() == 1
        assert (connection.connection is before) == (connection.vendor == "sqlite")
    finally:
        connection.health_check_enabled = False


def _end(ended: "psycopg.Connection[object]") -> None:
    """As a server that is started again does."""
    facts = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    with psycopg.connect(**{name: facts[name] for name in names if name in facts}, autocommit=True) as other:
        row = other.execute("SELECT pg_terminate_backend(%s, 10000)", [ended.info.backend_pid]).fetchone()
        assert row == (True,)
