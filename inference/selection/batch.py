"""A whole batch: several strategies by percentage, a random audit slice, and tiles in reserve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference.selection.alike import pick_alike
from inference.selection.diverse import pick_diverse
from inference.selection.pool import Choice, Pool
from inference.selection.random import pick_random
from inference.selection.rare import pick_rare
from inference.selection.room import Room
from inference.selection.uncertain import pick_uncertain

PATIENT_SHARE = 2.0  # a patient gives at most this many times an equal share of the batch, if nothing else is set
STRATEGIES = ("rare", "like", "uncertain", "diverse", "random")  # in the order in which they choose


@dataclass(frozen=True)
class Wanted:
    """What a batch is to be.

    size: tiles. shares: percent of each strategy, of what is no audit; what lacks to 100 is random. audit: percent of
    the batch that is drawn at random, at least one tile of two where it is not 0. cap: the most tiles of one patient;
    0 is twice an equal share. quotas: float (classes,), see `pick_rare`; none if empty.
    Raises ValueError for what is impossible.
    """

    size: int
    shares: Mapping[str, float]
    audit: float = 10.0
    cap: int = 0
    quotas: Sequence[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        unknown = set(self.shares) - set(STRATEGIES)
        if unknown:
            raise ValueError(f"There is no strategy called {', '.join(sorted(unknown))}.")
        if self.size < 0 or not 0 <= self.audit <= 100 or self.cap < 0:
            raise ValueError(f"A batch cannot have {self.size} tiles, {self.audit} % audit and a cap of {self.cap}.")
        if any(share < 0 for share in self.shares.values()) or sum(self.shares.values()) > 100:
            raise ValueError("The shares of the strategies must not be negative and sum to at most 100 %.")


@dataclass(frozen=True)
class Known:
    """What is known beside the pool.

    confirmed: int64 (classes,), confirmed boxes per class. class_names: their names. groups: names of what is looked
    for, one for each column of the pool's likeness. tiles: float32 (m, dimensions), embeddings of confirmed tiles.
    """

    confirmed: NDArray[np.int64]
    class_names: Sequence[str]
    groups: Sequence[str] = ()
    tiles: NDArray[np.float32] | None = None


def select_batch(pool: Pool, wanted: Wanted, known: Known, seed: int) -> tuple[list[Choice], list[Choice]]:
    """The batch, in the order in which it is to be read, and as many further tiles in reserve, best first.

    Each strategy chooses from what those before it have left, then the audit slice is drawn from the rest; a strategy
    that finds too little leaves its places to chance. In the batch the strategies and the audits are spread evenly, so
    that a batch that is closed early has had its share of each. The same seed gives the same batch.
    """
    generator = np.random.default_rng(seed)
    size = min(wanted.size, len(pool))
    audits = _audits(size, wanted.audit)
    codes = len(np.unique(pool.patients))
    cap = wanted.cap or int(np.ceil(PATIENT_SHARE * (size - audits) / max(codes, 1)))
    room = Room(pool, cap)
    sizes = _sizes(size - audits, wanted.shares)
    quotas = np.asarray(wanted.quotas, np.float64) if len(wanted.quotas) else None
    pickers: dict[str, Callable[[int], list[Choice]]] = {
        "rare": lambda count: pick_rare(
            room, count, generator, confirmed=known.confirmed, class_names=known.class_names, quotas=quotas
        ),
        "like": lambda count: pick_alike(room, count, generator, names=known.groups),
        "uncertain": lambda count: pick_uncertain(room, count, generator),
        "diverse": lambda count: pick_diverse(room, count, generator, known=known.tiles),
        "random": lambda count: pick_random(room, count, generator),
    }

    def pick_all() -> list[list[Choice]]:
        parts = [pickers[name](count) for name, count in sizes.items() if count and name != "random"]
        rest = size - audits - sum(len(part) for part in parts)
        return [*parts, pickers["random"](rest), pick_random(room, audits, generator, audit=True)]

    batch = _spread(pick_all())
    return batch, [choice for part in pick_all() for choice in part]


def _audits(size: int, percent: float) -> int:
    if not percent or size < 2:
        return 0
    return max(1, round(size * percent / 100))


def _sizes(size: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many tiles each strategy chooses, in the order in which they do: shares rounded so that the sum fits."""
    ends = np.cumsum([shares.get(name, 0) for name in STRATEGIES]) * size / 100
    counts = np.diff(np.round(ends).astype(int), prepend=0)
    return dict(zip(STRATEGIES, (int(count) for count in counts), strict=True))


def _spread(parts: Sequence[Sequence[Choice]]) -> list[Choice]:
    """The parts laid into each other, each evenly over the whole and in its own order."""
    placed = [
        ((place + 0.5) / len(part), number, choice)
        for number, part in enumerate(parts)
        for place, choice in enumerate(part)
    ]
    return [choice for _, _, choice in sorted(placed, key=lambda one: one[:2])]
