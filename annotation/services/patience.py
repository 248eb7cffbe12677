"""Storage that does not answer: what is told of it, and how long who asks goes on asking.

A page fails at once, in the seconds that the connection's time-outs take. A job asks again after growing pauses, for
MARROWLOOP_S3_WAIT seconds at most, and then fails with the same text.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from itertools import chain, repeat
from typing import TypeVar

from django.conf import settings

AWAY, REFUSED, DAMAGED, FULL = "storage-away", "storage-refused", "storage-damaged", "disk-full"
WORDS = {AWAY: "storage did not answer", REFUSED: "storage refused", DAMAGED: "storage gave a damaged file"}
FIRST_PAUSES = (1, 2, 4, 8, 16)  # seconds
PAUSE = 30

T = TypeVar("T")


class StorageError(Exception):
    """A stored file that could not be read or written. Its text names the file and the reason.

    `code`: storage-away (it may come back), storage-refused, storage-damaged or disk-full (of the machine that asked).
    """

    def __init__(self, name: str, reason: str, code: str = AWAY) -> None:
        super().__init__(name, reason, code)
        self.name, self.reason, self.code = name, reason, code

    def __str__(self) -> str:
        if self.code == FULL:
            return f"{self.name}: {self.reason}"
        return f"{self.name}: {WORDS[self.code]} ({self.reason})"


class Patience:
    """What a running job and whoever waits on its behalf, in any thread, tell each other.

    text: why it waits, if it does. over: set when the job is to stop: then nobody waits on.
    """

    def __init__(self) -> None:
        self.text = ""
        self.over = threading.Event()


# Of the process and not of a thread: a job's files are also read by threads that it starts.
_patient: list[Patience] = []
# What the running job holds until it ends: the files that local_path has handed out.
until_job_ends: ContextVar[ExitStack | None] = ContextVar("until_job_ends", default=None)

_at_once: ContextVar[bool] = ContextVar("_at_once", default=False)


@contextmanager
def patience() -> Iterator[Patience]:
    """Around a job: this process asks again where storage does not answer."""
    own = Patience()
    _patient.append(own)
    with ExitStack() as stack:
        token = until_job_ends.set(stack)
        try:
            yield own
        finally:
            until_job_ends.reset(token)
            _patient.remove(own)


@contextmanager
def at_once() -> Iterator[None]:
    """Inside, this thread does not wait: for what may as well be left undone."""
    token = _at_once.set(True)
    try:
        yield
    finally:
        _at_once.reset(token)


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` returns; in a process that runs a job, asked again while it raises that storage is away."""
    end = time.monotonic() + settings.S3_WAIT
    for pause in chain(FIRST_PAUSES, repeat(PAUSE)):
        try:
            answer = ask()
        except StorageError as error:
            waiting = [] if _at_once.get() else list(_patient)
            if error.code != AWAY or not waiting or time.monotonic() >= end:
                raise
            for one in waiting:
                one.text = f"{error}; asking again"
            if rest(waiting[0].over, min(pause, max(0.0, end - time.monotonic()))):
                raise
        else:
            for one in _patient:
                one.text = ""
            return answer
    raise AssertionError("there is always another pause")


def rest(over: threading.Event, seconds: float) -> bool:
    """Wait; returns at once, and True, when the job is to stop."""
    return over.wait(seconds)
