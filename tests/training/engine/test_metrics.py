import json
import math
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.detector import Detections
from tests.training.engine.judged import CLASSES, detections, judge, perfect, random_tiles
from training.engine.matching import Table, match_class
from training.engine.metrics import AVERAGED, Evaluation, average_row, evaluate, every_class
from training.engine.ranking import COCO_THRESHOLDS, average_precision, log_average_miss_rate


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
        # Three, six, seven of ten reach the recalls 0.3, 0.6 and 0.7.
        for found in range(1, 11):
            recall = np.arange(1, found + 1) / 10
            assert average_precision(recall, np.ones(found)) == pytest.approx((found + 1) / 11)

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

    def test_coco_average_precision_is_the_mean_over_ten_overlaps(self) -> None:
        # One truth, one detection 10 x 10 px moved by 1.5 px: IoU 85 / 115 = 0.739: right at .50 .55 .60 .65 .70.
        result = judge([[[0, 0, 0, 10, 10]]], [detections([[0, 1.5, 0, 10, 10, 0.9]])])
        assert COCO_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
        assert result.classes[0].ap50_95 == pytest.approx(5 / 10)
        assert result.map50_95 == pytest.approx(5 / 10)
        assert (result.classes[1].ap50_95, result.classes[1].curve) == (None, None)

    def test_the_curve_says_precision_and_score_at_each_recall_that_is_reached(self) -> None:
        # Of three truths two are found; by score: right, wrong, right: recall 1/3 at precision 1, 2/3 at 2/3.
        truth = [[0, 0, 0, 10, 10], [0, 50, 0, 10, 10], [0, 0, 50, 10, 10]]
        found = detections([[0, 0, 0, 10, 10, 0.9], [0, 80, 80, 10, 10, 0.6], [0, 50, 0, 10, 10, 0.5]])
        curve = judge([truth], [found]).classes[0].curve
        # Recalls 0 .. 0.33 are 34 points, 0.34 .. 0.66 are 33.
        assert curve.precision == (1.0,) * 34 + (0.6667,) * 33
        assert curve.scores == (0.9,) * 34 + (0.5,) * 33

    def test_the_average_row_is_over_the_classes_of_the_truth(self) -> None:
        truth = [[0, 0, 0, 10, 10], [1, 0, 50, 10, 10]]
        found = detections([[0, 0, 0, 10, 10, 0.9], [0, 90, 90, 10, 10, 0.8], [2, 50, 0, 10, 10, 0.9]])
        average = average_row(judge([truth], [found]).to_json()["classes"])
        assert average["ap50"] == average["recall"] == 0.5  # 1 and 0; basophils are not in the truth
        assert average["precision"] == 0.5  # of blasts alone: there is no lymphocyte among the detections
        assert average["count_mse"] == 1.0
        assert average["f1"] == pytest.approx((2 / 3 + 0) / 2)

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
        assert result.map50_95 == pytest.approx(1.0)
        assert (result.precision, result.recall, result.f1) == (1.0, 1.0, 1.0)
        assert all(set(entry.curve.precision) == {1.0} for entry in result.classes if entry.truth_count)
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
        for value in (result.map50, result.map50_95, result.precision, result.recall, result.f1, result.average_iou):
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
    @settings(max_examples=30, deadline=None)
    def test_a_curve_falls_and_is_that_of_its_average_precision(self, seed: int) -> None:
        truths, found = random_tiles(seed)
        for class_id, entry in enumerate(judge(truths, found).classes):
            if entry.curve is None:
                assert entry.truth_count == 0
                continue
            assert list(entry.curve.precision) == sorted(entry.curve.precision, reverse=True)
            assert list(entry.curve.scores) == sorted(entry.curve.scores, reverse=True)
            area = sum(entry.curve.precision) / 101
            assert area == pytest.approx(our_average_precision(truths, found, class_id), abs=1e-4)

    @given(st.integers(0, 10_000))
    @settings(max_examples=30, deadline=None)
    def test_stricter_overlaps_find_no_more_and_averages_are_those_of_the_whole(self, seed: int) -> None:
        result = judge(*random_tiles(seed))
        plain = result.to_json()["classes"]
        average = average_row(plain)
        assert set(average) == set(AVERAGED)
        if result.map50 is not None:
            assert average["ap50"] == pytest.approx(result.map50)
            assert average["ap50_95"] == pytest.approx(result.map50_95)
            assert average["log_average_miss_rate"] == pytest.approx(result.log_average_miss_rate)
        for class_id, entry in enumerate(result.classes):
            if entry.ap50_95 is not None:
                assert entry.ap50_95 <= our_average_precision(*random_tiles(seed), class_id) + 1e-9

    @given(st.integers(0, 10_000))
    @settings(max_examples=10, deadline=None)
    def test_an_evaluation_survives_json(self, seed: int) -> None:
        result = judge(*random_tiles(seed), bootstrap=5)
        assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_an_evaluation_of_before_there_were_curves_can_be_read() -> None:
    plain = judge(*random_tiles(1)).to_json()
    old = {key: value for key, value in plain.items() if key != "map50_95"}
    old["classes"] = [
        {key: value for key, value in row.items() if key not in ("ap50_95", "curve")} for row in plain["classes"]
    ]
    result = Evaluation.from_json(old | {"errors": {}})
    assert (result.map50, result.map50_95) == (plain["map50"], None)
    assert {entry.curve for entry in result.classes} == {None}
    assert average_row(old["classes"])["ap50_95"] is None


