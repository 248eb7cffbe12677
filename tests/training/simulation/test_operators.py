"""The Keystroke-Level Model."""

import pytest

from training.simulation.operators import CLICK, CONFIRM, DRAG, OPEN, Operators, Work, class_key


def test_seconds_are_the_sum_of_the_operators() -> None:
    work = Work(keys=2, points=3, buttons=4, mentals=5, recognised=6)
    operators = Operators(key=1, point=10, button=100, mental=1000, recognise=2000)
    assert work.seconds(operators) == 2 + 30 + 400 + 5000 + 12000


def test_work_adds_up() -> None:
    assert Work(keys=1, points=3, buttons=4, mentals=1) == OPEN + CONFIRM + CLICK + DRAG


def test_the_times_are_those_of_the_paper() -> None:
    operators = Operators()
    assert (operators.key, operators.point, operators.mental) == (0.28, 1.10, 1.35)


@pytest.mark.parametrize(("hotkey", "keys"), [("b", 1), ("3", 1), ("B", 2)])
def test_a_capital_hotkey_needs_shift(hotkey: str, keys: int) -> None:
    assert class_key(hotkey) == Work(keys=keys)


def test_one_operator_is_scaled_and_no_other() -> None:
    scaled = Operators().scaled("mental", 2)
    assert scaled == Operators(mental=2.70)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 3600.0])
def test_impossible_times_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="point"):
        Operators(point=seconds)
