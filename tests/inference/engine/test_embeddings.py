from pathlib import Path

import numpy as np
import pytest

from inference.engine.backbone import Backbone, DescribedDetector
from inference.engine.classifier import TorchClassifier, make_classifier, save_classifier
from inference.engine.detector import Detections
from inference.engine.embeddings import (
    DIMENSIONS,
    MOST_CELLS,
    Describing,
    embed,
    embeddings_of,
    pack,
    tile_embedding,
    unpack,
)
from inference.engine.openvino_classifier import OpenvinoClassifier, export_classifier

GENERATOR = np.random.default_rng(0)
RED, BLUE = (180, 60, 90), (60, 70, 180)


def found(*scores: float, embeddings: np.ndarray | None = None) -> Detections:
    values = np.array(scores, np.float32)
    boxes = np.array([(20 + 70 * index, 30, 40, 40) for index in range(len(scores))], np.float32).reshape(-1, 4)
    return Detections(boxes, values, np.zeros(len(scores), np.int64), values[:, None], embeddings)


class TestEmbedding:
    def test_angles_are_nearly_kept(self) -> None:
        features = GENERATOR.normal(size=(40, 1280)).astype(np.float32)
        features[1] = features[0] + 0.1 * features[2]
        seen = embed(features)
        assert seen.shape == (40, DIMENSIONS)
        unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
        similar = unit @ unit.T
        assert similar[0, 1] > 0.98
        assert np.abs(similar[3:, 3:] - np.eye(37)).max() < 0.6  # 4 standard deviations of 1 / sqrt(64), over 666 pairs

    def test_the_projection_stays_the_same(self) -> None:
        # Stored embeddings are compared with new ones: another projection would make nonsense of them.
        assert embed(np.eye(1280, dtype=np.float32)[:1])[0, :3] == pytest.approx(
            [-0.003363, -0.086159, 0.112017], abs=1e-4
        )

    def test_no_cell_has_none(self) -> None:
        assert embed(np.zeros((0, 1280), np.float32)).shape == (0, DIMENSIONS)


class TestPacking:
    def test_they_come_back_nearly_as_they_were(self) -> None:
        values = GENERATOR.normal(size=(5, DIMENSIONS)).astype(np.float32)
        data = pack(values)
        assert len(data) == 5 * 128
        assert unpack(data) == pytest.approx(values, rel=1e-3)
        assert unpack(memoryview(data)).dtype == np.float32

    def test_only_the_best_are_kept(self) -> None:
        assert unpack(pack(np.ones((99, DIMENSIONS), np.float32))).shape == (MOST_CELLS, DIMENSIONS)

    def test_none_are_none(self) -> None:
        assert unpack(pack(np.zeros((0, DIMENSIONS), np.float32))).shape == (0, DIMENSIONS)


class TestTile:
    def test_it_is_the_mean_by_score(self) -> None:
        seen = tile_embedding(found(0.6, 0.2, embeddings=np.eye(2, DIMENSIONS, dtype=np.float32)))
        assert seen[:3] == pytest.approx([0.75, 0.25, 0], abs=1e-4)

    def test_an_empty_one_is_zero(self) -> None:
        assert not tile_embedding(found(embeddings=np.zeros((0, DIMENSIONS), np.float32))).any()

    def test_without_embeddings_there_is_none(self) -> None:
        with pytest.raises(ValueError, match="no embeddings"):
            embeddings_of(found(0.5))


class Plain:
    """A detector without embeddings that finds so many cells."""

    classes = ("cell",)

    def __init__(self, cells: int) -> None:
        self.cells = cells

    def detect(self, tiles: np.ndarray, **options: float) -> list[Detections]:
        return [found(*np.linspace(0.9, 0.1, self.cells)) for _ in tiles]


def tile_of(*colours: tuple[int, int, int]) -> np.ndarray:
    """Discs of these colours where `found` places its boxes."""
    tile = np.full((128, 512, 3), 230, np.uint8)
    y, x = np.mgrid[:128, :512]
    for index, colour in enumerate(colours):
        tile[(x - 40 - 70 * index) ** 2 + (y - 50) ** 2 < 18**2] = colour
    return tile


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(device="cpu")


class TestBackbone:
    def test_it_describes_what_a_detector_finds(self, backbone: Backbone) -> None:
        detector = DescribedDetector(Plain(3), backbone)
        assert isinstance(detector, Describing)
        assert not isinstance(Plain(3), Describing)
        first, second = detector.detect(np.stack([tile_of(RED, BLUE, RED), tile_of(BLUE, RED, BLUE)]))
        seen = np.concatenate([embeddings_of(first), embeddings_of(second)])
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)
        for index, same, other in ((1, 3, 2), (1, 5, 0), (2, 4, 3)):  # the middle ones have two neighbours each
            assert apart[index, same] < apart[index, other]

    def test_a_place_is_described_as_a_found_cell_is(self, backbone: Backbone) -> None:
        detector, tile = DescribedDetector(Plain(3), backbone), tile_of(RED, BLUE, RED)
        (seen,) = detector.detect(tile[None])
        assert detector.describe(tile, seen.boxes) == pytest.approx(embeddings_of(seen), abs=1e-4)

    def test_beyond_the_best_cells_nothing_is_computed(self, backbone: Backbone) -> None:
        (seen,) = DescribedDetector(Plain(MOST_CELLS + 3), backbone).detect(tile_of(RED)[None])
        assert embeddings_of(seen).shape == (MOST_CELLS + 3, DIMENSIONS)
        assert not embeddings_of(seen)[MOST_CELLS:].any()
        assert embeddings_of(seen)[:MOST_CELLS].any(axis=1).all()

    def test_a_tile_without_a_cell_is_no_trouble(self, backbone: Backbone) -> None:
        (seen,) = DescribedDetector(Plain(0), backbone).detect(tile_of()[None])
        assert embeddings_of(seen).shape == (0, DIMENSIONS)


def test_a_classifier_tells_the_same_features_with_either_back_end(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model, facts = make_classifier(("blast", "lymphocyte"), side=60.0)
    torch.nn.init.normal_(model.get_classifier().weight, std=0.1)
    path = tmp_path / "classifier.pt"
    save_classifier(model, facts, path)
    export_classifier(path, tmp_path / "classifier.openvino")
    crops = GENERATOR.integers(0, 256, (5, 6, 6, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    exact, exported = TorchClassifier(path, device="cpu"), OpenvinoClassifier(tmp_path / "classifier.openvino")
    (named, seen), (named_too, seen_too) = exact.look(crops), exported.look(crops)
    assert seen.shape == (5, 1280)
    assert seen_too == pytest.approx(seen, abs=1e-3)
    assert named_too == pytest.approx(named, abs=1e-3)
    # The head has its probabilities from these very features.
    with torch.no_grad():
        again = model.get_classifier()(torch.from_numpy(seen)).softmax(dim=1).numpy()
    assert again == pytest.approx(named, abs=1e-5)
    assert exported.look(crops[:0])[1].shape == exact.look(crops[:0])[1].shape == (0, 1280)
