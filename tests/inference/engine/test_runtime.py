import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from inference.engine import runtime
from inference.engine.runtime import Cores, quiet_ultralytics, threads_beside


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("others", "cores", "threads"),
    [(0.0, 2, 2), (0.3, 2, 2), (1.0, 2, 1), (2.0, 2, 1), (5.0, 2, 1), (1.2, 8, 7), (-0.1, 4, 4)],
)
def test_the_cores_of_other_processes_are_left_to_them(others: float, cores: int, threads: int) -> None:
    assert threads_beside(others, cores) == threads


def test_it_starts_with_every_core() -> None:
    Cores()
    assert torch.get_num_threads() == os.cpu_count()


def test_a_fixed_number_of_threads_stays() -> None:
    cores = Cores(threads=1)
    assert cores.share(at_least_every=0.0) == 1


def test_its_own_work_does_not_count_as_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # In 10 s all cores were busy for 18 s, this process for 8 of them: others kept one core busy.
    times = iter([(0.0, 0.0, 0.0), (10.0, 18.0, 8.0)])
    monkeypatch.setattr(runtime, "_times", lambda: next(times))
    assert Cores().share() == threads_beside(1.0, os.cpu_count() or 1)


@pytest.mark.parametrize(("own_nice", "busy"), [(0, 30.0), (5, 90.0)])
def test_what_gives_way_counts_as_free(monkeypatch: pytest.MonkeyPatch, own_nice: int, busy: float) -> None:
    used = SimpleNamespace(user=20.0, system=10.0, nice=60.0)
    monkeypatch.setattr(runtime.psutil, "cpu_times", lambda: used)
    monkeypatch.setattr(runtime.os, "getpriority", lambda which, who: own_nice)
    assert runtime._times()[1] == busy


def test_it_does_not_look_again_too_soon() -> None:
    cores = Cores()
    torch.set_num_threads(1)
    assert cores.share(at_least_every=3600.0) == 1


def test_pillow_is_left_as_it_is() -> None:
    quiet_ultralytics()
    assert Image.open.__module__ == "PIL.Image"
