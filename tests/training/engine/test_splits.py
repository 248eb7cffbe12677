import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.engine.splits import TooFewPatients, rarest_class, split_by_patient, validation_split


def many_tiles(patients: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    generator = np.random.default_rng(seed)
    names = [f"P{patient:02d}" for patient in range(patients) for _ in range(10)]
    return names, generator.poisson([2.0, 1.0, 0.1], size=(len(names), 3))


@given(st.integers(5, 12), st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_folds_hold_every_tile_once_and_share_no_patient(patients: int, folds: int, seed: int) -> None:
    names, counts = many_tiles(patients, seed)
    parts = split_by_patient(names, counts, folds=folds, seed=seed)
    assert len(parts) == folds
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(names)))
    of_part = [{names[index] for index in part} for part in parts]
    assert sum(len(part) for part in of_part) == patients


def test_the_same_seed_gives_the_same_folds() -> None:
    names, counts = many_tiles(10)
    first, again = (split_by_patient(names, counts, seed=1) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


def test_a_rare_class_of_few_patients_is_spread_over_the_folds() -> None:
    names = [f"P{patient}" for patient in range(10) for _ in range(4)]
    counts = np.tile([5, 0], (40, 1))
    counts[[0, 4, 8, 12, 16], 1] = 3  # five patients have the rare class
    parts = split_by_patient(names, counts, folds=5)
    assert [int(counts[part, 1].sum()) for part in parts] == [3, 3, 3, 3, 3]


def test_fewer_patients_than_folds_are_refused_with_both_numbers() -> None:
    with pytest.raises(TooFewPatients, match=r"at least 5 patients.*of 2 only"):
        split_by_patient(["P01", "P02"], np.ones((2, 3), int))


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one row"):
        split_by_patient(["P01"], np.ones((2, 3), int))


@given(st.integers(2, 12), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_validation_split_shares_no_patient_and_has_tiles_on_both_sides(patients: int, seed: int) -> None:
    names, counts = many_tiles(patients, seed)
    train, validation = validation_split(names, counts, seed=seed)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(names)))
    assert len(train)
    assert len(validation)
    assert not {names[index] for index in train} & {names[index] for index in validation}


def test_validation_takes_about_a_fifth() -> None:
    names, counts = many_tiles(10)
    assert len(validation_split(names, counts)[1]) == 20


@pytest.mark.parametrize("seed", range(8))
def test_validation_does_not_take_the_only_patient_of_a_class(seed: int) -> None:
    names, counts = many_tiles(6)
    counts[:, 2] = 0
    counts[:10, 2] = 4  # all in P00
    assert "P00" not in {names[index] for index in validation_split(names, counts, seed=seed)[1]}


def test_one_patient_cannot_validate() -> None:
    with pytest.raises(TooFewPatients, match="at least 2 patients"):
        validation_split(["P01"] * 5, np.ones((5, 3), int))


def test_the_rarest_class_of_a_tile_is_the_one_with_fewest_boxes_overall() -> None:
    counts = np.array([[4, 1, 0], [6, 0, 0], [0, 0, 0], [1, 1, 1]])  # totals 11, 2, 1
    assert rarest_class(counts).tolist() == [1, 0, -1, 2]


def test_tiles_too_few_to_spread_any_class_are_split_all_the_same() -> None:
    patients = [f"P{number}" for number in range(6)]
    parts = split_by_patient(patients, np.eye(6, dtype=np.int64), folds=5)
    assert sorted(index for part in parts for index in part) == list(range(6))
    train, validation = validation_split(patients, np.eye(6, dtype=np.int64))
    assert len(train) + len(validation) == 6
    assert len(validation)
