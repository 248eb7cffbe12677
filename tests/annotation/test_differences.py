"""Which box of one annotation is which of another."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.differences import Kind, differences


@dataclass(frozen=True)
class Box:
    pk: int
    x: float = 100.0
    y: float = 100.0
    width: float = 40.0
    height: float = 40.0
    cell_class_id: int = 1
    origin_id: int | None = None


def kinds(left, right):
    return [one.kind for one in differences(left, right)]


def pairs(left, right):
    found = differences(left, right)
    return [(one.left and one.left.pk, one.right and one.right.pk) for one in found]


def test_nothing_and_nothing_differ_in_nothing():
    assert differences([], []) == []


@pytest.mark.parametrize(
    ("right", "kind"),
    [
        (Box(2), Kind.SAME),
        (Box(2, x=100.005), Kind.SAME),
        (Box(2, x=100.5), Kind.MOVED),
        (Box(2, width=44), Kind.MOVED),
        (Box(2, cell_class_id=2), Kind.RECLASSIFIED),
        (Box(2, x=104, cell_class_id=2), Kind.RECLASSIFIED),
    ],
)
def test_a_box_in_its_place_is_the_same_cell(right, kind):
    assert kinds([Box(1)], [right]) == [kind]


def test_below_half_an_overlap_they_are_two_cells():
    assert kinds([Box(1)], [Box(2, x=113.4)]) == [Kind.ONLY_LEFT, Kind.ONLY_RIGHT]  # IoU 0.4981
    assert kinds([Box(1)], [Box(2, x=113.3)]) == [Kind.MOVED]  # IoU 0.5009


def test_boxes_of_one_pre_label_box_are_one_cell_wherever_they_lie():
    pre_label, first, second = Box(7), Box(8, x=160, origin_id=7), Box(9, x=10, y=10, origin_id=7)
    assert kinds([first], [second]) == [Kind.MOVED]
    assert kinds([pre_label], [second]) == [Kind.MOVED]
    assert kinds([second], [pre_label]) == [Kind.MOVED]


def test_origin_comes_before_overlap():
    """A reader dragged one pre-label box to the neighbour's place and drew the neighbour's anew."""
    left = [Box(1), Box(2, x=200)]
    right = [Box(3, x=200, origin_id=1), Box(4, x=100)]
    assert pairs(left, right) == [(1, 3), (2, None), (None, 4)]


def test_of_two_copies_the_one_that_overlaps_most_is_the_cell():
    assert pairs([Box(1)], [Box(2, x=300, origin_id=1), Box(3, x=101, origin_id=1)]) == [(1, 3), (None, 2)]


def test_of_equal_overlaps_the_same_class_decides():
    assert pairs([Box(1)], [Box(2, cell_class_id=2), Box(3, cell_class_id=1)]) == [(1, 3), (None, 2)]


places = st.floats(0, 400, allow_nan=False)
boxes = st.lists(st.tuples(places, places, st.integers(1, 3), st.none() | st.integers(1, 4)), max_size=8)


def built(rows, first):
    return [
        Box(first + i, x, y, cell_class_id=number, origin_id=origin) for i, (x, y, number, origin) in enumerate(rows)
    ]


@given(left=boxes, right=boxes)
def test_every_box_of_both_is_told_once(left, right):
    left, right = built(left, 100), built(right, 200)
    found = differences(left, right)
    assert Counter(one.left.pk for one in found if one.left) == Counter(box.pk for box in left)
    assert Counter(one.right.pk for one in found if one.right) == Counter(box.pk for box in right)


@given(rows=boxes)
def test_an_annotation_differs_from_a_copy_of_itself_in_nothing(rows):
    drawn = [(x, y, number, None) for x, y, number, _ in rows]
    assert set(kinds(built(drawn, 100), built(drawn, 200))) <= {Kind.SAME}
