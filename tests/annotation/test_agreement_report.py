"""What a batch tells of its readers."""

import csv
import io

import pytest

from annotation.agreement import Estimate
from annotation.agreement_report import as_csv, report_of
from annotation.models import Role, TaskKind
from annotation.services.batches import claim_next
from annotation.services.policies import ReadingPolicy
from tests import factories

pytestmark = pytest.mark.django_db

HERE, FAR = (0, 10, 10, 40, 40), (1, 300, 300, 40, 40)


@pytest.fixture
def project():
    return factories.make_project()


def make_batch(project, tiles, **fields):
    return factories.make_batch(project, factories.make_slide(project, tiles=tiles).tiles.all(), **fields)


def test_three_readers_are_three_pairs_and_one_kappa(project):
    batch = make_batch(project, 2, policy=ReadingPolicy("independent", readers=3))
    for name, boxes in (("a", (HERE, FAR)), ("b", (HERE, FAR)), ("c", (HERE,))):
        reader = factories.make_member(project, name=name)
        for _ in range(2):
            factories.submit_task(claim_next(batch=batch, reader=reader), reader, *boxes)
    report = report_of(batch)
    assert [(pair.first, pair.second, pair.tiles, pair.agreement.both) for pair in report.readers] == [
        ("a", "b", 2, 4),
        ("a", "c", 2, 2),
        ("b", "c", 2, 2),
    ]
    assert report.readers[1].agreement.only_first == 2
    assert (report.fleiss, report.fleiss_cells) == (Estimate(None), 2)  # all three found only cells of one class
    assert [(row.cell_class.code, [one.value for one in row.shares]) for row in report.classes] == [
        ("NEU", [1.0] * 3),
        ("ERY", [1.0, None, None]),
    ]
    assert [(one.first, one.second, one.cells) for one in report.different] == [("a", "c", 1.0)] * 2


def test_the_csv_has_each_class_and_all_readers_together(project):
    batch = make_batch(project, 3, policy=ReadingPolicy("independent", readers=3))
    other = (1, *HERE[1:])
    for name, first in (("a", HERE), ("b", HERE), ("c", other)):
        reader = factories.make_member(project, name=name)
        for boxes in ((first, FAR), (HERE, FAR), (HERE,)):
            factories.submit_task(claim_next(batch=batch, reader=reader), reader, *boxes)
    report = report_of(batch)
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [(row["first"], row["second"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c"), ("all readers", "")]
    # a and b always agree; a and c on two of three neutrophils, which are 5 of both's 5 boxes but one
    assert [row["same neutrophil"] for row in rows] == ["1.0", "0.8", "0.8", ""]
    assert float(rows[1]["same neutrophil_low"]) <= 0.8 <= float(rows[1]["same neutrophil_high"])
    # 5 cells; per cell 1 but for one of 1/3: 13/15. By chance: 8 of 15 neutrophils and 7 of 15 erythroblasts.
    assert float(rows[3]["fleiss_kappa"]) == pytest.approx((13 / 15 - 113 / 225) / (1 - 113 / 225), abs=1e-4)
    assert (rows[3]["tiles"], rows[3]["both"]) == ("3", "5")


def test_two_readers_of_one_name_stay_two(project):
    batch = make_batch(project, 1, policy=ReadingPolicy("independent", readers=3))
    for username in ("first", "second", "third"):
        reader = factories.make_member(project, name=username)
        reader.first_name, reader.last_name = ("Same", "Name") if username != "third" else ("Other", "Name")
        reader.save()
        factories.submit_task(claim_next(batch=batch, reader=reader), reader, HERE)
    names = {name for pair in report_of(batch).readers for name in (pair.first, pair.second)}
    assert names == {"Same Name", "Same Name (second)", "Other Name"}


def test_only_the_newest_reading_counts(project):
    batch = make_batch(project, 1, policy=ReadingPolicy("independent", readers=2))
    first, second = (factories.make_member(project) for _ in range(2))
    task = claim_next(batch=batch, reader=first)
    factories.submit_task(task, first, FAR)
    factories.submit_task(claim_next(batch=batch, reader=second), second, HERE)
    factories.submit_task(task, first, HERE)
    [pair] = report_of(batch).readers
    assert (pair.agreement.both, pair.agreement.only_first, pair.agreement.only_second) == (1, 0, 0)


def test_each_reader_is_compared_with_the_reviews_of_their_tiles(project):
    batch = make_batch(project, 1, policy=ReadingPolicy("reviewed"))
    reader, reviewer = factories.make_member(project, name="reader"), factories.make_member(project, Role.REVIEWER)
    factories.submit_task(claim_next(batch=batch, reader=reader), reader, HERE)
    review = claim_next(batch=batch, reader=reviewer, kind=TaskKind.REVIEW)
    factories.submit_task(review, reviewer, HERE, FAR)
    report = report_of(batch)
    assert report.readers == []
    [pair] = report.reviews
    assert (pair.first, pair.second, pair.agreement.only_second) == ("reader", "review", 1)


def test_blind_audit_tiles_are_told_from_those_with_pre_labels(project):
    """The model misses FAR on every tile: who sees its boxes lets that pass, who does not draws the cell."""
    version = factories.make_version(project)
    batch = make_batch(project, 3)
    blind, audit, chosen = batch.tasks.all()
    batch.tasks.filter(pk=blind.pk).update(blind=True, audit=True)
    batch.tasks.filter(pk=audit.pk).update(audit=True)
    for task in (blind, audit, chosen):
        factories.make_pre_label(task, version, HERE)
    batch.tasks.filter(pk=blind.pk).update(pre_label=None)
    reader = factories.make_member(project)
    for task, boxes in zip(batch.tasks.all(), ((HERE, FAR), (HERE,), (HERE,)), strict=True):
        factories.submit_task(task, reader, *boxes)
    models = {pair.second: pair for pair in report_of(batch).models}
    assert list(models) == [
        "random audit, without pre-labels",
        "random audit, with pre-labels",
        "chosen tiles, with pre-labels",
    ]
    assert models["random audit, without pre-labels"].agreement.missed.value == 0.5
    assert models["random audit, with pre-labels"].agreement.missed.value == 0.0


def test_a_manual_batch_has_no_model_beside_it(project):
    batch = make_batch(project, 1)
    factories.submit_task(batch.tasks.get(), factories.make_member(project), HERE)
    report = report_of(batch)
    assert report.pairs == []
    assert len(as_csv(report).splitlines()) == 1


def test_no_name_is_a_formula(project):
    batch = make_batch(project, 1, policy=ReadingPolicy("independent", readers=2))
    for name in ("=1+1", "b"):
        reader = factories.make_member(project, name=name)
        factories.submit_task(claim_next(batch=batch, reader=reader), reader, HERE)
    assert as_csv(report_of(batch)).splitlines()[1].startswith("'=1+1,b,1,1,0,0,1.0,")
