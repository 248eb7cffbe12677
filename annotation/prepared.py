"""What every tile waits for, asked of the database without detours: of a short query, Django's way from a queryset to
SQL takes longer than the database's answer, and of thirty small rows, making objects of them longer than storing them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from inspect import signature
from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet

MARK = 2**62  # the first of the numbers that stand for keys while the SQL is written: no row has such a key


class Prepared:
    """A query by keys.

    build: makes a `values_list` queryset from as many keys as it has arguments. It may only compare with them: the SQL
    is written for keys that stand for all others, so neither None nor a list can be one. Rows come as the database
    gives them: columns of numbers and text only.
    """

    def __init__(self, build: Callable[..., "QuerySet[Any, Any]"]) -> None:
        self._build = build

    @cached_property
    def _written(self) -> tuple[str, list[Any]]:
        marks = [MARK + place for place in range(len(signature(self._build).parameters))]
        sql, values = self._build(*marks).query.sql_with_params()
        if not set(marks) <= set(values):
            raise ValueError("A key of a prepared query is not a parameter of its SQL.")
        return sql, list(values)

    def rows(self, *keys: int) -> list[tuple[Any, ...]]:
        sql, values = self._written
        given = [keys[one - MARK] if isinstance(one, int) and one >= MARK else one for one in values]
        with connection.cursor() as cursor:
            cursor.execute(sql, given)
            found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def first(self, *keys: int) -> tuple[Any, ...] | None:
        """The first row, of a query that has a LIMIT or few rows; None if there is none."""
        rows = self.rows(*keys)
        return rows[0] if rows else None


def insert_rows(model: type[Model], columns: tuple[str, ...], rows: Iterable[Sequence[Any]]) -> None:
    """Store rows of values as the database takes them; columns that are not named are NULL. Raises IntegrityError.

    columns: names in the database. The rows' keys are not returned.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # a list for each column, so that the SQL is one for any number of rows
            given = [_alike(column) for column in zip(*rows, strict=True)]
            if given:
                cursor.execute(_insert_sql(model, columns), given)
        else:
            cursor.executemany(_insert_sql(model, columns), rows)  # type: ignore[arg-type]  # an iterator will do


def _alike(column: Sequence[Any]) -> list[Any]:
    """psycopg takes no list in which 1 stands beside 0.5."""
    if any(isinstance(value, float) for value in column):
        return [None if value is None else float(value) for value in column]
    return list(column)


@cache
def _insert_sql(model: type[Model], columns: tuple[str, ...]) -> str:
    fields = {field.column: field for field in model._meta.concrete_fields}
    quote = connection.ops.quote_name
    into = f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(map(quote, columns))})"
    if connection.vendor == "postgresql":
        lists = ", ".join(f"%s::{fields[column].db_type(connection)}[]" for column in columns)
        return f"{into} SELECT * FROM UNNEST({lists})"  # noqa: S608  names of our models, no values
    return f"{into} VALUES ({', '.join(['%s'] * len(columns))})"
