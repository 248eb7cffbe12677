"""What every tile waits for, asked of the database without detours: of a short query, Django's way from a queryset to
SQL takes longer than the database's answer, and of thirty small rows, making objects of them longer than storing them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Model, QuerySet
from django.db.models.query import RelatedPopulator, get_related_populators
from django.db.models.sql.compiler import SQLCompiler

MARK = 2**62  # the first of the numbers that stand for keys while the SQL is written: no row has such a key


class Prepared:
    """A query by keys, numbers or texts.

    build: makes a queryset from as many keys as it has arguments. It may only compare with them: the SQL is written for
    keys that stand for all others, so neither None nor a list can be one. A number that no key can be finds nothing.
    """

    def __init__(self, build: Callable[..., "QuerySet[Any, Any]"]) -> None:
        self._build = build

    @cached_property
    def _written(self) -> tuple[str, list[Any], SQLCompiler]:
        marks = [MARK + place for place in range(len(signature(self._build).parameters))]
        compiler = self._build(*marks).query.get_compiler(DEFAULT_DB_ALIAS)
        sql, values = compiler.as_sql()
        places = {as_sent: mark - MARK for mark in marks for as_sent in (mark, str(mark))}
        if not {places[one] for one in values if one in places} == set(places.values()):
            raise ValueError("A key of a prepared query is not a parameter of its SQL.")
        return sql, [_Key(places[one]) if one in places else one for one in values], compiler

    def rows(self, *keys: int | str) -> list[tuple[Any, ...]]:
        """Of a `values_list` queryset, as the database gives them: columns of numbers and text only."""
        if any(isinstance(key, int) and key >= MARK for key in keys):  # an address may hold any number
            return []
        sql, values, _ = self._written
        given = [keys[one] if isinstance(one, _Key) else one for one in values]
        with connection.cursor() as cursor:
            cursor.execute(sql, given)
            found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def first(self, *keys: int | str) -> tuple[Any, ...] | None:
        """The first row, of a query that has a LIMIT or few rows; None if there is none."""
        rows = self.rows(*keys)
        return rows[0] if rows else None

    @cached_property
    def _making(self) -> "_Making":
        """How the columns of a queryset without `values_list` become an object."""
        compiler = self._written[2]
        columns, info = compiler.select, compiler.klass_info
        own = info["select_fields"]
        return _Making(
            model=info["model"],
            names=[columns[place][0].target.attname for place in own],
            places=slice(own[0], own[-1] + 1),
            converters=compiler.get_converters([column for column, *_ in columns]),
            beside=get_related_populators(info, columns, DEFAULT_DB_ALIAS),  # type: ignore[call-arg]  # the stubs are ahead
        )

    def get(self, *keys: int | str) -> Any:
        """The object that a queryset without `values_list` finds, with what it selects beside it; None if there is
        none.
        """
        found = self.first(*keys)
        return None if found is None else self._making.of(list(found))


class _Key(int):
    """A place among the keys, in a list of a query's values."""


@dataclass(frozen=True)
class _Making:
    """The object of a row, as Django's own ModelIterable makes it."""

    model: type[Model]
    names: list[str]
    places: slice
    converters: Mapping[int, tuple[Sequence[Callable[..., Any]], Any]]
    beside: Sequence[RelatedPopulator]

    def of(self, row: list[Any]) -> Model:
        for place, (functions, expression) in self.converters.items():
            for convert in functions:
                row[place] = convert(row[place], expression, connection)
        made = self.model.from_db(DEFAULT_DB_ALIAS, self.names, row[self.places])
        for populator in self.beside:
            populator.populate(row, made)
        return made


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
