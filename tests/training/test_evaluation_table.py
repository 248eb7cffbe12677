import csv
import io

import pytest

from tests import factories
from training.evaluation_table import COLUMNS, as_csv, evaluation_table

pytestmark = pytest.mark.django_db


@pytest.fixture
def version():
    return factories.make_version(factories.make_project())


def classes_of(version):
    return list(version.taxonomy.classes.all())


def cells(row):
    return {column.key: cell for column, cell in zip(COLUMNS, row["cells"], strict=True)}


def metrics_of(version, **changes):
    """Metrics whose first class has other figures than the second."""
    metrics = factories.make_metrics(version)
    metrics["classes"][0] |= changes
    return metrics


def test_each_class_has_a_row_and_the_last_one_is_their_average(version):
    table = evaluation_table(classes_of(version), metrics_of(version, ap50=0.9, ap50_95=0.4))
    assert [row["code"] for row in table["rows"]] == ["NEU", "ERY"]
    assert cells(table["rows"][0])["ap50"]["value"] == 0.9
    assert cells(table["average"])["ap50"]["value"] == pytest.approx(0.7)
    assert cells(table["average"])["ap50_95"]["value"] == 0.4  # the second class has none: an evaluation of before
    assert table["average"]["count"] == 8


def test_differences_say_which_way_is_better(version):
    mine = metrics_of(version, ap50=0.6, log_average_miss_rate=0.6, recall=None, f1=0.5002)
    table = evaluation_table(classes_of(version), mine, factories.make_metrics(version))
    row = cells(table["rows"][0])
    assert (row["ap50"]["difference"], row["ap50"]["verdict"]) == ("+0.100", "better")
    assert (row["log_average_miss_rate"]["difference"], row["log_average_miss_rate"]["verdict"]) == ("+0.100", "worse")
    assert (row["recall"]["difference"], row["recall"]["verdict"]) == ("", "")
    assert (row["f1"]["difference"], row["f1"]["verdict"]) == ("±0", "same")
    assert cells(table["average"])["ap50"]["difference"] == "+0.050"


def test_a_class_that_the_other_version_does_not_know_has_no_difference(version):
    other = factories.make_metrics(version)
    other["classes"] = other["classes"][1:]
    table = evaluation_table(classes_of(version), factories.make_metrics(version), other)
    assert {cell["difference"] for cell in table["rows"][0]["cells"]} == {""}


def test_the_csv_holds_every_row_and_leaves_out_what_cannot_be_said(version):
    table = evaluation_table(classes_of(version), metrics_of(version, recall=None, ap50=0.123456))
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [row["class"] for row in rows] == ["neutrophil", "erythroblast", "Average"]
    assert (rows[0]["code"], rows[0]["boxes"], rows[0]["recall"], rows[0]["ap50"]) == ("NEU", "4", "", "0.1235")
    assert rows[2]["recall"] == "0.5"
