from pathlib import Path

import numpy as np
import pytest

from inference.engine.comparison import Difference, compare, compare_export
from inference.engine.detector import Detections, WeightsError, export_folder
from inference.engine.openvino_detector import export_openvino
from tests.inference.engine.made_weights import SIDE, untrained_weights
from tests.training.engine.cells import CLASSES, draw_tile

TILES = [np.zeros((64, 64, 3), np.uint8)] * 2

# x, y, width, height, then the score of each class
CELLS = [(10, 10, 20, 20, 0.9, 0.1), (40, 10, 20, 20, 0.06, 0.8), (10, 40, 20, 20, 0.5, 0.02)]


def detections(*cells: tuple[float, ...]) -> Detections:
    rows = np.array(sorted(cells, key=lambda cell: -max(cell[4:])), np.float32).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1), rows[:, 4:])


class Seeing:
    """Answers the same cells on every tile; `hidden` are those that suppression takes away."""

    def __init__(self, *cells: tuple[float, ...], hidden: tuple[tuple[float, ...], ...] = ()) -> None:
        self.cells, self.hidden, self.classes = cells, hidden, ("blast", "lymphocyte")

    def detect(
        self, tiles: np.ndarray, *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        seen = [*self.cells, *(self.hidden if iou == 1.0 else ())]
        return [detections(*(cell for cell in seen if max(cell[4:]) >= min_score)) for _ in tiles]


def changed(place: int, *cell: float) -> list[tuple[float, ...]]:
    return [cell if index == place else one for index, one in enumerate(CELLS)]


def test_a_detector_does_not_differ_from_itself() -> None:
    difference = compare(Seeing(*CELLS), Seeing(*CELLS), TILES)
    assert difference == Difference(2, 6, 0.0, 0.0, {"blast": 0.0, "lymphocyte": 0.0})
    assert difference.is_small


def test_the_greatest_distance_of_a_side_counts() -> None:
    near = compare(Seeing(*CELLS), Seeing(*changed(1, 40.5, 10, 20, 20, 0.06, 0.8)), TILES)
    assert (near.distance, near.is_small) == (0.5, True)
    far = compare(Seeing(*CELLS), Seeing(*changed(1, 40.5, 10, 20.75, 20, 0.06, 0.8)), TILES)
    assert (far.distance, far.is_small) == (1.25, False)
    assert far.ap == {"blast": 0.0, "lymphocyte": 0.0}


def test_the_greatest_difference_of_a_score_counts() -> None:
    difference = compare(Seeing(*CELLS), Seeing(*changed(0, 10, 10, 20, 20, 0.9, 0.17)), TILES)
    assert difference.score == pytest.approx(0.07)
    assert not difference.is_small


def test_a_cell_that_the_second_misses_lowers_ap() -> None:
    difference = compare(Seeing(*CELLS), Seeing(*CELLS[:2]), TILES)
    assert difference.ap == {"blast": pytest.approx(0.5), "lymphocyte": 0.0}
    assert (difference.distance, difference.is_small) == (0.0, False)


def test_a_cell_that_only_the_second_sees_is_far_from_every_other_and_lowers_ap() -> None:
    difference = compare(Seeing(*CELLS), Seeing(*CELLS, (40, 40, 20, 20, 0.95, 0.0)), TILES)
    # Of blasts it sees first the two (one on each tile) that are none, then two that are, then two that are.
    assert difference.ap["blast"] == pytest.approx(1 - (4 / 6))
    assert difference.distance == 30
    assert not difference.is_small


def test_another_class_lowers_the_ap_of_both() -> None:
    difference = compare(Seeing(*CELLS), Seeing(*changed(0, 10, 10, 20, 20, 0.02, 0.9)), TILES)
    assert difference.ap == {"blast": pytest.approx(0.5), "lymphocyte": pytest.approx(0.0)}
    assert difference.score == pytest.approx(0.88)
    assert not difference.is_small


def test_a_score_may_fall_to_the_other_side_of_what_readers_are_shown() -> None:
    first = [*CELLS, (40, 40, 20, 20, 0.251, 0.0)], [*CELLS, (40, 40, 20, 20, 0.249, 0.0)]
    for one, other in (first, first[::-1]):
        difference = compare(Seeing(*one), Seeing(*other), TILES)
        assert difference.ap == {"blast": 0.0, "lymphocyte": 0.0}
        assert difference.is_small


def test_a_neighbour_that_the_first_saw_before_suppression_is_as_good() -> None:
    neighbour = (12, 10, 20, 20, 0.1, 0.9)
    second = Seeing(*changed(0, *neighbour))
    assert compare(Seeing(*CELLS, hidden=(neighbour,)), second, TILES).distance == 0.0
    assert compare(Seeing(*CELLS), second, TILES).distance == 2.0


def test_where_nothing_is_seen_nothing_is_shown() -> None:
    for first, second in ((Seeing(), Seeing()), (Seeing(), Seeing(*CELLS))):
        difference = compare(first, second, TILES)
        assert not difference.is_small
        assert difference.in_words() == "on 2 tiles no cell was seen, so nothing could be compared"
    assert not compare(Seeing(*CELLS), Seeing(), TILES).is_small


def test_the_words_hold_the_numbers() -> None:
    difference = Difference(36, 120, 1.256, 0.0214, {"blast": 0.0, "basophil": 0.0131})
    assert difference.in_words() == (
        "on 36 tiles with 120 boxes, sides of boxes differ by at most 1.26 px, class scores by 0.021, "
        "AP of a class by 0.0131 (in basophil)"
    )
    unnamed = Difference(36, 120, 0.5, 0.02, {})  # the finder is sure, the classifier of no class
    assert unnamed.is_small
    assert unnamed.in_words().endswith("class scores by 0.020; no class was seen")


def test_other_classes_cannot_be_compared() -> None:
    second = Seeing(*CELLS)
    second.classes = ("lymphocyte", "blast")
    with pytest.raises(ValueError, match="same classes"):
        compare(Seeing(*CELLS), second, TILES)


class TestExports:
    tiles = [draw_tile(seed)[0] for seed in range(200, 212)]

    def test_an_export_may_stand_for_its_weights(self, learned: Path) -> None:
        difference = compare_export(learned, export_folder(learned), self.tiles, image_size=SIDE)
        assert difference.boxes >= 24
        assert difference.is_small, difference.in_words()

    def test_the_export_of_other_weights_may_not(self, learned: Path, tmp_path: Path) -> None:
        other = untrained_weights(tmp_path / "other.pt", classes=CLASSES)
        export_openvino(other, tmp_path / "other", image_size=SIDE)
        difference = compare_export(learned, tmp_path / "other", self.tiles, image_size=SIDE)
        assert not difference.is_small
        assert max(difference.ap.values()) > 0.5

    def test_a_missing_export_is_named(self, learned: Path, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="none has no model"):
            compare_export(learned, tmp_path / "none", self.tiles, image_size=SIDE)
