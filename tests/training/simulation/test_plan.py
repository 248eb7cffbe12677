"""The arms of a simulation."""

from dataclasses import replace

import pytest

from training.simulation.plan import ARMS, FIRST, epochs_for, prefixes


def keys(name: str, rounds: int = 4) -> list[str]:
    return [step.key for step in ARMS[name].steps(rounds)]


def test_every_arm_starts_manually_with_random_tiles() -> None:
    assert {replace(arm.steps(3)[0], kind="") for arm in ARMS.values()} == {FIRST}


def test_arms_are_those_of_the_question() -> None:
    assert keys("a") == ["manual-random"] * 4
    assert keys("b") == ["manual-random", *["assisted-random"] * 3]
    assert keys("c") == ["manual-random", *["assisted-rare"] * 3]
    assert keys("d") == ["manual-random", *["assisted-uncertain"] * 3]
    assert keys("e") == ["manual-random", "manual-random", "assisted-mix", "assisted-mix"]
    assert keys("e1") == [f"one-stage-{key}" for key in keys("e")]


def test_an_arm_with_a_kind_of_its_own_shares_no_round_with_others() -> None:
    assert len(prefixes([ARMS["e"], ARMS["e1"]], 3)) == 6


def test_assistance_starts_where_it_is_marked() -> None:
    for arm in ARMS.values():
        first = next((number for number, step in enumerate(arm.steps(5), start=1) if step.assisted), None)
        assert arm.assisted_from == first


def test_arms_that_begin_alike_share_their_rounds() -> None:
    found = prefixes([ARMS["a"], ARMS["c"], ARMS["e"]], 3)
    assert ["/".join(step.key for step in steps) for steps in found] == [
        "manual-random",
        "manual-random/assisted-rare",
        "manual-random/manual-random",
        "manual-random/assisted-rare/assisted-rare",
        "manual-random/manual-random/assisted-mix",
        "manual-random/manual-random/manual-random",
    ]


@pytest.mark.parametrize(("passes", "items", "epochs"), [(1000, 40, 25), (1000, 250, 4), (1000, 5000, 1), (10, 0, 10)])
def test_the_budget_does_not_grow_with_the_data(passes: int, items: int, epochs: int) -> None:
    assert epochs_for(passes, items) == epochs
