"""What a training says of itself: while it runs, and how it ended."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# As CUDA, torch, OpenCV, C++ and Linux say it; oneDNN says only that it "could not create a primitive", which is what
# becomes of an allocation that fails inside it: the same network with the same sizes of input was made of them a moment
# before.
NO_MEMORY = re.compile(
    "out of memory|can(no|')t allocate memory|(not enough|insufficient) memory|bad_alloc"
    "|could not create a (primitive|memory)",
    re.IGNORECASE,
)


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


@contextmanager
def shortages_told(folder: Path, no_memory: str) -> Iterator[None]:
    """Turn what a user can mend into a TrainingError: a full disk, and too little memory, with this text for it.

    Everything else goes through as it is.
    """
    try:
        with full_disk_told(folder):
            yield
    except Exception as error:
        # RuntimeError of torch, cv2.error of OpenCV, MemoryError of Python
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            raise TrainingError(no_memory) from error
        raise
