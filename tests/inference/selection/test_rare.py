from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from inference.selection import rare
from inference.selection.pool import Choice, Pool
from inference.selection.random import pick_random
from inference.selection.rare import PRIOR, TILE_CELLS, pick_rare
from inference.selection.room import Room
from tests.inference.selection.pools import make_pool

NAMES = ("neutrophil", "promyelocyte", "basophil")
CONFIRMED = np.array([2000, 100, 20])


def lifelike(tiles: int, seed: int = 0, patients: int = 10) -> tuple[Pool, np.ndarray]:
    """A pool, and the true counts that its expected counts are a blurred view of."""
    generator = np.random.default_rng(seed)
    true = generator.poisson([6.0, 0.4, 0.08], (tiles, 3))
    blurred = true * generator.uniform(0.3, 0.9, true.shape) + generator.uniform(0, 0.05, true.shape)
    names = [f"P{patient:02d}" for patient in generator.integers(patients, size=tiles)]
    return make_pool(expected=blurred, patients=names), true


def pick(
    pool: Pool,
    size: int,
    confirmed: np.ndarray = CONFIRMED,
    seed: int = 1,
    cap: int = 1000,
    quotas: Sequence[float] = (),
) -> list[Choice]:
    wanted = np.array(quotas) if len(quotas) else None
    generator = np.random.default_rng(seed)
    return pick_rare(Room(pool, cap), size, generator, confirmed=confirmed, class_names=NAMES, quotas=wanted)


def rows(choices: list[Choice]) -> list[int]:
    return [choice.row for choice in choices]


def test_a_tile_of_a_rare_class_goes_before_a_tile_full_of_a_common_one() -> None:
    assert rows(pick(make_pool(expected=[[20, 0, 0], [1, 0, 1], [1, 2, 0]]), 3)) == [1, 2, 0]


def test_what_is_rare_is_judged_by_the_confirmed_boxes() -> None:
    pool = make_pool(expected=[[3, 0, 0], [0, 0, 3]])
    assert rows(pick(pool, 1, confirmed=np.array([2000, 100, 20]))) == [1]
    assert rows(pick(pool, 1, confirmed=np.array([20, 100, 2000]))) == [0]


def test_each_further_box_of_a_class_is_worth_less() -> None:
    # Basophils gain 1/5 - 1/9 = 0.089 at first, then 1/9 - 1/13 = 0.034; the promyelocytes gain 1/5 - 1/8 = 0.075.
    assert PRIOR == 5
    same_cost = {"cells": [4, 4, 4, 4]}
    pool = make_pool(expected=[[0, 0, 4], [0, 0, 4], [0, 0, 4], [0, 3, 0]], **same_cost)
    classes = ["promyelocyte" in choice.reason for choice in pick(pool, 4, confirmed=np.zeros(3, int))]
    assert classes == [False, True, False, False]


class TestCost:
    def test_of_two_tiles_with_the_same_gain_the_one_with_fewer_cells_goes_first(self) -> None:
        assert rows(pick(make_pool(expected=[[12, 0, 1], [3, 0, 1]]), 2)) == [1, 0]

    def test_twice_the_gain_is_worth_up_to_twice_the_cost(self) -> None:
        assert TILE_CELLS == 3
        many = np.array([10**4] * 3)  # so many that a second box is worth as much as the first
        # 2 boxes by 3 + 9 cells against 1 box by 3 + 5; then 2 by 3 + 15.
        assert rows(pick(make_pool(expected=[[0, 0, 1], [0, 0, 2]], cells=[5, 9]), 1, confirmed=many)) == [1]
        assert rows(pick(make_pool(expected=[[0, 0, 1], [0, 0, 2]], cells=[5, 15]), 1, confirmed=many)) == [0]

    def test_cells_of_classes_that_nobody_wants_cost_as_much(self) -> None:
        pool = make_pool(expected=[[0, 0, 1], [2, 0, 1]], cells=[30, 3])
        assert rows(pick(pool, 2)) == [1, 0]

    def test_a_quota_is_filled_at_any_cost(self) -> None:
        pool = make_pool(expected=[[40, 0, 1], [0, 3, 0]], cells=[300, 3])
        assert rows(pick(pool, 1)) == [1]
        assert rows(pick(pool, 1, quotas=[0, 0, 1])) == [0]


