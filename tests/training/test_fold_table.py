import csv
import io
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import factories
from training.fold_table import Spread, as_csv, fold_table

FIGURES = ("precision", "recall", "f1", "average_iou", "log_average_miss_rate", "ap50", "count_mse")


def row(name, ap50, count=4):
    return {"name": name, "truth_count": count, **dict.fromkeys(FIGURES, 0.5), "ap50": ap50, "ap50_95": None}


def fold(patient, map50, *rows):
    return {"patients": [patient], "metrics": {"map50": map50, "classes": list(rows)}}


FOLDS = [
    fold("P1", 0.4, row("neutrophil", 0.2), row("erythroblast", 0.6)),
    fold("P2", 0.8, row("neutrophil", 0.8), row("erythroblast", None, count=0)),
    {"patients": ["P3"], "tiles": [1]},
]


@pytest.fixture
def classes(db):
    return list(factories.make_taxonomy().classes.all())


def test_a_class_has_its_mean_and_deviation_over_the_folds_that_hold_it(classes):
    table = fold_table(classes, FOLDS)
    place = [column.key for column in table["columns"]].index("ap50")
    neutrophil, erythroblast = table["rows"]
    assert neutrophil["cells"][place].mean == pytest.approx(0.5)
    assert neutrophil["cells"][place].deviation == pytest.approx(stdev([0.2, 0.8]))
    assert erythroblast["cells"][place] == Spread(0.6, None, 1)
    assert (neutrophil["count"], erythroblast["count"], table["average"]["count"]) == (8, 4, 12)


def test_the_average_is_that_of_each_folds_classes(classes):
    table = fold_table(classes, FOLDS)
    place = [column.key for column in table["columns"]].index("ap50")
    assert table["average"]["cells"][place].mean == pytest.approx((0.4 + 0.8) / 2)
    assert table["map50"].mean == pytest.approx(0.6)
    assert table["map50"].deviation == pytest.approx(stdev([0.4, 0.8]))


def test_what_no_fold_can_say_is_none(classes):
    table = fold_table(classes, FOLDS)
    place = [column.key for column in table["columns"]].index("ap50_95")
    assert table["average"]["cells"][place] == Spread(None, None, 0)


def test_the_file_has_a_line_per_fold_and_class_then_mean_and_deviation(classes):
    lines = list(csv.DictReader(io.StringIO(as_csv(classes, FOLDS))))
    assert [(line["fold"], line["code"], line["class"], line["ap50"]) for line in lines] == [
        ("1", "NEU", "neutrophil", "0.2"),
        ("1", "ERY", "erythroblast", "0.6"),
        ("1", "", "Average", "0.4"),
        ("2", "NEU", "neutrophil", "0.8"),
        ("2", "ERY", "erythroblast", ""),
        ("2", "", "Average", "0.8"),
        ("mean", "NEU", "neutrophil", "0.5"),
        ("mean", "ERY", "erythroblast", "0.6"),
        ("mean", "", "Average", "0.6"),
        ("standard deviation", "NEU", "neutrophil", "0.4243"),
        ("standard deviation", "ERY", "erythroblast", ""),
        ("standard deviation", "", "Average", "0.2828"),
    ]
    assert lines[0]["patients"] == "P1"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_mean_lies_between_its_folds_and_equal_folds_do_not_deviate(values):
    spread = Spread.of(values)
    assert spread.mean is not None
    assert spread.deviation is not None
    assert min(values) - 1e-9 <= spread.mean <= max(values) + 1e-9
    assert Spread.of([values[0]] * len(values)).deviation == pytest.approx(0, abs=1e-9)
    assert Spread.of([*values, None]) == spread
