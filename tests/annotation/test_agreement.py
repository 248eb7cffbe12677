"""Agreement of readers, against cases worked by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from annotation.agreement import (
    Estimate,
    Reading,
    cohens_kappa,
    consensus_of,
    disagreement,
    fleiss_kappa,
    group_cells,
    match_boxes,
    maturation_weights,
    pair_agreement,
    ratings_of,
)

HERE, NEAR, THERE, FAR = [10, 10, 40, 40], [14, 10, 40, 40], [100, 100, 40, 40], [300, 300, 20, 20]
GRANULOCYTES = ("granulocytic",) * 3


def reading(*cells):
    """From (class number, box) pairs."""
    return Reading.of([box for _, box in cells], [number for number, _ in cells])


def test_boxes_of_one_cell_are_matched_and_others_not():
    assert match_boxes([HERE, THERE], [FAR, NEAR]).tolist() == [[0, 1]]
    assert match_boxes([], [HERE]).tolist() == []
    assert match_boxes([HERE], [[10, 50, 40, 40]]).tolist() == []


def test_the_pairing_with_the_greatest_overlap_wins_over_the_greedy_one():
    # Greedily, the second box of the first reader takes the nearest and leaves the first one alone.
    first, second = [[0, 0, 100, 100], [20, 0, 100, 100]], [[20, 0, 100, 100], [48, 0, 100, 100]]
    assert match_boxes(first, second).tolist() == [[0, 0], [1, 1]]


def test_a_match_needs_half_of_the_union():
    assert len(match_boxes([[0, 0, 30, 10]], [[10, 0, 30, 10]])) == 1  # 20 of 40: exactly half
    assert len(match_boxes([[0, 0, 30, 10]], [[10.1, 0, 30, 10]])) == 0


def test_boxes_and_classes_come_in_equal_numbers():
    with pytest.raises(ValueError, match="cannot have 2 classes"):
        Reading.of([HERE], [0, 1])


def test_cells_of_three_readers_are_grouped():
    groups = group_cells([reading((0, HERE)), reading((1, THERE), (0, NEAR)), reading((0, HERE), (2, FAR))])
    assert groups.tolist() == [[0, 1, 0], [-1, 0, -1], [-1, -1, 1]]


def test_the_consensus_holds_every_cell_with_the_share_that_supports_it():
    made = consensus_of([reading((0, HERE)), reading((1, THERE), (1, NEAR)), reading((1, HERE), (2, THERE))])
    assert made.reading.classes.tolist() == [1, 1]
    assert made.reading.boxes.tolist() == [[pytest.approx(34 / 3), 10, 40, 40], [100, 100, 40, 40]]
    assert made.support.tolist() == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert not made.unanimous


def test_of_equally_many_votes_the_earlier_reader_s_counts():
    assert consensus_of([reading((2, HERE)), reading((1, HERE))]).reading.classes.tolist() == [2]


def test_readers_who_say_the_same_are_unanimous():
    assert consensus_of([reading((2, HERE)), reading((2, NEAR))]).unanimous
    assert consensus_of([reading(), reading()]).unanimous
    assert not consensus_of([reading((2, HERE)), reading()]).unanimous


def test_no_reading_has_no_consensus():
    with pytest.raises(ValueError, match="needs a reading"):
        consensus_of([])


def test_kappa_of_a_case_worked_by_hand():
    # 20 + 15 of 50 alike: 0.7; by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5; (0.7 - 0.5) / 0.5.
    assert cohens_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)


def test_kappa_cannot_be_said_without_cells_or_of_one_class():
    assert cohens_kappa(np.zeros((3, 3))) is None
    assert cohens_kappa([[7, 0], [0, 0]]) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=60))
def test_kappa_agrees_with_scikit_learn(cells):
    first, second = zip(*cells, strict=True)
    table = np.zeros((4, 4))
    np.add.at(table, (np.array(first), np.array(second)), 1)
    linear = np.abs(np.arange(4)[:, None] - np.arange(4)[None, :]) / 3
    for weights, name in ((None, None), (linear, "linear")):
        mine = cohens_kappa(table, weights)
        if mine is not None:
            theirs = cohen_kappa_score(first, second, weights=name, labels=[0, 1, 2, 3])
            assert mine == pytest.approx(theirs)


def test_fleiss_kappa_of_the_example_in_his_paper_s_form():
    """Ten subjects, fourteen raters, five categories: the worked example that textbooks repeat, kappa 0.210."""
    ratings = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss_kappa([ratings]).value == pytest.approx(0.210, abs=0.0005)
    # However the cells lie on tiles, the value is the same; with several tiles there is an interval around it.
    on_tiles = fleiss_kappa([ratings[:3], np.zeros((0, 5)), ratings[3:4], ratings[4:]])
    assert on_tiles.value == pytest.approx(0.210, abs=0.0005)
    low, high = on_tiles.interval
    assert low < on_tiles.value < high


def test_fleiss_kappa_needs_as_many_readers_for_every_cell():
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([[[2, 0], [1, 2]]])
    assert fleiss_kappa([np.zeros((0, 3))]) == fleiss_kappa([]) == Estimate(None)
    assert fleiss_kappa([[[2, 0], [2, 0]]]) == Estimate(None)


def test_neighbours_in_maturation_are_less_wrong_than_other_lineages():
    lineages = ("granulocytic", "granulocytic", "granulocytic", "lymphoid", "granulocytic", "")
    weights = maturation_weights(lineages, (1, 3, 5, 2, None, 4))
    assert weights[0].tolist() == [0, 0.5, 1, 1, 1, 1]
    assert weights[1, 2] == weights[2, 1] == 0.5
    assert np.diag(weights).tolist() == [0] * 6
    assert weights[4, 5] == 1


def test_a_lineage_of_one_class_has_no_order():
    assert maturation_weights(("a", "b"), (1, 1)).tolist() == [[0, 1], [1, 0]]


def test_two_readers_side_by_side():
    weights = maturation_weights(GRANULOCYTES, (1, 2, 3))
    found = pair_agreement(
        [
            (reading((0, HERE), (1, THERE)), reading((0, NEAR), (2, THERE), (2, FAR))),
            (reading((1, FAR)), reading((1, FAR))),
        ],
        weights,
    )
    assert found.table.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert (found.both, found.only_first, found.only_second) == (3, 0, 1)
    assert found.detection.value == pytest.approx(6 / 7)
    assert [one.value for one in found.of_classes] == [1.0, pytest.approx(2 / 3), 0.0]
    # Of 3 cells 1 is called otherwise: 1/3; by chance 1 - (1*1 + 2*1 + 0*1)/9 = 2/3.
    assert found.kappa.value == pytest.approx(0.5)
    # One step of two: 1/3 * 0.5; by chance (1*1*0.5 + 1*1*1 + 2*1*0.5 + 2*1*0.5)/9.
    assert found.weighted_kappa.value == pytest.approx(1 - (0.5 / 3) / (3.5 / 9))


def test_intervals_hold_the_value_and_come_again():
    pairs = [(reading((n % 3, HERE)), reading(((n + (n % 4 == 0)) % 3, HERE))) for n in range(40)]
    weights = maturation_weights(GRANULOCYTES, (1, 2, 3))
    first, second = pair_agreement(pairs, weights), pair_agreement(pairs, weights)
    low, high = first.kappa.interval
    assert 0 < low < first.kappa.value < high < 1
    assert first.kappa == second.kappa
    assert first.detection.value == 1.0
    for one in first.of_classes:
        low, high = one.interval
        assert low < one.value < high


def test_no_tile_in_common_says_nothing():
    found = pair_agreement([], maturation_weights(GRANULOCYTES, (1, 2, 3)))
    assert found.detection.value is found.kappa.value is found.weighted_kappa.value is None
    assert found.of_classes == [Estimate(None)] * 3


def test_only_cells_that_all_have_found_are_rated():
    tiles = [
        [reading((0, HERE), (1, THERE)), reading((0, HERE)), reading((2, NEAR), (1, THERE))],
        [reading((1, FAR))] * 3,
    ]
    assert np.concatenate(ratings_of(tiles, 3)).tolist() == [[2, 0, 1], [0, 3, 0]]
    assert len(ratings_of(tiles, 3)) == len(tiles)
    assert ratings_of([], 3) == []


def test_disagreement_counts_cells():
    weights = maturation_weights(GRANULOCYTES, (1, 2, 3))
    assert disagreement(reading((0, HERE), (1, THERE)), reading((1, HERE), (1, FAR)), weights) == 0.5 + 1 + 1
    assert disagreement(reading(), reading(), weights) == 0
