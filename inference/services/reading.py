"""Work overlapped: what comes next is read while the detector looks at what has come."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

# Measured on two cores: a second thread gains nothing there; one reads some 200 tiles a second.
THREADS = max(1, (os.cpu_count() or 1) // 2)
AHEAD = THREADS + 1  # pieces of work under way or waiting

A = TypeVar("A")
B = TypeVar("B")


def done_ahead(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`work` of each item, in the items' order, done by threads before it is asked for, at most AHEAD ahead.

    What it raises, comes when that item's turn comes. `work` must not touch the database: each thread would open a
    connection of its own.
    """
    coming = iter(items)
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ahead")
    try:
        waiting = deque(threads.submit(work, item) for item in islice(coming, AHEAD))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(threads.submit(work, item) for item in islice(coming, 1))
            yield done
    finally:
        threads.shutdown(cancel_futures=True)  # what nobody will ask for any more is not begun
