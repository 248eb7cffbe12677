"""What every tile waits for, asked of the database without detours: of a short query, Django's way from a queryset to
SQL takes longer than the database's answer, and of thirty small rows, making objects of them longer than storing them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from inspect import signature
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Model
from django.db.models.query import RelatedPopulator, get_related_populators
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.subqueries import UpdateQuery

MARK = 2**30  # the first of the numbers that stand for keys while the SQL is written: no query has such a constant
KEYS = 2**63  # more than a column of keys can hold
YEAR = 9000  # the first of those that stand for times
Key = int | str | datetime


class _Statement:
    """SQL that is written with marks in the place of its keys, once, and then sent with keys for the marks."""

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def _compiler(self, marks: Sequence[Key]) -> SQLCompiler:
        raise NotImplementedError

    @cached_property
    def _written(self) -> tuple[str, list[Any], SQLCompiler]:
        keys = signature(self._build).parameters.values()
        marks = [_mark(place, is_time=one.annotation is datetime) for place, one in enumerate(keys)]
        compiler = self._compiler(marks)
        sql, values = compiler.as_sql()
        places = {sent: place for place, mark in enumerate(marks) for sent in (_sent(mark), str(mark))}
        if not {places[one] for one in values if one in places} == set(places.values()):
            raise ValueError("A key of a prepared query is not a parameter of its SQL.")
        return sql, [_Place(places[one]) if one in places else one for one in values], compiler

    def _given(self, keys: Sequence[Key]) -> list[Any]:
        return [_sent(keys[one]) if isinstance(one, _Place) else one for one in self._written[1]]


class _Place(int):
    """A place among the keys, in a list of a statement's values."""


def _mark(place: int, *, is_time: bool) -> Key:
    return datetime(YEAR + place, 1, 1, tzinfo=UTC) if is_time else MARK + place


def _sent(key: Key) -> Any:
    """As the database takes it."""
    return connection.ops.adapt_datetimefield_value(key) if isinstance(key, datetime) else key


class PreparedUpdate(_Statement):
    """An UPDATE by keys.

    build: makes a queryset, and the changes of the rows that it finds, from as many keys as it has arguments; those
    annotated as datetime are times.
    """

    def _compiler(self, marks: Sequence[Key]) -> SQLCompiler:
        rows, changes = self._build(*marks)
        query = rows.query.chain(UpdateQuery)
        query.add_update_values(changes)
        compiler: SQLCompiler = query.get_compiler(DEFAULT_DB_ALIAS)
        return compiler

    def run(self, *keys: Key) -> int:
        """How many rows it changed. Raises IntegrityError."""
        with connection.cursor() as cursor:
            cursor.execute(self._written[0], self._given(keys))
            changed: int = cursor.rowcount
        return changed


class Prepared(_Statement):
    """A query by keys, numbers or texts.

    build: makes a queryset from as many keys as it has arguments. It may only compare with them: the SQL is written for
    keys that stand for all others, so neither None nor a list can be one. A number that no key can be finds nothing.
    """

    def _compiler(self, marks: Sequence[Key]) -> SQLCompiler:
        compiler: SQLCompiler = self._build(*marks).query.get_compiler(DEFAULT_DB_ALIAS)
        return compiler

    def rows(self, *keys: int | str) -> list[tuple[Any, ...]]:
        """Of a `values_list` queryset, as the database gives them: columns of numbers and text only."""
        if any(isinstance(key, int) and key >= KEYS for key in keys):  # an address may hold any number
            return []
        with connection.cursor() as cursor:
            cursor.execute(self._written[0], self._given(keys))
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
