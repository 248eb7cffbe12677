"""Running a simulation: one data folder, with a database of its own, for each round of each seed.

    source/data/                      slides imported, test patients locked, nothing read
    seed-0/manual-random/             the first round of every arm: data/ as the round left it, round.json
    seed-0/manual-random/assisted-rare/
    seed-0/manual-random/manual-random/

A round starts from a copy of the folder before it, so that arms that begin alike share what they begin with, and what
was stopped goes on with the first round that is not there. Files in storage never change, so copies are links.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from training.simulation.expert import Errors
from training.simulation.plan import ARMS, Step, prefixes
from training.simulation.results import Curves, Point
from training.simulation.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.5
STOP_SECONDS = 10
KEPT_PARTS = ("storage", "start-weights")  # of a data folder besides its database: all others can be made anew
LAST_LINES = 15
FACTORS = (0.5, 2.0)  # by which each assumption is changed, to see how much hangs on it
VARIED_ARMS = ("a", "c")  # of which errors are varied: each of the six variations trains all of its rounds anew


class SimulationError(Exception):
    """A simulation that cannot go on; the text is for the user."""


class Stopped(Exception):
    """Somebody asked for a stop: what is done is kept."""


Progress = Callable[[float, str, float | None], None]  # share, text, seconds left if known
Turn = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Source:
    """Where the cells come from: `kind` and its facts, as training.services.simulating takes them."""

    kind: str
    facts: Mapping[str, Any]


def simulate(
    settings: Settings,
    source: Source | None,
    folder: Path,
    *,
    on_progress: Progress,
    should_stop: Callable[[], bool],
    turn: Turn = nullcontext,
    jobs: int = 1,
) -> Curves:
    """Run what is not there yet; returns all points. source: None where the folder holds prepared slides.

    turn: entered around each round, so that others can compute between two of them. jobs: how many rounds run beside
    each other, if that many can begin. Raises SimulationError, Stopped, and what `should_stop` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(settings, folder)
    begun = time.monotonic()
    base = folder / "source"
    if source is not None and not (base / "known.json").is_file():
        on_progress(0.0, "preparing the slides", None)
        task = {"do": "prepare", "kind": source.kind, "facts": dict(source.facts)}
        _Inside(settings, should_stop).run(base, task, "known.json")
    steps = prefixes([ARMS[name] for name in settings.arms], settings.rounds)
    every = [(seed, one) for seed in range(settings.seeds) for one in steps]
    missing = [one for one in every if not _is_done(folder, *one)]
    waiting, done = list(missing), 0
    stop = threading.Event()
    inside = _Inside(settings, stop.is_set)
    with ExitStack() as turns, ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[None], ExitStack] = {}
        try:
            while waiting or running:
                ready = [one for one in waiting if len(one[1]) == 1 or _is_done(folder, one[0], one[1][:-1])]
                for seed, one in ready[: jobs - len(running)]:
                    waiting.remove((seed, one))
                    entered = turns.enter_context(ExitStack())
                    entered.enter_context(turn())
                    left = (time.monotonic() - begun) / done * (len(missing) - done) if done else None
                    text = f"seed {seed + 1}, round {len(one)}: {one[-1].key.replace('-', ', ')}"
                    on_progress((len(every) - len(missing) + done) / len(every), text, left)
                    running[pool.submit(_run_round, inside, folder, seed, one)] = entered
                ended, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    running.pop(future).close()
                    future.result()
                    done += 1
                if should_stop():
                    raise Stopped
        finally:
            stop.set()
    return read_curves(settings, folder)


def simulate_variations(
    settings: Settings, folder: Path, *, on_progress: Progress, should_stop: Callable[[], bool], jobs: int = 1
) -> dict[tuple[str, float], Curves]:
    """The first seed of VARIED_ARMS, as far as they are in the settings, again with each error half and twice as
    frequent, by its name and that factor; on the slides that `simulate` has prepared in the folder. Raises
    SimulationError, Stopped.
    """
    arms = [name for name in settings.arms if name in VARIED_ARMS]
    wanted = [(field.name, factor) for field in fields(Errors) for factor in FACTORS]
    varied: dict[tuple[str, float], Curves] = {}
    for done, (name, factor) in enumerate(wanted):
        place = folder / "varied" / f"{name}-x{factor:g}"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "source").exists():
            (place / "source").symlink_to(Path("../../source"))

        def report(
            share: float, text: str, left: float | None, *, done: int = done, name: str = name, factor: float = factor
        ) -> None:
            if left is not None:  # those to come take as long as this one
                left += left / (1 - share) * (len(wanted) - done - 1)
            on_progress((done + share) / len(wanted), f"{name} x {factor:g}: {text}", left)

        other = replace(settings, arms=arms, seeds=1, errors=settings.errors.scaled(name, factor))
        varied[name, factor] = simulate(other, None, place, on_progress=report, should_stop=should_stop, jobs=jobs)
    return varied