def flat(result: Evaluation) -> list[float]:
    """All numbers of an evaluation in a row, NaN for None."""
    values: list[Any] = [result.map50, result.precision, result.recall, result.f1, result.log_average_miss_rate]
    values += [value for entry in result.to_json()["classes"] for name, value in entry.items() if name in AVERAGED]
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


class TestResampled:
    def test_the_interval_is_of_the_kept_figures(self) -> None:
        truths, found = random_tiles(1)
        result = judge(truths, found, bootstrap=40)
        assert len(result.map50_resampled) == 40
        known = [value for value in result.map50_resampled if value is not None]
        assert result.map50_interval == pytest.approx(tuple(np.percentile(known, [2.5, 97.5])), abs=1e-6)

    def test_each_resampling_draws_the_same_patients_for_every_detector(self) -> None:
        """A detector that finds everything is at 1 wherever a cell was drawn, and None where the other is None."""
        truths, found = random_tiles(4, tiles=3)
        truths[0] = truths[1] = truths[0][:0]  # cells on the last tile only: some resamplings draw none
        one = judge(truths, found, bootstrap=60)
        other = judge(truths, [perfect(truth) for truth in truths], bootstrap=60)
        assert None in other.map50_resampled
        assert 1.0 in other.map50_resampled
        nothing = [[value is None for value in result.map50_resampled] for result in (one, other)]
        assert nothing[0] == nothing[1]

    def test_they_come_back_from_json_and_older_evaluations_have_none(self) -> None:
        truths, found = random_tiles(1)
        result = judge(truths, found, bootstrap=5)
        plain = json.loads(json.dumps(result.to_json()))
        assert Evaluation.from_json(plain) == result
        del plain["map50_resampled"]
        assert Evaluation.from_json(plain).map50_resampled == ()


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
        theirs = coco_precision(truths, found)
        ours = [our_average_precision(truths, found, class_id) for class_id in range(len(CLASSES))]
        assert ours == pytest.approx(theirs[0].mean(axis=0), abs=1e-6)  # at IoU 0.5
        assert 0.05 < min(ours) < max(ours) < 0.99  # the agreement is about something

    @pytest.mark.parametrize("seed", range(5))
    def test_average_precision_over_all_overlaps_agrees(self, seed: int) -> None:
        truths, found = random_tiles(seed, tiles=40)
        theirs = coco_precision(truths, found)
        result = judge(truths, found)
        ours = [entry.ap50_95 for entry in result.classes]
        assert ours == pytest.approx(theirs.mean(axis=(0, 1)), abs=1e-6)
        assert result.map50_95 == pytest.approx(theirs.mean(), abs=1e-6)
        assert 0.02 < min(ours) < max(ours) < 0.9

    def test_the_curve_is_theirs(self) -> None:
        truths, found = random_tiles(3, tiles=40)
        theirs = coco_precision(truths, found)
        for index, entry in enumerate(judge(truths, found).classes):
            padded = np.zeros(101)
            padded[: len(entry.curve.precision)] = entry.curve.precision
            assert padded == pytest.approx(theirs[0, :, index], abs=6e-5)


def our_average_precision(truths: list[np.ndarray], found: list[Detections], class_id: int) -> float:
    """101-point AP of one class from our own matches."""
    matches = match_class(Table.of(truths, found, len(CLASSES), ()), class_id, 0.5)
    recall, precision, _ = matches.curve(np.ones(len(truths)))
    return average_precision(recall, precision, points=101)


def coco_precision(truths: list[np.ndarray], found: list[Detections]) -> np.ndarray:
    """Precision at 10 IoUs, 101 recalls and for each class, by the other library."""
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
        comparison.evaluate()
        comparison.accumulate()
    # precision: IoU threshold, recall, class, area (all is 0), most detections (100 is last)
    return np.asarray(comparison.eval["precision"])[:, :, :, 0, -1]


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
