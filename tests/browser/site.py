"""A whole Marrowloop for a test: its own data, database, broker, web server and worker, all of them real processes."""

import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil  # type: ignore[import-untyped]
import psycopg
import redis
from psycopg import sql

from tests.browser.inside import Inside

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "long-enough-for-a-test"
START_SECONDS = 120
STOP_SECONDS = 40
OURS = ("MARROWLOOP_", "DATABASE_URL", "CELERY_BROKER_URL")
_numbers: set[int] = set()  # of this process's sites that are not stopped: each has a database and broker of its own


class Site:
    """Started by `start`, ended by `stop`. It takes the kind of database and broker from the tests' environment."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "site.log"
        self._postgres = _postgres_of(os.environ)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(OURS)} | {
            "MARROWLOOP_DATA": str(folder / "data"),
            "MARROWLOOP_SECRET_KEY": secrets.token_urlsafe(50),
            "MARROWLOOP_HTTPS": "0",
            "MARROWLOOP_LOG_LEVEL": "WARNING",
            # Where other work fills the cores, threads that wait by spinning make training many times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            **variables,
        }
        self._number = next(number for number in count() if number not in _numbers)
        _numbers.add(self._number)
        broker = _own_broker(os.environ.get("CELERY_BROKER_URL", ""), self._number)
        if broker:
            self.environment["CELERY_BROKER_URL"] = broker
        if self._postgres:
            self.environment["DATABASE_URL"] = _with_path(self._postgres, f"/{self._database}")
        self._serve: subprocess.Popen[bytes] | None = None
        self._inside = Inside(ROOT, self.environment, self.log)

    def start(self) -> None:
        """Make the database, and serve until `stop`; returns when the first page can be asked for."""
        if self._postgres:
            self._recreate_database()
        self.manage("migrate", "--verbosity", "0")
        self.manage("collectstatic", "--noinput", "--verbosity", "0")
        self.serve()

    def serve(self) -> None:
        """Serve what is there; returns when the first page can be asked for."""
        with self.log.open("ab") as log:
            self._serve = subprocess.Popen(
                [sys.executable, "manage.py", "serve", "--port", str(self.port)],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._serve.poll() is None, f"serve ended at once:\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"serve does not answer:\n{self.log_tail()}"
            time.sleep(0.2)

    def stop(self) -> list[str]:
        """Ctrl-C; returns what was still running afterwards (and is ended now), which should be nothing."""
        left: list[str] = []
        self._inside.close()
        if self._serve is not None:
            self._serve.send_signal(signal.SIGINT)
            try:
                self._serve.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                left.append("serve did not end")
        for process in self.processes():
            left.append(f"{process.pid} {' '.join(process.cmdline())}")
            process.kill()
        if self._serve is not None:
            self._serve.wait(STOP_SECONDS)
        if self._postgres:
            self._drop_database()
        _numbers.discard(self._number)
        return left

    def processes(self) -> list[psutil.Process]:
        """Every process of this site, orphans too: each has the site's data folder in its environment."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def kill_worker(self) -> None:
        """End the worker and all that it runs, as a machine that is out of memory would."""
        workers = [process for process in self.processes() if "celery" in process.cmdline()]
        assert workers, "no worker runs"
        for process in workers:
            process.kill()
        psutil.wait_procs(workers, timeout=STOP_SECONDS)

    def kill_web(self) -> None:
        """End the web server with kill -9, its requests half done; `serve` starts the site again."""
        assert self._serve is not None
        servers = [process for process in self.processes() if "gunicorn" in process.cmdline()]
        assert servers, "no web server runs"
        for process in sorted(servers, key=lambda one: one.pid):  # the master first: it would start new workers
            process.kill()
        psutil.wait_procs(servers, timeout=STOP_SECONDS)
        self._serve.wait(STOP_SECONDS)

    @contextmanager
    def writes_held(self) -> Iterator[None]:
        """Within this block every write of the site waits for the database, and every read is answered."""
        if self._postgres:
            with psycopg.connect(self.environment["DATABASE_URL"]) as connection:
                for table in ("annotation_task", "annotation_draft"):
                    connection.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(sql.Identifier(table)))
                yield
                connection.rollback()
        else:
            file = Path(self.environment["MARROWLOOP_DATA"]) / "marrowloop.sqlite3"
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield

    def manage(self, *arguments: str) -> str:
        """Run a command of `manage.py` inside the application and return what it printed."""
        printed: str = self.read(
            f"""
from io import StringIO
from django.core.management import call_command
said = StringIO()
call_command(*{arguments!r}, stdout=said)
answer = said.getvalue()
"""
        )
        return printed

    def read(self, code: str) -> Any:
        """Run Python inside the application; the code sets `answer`, which comes back through JSON."""
        return self._inside.ask(code)

    def make_user(self, name: str, *, staff: bool = False) -> None:
        self.read(f"answer = User.objects.create_user({name!r}, password={PASSWORD!r}, is_staff={staff}).pk")

    def log_tail(self, lines: int = 80) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/health/", timeout=2).close()
        except OSError:
            return False
        return "Marrowloop is at" in self.log_tail()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get("MARROWLOOP_DATA") == self.environment["MARROWLOOP_DATA"])
        except psutil.Error:  # another user's, or just gone
            return False

    @property
    def _database(self) -> str:
        return f"marrowloop_site_{os.getpid()}_{self._number}"

    def _recreate_database(self) -> None:
        self._drop_database()
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._database)))

    def _drop_database(self) -> None:
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            name = sql.Identifier(self._database)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def _postgres_of(environment: "os._Environ[str]") -> str:
    address = environment.get("DATABASE_URL", "")
    return address if address.startswith("postgres") else ""


def _own_broker(address: str, site: int) -> str:
    """The given broker; of Redis a database of this site's own, emptied, so that no other worker takes its jobs."""
    if not address.startswith("redis"):
        return address
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = int(urlsplit(address).path.strip("/") or 0) + 1
    own = _with_path(address, f"/{first + process + processes * site}")
    redis.Redis.from_url(own).flushdb()
    return own


def _with_path(address: str, path: str) -> str:
    return urlunsplit(urlsplit(address)._replace(path=path))
