import numpy as np

from training.engine.dataset import TrainingTile
from training.engine.stages import as_cells, wanted_boxes

BOXES = np.array([(2, 5, 6, 20, 30), (0, 1, 2, 10, 12), (1, 50, 60, 7, 8)], np.float64)


def tile(boxes: np.ndarray) -> TrainingTile:
    return TrainingTile("tile", lambda: np.zeros((96, 96, 3), np.uint8), boxes)


def test_the_finder_sees_every_cell_as_one_class() -> None:
    found = as_cells(tile(BOXES))
    assert found.boxes[:, 0].tolist() == [0, 0, 0]
    assert np.array_equal(found.boxes[:, 1:], BOXES[:, 1:])
    assert found.name == "tile"


def test_ignored_classes_are_left_out_of_both_stages() -> None:
    assert wanted_boxes(tile(BOXES), ignored=(2, 1)).tolist() == [BOXES[1].tolist()]
    assert len(as_cells(tile(BOXES), ignored=(2, 1)).boxes) == 1


def test_a_tile_without_a_box_stays_data() -> None:
    assert as_cells(tile(np.empty((0, 5)))).boxes.shape == (0, 5)
