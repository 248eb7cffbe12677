import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.geometry import as_boxes, boxes_of_tile, centre_inside, clip, iou_matrix

coordinate = st.floats(-2000, 2000)
side = st.floats(0.5, 1500)
box = st.tuples(coordinate, coordinate, side, side)
boxes = st.lists(box, min_size=1, max_size=6)


def test_an_empty_list_is_no_boxes():
    assert as_boxes([]).shape == (0, 4)


@pytest.mark.parametrize("wrong", [[1, 2, 3, 4], [[1, 2, 3]], [[[1, 2, 3, 4]]]])
def test_it_rejects_arrays_that_are_not_boxes(wrong):
    with pytest.raises(ValueError, match="shape"):
        as_boxes(wrong)


def test_clip_leaves_a_box_inside_as_it_is():
    assert clip(1.5, 2, 3, 4, 512, 512) == (1.5, 2, 3, 4)


def test_clip_cuts_every_side():
    assert clip(-5, -6, 600, 700, 512, 300) == (0, 0, 512, 300)


@pytest.mark.parametrize(
    "outside", [(-10, 5, 10, 5), (512, 5, 3, 3), (5, 512, 3, 3), (5, 5, 0, 3), (float("nan"), 5, 3, 3)]
)
def test_clip_gives_none_when_no_area_is_left(outside):
    assert clip(*outside, 512, 512) is None


@given(box)
def test_a_clipped_box_is_within_the_bounds(one):
    clipped = clip(*one, 512, 300)
    if clipped is not None:
        x, y, width, height = clipped
        assert x >= 0
        assert y >= 0
        assert width > 0
        assert height > 0
        assert x + width <= 512 + 1e-9
        assert y + height <= 300 + 1e-9


def test_iou_of_known_boxes():
    a = [[0, 0, 10, 10], [100, 100, 10, 10]]
    b = [[5, 0, 10, 10], [0, 0, 10, 5], [10, 0, 10, 10]]
    assert iou_matrix(a, b) == pytest.approx(np.array([[1 / 3, 0.5, 0], [0, 0, 0]]))


def test_boxes_without_area_have_no_overlap():
    assert iou_matrix([[5, 5, 0, 0]], [[5, 5, 0, 0], [0, 0, 10, 10]]).tolist() == [[0, 0]]


def test_iou_of_no_boxes_keeps_its_shape():
    assert iou_matrix([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert iou_matrix([[0, 0, 1, 1]], []).shape == (1, 0)


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(a, b):
    forward = iou_matrix(a, b)
    assert forward.dtype == np.float64
    assert np.array_equal(forward, iou_matrix(b, a).T)
    assert ((forward >= 0) & (forward <= 1)).all()


@given(boxes)
def test_a_box_has_an_iou_of_exactly_1_with_itself(a):
    assert (np.diag(iou_matrix(a, a)) == 1).all()


@given(box, st.integers(-500, 500), st.integers(-500, 500))
def test_iou_does_not_depend_on_the_origin(one, dx, dy):
    other = (one[0] + one[2] / 3, one[1], one[2], one[3])
    moved = [[x + dx, y + dy, width, height] for x, y, width, height in (one, other)]
    assert iou_matrix(moved[:1], moved[1:]) == pytest.approx(iou_matrix([one], [other]), abs=1e-6)


def test_the_left_and_top_lines_are_inside_and_the_right_and_bottom_ones_are_not():
    centred_on = [[0, 0, 0, 0], [10, 5, 0, 0], [5, 10, 0, 0], [9.99, 9.99, 0, 0], [-0.01, 5, 0, 0]]
    assert centre_inside(centred_on, 0, 0, 10, 10).tolist() == [True, False, False, True, False]


def test_boxes_of_a_tile_are_in_tile_px_and_clipped():
    level0 = [[1100, 2050, 20, 30], [990, 2000, 40, 20], [900, 2000, 40, 20], [1200, 2220, 100, 40]]
    indices, found = boxes_of_tile(level0, 1000, 2000, 256, 512)
    assert indices.tolist() == [0, 1, 3]
    assert found.tolist() == [[200, 100, 40, 60], [0, 0, 60, 40], [400, 440, 112, 72]]


def test_boxes_of_an_oblong_tile_are_judged_and_clipped_by_its_own_sides():
    level0 = [[300, 10, 40, 20], [90, 290, 40, 20], [10, 180, 40, 60], [390, 90, 40, 20]]
    indices, found = boxes_of_tile(level0, 0, 0, (400, 220), (200, 110))
    assert indices.tolist() == [0, 2]
    assert found.tolist() == [[150, 5, 20, 10], [5, 90, 20, 20]]


def test_a_tile_without_boxes_gives_empty_arrays():
    indices, found = boxes_of_tile([], 0, 0, 512, 512)
    assert indices.shape == (0,)
    assert found.shape == (0, 4)


@given(
    st.lists(st.tuples(st.floats(0, 1999), st.floats(0, 1999), st.floats(0, 400), st.floats(0, 400)), max_size=8),
    st.integers(100, 600),
)
def test_every_box_belongs_to_exactly_one_tile_of_an_edge_to_edge_grid(level0, extent):
    level0 = [(x - width / 2, y - height / 2, width, height) for x, y, width, height in level0]
    owners = np.zeros(len(level0), dtype=int)
    for y in range(-extent, 2001, extent):
        for x in range(-extent, 2001, extent):
            indices, found = boxes_of_tile(level0, x, y, extent, 512)
            owners[indices] += 1
            assert (found[:, :2] >= 0).all()
            assert (found[:, :2] + found[:, 2:] <= 512 + 1e-9).all()
    assert (owners == 1).all()


@given(st.floats(0, 90), st.floats(0, 90), st.floats(1, 110), st.floats(1, 110), st.integers(200, 1100))
def test_a_box_inside_a_tile_goes_to_tile_px_and_back(x, y, width, height, extent):
    level0 = [1000 + x, 3000 + y, width, height]
    _, found = boxes_of_tile([level0], 1000, 3000, extent, 512)
    assert found * (extent / 512) + [1000, 3000, 0, 0] == pytest.approx(np.array([level0]), abs=0.01)
