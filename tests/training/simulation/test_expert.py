"""An expert who answers from known truth."""

import numpy as np
import pytest

from annotation.agreement import Reading
from training.simulation.expert import Answer, Classes, Errors, Expert
from training.simulation.operators import CELL, CLICK, CONFIRM, DECIDE, DELETE, DRAG, OPEN, STEP, Operators, Work

NEVER = Errors(miss=0, mistake=0, accept=0)
# blast, promyelocyte, myelocyte in a row; lymphocyte has no neighbour
CLASSES = Classes.of(["b", "p", "M", "y"], ["granulocytic"] * 3 + ["lymphoid"], [0, 1, 2, 0])
CELLS = Reading.of([[10, 10, 40, 40], [100, 100, 40, 40], [200, 200, 40, 40]], [0, 2, 3])
NOTHING = Reading.of([], [])


def answer(shown: Reading | None, errors: Errors = NEVER, *, truth: Reading = CELLS, armed: int = 0) -> Answer:
    return Expert(CLASSES, errors, seed=1).answer(truth, shown, tile=7, armed=armed)


def classes_of(one: Answer) -> list[int]:
    return [box.class_number for box in one.boxes]


def places_of(one: Answer) -> list[tuple[float, ...]]:
    return [box.place for box in one.boxes]


class TestFromNothing:
    def test_every_cell_is_drawn(self) -> None:
        made = answer(None)
        assert places_of(made) == [tuple(box) for box in CELLS.boxes.tolist()]
        assert classes_of(made) == [0, 2, 3]
        assert all(box.origin is None for box in made.boxes)

    def test_it_costs_a_drag_each_and_a_key_where_the_class_is_not_armed(self) -> None:
        per_cell = CELL + DRAG
        expected = OPEN + CONFIRM + per_cell + per_cell + per_cell + Work(keys=2) + Work(keys=1)  # M is Shift+m
        assert answer(None).work == expected

    def test_cells_are_drawn_class_by_class_so_that_each_needs_its_key_once(self) -> None:
        cells = Reading.of([[10, 10, 40, 40], [100, 100, 40, 40], [200, 200, 40, 40], [300, 300, 40, 40]], [1, 0, 1, 1])
        assert answer(None, truth=cells).work == OPEN + CONFIRM + (CELL + DRAG).times(4) + Work(keys=1)

    def test_an_empty_tile_is_looked_at_and_confirmed(self) -> None:
        made = answer(None, truth=NOTHING)
        assert (made.boxes, made.work) == ([], OPEN + CONFIRM)


class TestFromPreLabels:
    def test_what_is_right_is_recognised_and_stays(self) -> None:
        made = answer(CELLS)
        assert [box.origin for box in made.boxes] == [0, 1, 2]
        assert made.work == OPEN + CONFIRM + CELL + CELL + CELL

    def test_a_wrong_class_costs_a_decision_a_step_to_it_and_a_key(self) -> None:
        made = answer(Reading.of(CELLS.boxes, [3, 2, 3]))
        assert classes_of(made) == [0, 2, 3]
        assert made.work == OPEN + CONFIRM + CELL.times(3) + DECIDE + STEP + Work(keys=1)

    def test_one_far_along_the_walk_is_clicked(self) -> None:
        boxes = [[60.0 * place, 10, 40, 40] for place in range(8)]
        cells = Reading.of(boxes, [0] * 8)
        quick = Operators(point=0.7, button=0.1, key=0.28)  # a click: 0.9 s, as long as three steps and a bit
        for wrong, reached in ((2, STEP.times(3)), (3, CLICK)):
            shown = Reading.of(boxes, [3 if place == wrong else 0 for place in range(8)])
            made = Expert(CLASSES, NEVER, quick, seed=1).answer(cells, shown, tile=7, armed=0)
            assert made.work == OPEN + CONFIRM + CELL.times(8) + DECIDE + Work(keys=1) + reached

    def test_several_on_one_tile_are_reached_in_one_walk(self) -> None:
        boxes = [[60.0 * place, 10, 40, 40] for place in range(8)]
        shown = Reading.of(boxes, [0, 3, 0, 3, 3, 0, 0, 0])
        made = answer(shown, truth=Reading.of(boxes, [0] * 8))
        assert made.work == OPEN + CONFIRM + CELL.times(8) + (DECIDE + Work(keys=1)).times(3) + STEP.times(5)

    def test_a_badly_placed_box_is_drawn_anew(self) -> None:
        boxes = CELLS.boxes.copy()
        boxes[0] += [8, 0, 0, 0]  # IoU 32/48: the same cell, but below what an expert leaves
        made = answer(Reading.of(boxes, CELLS.classes))
        assert places_of(made) == [tuple(box) for box in CELLS.boxes.tolist()]
        assert [box.origin for box in made.boxes] == [None, 1, 2]
        assert made.work == OPEN + CONFIRM + CELL.times(3) + DECIDE + STEP + DELETE + DRAG + Work(keys=1)

    def test_where_keys_are_slow_its_corners_are_drawn(self) -> None:
        boxes = CELLS.boxes.copy()
        boxes[0] += [8, 0, 0, 0]
        slow = Operators(key=4.0)
        made = Expert(CLASSES, NEVER, slow, seed=1).answer(
            CELLS, Reading.of(boxes, [1, 2, 3]), tile=7, armed=0
        )  # of another class, too
        assert [(box.class_number, box.origin) for box in made.boxes] == [(0, 0), (2, 1), (3, 2)]
        assert made.work == OPEN + CONFIRM + CELL.times(3) + DECIDE + CLICK + DRAG + DRAG + Work(keys=1)

    def test_a_well_placed_box_keeps_its_place(self) -> None:
        boxes = CELLS.boxes + np.array([2.0, 0, 0, 0])
        made = answer(Reading.of(boxes, CELLS.classes))
        assert places_of(made) == [tuple(box) for box in boxes.tolist()]

    def test_what_is_no_cell_is_deleted(self) -> None:
        shown = Reading.of([*CELLS.boxes.tolist(), [300, 300, 40, 40]], [*CELLS.classes.tolist(), 1])
        made = answer(shown)
        assert classes_of(made) == [0, 2, 3]
        assert made.work == OPEN + CONFIRM + CELL.times(4) + DECIDE + STEP.times(4) + DELETE

    def test_a_second_box_on_a_cell_is_deleted(self) -> None:
        shown = Reading.of([*CELLS.boxes.tolist(), [12, 10, 40, 40]], [*CELLS.classes.tolist(), 0])
        assert len(answer(shown).boxes) == 3

    def test_what_is_missing_is_drawn(self) -> None:
        made = answer(Reading.of(CELLS.boxes[:2], CELLS.classes[:2]))
        assert [box.origin for box in made.boxes] == [0, 1, None]
        assert made.work == OPEN + CONFIRM + CELL + CELL + CELL + DRAG + Work(keys=1)


