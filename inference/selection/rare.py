"""Tiles on which the detector expects the classes that the confirmed boxes lack."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.selection.pool import Choice, Pool

Floats = NDArray[np.float64]

PRIOR = 10.0  # boxes; keeps a class without any confirmed box from taking the whole batch
PATIENT_SHARE = 2.0  # a patient gives at most this many times an equal share of the batch
NAMED_CLASSES = 3  # classes named in a reason


def select_rare(
    pool: Pool,
    size: int,
    *,
    confirmed: NDArray[np.int64],
    class_names: Sequence[str],
    seed: int,
    audit_share: float = 0.1,
) -> list[Choice]:
    """`size` different tiles (or all, if there are fewer), chosen greedily for rare classes, then a random audit.

    The value of a batch is the sum over classes of log(PRIOR + confirmed + expected in the batch): a box of a class
    with ten times fewer boxes is worth ten times more, and each further one is worth less. The function is submodular,
    so taking the best tile each time comes within 1 - 1/e of the best batch (Nemhauser et al. 1978, Math. Programming
    14). No patient gives more than PATIENT_SHARE equal shares, as long as others have tiles.
    `audit_share` of the batch is drawn at random from the rest: it shows what the detector does not expect.

    confirmed: int64 (classes,), confirmed boxes per class so far. class_names: their names. The same seed gives the
    same batch. Raises ValueError if the numbers of classes differ, or for an impossible size or share.
    """
    if not len(confirmed) == len(class_names) == pool.expected.shape[1]:
        raise ValueError("Confirmed counts, class names and expected counts must have the same classes.")
    if size < 0 or not 0 <= audit_share <= 1:
        raise ValueError(f"A batch cannot have {size} tiles and an audit share of {audit_share}.")
    size = min(size, len(pool))
    audits = round(size * audit_share)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(pool))  # equal gains are settled at random, not by the order of the slides
    names, patient = np.unique(np.asarray(pool.patients, dtype=str), return_inverse=True)
    cap = int(np.ceil(PATIENT_SHARE * (size - audits) / max(len(names), 1)))
    expected = pool.expected[order].astype(np.float64)
    counts = PRIOR + np.asarray(confirmed, np.float64)
    chosen = order[_choose_greedily(expected, patient[order], counts, size - audits, cap)]
    rest = np.setdiff1d(np.arange(len(pool)), chosen)
    audited = generator.permutation(rest)[:audits]
    return [
        *(Choice(int(pool.tile_ids[index]), _reason(pool, int(index), counts, class_names)) for index in chosen),
        *(Choice(int(pool.tile_ids[index]), f"random audit; patient {pool.patients[index]}") for index in audited),
    ]


def _choose_greedily(expected: Floats, patient: NDArray[np.intp], counts: Floats, size: int, cap: int) -> list[int]:
    """Rows of `expected`, in the order of choice. `counts` are the boxes per class before the first choice."""
    counts = counts.copy()
    given = np.zeros(int(patient.max()) + 1 if len(patient) else 0, np.int64)
    free = np.ones(len(expected), bool)
    chosen: list[int] = []
    while len(chosen) < size:
        open_rows = np.flatnonzero(free & (given[patient] < cap))
        if not len(open_rows):  # every tile left is of a patient at the cap
            cap *= 2
            continue
        row = int(open_rows[_gains(expected[open_rows], counts).argmax()])
        chosen.append(row)
        free[row] = False
        given[patient[row]] += 1
        counts += expected[row]
    return chosen


def _gains(expected: Floats, counts: Floats) -> Floats:
    """How much each row would add to the value of the batch: float (rows,)."""
    gains: Floats = np.log1p(expected / counts).sum(axis=1)
    return gains


def _reason(pool: Pool, index: int, counts: Floats, class_names: Sequence[str]) -> str:
    """The classes that add most to the tile's value, with their expected counts."""
    expected = pool.expected[index].astype(np.float64)
    worth = np.log1p(expected / counts)
    best = [int(place) for place in np.argsort(-worth, kind="stable")[:NAMED_CLASSES] if expected[place] >= 0.05]
    cells = ", ".join(f"{expected[place]:.1f} {class_names[place]}" for place in best)
    return f"expects {cells or 'no cell'}; patient {pool.patients[index]}"
