"""Queries whose SQL is written once."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from annotation.models import Box, Membership, Role, Task, Tile
from annotation.prepared import Prepared, PreparedUpdate, insert_rows
from tests.factories import make_batch, make_project, make_tile, make_truth, make_user

pytestmark = pytest.mark.django_db


def members() -> Prepared:
    return Prepared(
        lambda project, user: Membership.objects.filter(project=project).exclude(user=user).values_list("user", "role")
    )


def test_it_answers_for_every_key_like_the_queryset() -> None:
    lead, reader = make_user("lead"), make_user("reader")
    first, second = make_project(lead=lead), make_project(lead=reader)
    Membership.objects.create(project=first, user=reader, role=Role.ANNOTATOR)
    query = members()
    assert query.rows(first.pk, reader.pk) == [(lead.pk, "lead")]
    assert query.rows(first.pk, lead.pk) == [(reader.pk, "annotator")]
    assert query.rows(second.pk, lead.pk) == [(reader.pk, "lead")]
    assert query.first(second.pk, lead.pk) == (reader.pk, "lead")
    assert query.first(second.pk, reader.pk) is None


def test_its_sql_is_that_of_the_queryset(django_assert_num_queries: type[CaptureQueriesContext]) -> None:
    project = make_project()
    query = members()
    with django_assert_num_queries(3) as asked:  # type: ignore[operator]
        query.rows(project.pk, 7)
        query.rows(8, 9)
        list(Membership.objects.filter(project=8).exclude(user=9).values_list("user", "role"))
    first, second, plain = (one["sql"] for one in asked.captured_queries)
    assert first != second == plain


def test_a_key_that_is_no_parameter_is_refused() -> None:
    query = Prepared(lambda project, user: Membership.objects.filter(project=project).values_list("role"))
    with pytest.raises(ValueError, match="not a parameter"):
        query.rows(1, 2)


def test_an_object_comes_with_all_that_stands_beside_it(django_assert_num_queries: type[CaptureQueriesContext]) -> None:
    query = Prepared(lambda tile: Tile.objects.select_related("slide__patient", "truth__author").filter(pk=tile))
    project = make_project()
    bare, known = make_tile(project), make_tile(project)
    truth = make_truth(known)
    assert query.get(bare.pk).truth is None
    with django_assert_num_queries(1):  # type: ignore[operator]
        found = query.get(known.pk)
        facts = (found.slide.patient.code, found.truth.author.name, found.truth.effort)
    plain = Tile.objects.get(pk=known.pk)
    assert facts == (plain.slide.patient.code, truth.author.name, truth.effort)
    for name in (field.attname for field in Tile._meta.concrete_fields):
        assert getattr(found, name) == getattr(plain, name), name
    found.extent += 1
    found.save()  # it is a row of the table, not a new one
    assert Tile.objects.get(pk=known.pk).extent == plain.extent + 1


def test_an_object_that_is_not_there() -> None:
    query = Prepared(lambda tile: Tile.objects.filter(pk=tile))
    assert query.get(make_tile().pk + 1) is None
    for number in (2**62, 2**63, 10**30):  # an address may hold any
        assert query.get(number) is None


def test_keys_of_text() -> None:
    query = Prepared(lambda name, project: Membership.objects.filter(user__username=name, project=project))
    lead, other = make_user("lead"), make_user("o'ther")
    project = make_project(lead=lead)
    Membership.objects.create(project=project, user=other, role=Role.ANNOTATOR)
    assert query.get("lead", project.pk).user_id == lead.pk
    assert query.get("o'ther", project.pk).role == Role.ANNOTATOR
    assert query.get("' OR 1=1 --", project.pk) is None


def test_rows_are_changed_by_keys_and_times() -> None:
    def build(task: int, reader: int, until: datetime) -> Any:
        found = Task.objects.filter(pk=task, reader=None)
        return found, {"reader": reader, "leased_until": until, "revision": F("revision") + 1, "skip_reason": ""}

    update = PreparedUpdate(build)
    reader = make_user("reader")
    first, second, *_ = make_batch(make_project()).tasks.all()
    until = datetime(2026, 3, 28, 2, 30, 1, 5, tzinfo=ZoneInfo("Europe/Paris"))
    assert update.run(first.pk, reader.pk, until) == 1
    assert update.run(first.pk, reader.pk, until) == 0  # it has a reader now
    assert update.run(10**9, reader.pk, until) == 0
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.reader, first.leased_until, first.revision) == (reader, until, 1)
    assert (second.reader, second.leased_until, second.revision) == (None, None, 0)


def test_rows_are_stored_as_they_are() -> None:
    project = make_project()
    annotation = make_truth(make_tile(project))
    cell_class = project.taxonomy.classes.first()
    origin = make_truth(make_tile(project), (0, 1, 2, 3, 4)).boxes.get()
    columns = ("annotation_id", "cell_class_id", "x", "y", "width", "height", "origin_id", "change")
    rows = [
        (annotation.pk, cell_class.pk, 0.1, 1e-300, 30.5, 40, None, "added"),
        (annotation.pk, cell_class.pk, 5, 6, 7, 8, origin.pk, "kept"),
    ]
    insert_rows(Box, columns, rows)
    stored = annotation.boxes.values_list(*columns, "score", "class_scores")
    assert list(stored) == [(*row, None, None) for row in rows]
    insert_rows(Box, columns, [])
    assert annotation.boxes.count() == 2


def test_a_row_that_breaks_a_rule_is_refused_with_all_others() -> None:
    annotation = make_truth(make_tile())
    cell_class = annotation.tile.project.taxonomy.classes.first()
    columns = ("annotation_id", "cell_class_id", "x", "y", "width", "height", "change")
    good, bad = [(annotation.pk, cell_class.pk, 0, 0, width, 1, "added") for width in (1, 0)]
    with pytest.raises(IntegrityError), transaction.atomic():
        insert_rows(Box, columns, [good, bad])
    assert not annotation.boxes.exists()
