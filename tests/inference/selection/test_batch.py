from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.selection.batch import PATIENT_SHARE, STRATEGIES, Known, Wanted, select_batch
from inference.selection.pool import Choice, Pool
from tests.inference.selection.pools import make_pool
from tests.memory import peak_memory

KNOWN = Known(np.array([2000, 100, 20]), ["neutrophil", "promyelocyte", "basophil"], ["basophil"])


def whole_pool(tiles: int, seed: int = 0, patients: int = 10, classes: int = 3) -> Pool:
    """A pool of which everything is known."""
    generator = np.random.default_rng(seed)
    embeddings = generator.normal(size=(tiles, 16)).astype(np.float32)
    return Pool(
        np.arange(100, 100 + tiles),
        generator.integers(patients, size=tiles),
        [f"P{index:02d}" for index in range(patients)],
        generator.exponential(0.5, (tiles, classes)).astype(np.float32),
        generator.exponential(1.0, (tiles, 2)).astype(np.float32),
        embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        generator.random((tiles, 1), np.float32),
    )


def select(pool: Pool, size: int, seed: int = 1, audit: float = 10, **shares: float) -> list[Choice]:
    return select_batch(pool, Wanted(size, shares, audit), KNOWN, seed)[0]


def counted(choices: list[Choice]) -> Counter[str]:
    return Counter("audit" if choice.audit else choice.strategy for choice in choices)


def test_a_tenth_is_a_random_audit() -> None:
    choices = select(whole_pool(300), 50, rare=100)
    assert counted(choices) == {"rare": 45, "audit": 5}
    assert all(choice.reason.startswith("random audit; patient P") for choice in choices if choice.audit)


def test_a_small_batch_has_an_audit_too() -> None:
    assert counted(select(whole_pool(300), 4, rare=100)) == {"rare": 3, "audit": 1}
    assert counted(select(whole_pool(300), 1, rare=100)) == {"rare": 1}


def test_a_mix_is_shared_out_by_percent_and_the_rest_is_random() -> None:
    choices = select(whole_pool(600), 200, rare=40, like=5, uncertain=25, diverse=20)
    assert counted(choices) == {"rare": 72, "like": 9, "uncertain": 45, "diverse": 36, "random": 18, "audit": 20}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_can_choose_alone(strategy: str) -> None:
    assert counted(select(whole_pool(300), 40, audit=0, **{strategy: 100})) == {strategy: 40}


def test_the_parts_are_spread_over_the_batch() -> None:
    choices = select(whole_pool(600), 100, rare=50, uncertain=50)
    for half in (choices[:50], choices[50:]):
        assert counted(half)["audit"] == 5
        assert 22 <= counted(half)["rare"] <= 23


def test_what_a_strategy_cannot_fill_is_random() -> None:
    pool = make_pool(50, likeness=np.eye(50)[:, :1], doubts=np.zeros((50, 2)))
    assert counted(select(pool, 20, audit=0, like=100)) == {"like": 1, "random": 19}


def test_no_patient_gives_more_than_twice_an_equal_share_unless_set() -> None:
    rows = [[0, 0, 5.0]] * 60 + [[1.0, 0, 0]] * 180
    pool = make_pool(expected=rows, patients=["P00"] * 60 + [f"P{1 + index % 3:02d}" for index in range(180)])
    given = Counter(choice.reason.split()[-1] for choice in select(pool, 40, audit=0, rare=100))
    assert given["P00"] == PATIENT_SHARE * 40 / 4
    capped = select_batch(pool, Wanted(40, {"rare": 100}, audit=0, cap=13), KNOWN, 1)[0]
    assert Counter(choice.reason.split()[-1] for choice in capped)["P00"] == 13


def test_quotas_reach_the_rare_strategy() -> None:
    pool = make_pool(expected=[[9, 0, 0], [0, 0, 3]])
    wanted = Wanted(1, {"rare": 100}, audit=0, quotas=[9, 0, 0])
    assert select_batch(pool, wanted, KNOWN, 1)[0][0].row == 0


def test_the_reserve_holds_the_next_best_of_each() -> None:
    pool = whole_pool(300)
    wanted = Wanted(40, {"rare": 50, "uncertain": 50})
    batch, reserve = select_batch(pool, wanted, KNOWN, 1)
    assert counted(reserve) == counted(batch)
    assert not {choice.row for choice in batch} & {choice.row for choice in reserve}
    total = {choice.row: sum(pool.doubts[choice.row]) for choice in (*batch, *reserve)}
    last = min(total[choice.row] for choice in batch if choice.strategy == "uncertain")
    assert all(total[choice.row] <= last for choice in reserve if choice.strategy == "uncertain")


@given(
    st.integers(0, 60),
    st.integers(0, 80),
    st.floats(0, 100),
    st.lists(st.integers(0, 20), min_size=5, max_size=5),
    st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_every_choice_is_another_tile_of_the_pool(
    tiles: int, size: int, audit: float, shares: list[int], seed: int
) -> None:
    pool = whole_pool(tiles, seed, patients=3)
    wanted = Wanted(size, dict(zip(STRATEGIES, shares, strict=True)), audit)
    batch, reserve = select_batch(pool, wanted, KNOWN, seed)
    assert len(batch) == min(tiles, size)
    assert len({choice.tile_id for choice in (*batch, *reserve)}) == len(batch) + len(reserve)
    assert all(choice.tile_id == pool.tile_ids[choice.row] for choice in (*batch, *reserve))
    assert (batch, reserve) == select_batch(pool, wanted, KNOWN, seed)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"size": -1}, "-1 tiles"),
        ({"audit": -1}, "audit"),
        ({"audit": 101}, "audit"),
        ({"cap": -1}, "cap"),
        ({"shares": {"rare": 60, "random": 50}}, "at most 100"),
        ({"shares": {"rare": -1}}, "not be negative"),
        ({"shares": {"best": 1}}, "no strategy called best"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Wanted(**({"size": 5, "shares": {"rare": 100}} | options))


def test_a_large_pool_needs_little_more_memory_than_it_has_itself() -> None:
    pool = whole_pool(20_000, classes=20)
    known = Known(np.arange(20) * 50, [str(number) for number in range(20)], ["basophil"])
    own = sum(part.nbytes for part in vars(pool).values() if isinstance(part, np.ndarray))
    with peak_memory() as peak:
        batch, _ = select_batch(pool, Wanted(250, {"rare": 40, "uncertain": 20, "like": 10, "diverse": 30}), known, 1)
    assert len(batch) == 250
    assert peak.bytes < 4 * own
