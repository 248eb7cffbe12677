from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.selection.pool import Choice, Pool
from inference.selection.random import select_random
from inference.selection.rare import PATIENT_SHARE, PRIOR, select_rare

NAMES = ("neutrophil", "promyelocyte", "basophil")
CONFIRMED = np.array([2000, 100, 20])


def pool(expected: list[list[float]], patients: list[str] | None = None) -> Pool:
    rows = np.array(expected, np.float32).reshape(-1, 3)
    return Pool(np.arange(len(rows)) + 10, patients or [f"P{index:02d}" for index in range(len(rows))], rows)


def lifelike(tiles: int, seed: int = 0, patients: int = 10) -> tuple[Pool, np.ndarray]:
    """A pool, and the true counts that its expected counts are a blurred view of."""
    generator = np.random.default_rng(seed)
    true = generator.poisson([6.0, 0.4, 0.08], (tiles, 3))
    blurred = true * generator.uniform(0.3, 0.9, true.shape) + generator.uniform(0, 0.15, true.shape)
    names = [f"P{patient:02d}" for patient in generator.integers(patients, size=tiles)]
    return Pool(np.arange(tiles), names, blurred.astype(np.float32)), true


def select(pool: Pool, size: int, confirmed: np.ndarray = CONFIRMED, seed: int = 1, share: float = 0.0) -> list[Choice]:
    return select_rare(pool, size, confirmed=confirmed, class_names=NAMES, seed=seed, audit_share=share)


def test_a_tile_of_a_rare_class_goes_before_a_tile_full_of_a_common_one() -> None:
    assert [choice.tile_id for choice in select(pool([[20, 0, 0], [1, 0, 1], [1, 2, 0]]), 3)] == [11, 12, 10]


def test_what_is_rare_is_judged_by_the_confirmed_boxes() -> None:
    rows = pool([[3, 0, 0], [0, 0, 3]])
    assert select(rows, 1, confirmed=np.array([2000, 100, 20]))[0].tile_id == 11
    assert select(rows, 1, confirmed=np.array([20, 100, 2000]))[0].tile_id == 10


def test_each_further_box_of_a_class_is_worth_less() -> None:
    # Basophils gain log(1 + 9 / 10) = 0.64 at first, then log(1 + 9 / 19) = 0.39 and log(1 + 9 / 28) = 0.28;
    # the promyelocytes gain log(1 + 5 / 10) = 0.41 and so come second.
    assert PRIOR == 10
    rows = pool([[0, 0, 9], [0, 0, 9], [0, 0, 9], [0, 5, 0]])
    classes = ["promyelocyte" in choice.reason for choice in select(rows, 4, confirmed=np.zeros(3, int))]
    assert classes == [False, True, False, False]


def test_reasons_name_the_classes_that_count_most_and_the_patient() -> None:
    rows = pool([[8, 0.84, 2.1]], ["P07"])
    assert select(rows, 1)[0].reason == "expects 2.1 basophil, 0.8 promyelocyte, 8.0 neutrophil; patient P07"


def test_a_tile_on_which_nothing_is_expected_says_so() -> None:
    assert select(pool([[0, 0, 0]], ["P07"]), 1)[0].reason == "expects no cell; patient P07"


def test_no_patient_gives_more_than_the_cap_while_others_have_tiles() -> None:
    rich = [[0, 0, 5.0]] * 30
    poor = [[1.0, 0, 0]] * 90
    patients = ["P00"] * 30 + [f"P{1 + index % 3:02d}" for index in range(90)]
    choices = select(pool(rich + poor, patients), 20)
    given = Counter(choice.reason.split()[-1] for choice in choices)
    assert given["P00"] == PATIENT_SHARE * 20 / 4
    assert sum(given.values()) == 20


def test_the_cap_gives_way_when_only_one_patient_is_left() -> None:
    rows = pool([[0, 0, 1.0]] * 30 + [[0, 0, 0]], ["P00"] * 30 + ["P01"])
    assert len(select(rows, 31)) == 31
    assert len(select(rows, 25)) == 25


def test_a_tenth_is_a_random_audit_of_the_rest() -> None:
    rows, _ = lifelike(500)
    choices = select(rows, 50, share=0.1)
    audited = [choice for choice in choices if choice.reason.startswith("random audit; patient P")]
    assert len(audited) == 5
    assert choices[-5:] == audited
    assert select(rows, 50, share=1.0)[0].reason.startswith("random audit")


def test_it_finds_more_rare_cells_than_chance() -> None:
    rows, true = lifelike(2000)
    rare = true[[choice.tile_id for choice in select(rows, 100, share=0.1)]].sum(axis=0)
    chance = np.mean(
        [true[[item.tile_id for item in select_random(rows, 100, seed)]].sum(axis=0) for seed in range(20)], 0
    )
    assert rare[2] >= 3 * chance[2]
    assert rare[1] >= 1.5 * chance[1]


@given(st.integers(0, 60), st.integers(0, 80), st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_every_choice_is_another_tile_of_the_pool(tiles: int, size: int, share: float, seed: int) -> None:
    rows, _ = lifelike(tiles, seed, patients=3)
    choices = select(rows, size, seed=seed, share=share)
    chosen = {choice.tile_id for choice in choices}
    assert len(chosen) == len(choices) == min(tiles, size)
    assert chosen <= set(range(tiles))
    assert choices == select(rows, size, seed=seed, share=share)


def test_tiles_of_equal_worth_are_taken_at_random_and_not_in_order() -> None:
    rows = pool([[0, 0, 0]] * 40)
    first, second = ([choice.tile_id for choice in select(rows, 10, seed=seed)] for seed in (1, 2))
    assert first != sorted(first)
    assert set(first) != set(second)


def test_it_does_not_change_the_counts_it_is_given() -> None:
    confirmed = CONFIRMED.copy()
    rows, _ = lifelike(50)
    select(rows, 10, confirmed=confirmed)
    assert (confirmed == CONFIRMED).all()


def test_classes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same classes"):
        select(pool([[1, 1, 1]]), 1, confirmed=np.array([1, 2]))


@pytest.mark.parametrize(("size", "share"), [(-1, 0.1), (5, -0.1), (5, 1.1)])
def test_an_impossible_size_or_share_is_refused(size: int, share: float) -> None:
    with pytest.raises(ValueError, match="audit share"):
        select(pool([[1, 1, 1]]), size, share=share)