class TestErrors:
    def test_all_are_missed_where_nothing_is_drawn(self) -> None:
        assert answer(None, Errors(miss=1, mistake=0, accept=0)).boxes == []

    def test_nothing_that_is_drawn_is_missed(self) -> None:
        assert len(answer(CELLS, Errors(miss=1, mistake=0, accept=0)).boxes) == 3

    def test_mistakes_are_neighbours_in_maturation(self) -> None:
        made = answer(None, Errors(miss=0, mistake=1, accept=0))
        assert classes_of(made) == [1, 1, 3]  # a lymphocyte has no neighbour

    def test_a_right_pre_label_is_not_made_wrong(self) -> None:
        assert classes_of(answer(CELLS, Errors(miss=0, mistake=1, accept=0))) == [0, 2, 3]

    def test_all_that_is_wrong_is_accepted(self) -> None:
        shown = Reading.of([[18, 10, 40, 40], [300, 300, 40, 40]], [3, 1])
        made = answer(shown, Errors(miss=1, mistake=0, accept=1))
        assert places_of(made) == [tuple(box) for box in shown.boxes.tolist()]
        assert classes_of(made) == [3, 1]
        assert made.work == OPEN + CONFIRM + CELL + CELL

    def test_shares_are_about_those_that_were_asked_for(self) -> None:
        expert = Expert(CLASSES, Errors(miss=0.2, mistake=0.1, accept=0.3), seed=5)
        truth = Reading.of([[10, 10, 40, 40]], [1])
        drawn = [expert.answer(truth, None, tile=tile, armed=0).boxes for tile in range(4000)]
        assert 1 - sum(map(len, drawn)) / 4000 == pytest.approx(0.2, abs=0.03)
        wrong = [box.class_number != 1 for boxes in drawn for box in boxes]
        assert np.mean(wrong) == pytest.approx(0.1, abs=0.03)
        nothing_there = Reading.of([[300, 300, 40, 40]], [1])
        left = [bool(expert.answer(NOTHING, nothing_there, tile=tile, armed=0).boxes) for tile in range(4000)]
        assert np.mean(left) == pytest.approx(0.3, abs=0.03)

    def test_a_tile_is_answered_alike_whatever_came_before(self) -> None:
        errors = Errors(miss=0.5, mistake=0.5, accept=0.5)
        first, second = Expert(CLASSES, errors, seed=3), Expert(CLASSES, errors, seed=3)
        first.answer(CELLS, None, tile=1, armed=0)
        assert first.answer(CELLS, None, tile=2, armed=0) == second.answer(CELLS, None, tile=2, armed=0)

    @pytest.mark.parametrize("wrong", [{"miss": -0.1}, {"mistake": 1.1}, {"accept": float("nan")}])
    def test_impossible_shares_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            Errors(**wrong)
