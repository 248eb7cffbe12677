"""What a training says of itself: while it runs, and how it ended."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class Cancelled(Exception):
    """`should_stop` asked for an end. The state of the last whole epoch stays in the folder."""


class TrainingError(RuntimeError):
    """Training cannot go on, for a reason that its message explains to whoever started it."""


@dataclass(frozen=True)
class Progress:
    """Where training is after an epoch (the first is 1); `map50` is that of the last validation, if there was one."""

    epoch: int
    epochs: int
    losses: dict[str, float]
    map50: float | None
    seconds_left: float


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    epochs: wanted. last_epoch: the one it ended with. best_epoch: the one whose weights were kept, and map50 what
    ultralytics' own validation then found. taken, layers: how many of the network's layers came from start weights.
    """

    epochs: int
    last_epoch: int
    best_epoch: int
    map50: float | None
    taken: int
    layers: int

    @property
    def stopped_early(self) -> bool:
        return self.last_epoch < self.epochs


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Turn a full disk into a TrainingError; let everything else through as it is."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TrainingError(f"The disk is full: nothing more can be written to {folder.name}.") from error
        raise