def test_reasons_name_the_classes_that_count_most_and_the_patient() -> None:
    pool = make_pool(expected=[[8, 0.84, 2.1]], patients=["P07"])
    (choice,) = pick(pool, 1)
    assert choice.reason == "expects 2.1 basophil, 0.8 promyelocyte, 8.0 neutrophil; patient P07"
    assert (choice.strategy, choice.audit, choice.tile_id) == ("rare", False, 100)


def test_a_tile_on_which_nothing_is_expected_says_so() -> None:
    assert pick(make_pool(expected=[[0, 0, 0]], patients=["P07"]), 1)[0].reason == "expects no cell; patient P07"


def test_the_cap_holds() -> None:
    patients = ["P00"] * 30 + [f"P{1 + index % 3:02d}" for index in range(90)]
    pool = make_pool(expected=[[0, 0, 5.0]] * 30 + [[1.0, 0, 0]] * 90, patients=patients)
    given = Counter(choice.reason.split()[-1] for choice in pick(pool, 20, cap=10))
    assert given["P00"] == 10
    assert sum(given.values()) == 20


class TestQuotas:
    POOL = make_pool(expected=[[9, 0, 0], [4, 0, 0], [0, 0, 3], [0, 2, 0]])

    def test_they_are_filled_before_anything_else_counts(self) -> None:
        assert rows(pick(self.POOL, 4)) == [2, 3, 0, 1]
        assert rows(pick(self.POOL, 4, quotas=[9, 0, 0])) == [0, 2, 3, 1]
        assert rows(pick(self.POOL, 4, quotas=[13, 0, 0])) == [0, 1, 2, 3]

    def test_more_of_a_class_than_its_quota_does_not_count_for_it(self) -> None:
        # Both fill the quota of two; the second brings a basophil as well.
        pool = make_pool(expected=[[9, 0, 0], [2, 0, 1]])
        assert rows(pick(pool, 1, quotas=[2, 0, 0])) == [1]

    def test_what_others_have_taken_fills_them(self) -> None:
        room = Room(self.POOL, 9)
        room.take(0)
        wanted = np.array([9.0, 0, 0])
        generator = np.random.default_rng(0)
        choices = pick_rare(room, 1, generator, confirmed=CONFIRMED, class_names=NAMES, quotas=wanted)
        assert rows(choices) == [2]


def test_tiles_that_others_have_taken_make_their_classes_less_rare() -> None:
    pool = make_pool(expected=[[0, 0, 40], [0, 0, 3], [0, 3, 0]])
    confirmed = np.array([2000, 20, 10])
    assert rows(pick(make_pool(expected=[[0, 0, 3], [0, 3, 0]]), 1, confirmed=confirmed)) == [0]
    room = Room(pool, 9)
    room.take(0)
    choices = pick_rare(room, 1, np.random.default_rng(0), confirmed=confirmed, class_names=NAMES)
    assert rows(choices) == [2]


def test_it_finds_more_rare_cells_than_chance() -> None:
    pool, true = lifelike(2000)
    found = true[rows(pick(pool, 100, cap=20))].sum(axis=0)
    chance = [pick_random(Room(pool, 20), 100, np.random.default_rng(seed)) for seed in range(20)]
    expected = np.mean([true[rows(choices)].sum(axis=0) for choices in chance], axis=0)
    assert found[2] >= 4 * expected[2]
    assert found[1] >= 1.2 * expected[1]


def test_computing_only_the_most_promising_tiles_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = lifelike(600, seed=3)
    monkeypatch.setattr(rare, "BLOCK", 16)
    lazily = rows(pick(pool, 80, cap=12, quotas=[0, 30, 0]))
    monkeypatch.setattr(rare, "BLOCK", 10_000)
    assert rows(pick(pool, 80, cap=12, quotas=[0, 30, 0])) == lazily


def test_tiles_of_equal_worth_are_taken_at_random_and_not_in_order() -> None:
    pool = make_pool(40)
    first, second = (rows(pick(pool, 10, seed=seed)) for seed in (1, 2))
    assert first != sorted(first)
    assert set(first) != set(second)


def test_it_does_not_change_what_it_is_given() -> None:
    confirmed = CONFIRMED.copy()
    pool, _ = lifelike(50)
    before = pool.expected.copy()
    pick(pool, 10, confirmed=confirmed, quotas=[1, 1, 1])
    assert (confirmed == CONFIRMED).all()
    assert (pool.expected == before).all()


@pytest.mark.parametrize("options", [{"confirmed": np.array([1, 2])}, {"quotas": [1.0, 2.0]}])
def test_classes_that_do_not_fit_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="same classes"):
        pick(make_pool(expected=[[1, 1, 1]]), 1, **options)
