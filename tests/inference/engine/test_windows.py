"""Windows over large images, joined again: against an ideal detector that sees what lies in its window."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.detector import Detections
from inference.engine.windows import (
    LARGEST_WHOLE,
    OVERLAP,
    SIDE,
    Window,
    detect_images,
    detect_in_windows,
    is_large,
    join_windows,
    windows_of,
)

sizes = st.integers(1, 4096)


def detections(*boxes, scores=None, class_ids=None):
    """Boxes (x, y, width, height) of class 0, with falling scores, in two classes."""
    values = np.array(scores if scores is not None else np.linspace(0.9, 0.5, len(boxes)), np.float32)
    numbers = np.array(class_ids if class_ids is not None else [0] * len(boxes), np.int64)
    vectors = np.zeros((len(boxes), 2), np.float32)
    vectors[np.arange(len(boxes)), numbers] = values
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), values, numbers, vectors)


class IdealDetector:
    """Reads cells from the picture, where red holds each cell's number. It reports the visible part of a cell, as a
    detector that knows cut cells does, if at least `share` of the cell is visible.
    """

    classes = ("a", "b")

    def __init__(self, areas, share=0.1):
        self.areas, self.share, self.calls = areas, share, []

    def detect(self, tiles, *, min_score=0.05, iou=0.6, max_detections=300):
        self.calls.append(tiles.shape)
        return [self._one(tile) for tile in tiles]

    def _one(self, tile):
        boxes = []
        for number in set(np.unique(tile[..., 0]).tolist()) - {0}:
            rows, columns = np.nonzero(tile[..., 0] == number)
            box = columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
            if len(rows) >= self.share * self.areas[number - 1]:
                boxes.append(box)
        return detections(*boxes)


def picture(width, height, cells):
    image = np.zeros((height, width, 3), np.uint8)
    for number, (x, y, across, down) in enumerate(cells, start=1):
        image[y : y + down, x : x + across, 0] = number
    return image


def found_on(width, height, cells, share=0.1):
    detector = IdealDetector([across * down for _, _, across, down in cells], share)
    return detect_in_windows(detector, picture(width, height, cells), min_score=0.05)


def places(found):
    return sorted(map(tuple, found.boxes.astype(int).tolist()))


# Where windows lie


@given(sizes, sizes, st.sampled_from([0, OVERLAP]))
def test_windows_cover_an_image_edge_to_edge_and_overlap_enough(width, height, overlap):
    windows = windows_of(width, height, overlap=overlap)
    for length, spans in (
        (width, sorted({(one.x, one.x + one.width) for one in windows})),
        (height, sorted({(one.y, one.y + one.height) for one in windows})),
    ):
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(end - start == min(SIDE, length) for start, end in spans)
        assert all(before[1] - after[0] >= overlap for before, after in itertools.pairwise(spans))
    assert len(windows) == len(set(windows))


def test_no_window_is_more_than_needed():
    assert [(one.x, one.y) for one in windows_of(960, 512)] == [(0, 0), (448, 0)]
    assert [(one.x, one.y) for one in windows_of(1024, 1024, overlap=0)] == [(0, 0), (512, 0), (0, 512), (512, 512)]
    assert len(windows_of(4096, 4096)) == 81
    assert len(windows_of(4096, 4096, overlap=0)) == 64
    assert windows_of(900, 300) == [Window(0, 0, 512, 300), Window(388, 0, 512, 300)]


def test_a_window_is_cut_from_the_image():
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    assert (Window(4, 2, 10, 5).cut(image) == image[2:7, 4:14]).all()


def test_an_image_is_large_by_its_longer_side():
    assert not is_large(LARGEST_WHOLE, LARGEST_WHOLE)
    assert is_large(LARGEST_WHOLE + 1, 40)
    assert is_large(40, LARGEST_WHOLE + 1)


# Joining


@st.composite
def cells_on_a_grid(draw):
    """Cells that do not touch, of 20 to 300 px, at random places."""
    width, height = draw(st.integers(770, 2000)), draw(st.integers(400, 1700))
    step = draw(st.integers(40, 330))
    cells = []
    for y in range(0, height - step, step):
        for x in range(0, width - step, step):
            if draw(st.booleans()):
                across, down = draw(st.integers(20, step - 10)), draw(st.integers(20, step - 10))
                left, top = draw(st.integers(0, step - 5 - across)), draw(st.integers(0, step - 5 - down))
                cells.append((x + left, y + top, across, down))
            if len(cells) == 40:
                return width, height, cells
    return width, height, cells


@settings(max_examples=40, deadline=None)
@given(cells_on_a_grid())
def test_an_ideal_detector_finds_every_cell_once_and_whole(case):
    width, height, cells = case
    assert places(found_on(width, height, cells, share=0.0)) == sorted(cells)


@pytest.mark.parametrize("x", range(420, 520, 3))
def test_a_cell_that_fits_into_the_overlap_is_found_whole_wherever_it_lies(x):
    """Also by a detector that knows nothing of a cell of which less than half is visible."""
    cell = (x, 470, 48, 48)
    assert places(found_on(960, 960, [cell], share=0.5)) == [cell]


@pytest.mark.parametrize("x", range(200, 520, 16))
def test_a_cell_larger_than_the_overlap_is_put_together_from_its_pieces(x):
    cell = (x, 390, 300, 200)  # across all four windows for most x
    assert places(found_on(960, 960, [cell])) == [cell]


def test_a_cell_that_one_window_alone_knows_is_kept_as_far_as_it_is_seen():
    windows = windows_of(960, 512)
    found = join_windows(windows, [detections((392, 100, 120, 120)), detections()], 960, 512)
    assert places(found) == [(392, 100, 120, 120)]


def test_what_is_cut_is_judged_by_the_window_that_shows_it_whole():
    """The left window sees two px of a cell and calls them one; the right one sees that there is no cell."""
    windows = windows_of(960, 512)
    cut = detections((470, 100, 42, 60))
    assert places(join_windows(windows, [cut, detections()], 960, 512)) == []
    whole = detections((24, 100, 58, 60), scores=[0.3], class_ids=[1])
    found = join_windows(windows, [cut, whole], 960, 512)
    assert places(found) == [(472, 100, 58, 60)]
    assert (found.scores.tolist(), found.class_ids.tolist()) == (pytest.approx([0.3]), [1])


def test_a_box_at_the_images_own_edge_is_not_cut():
    windows = windows_of(960, 512)
    at_the_rim = detections((0, 0, 30, 30), (10, 490, 30, 22))
    assert len(join_windows(windows, [at_the_rim, detections()], 960, 512)) == 2


def test_one_cell_gets_one_box_whatever_the_classes_say():
    windows = windows_of(960, 512)
    first = detections((455, 100, 40, 40), scores=[0.6], class_ids=[0])
    second = detections((8, 101, 40, 40), scores=[0.7], class_ids=[1])
    found = join_windows(windows, [first, second], 960, 512)
    assert (len(found), found.class_ids.tolist()) == (1, [1])
    assert found.class_scores.tolist() == [[0.0, pytest.approx(0.7)]]


def test_touching_cells_in_the_overlap_stay_two():
    windows = windows_of(960, 512)
    first = detections((455, 100, 25, 25), (478, 100, 25, 25))
    second = detections((7, 100, 25, 25), (30, 100, 25, 25))
    assert len(join_windows(windows, [first, second], 960, 512)) == 2


def test_what_one_window_finds_is_left_to_the_detector():
    """Boxes of one window have been through suppression: only those of other windows are compared with them."""
    windows = windows_of(960, 512)
    found = join_windows(windows, [detections((450, 100, 40, 40), (452, 102, 40, 40)), detections()], 960, 512)
    assert len(found) == 2


def test_the_best_score_comes_first():
    windows = windows_of(960, 512)
    first, second = detections((10, 10, 30, 30), scores=[0.2]), detections((200, 10, 30, 30), scores=[0.8])
    found = join_windows(windows, [first, second], 960, 512)
    assert found.scores.tolist() == pytest.approx([0.8, 0.2])
    assert (found.boxes.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int64)


def test_nothing_found_is_an_empty_answer():
    found = join_windows(windows_of(960, 512), [detections(), detections()], 960, 512)
    assert (len(found), found.boxes.shape, found.class_scores.shape) == (0, (0, 4), (0, 2))


# Images of several sizes


def test_images_of_any_sizes_come_back_in_their_order():
    cells = [[(5, 5, 30, 20)], [(500, 300, 40, 40), (880, 60, 50, 30)], [(9, 7, 20, 20)], []]
    shapes = [(512, 512), (1200, 600), (360, 363), (512, 512)]
    images = [picture(*shape, some) for shape, some in zip(shapes, cells, strict=True)]
    detector = IdealDetector([1, 1])
    found = detect_images(detector, images, min_score=0.05)
    assert [places(one) for one in found] == [sorted(some) for some in cells]
    # The two of one size together, the large one as its six windows.
    assert sorted(detector.calls) == [(1, 363, 360, 3), (2, 512, 512, 3), (6, 512, 512, 3)]


def test_no_images_give_no_answers():
    assert detect_images(IdealDetector([]), [], min_score=0.05) == []


def test_what_cells_look_like_comes_along() -> None:
    """Each window has a cell of its own, and both see a third one."""
    windows = [Window(0, 0, 512, 512), Window(448, 0, 512, 512)]
    marked = np.arange(2, dtype=np.float32)[:, None].repeat(3, axis=1)
    first = replace(detections((10, 10, 30, 30), (470, 10, 20, 20), scores=[0.8, 0.5]), embeddings=marked)
    second = replace(detections((22, 10, 20, 20), (300, 10, 30, 30), scores=[0.4, 0.9]), embeddings=marked + 2)
    joined = join_windows(windows, [first, second], 960, 512)
    assert joined.scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert joined.embeddings is not None
    assert joined.embeddings[:, 0].tolist() == [3, 0, 1]
    assert join_windows(windows, [first, replace(second, embeddings=None)], 960, 512).embeddings is None
