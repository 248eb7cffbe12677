import json
import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.detector import Detections
from training.engine.metrics import Evaluation, average_precision, evaluate, every_class, log_average_miss_rate

CLASSES = ("blast", "lymphocyte", "basophil")


def detections(rows: Sequence[Sequence[float]]) -> Detections:
    """Rows of class id, x, y, width, height, score."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    scores = np.zeros((len(table), len(CLASSES)), np.float32)
    return Detections(table[:, 1:5].astype(np.float32), table[:, 5].astype(np.float32), table[:, 0].astype(int), scores)


def perfect(truth: np.ndarray) -> Detections:
    return detections(np.column_stack([truth, np.full(len(truth), 0.9)]))


def random_tiles(seed: int, tiles: int = 12, classes: int = 3) -> tuple[list[np.ndarray], list[Detections]]:
    """Truths, and detections of which some are near them, some far, some doubled, with distinct scores."""
    generator = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(tiles):
        count = int(generator.integers(0, 8))
        size = generator.uniform(30, 80, (count, 2))
        truth = np.column_stack([generator.integers(classes, size=count), generator.uniform(0, 400, (count, 2)), size])
        copies = truth[generator.integers(count, size=count + 3)] if count else np.zeros((0, 5))
        copies = copies + np.column_stack(
            [np.zeros(len(copies)), generator.normal(0, 9, (len(copies), 2)), generator.normal(0, 4, (len(copies), 2))]
        )
        wrong = generator.random(len(copies)) < 0.2
        copies[wrong, 0] = generator.integers(classes, size=int(wrong.sum()))
        found.append(detections(np.column_stack([copies, generator.random(len(copies))])))
        truths.append(truth)
    return truths, found


def judge(truths: Sequence[Any], found: Sequence[Detections], **options: Any) -> Evaluation:
    patients = options.pop("patients", [f"P{index:02d}" for index in range(len(truths))])
    return evaluate(truths, found, CLASSES, patients, **{"bootstrap": 0, **options})


class TestWorkedByHand:
    def test_average_precision_at_11_and_101_points(self) -> None:
        # Two truths; detections right, wrong, right: recall 1/2, 1/2, 1; precision 1, 1/2, 2/3.
        recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
        # Recalls 0, 0.1 .. 0.5 (6 points) see precision 1, 0.6 .. 1.0 (5 points) see 2/3.
        assert average_precision(recall, precision) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
        # 0.00 .. 0.50 are 51 points, 0.51 .. 1.00 are 50.
        assert average_precision(recall, precision, points=101) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)

    def test_recall_that_is_never_reached_counts_as_zero(self) -> None:
        # One of four truths found: recalls 0, 0.1, 0.2 (3 of 11 points) see precision 1, the rest 0.
        assert average_precision(np.array([0.25]), np.array([1.0])) == pytest.approx(3 / 11)

    def test_log_average_miss_rate(self) -> None:
        # 9 points: 0.01 0.0178 0.0316 0.0562 0.1 0.178 0.316 0.562 1. The curve: recall 0.5 with no false positive,
        # 0.75 from 0.2 false positives per tile on. Six points lie below 0.2 (miss 0.5), three above (miss 0.25).
        rate = log_average_miss_rate(np.array([0.5, 0.5, 0.75]), np.array([0.0, 0.2, 0.2]))
        assert rate == pytest.approx(math.exp((6 * math.log(0.5) + 3 * math.log(0.25)) / 9))

    def test_a_tile_with_a_right_a_doubled_a_confused_and_a_missed_cell(self) -> None:
        truth = np.array([[0, 0, 0, 10, 10], [0, 50, 0, 10, 10], [1, 0, 50, 10, 10]])
        found = detections(
            [
                [0, 0, 0, 10, 10, 0.9],  # right, IoU 1
                [0, 1, 0, 10, 10, 0.8],  # the same cell again: IoU 90 / 110, but it is taken
                [0, 0, 50, 10, 10, 0.7],  # a lymphocyte taken for a blast
                [2, 80, 80, 10, 10, 0.6],  # nothing there
            ]
        )
        result = judge([truth], [found])
        blast, lymphocyte, basophil = result.classes
        # Blast: right, wrong, wrong of 2 truths: recall stays 1/2 at precision 1: 6 of 11 points.
        assert blast.ap50 == pytest.approx(6 / 11)
        assert (blast.precision, blast.recall) == pytest.approx((1 / 3, 1 / 2))
        assert blast.f1 == pytest.approx(2 / 5)  # 2 * 1 / (3 + 2)
        assert blast.average_iou == pytest.approx(1.0)
        assert blast.count_mse == 1.0  # 3 detected, 2 true
        assert (lymphocyte.ap50, lymphocyte.precision, lymphocyte.recall) == (0.0, None, 0.0)
        assert lymphocyte.log_average_miss_rate == 1.0
        assert (basophil.ap50, basophil.truth_count, basophil.recall) == (None, 0, None)
        assert result.map50 == pytest.approx((6 / 11 + 0) / 2)  # basophils are not in the truth
        assert (result.precision, result.recall, result.f1) == pytest.approx((1 / 4, 1 / 3, 2 / 7))
        # Rows: blast (one found, one missed), lymphocyte (called blast), basophil (none), background (1 blast twice
        # drawn, 1 basophil).
        assert result.confusion == (
            (0.5, 0.0, 0.0, 0.5),
            (1.0, 0.0, 0.0, 0.0),
            (0.0, 0.0, 0.0, 0.0),
            (0.5, 0.0, 0.5, 0.0),
        )

    def test_the_confidence_cuts_everything_but_the_curves(self) -> None:
        truth = np.array([[0, 0, 0, 10, 10], [0, 50, 0, 10, 10]])
        found = detections([[0, 0, 0, 10, 10, 0.9], [0, 50, 0, 10, 10, 0.2]])
        result = judge([truth], [found], confidence=0.25)
        assert result.map50 == 1.0
        assert result.recall == 0.5
        assert result.classes[0].count_mse == 1.0
        assert judge([truth], [found], confidence=0.2).recall == 1.0

    def test_a_box_below_the_threshold_matches_nothing(self) -> None:
        truth = np.array([[0, 0, 0, 10, 10]])
        half = [detections([[0, 5, 0, 10, 10, 0.9]])]  # IoU 1/3
        assert judge([truth], half).map50 == 0.0
        assert judge([truth], half, iou_threshold=0.3).map50 == 1.0

    def test_count_error_is_the_mean_square_over_all_tiles_with_empty_ones(self) -> None:
        box = [0, 0, 0, 10, 10]
        found = [detections([]), detections([[*box, 0.9], [*box, 0.8], [*box, 0.7]]), detections([])]
        # Errors -1, 3, 0: (1 + 9 + 0) / 3
        assert judge([[box], [], []], found).classes[0].count_mse == pytest.approx(10 / 3)

    def test_ignored_classes_count_neither_as_truth_nor_as_detection(self) -> None:
        truth = np.array([[0, 0, 0, 10, 10], [2, 50, 0, 10, 10]])
        found = detections([[0, 0, 0, 10, 10, 0.9], [2, 20, 20, 10, 10, 0.9]])
        result = judge([truth], [found], ignored={2})
        assert (result.precision, result.recall, result.map50) == (1.0, 1.0, 1.0)
        assert [entry.name for entry in result.classes] == ["blast", "lymphocyte"]


class TestProperties:
    @given(st.integers(0, 10_000))
    @settings(max_examples=30, deadline=None)
    def test_perfect_detections_score_one(self, seed: int) -> None:
        truths, _ = random_tiles(seed)
        result = judge(truths, [perfect(truth) for truth in truths])
        if result.map50 is None:
            assert not sum(map(len, truths))
            return
        assert result.map50 == pytest.approx(1.0)
        assert (result.precision, result.recall, result.f1) == (1.0, 1.0, 1.0)
        assert result.average_iou == pytest.approx(1.0, abs=1e-5)  # boxes are float32
        assert all(entry.count_mse == 0 for entry in result.classes)

    @given(st.integers(0, 10_000))
    @settings(max_examples=30, deadline=None)
    def test_no_detections_score_zero(self, seed: int) -> None:
        truths, _ = random_tiles(seed)
        result = judge(truths, [detections([])] * len(truths))
        assert result.map50 in (0.0, None)
        assert result.log_average_miss_rate in (1.0, None)
        assert result.precision is None

    @given(st.integers(0, 10_000), st.floats(0.1, 0.9))
    @settings(max_examples=30, deadline=None)
    def test_every_number_lies_between_zero_and_one_and_rows_sum_to_one(self, seed: int, confidence: float) -> None:
        result = judge(*random_tiles(seed), confidence=confidence, bootstrap=20)
        for value in (result.map50, result.precision, result.recall, result.f1, result.average_iou):
            assert value is None or 0 <= value <= 1
        assert all(entry.ap50 is None or 0 <= entry.ap50 <= 1 for entry in result.classes)
        assert all(sum(row) == pytest.approx(1) or sum(row) == 0 for row in result.confusion)
        if result.map50_interval:
            assert 0 <= result.map50_interval[0] <= result.map50_interval[1] <= 1

    @given(st.integers(0, 10_000))
    @settings(max_examples=30, deadline=None)
    def test_the_order_of_the_tiles_changes_nothing(self, seed: int) -> None:
        truths, found = random_tiles(seed)
        order = np.random.default_rng(seed).permutation(len(truths))
        shuffled = judge([truths[index] for index in order], [found[index] for index in order])
        assert flat(shuffled) == pytest.approx(flat(judge(truths, found)), nan_ok=True)

    @given(st.integers(0, 10_000))
    @settings(max_examples=10, deadline=None)
    def test_an_evaluation_survives_json(self, seed: int) -> None:
        result = judge(*random_tiles(seed), bootstrap=5)
        assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))) == result


def flat(result: Evaluation) -> list[float]:
    """All numbers of an evaluation in a row, NaN for None."""
    values: list[Any] = [result.map50, result.precision, result.recall, result.f1, result.log_average_miss_rate]
    values += [value for entry in result.to_json()["classes"] for value in entry.values() if not isinstance(value, str)]
    values += [value for row in result.confusion for value in row]
    return [math.nan if value is None else float(value) for value in values]


class TestInterval:
    def test_it_is_over_patients_when_there_are_three(self) -> None:
        truths, found = random_tiles(1)
        result = judge(truths, found, patients=["P01", "P02", "P03"] * 4, bootstrap=200)
        assert result.interval_over == "patients"
        assert result.map50_interval is not None
        assert result.map50 is not None
        assert result.map50_interval[0] < result.map50 < result.map50_interval[1]

    def test_it_is_over_tiles_when_there_are_two(self) -> None:
        truths, found = random_tiles(1)
        assert judge(truths, found, patients=["P01", "P02"] * 6, bootstrap=10).interval_over == "tiles"

    def test_the_same_seed_gives_the_same_interval_and_another_seed_another(self) -> None:
        truths, found = random_tiles(1)
        first, again, other = (judge(truths, found, bootstrap=30, seed=seed).map50_interval for seed in (1, 1, 2))
        assert first == again != other

    def test_it_has_no_width_when_all_patients_are_alike(self) -> None:
        truths, found = random_tiles(3, tiles=1)
        result = judge(truths * 5, found * 5, bootstrap=50)
        assert result.map50_interval == pytest.approx((result.map50, result.map50))

    def test_a_resampled_tile_counts_as_often_as_if_it_were_there_twice(self) -> None:
        truths, found = random_tiles(5, tiles=2)
        # Of two tiles a resampling draws (2, 0), (1, 1) or (0, 2), as likely as 1 : 2 : 1: the ends are among these.
        possible = [judge(truths, found).map50]
        possible += [judge([truth] * 2, [item] * 2).map50 for truth, item in zip(truths, found, strict=True)]
        result = judge(truths, found, bootstrap=300)
        assert result.map50_interval == pytest.approx((min(possible), max(possible)))


class TestBadInput:
    def test_it_refuses_sequences_of_different_length(self) -> None:
        with pytest.raises(ValueError, match="one for each tile"):
            evaluate([[]], [], CLASSES, ["P01"])

    @pytest.mark.parametrize("class_id", [-1, 3])
    def test_it_refuses_an_unknown_class(self, class_id: int) -> None:
        with pytest.raises(ValueError, match="one of the 3 classes"):
            judge([[[class_id, 0, 0, 1, 1]]], [detections([])])

    def test_no_tile_at_all_gives_no_number(self) -> None:
        result = evaluate([], [], CLASSES, [])
        assert (result.map50, result.map50_interval, result.tiles) == (None, None, 0)


class TestAgainstFasterCocoEval:
    @pytest.mark.parametrize("seed", range(5))
    def test_average_precision_of_each_class_agrees(self, seed: int) -> None:
        truths, found = random_tiles(seed, tiles=40)
        theirs = coco_average_precisions(truths, found)
        ours = [our_average_precision(truths, found, class_id) for class_id in range(len(CLASSES))]
        assert ours == pytest.approx(theirs, abs=1e-6)
        assert 0.05 < min(ours) < max(ours) < 0.99  # the agreement is about something


def our_average_precision(truths: list[np.ndarray], found: list[Detections], class_id: int) -> float:
    """101-point AP of one class from our own matches."""
    from training.engine.metrics import _match_class, _Table

    matches = _match_class(_Table.of(truths, found, len(CLASSES), ()), class_id, 0.5)
    recall, precision, _ = matches.curve(np.ones(len(truths)))
    return average_precision(recall, precision, points=101)


def coco_average_precisions(truths: list[np.ndarray], found: list[Detections]) -> list[float]:
    """AP at IoU 0.5 of each class by the other library."""
    truth_rows = [
        {"image_id": tile, "category_id": int(row[0]), "bbox": row[1:].tolist(), "area": float(row[3] * row[4])}
        for tile, rows in enumerate(truths)
        for row in rows
    ]
    found_rows = [
        {"image_id": tile, "category_id": int(class_id), "bbox": box.astype(float).tolist(), "score": float(score)}
        for tile, item in enumerate(found)
        for box, score, class_id in zip(item.boxes, item.scores, item.class_ids, strict=True)
    ]
    with redirect_stdout(StringIO()):
        truth = COCO(
            {
                "images": [{"id": tile, "width": 512, "height": 512} for tile in range(len(truths))],
                "annotations": [{**row, "id": index + 1, "iscrowd": 0} for index, row in enumerate(truth_rows)],
                "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES)],
            }
        )
        comparison = COCOeval_faster(truth, truth.loadRes(found_rows), "bbox")
        comparison.params.iouThrs = np.array([0.5])
        comparison.evaluate()
        comparison.accumulate()
    # precision: IoU threshold, recall, class, area (all is 0), most detections (100 is last)
    return [float(comparison.eval["precision"][0, :, index, 0, -1].mean()) for index in range(len(CLASSES))]


class TestEveryClass:
    def test_a_box_is_ranked_in_each_class_that_it_may_be(self) -> None:
        ranked = every_class([[0.0, 0, 10, 10], [50, 50, 10, 10]], [[0.6, 0.3, 0.0], [0.005, 0.0, 0.9]], floor=0.01)
        assert ranked.class_ids.tolist() == [0, 1, 2]
        assert ranked.scores.tolist() == [0.6, 0.3, 0.9]
        assert ranked.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 10, 10]]

    def test_only_ranking_figures_see_the_second_guess(self) -> None:
        # The one truth is of class 1; the box says 0 with 0.6 and 1 with 0.3.
        truths = [np.array([[1.0, 0, 0, 10, 10]])]
        box = Detections(
            np.array([[0, 0, 10, 10]], np.float32),
            np.array([0.6], np.float32),
            np.array([0]),
            np.array([[0.6, 0.3, 0.0]], np.float32),
        )
        plain = judge(truths, [box])
        ranked = judge(truths, [box], ranked=[every_class(box.boxes, box.class_scores)])
        assert plain.map50 == 0.0
        assert ranked.map50 == 1.0
        assert ranked.recall == plain.recall == 0.0
        assert ranked.confusion == plain.confusion
