import numpy as np
import pytest
from numpy.typing import NDArray

from inference.engine.detector import Detections, WeightsError
from inference.engine.embeddings import Describing, embed, embeddings_of
from inference.engine.two_stage import TwoStageDetector

SIDE = 8
RED, BLUE = (200, 0, 0), (0, 0, 200)


class Squares:
    """A finder that sees every square of SIDE px on a grid that is not black; the brighter, the surer."""

    def __init__(self, classes: tuple[str, ...] = ("cell",)) -> None:
        self.classes = classes

    def detect(
        self, tiles: NDArray[np.uint8], *, min_score: float = 0.05, iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        return [self._on(tile, min_score) for tile in tiles]

    def _on(self, tile: NDArray[np.uint8], min_score: float) -> Detections:
        places = [(x, y) for y in range(0, tile.shape[0], SIDE) for x in range(0, tile.shape[1], SIDE)]
        scores = {place: float(tile[place[1], place[0]].max()) / 255 for place in places}
        seen = sorted(
            (place for place in places if scores[place] >= max(min_score, 0.01)), key=lambda one: -scores[one]
        )
        found = np.array([scores[place] for place in seen], np.float32)
        boxes = np.array([(*place, SIDE, SIDE) for place in seen], np.float32).reshape(-1, 4)
        return Detections(boxes, found, np.zeros(len(seen), np.int64), found[:, None])


class Colours:
    """A classifier by the share of red in a crop."""

    classes = ("red cell", "blue cell")
    side = float(SIDE)
    size = SIDE

    def look(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        red, blue = crops[..., 0].mean(axis=(1, 2)), crops[..., 2].mean(axis=(1, 2))
        share = red / np.maximum(red + blue, 1)
        return np.stack([share, 1 - share], axis=1).astype(np.float32), np.stack([red, blue], axis=1).astype(np.float32)

    def classify(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.look(crops)[0]


def tile(*cells: tuple[int, int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    pixels = np.zeros((32, 32, 3), np.uint8)
    for column, row, colour in cells:
        pixels[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = colour
    return pixels


DETECTOR = TwoStageDetector(Squares(), Colours())


def test_each_cell_of_each_tile_gets_its_own_name() -> None:
    first, empty, second = DETECTOR.detect(np.stack([tile((0, 0, RED), (2, 3, BLUE)), tile(), tile((1, 1, BLUE))]))
    assert {tuple(box[:2]): number for box, number in zip(first.boxes, first.class_ids, strict=True)} == {
        (0, 0): 0,
        (2 * SIDE, 3 * SIDE): 1,
    }
    assert len(empty) == 0
    assert empty.class_scores.shape == (0, 2)
    assert second.class_ids.tolist() == [1]


def test_a_score_is_the_product_and_the_class_scores_add_up_to_the_finders() -> None:
    (found,) = DETECTOR.detect(tile((0, 0, (150, 0, 50)))[None])
    finder = 150 / 255
    assert found.class_scores[0] == pytest.approx([finder * 0.75, finder * 0.25], rel=1e-5)
    assert found.scores[0] == found.class_scores[0].max()


def test_the_best_product_comes_first() -> None:
    surer_of_a_cell, surer_of_its_class = (0, 0, (220, 0, 200)), (1, 0, (150, 0, 0))
    (found,) = DETECTOR.detect(tile(surer_of_a_cell, surer_of_its_class)[None])
    assert found.boxes[:, 0].tolist() == [SIDE, 0]
    assert (np.diff(found.scores) <= 0).all()


def test_each_cell_carries_what_the_classifier_sees_of_it() -> None:
    first, empty = DETECTOR.detect(np.stack([tile((0, 0, (220, 0, 200)), (1, 0, (150, 0, 0))), tile()]))
    seen = embeddings_of(first)
    assert seen == pytest.approx(
        embed(np.array([[150, 0], [220, 200]], np.float32)), rel=0.02
    )  # as the boxes: best first
    assert embeddings_of(empty).shape == (0, seen.shape[1])
    assert isinstance(DETECTOR, Describing)
    described = DETECTOR.describe(tile((0, 0, (220, 0, 200)), (1, 0, (150, 0, 0))), first.boxes)
    assert described == pytest.approx(seen)


def test_a_certain_cell_of_an_uncertain_class_is_kept() -> None:
    (found,) = DETECTOR.detect(tile((0, 0, (100, 0, 100)), (1, 0, (60, 0, 0)))[None], min_score=0.3)
    assert found.boxes[:, 0].tolist() == [0]
    assert found.scores[0] < 0.3


def test_a_finder_of_several_classes_is_refused() -> None:
    with pytest.raises(WeightsError, match="knows 2"):
        TwoStageDetector(Squares(("blast", "lymphocyte")), Colours())
