"""Tiles on which the detector expects the classes that the confirmed boxes lack, by the time of reading them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.selection.pool import Choice, Pool
from inference.selection.room import Room

Floats = NDArray[np.float64]

PRIOR = 5.0  # boxes; keeps a class without any confirmed box from taking the whole batch
TILE_CELLS = 3.0  # what a tile costs its reader besides its cells, in cells: opening, looking all over it, confirming
NAMED_CLASSES = 3  # classes named in a reason
BLOCK = 2048  # tiles whose gain is computed anew together
TIE = 1e-12  # gains that differ by less are settled at random, not by the order of the slides


def pick_rare(
    room: Room,
    size: int,
    generator: np.random.Generator,
    *,
    confirmed: NDArray[np.int64],
    class_names: Sequence[str],
    quotas: NDArray[np.float64] | None = None,
) -> list[Choice]:
    """`size` different tiles (or all, if there are fewer), chosen greedily for rare classes.

    What is learned of a class from n boxes varies as 1 / n, so the value of a batch is the fall of the sum over the
    classes of 1 / (PRIOR + n), with n the confirmed boxes and those expected in the batch: a box of a class with a
    tenth of the boxes is worth a hundred times as much, and each further one is worth less. A reader's time goes by
    cells, so what counts is the gain of a tile by its cost, TILE_CELLS and the cells that are expected on it
    (annotation cost: Settles, Craven & Friedland 2008, "Active learning with real annotation costs"): a basophil among
    three cells goes before one among twelve. Greedy by gain and cost carries no guarantee (Leskovec et al. 2007,
    "Cost-effective outbreak detection in networks"); without the cost it would come within 1 - 1/e of the best batch.

    quotas: float (classes,), the expected boxes of each class that the batch should hold before anything else counts;
    nothing where 0. Tiles that help to fill a quota come first, whatever else they bring and cost.

    Both parts are submodular and a tile's cost stays what it is, so a gain computed earlier is an upper bound of what
    it is now: only the most promising tiles are computed anew (Minoux 1978, "accelerated greedy").

    confirmed: int64 (classes,), confirmed boxes per class so far. Tiles that the room has given to others count as
    expected. Raises ValueError if the numbers of classes differ.
    """
    pool = room.pool
    wanted = np.zeros(len(confirmed)) if quotas is None else np.asarray(quotas, np.float64)
    if not len(confirmed) == len(class_names) == len(wanted) == pool.expected.shape[1]:
        raise ValueError("Confirmed counts, class names, quotas and expected counts must have the same classes.")
    base = PRIOR + np.asarray(confirmed, np.float64)
    held = pool.expected[room.taken].sum(axis=0, dtype=np.float64)
    costs = TILE_CELLS + pool.cells_per_tile
    ties = generator.random(len(pool)) * TIE
    bounds = np.full(len(pool), np.inf)
    choices: list[Choice] = []
    while len(choices) < size:
        found = room.open()
        if not found.any():
            break
        row = _best(pool, np.flatnonzero(found), bounds, costs, ties, base + held, wanted - held)
        room.take(row)
        held += pool.expected[row]
        reason = f"{_expects(pool, row, base, class_names)}; {pool.patient(row)}"
        choices.append(Choice(int(pool.tile_ids[row]), reason, row, "rare"))
    return choices


def _best(
    pool: Pool,
    rows: NDArray[np.intp],
    bounds: Floats,
    costs: Floats,
    ties: Floats,
    counts: Floats,
    lacking: Floats,
) -> int:
    """The row with the greatest gain; `bounds`, upper bounds of all gains, are brought up to date on the way."""
    while True:
        of_rows = bounds[rows]
        some = rows[np.argpartition(-of_rows, BLOCK)[:BLOCK]] if len(rows) > BLOCK else rows
        expected = pool.expected[some].astype(np.float64)
        bounds[some] = _gains(expected, costs[some], counts, lacking) + ties[some]
        best = some[bounds[some].argmax()]
        if bounds[best] >= bounds[rows].max():
            return int(best)


def _gains(expected: Floats, costs: Floats, counts: Floats, lacking: Floats) -> Floats:
    """How much each row would add to the value of the batch, by its cost in cells: float (rows,).

    One box that a quota lacks is worth more than all classes together, whose value is at most classes / PRIOR.
    """
    gains = (1 / counts - 1 / (counts + expected)).sum(axis=1) / costs
    filled = np.minimum(expected, np.maximum(lacking, 0)).sum(axis=1)
    return np.asarray(gains + filled * len(counts) / PRIOR, np.float64)


def _expects(pool: Pool, row: int, counts: Floats, class_names: Sequence[str]) -> str:
    """The classes that add most to the tile's value, with their expected counts."""
    expected = pool.expected[row].astype(np.float64)
    worth = 1 / counts - 1 / (counts + expected)
    best = [int(place) for place in np.argsort(-worth, kind="stable")[:NAMED_CLASSES] if expected[place] >= 0.05]
    cells = ", ".join(f"{expected[place]:.1f} {class_names[place]}" for place in best)
    return f"expects {cells or 'no cell'}"
