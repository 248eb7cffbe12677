"""How long readers wait for the server when many of them work at once, and whether it ever mixes up their work.

python -m benchmarks.server [--json] [--tasks N] [--tiles N] [--pause S] [--postgresql ADDRESS] [--database NAME]

Real processes: the site as `manage.py serve` starts it, and every annotator a process of its own. First they work
without any pause; in further runs each looks at a tile for about a second, still far less than an expert.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.smears import say
from tests.browser.site import ROOT, Site

POSTGRESQL = "postgres://postgres@127.0.0.1:5432/postgres"
BOXES = 30
WARM_UP = 5  # tiles of each annotator that are not timed: connections and caches are new
ANNOTATORS = (8, 50)
STOP_SECONDS = 30


@dataclass
class Numbers:
    """Of one run; times in ms."""

    database: str
    annotators: int
    pause_s: float
    tiles: int
    next_ms_p50: float
    next_ms_p95: float
    submit_ms_p50: float
    submit_ms_p95: float
    tiles_per_s: float
    served_twice: int
    lost: int
    errors: int
    load_average: float


def main() -> None:
    options = _options()
    runs: list[Numbers] = []
    for database in ("postgresql", "sqlite"):
        if options.database in (database, "both"):
            runs += measure(database, options)
    for run in runs:
        print(f"\n{_name(run)}")
        for name, value in _rounded(run).items():
            print(f"  {name:16} {value:>12}")
    if options.json:
        first, *others = runs
        named = {_name(run): _rounded(run) for run in others}
        print(json.dumps(_rounded(first) | {"tasks": options.tasks, "boxes": BOXES} | named))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--tasks", type=int, default=10_000, help="open tasks in the batch")
    parser.add_argument("--tiles", type=int, default=1600, help="tiles that the annotators of a run do together")
    parser.add_argument("--pause", type=float, default=1, help="seconds that an annotator looks at a tile, on average")
    parser.add_argument("--postgresql", default=POSTGRESQL, help="the server; a database of its own is made there")
    parser.add_argument("--database", choices=["both", "postgresql", "sqlite"], default="both")
    return parser.parse_args()


def _name(run: Numbers) -> str:
    return f"{run.database}_{run.annotators}" + ("_with_pause" if run.pause_s else "")


def _rounded(run: Numbers) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(run).items()}


def measure(database: str, options: argparse.Namespace) -> list[Numbers]:
    """One run for each number of annotators, on a site of its own, each on a batch of which nothing is done."""
    users = [f"annotator{number:02d}" for number in range(max(ANNOTATORS))]
    with tempfile.TemporaryDirectory(prefix="marrowloop-benchmark-") as folder, ExitStack() as stack:
        site = stack.enter_context(_serving(Path(folder), options.postgresql if database == "postgresql" else ""))
        say(f"{database}: {options.tasks} tiles with {BOXES} boxes each")
        facts = {"tiles": options.tasks, "boxes": BOXES, "users": users}
        project: int = _inside(site, f"make_project(**{facts!r})")
        sessions: dict[str, str] = _inside(site, "sessions()")
        runs = []
        for pause, count in product((0.0, options.pause), ANNOTATORS):
            batch: int = _inside(site, f"make_batch(project={project}, name='{count} annotators, {pause} s')")
            _settle(site, database)
            say(f"{database}: {count} annotators at once, {pause} s a tile")
            with _annotators(site, {user: sessions[user] for user in users[:count]}) as annotators:
                load = os.getloadavg()[0]
                told = work(annotators, batch, max(options.tiles // count, 2 * WARM_UP), pause)
            runs.append(_numbers(site, database, batch, users, told, pause, load))
            say(f"  {_rounded(runs[-1])}")
        return runs


@contextmanager
def _serving(folder: Path, address: str) -> Iterator[Site]:
    """A site on the PostgreSQL server at the address, or on SQLite."""
    before = os.environ.pop("DATABASE_URL", None)
    os.environ.pop("CELERY_BROKER_URL", None)
    if address:
        os.environ["DATABASE_URL"] = address
    site = Site(folder)
    try:
        site.start()
        yield site
    finally:
        site.stop()
        os.environ.pop("DATABASE_URL", None)
        if before is not None:
            os.environ["DATABASE_URL"] = before


def _inside(site: Site, call: str) -> Any:
    return site.read(f"from pathlib import Path\nfrom benchmarks import server_batch\nanswer = server_batch.{call}")


def _settle(site: Site, database: str) -> None:
    """As a database is that has been there for a day: its rows are counted, and nothing is left to write."""
    statements = (
        ["VACUUM ANALYZE", "CHECKPOINT"] if database == "postgresql" else ["ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"]
    )
    site.read(
        f"""
from django.db import connection
with connection.cursor() as cursor:
    for statement in {statements!r}:
        cursor.execute(statement)
answer = None
"""
    )


@contextmanager
def _annotators(site: Site, sessions: Mapping[str, str]) -> "Iterator[list[subprocess.Popen[str]]]":
    """A process for each user, whose session is given."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for user, session in sessions.items():
            process = subprocess.Popen(
                [sys.executable, "-S", str(ROOT / "benchmarks" / "annotator.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            _tell(process, {"host": "127.0.0.1", "port": site.port, "user": user, "session": session})
            if _heard(process) != "ready\n":
                raise RuntimeError(f"the process of {user} ended at once")
        yield processes
    finally:
        for process in processes:
            process.stdin.close()  # type: ignore[union-attr]
        for process in processes:
            process.wait(STOP_SECONDS)


def _tell(process: "subprocess.Popen[str]", message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def work(annotators: "Sequence[subprocess.Popen[str]]", batch: int, tiles: int, pause: float) -> list[dict[str, Any]]:
    """Let all of them annotate so many tiles each, with that pause at each; what each has to tell."""
    for process in annotators:
        _tell(process, {"batch": batch, "tiles": tiles, "warm_up": WARM_UP, "pause": pause})
    return [json.loads(_heard(process)) for process in annotators]


def _numbers(
    site: Site,
    database: str,
    batch: int,
    users: Sequence[str],
    told: Sequence[dict[str, Any]],
    pause: float,
    load: float,
) -> Numbers:
    times = {name: [1000 * seconds for one in told for seconds in one[name]] for name in ("next", "submit")}
    taken = [(user, *row) for user, one in zip(users, told, strict=False) for row in one["taken"]]
    errors = [error for one in told for error in one["errors"]]
    for error, count in Counter(errors).most_common(5):
        say(f"  {count} times: {error}")
    file = site.folder / "taken.json"
    file.write_text(json.dumps(taken), encoding="utf-8")
    served = Counter(task for one in told for task in one["served"])
    seconds = max(one["ended"] for one in told) - min(one["started"] for one in told)
    return Numbers(
        database=database,
        annotators=len(told),
        pause_s=pause,
        tiles=len(taken),
        next_ms_p50=median(times["next"]),
        next_ms_p95=_p95(times["next"]),
        submit_ms_p50=median(times["submit"]),
        submit_ms_p95=_p95(times["submit"]),
        tiles_per_s=len(taken) / seconds,
        served_twice=sum(count - 1 for count in served.values()),
        lost=_inside(site, f"lost(batch={batch}, taken=Path({str(file)!r}))"),
        errors=len(errors),
        load_average=load,
    )


def _p95(times: Sequence[float]) -> float:
    return quantiles(times, n=20, method="inclusive")[-1]


if __name__ == "__main__":
    main()