def read_curves(settings: Settings, folder: Path) -> dict[str, dict[int, list[Point]]]:
    """What is done so far, by arm and seed."""
    curves: dict[str, dict[int, list[Point]]] = {}
    for name in settings.arms:
        steps = ARMS[name].steps(settings.rounds)
        for seed in range(settings.seeds):
            points = []
            for number in range(1, settings.rounds + 1):
                file = _place(folder, seed, steps[:number]) / "round.json"
                if not file.is_file():
                    break
                points.append(Point.of_json(json.loads(file.read_text(encoding="utf-8"))))
            if points:
                curves.setdefault(name, {})[seed] = points
    return curves


def _check_settings(settings: Settings, folder: Path) -> None:
    """What the folder's rounds were made with, written down with the first. Raises SimulationError."""
    file = folder / "settings.json"
    if file.is_file():
        known = Settings.of_json(json.loads(file.read_text(encoding="utf-8")))
        changed = settings.differs_from(known)
        if changed:
            pairs = [f"{name.replace('_', ' ')} {getattr(known, name)}" for name in changed]
            raise SimulationError(f"{folder} holds a simulation with other settings ({', '.join(pairs)}).")
    write_json(file, settings.to_json())


def _is_done(folder: Path, seed: int, steps: Sequence[Step]) -> bool:
    return (_place(folder, seed, steps) / "round.json").is_file()


def _place(folder: Path, seed: int, steps: Sequence[Step]) -> Path:
    return folder.joinpath(f"seed-{seed}", *[step.key for step in steps])


def _run_round(inside: "_Inside", folder: Path, seed: int, steps: Sequence[Step]) -> None:
    place = _place(folder, seed, steps)
    before = _place(folder, seed, steps[:-1]) if len(steps) > 1 else folder / "source"
    for old in (place / "data", place / "data.partial"):  # of a round that was stopped
        shutil.rmtree(old, ignore_errors=True)
    _copy(before / "data", place / "data.partial")
    (place / "data.partial").rename(place / "data")
    step = steps[-1]
    task = {
        "do": "round",
        "known": str(folder / "source" / "known.json"),
        "before": str(before / "round.json") if len(steps) > 1 else None,
        "number": len(steps),
        "seed": seed,
        "assisted": step.assisted,
        "strategy": step.strategy,
        "mix": step.mix,
        "kind": step.kind or inside.settings.kind,
    }
    inside.run(place, task, "round.json")


def _copy(before: Path, after: Path) -> None:
    """A data folder as it stands: the database copied, the files in storage linked."""
    after.mkdir(parents=True)
    for path in before.glob("*.sqlite3*"):
        shutil.copy2(path, after / path.name)
    for name in KEPT_PARTS:
        if (before / name).is_dir():
            shutil.copytree(before / name, after / name, symlinks=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def write_json(file: Path, content: Any) -> None:
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(file)


class _Inside:
    """Runs training.services.simulating in processes of their own, each with a data folder of its own."""

    def __init__(self, settings: Settings, should_stop: Callable[[], bool]) -> None:
        self.settings, self._should_stop = settings, should_stop

    def run(self, place: Path, task: Mapping[str, Any], result: str) -> None:
        """One task in the data folder of `place`; its result is a file there. Raises SimulationError, Stopped."""
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / "task.json", {**task, "settings": self.settings.to_json(), "result": str(place / result)})
        log = place / "log.txt"
        command = [sys.executable, "manage.py", "simulate_rounds", "--task", str(place / "task.json")]
        with (
            log.open("wb") as output,
            subprocess.Popen(  # noqa: S603
                command,
                cwd=ROOT,
                env=_environment(place / "data"),
                stdin=subprocess.PIPE,  # closed when this process ends, however it does: that ends the other too
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                while process.poll() is None:
                    if self._should_stop():
                        raise Stopped
                    time.sleep(POLL_SECONDS)
            finally:
                _end(process)
        if process.returncode or not (place / result).is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
            raise SimulationError(f"{place.name} failed: {lines[-1] if lines else 'no output'} (see {log})")


def _environment(data: Path) -> dict[str, str]:
    """Nothing of the site's own data reaches a simulation but the folder of start weights."""
    own = ("MARROWLOOP_", "DATABASE_URL", "CELERY_BROKER_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    if "MARROWLOOP_WEIGHTS" in os.environ:
        kept["MARROWLOOP_WEIGHTS"] = os.environ["MARROWLOOP_WEIGHTS"]
    return kept | {
        "MARROWLOOP_DATA": str(data),
        "MARROWLOOP_SECRET_KEY": secrets.token_urlsafe(50),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _end(process: "subprocess.Popen[bytes]") -> None:
    """With all that it has started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
