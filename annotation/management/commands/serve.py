"""`manage.py serve`: the web server, a worker for long jobs, and one for short ones with the schedule, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from annotation.services.jobs import requeue_interrupted

STOP_SECONDS = 10
START_SECONDS = 60
POLL_SECONDS = 0.5
SHORT_JOBS = 2
RESTART_PAUSE = 3.0  # a worker that dies at once is not started again in a tight loop


class Command(BaseCommand):
    help = "Run the web server and a worker until Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--jobs", type=int, default=3, help="Long jobs at the same time.")

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise CommandError(f"Port {port} is taken ({error.strerror}): choose another with --port.") from error
        if settings.CELERY_BROKER_URL.startswith("filesystem://"):
            # The broker is a folder of this machine, so no other worker can be alive.
            requeue_interrupted()
        # SIGTERM (a service manager) stops the children in the same way as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        children: dict[str, subprocess.Popen[bytes]] = {}
        try:
            commands = {
                "web": web_command(host, port),
                "worker": worker_command("compute", options["jobs"]),
                # Of its own, so that long jobs that wait for each other hold up neither the schedule nor messages.
                "worker of short jobs": [*worker_command("short", SHORT_JOBS), "--beat"],
            }
            for name, command in commands.items():
                children[name] = _start(command)
            self._wait_for_web(host, port, children["web"])
            self.stdout.write(self.style.SUCCESS(f"Marrowloop is at http://{host}:{port}/  (Ctrl-C stops it)"))
            self._watch(children, commands)
        except KeyboardInterrupt:
            self.stdout.write("\nStopping.")
        finally:
            stop(children)

    def _wait_for_web(self, host: str, port: int, web: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if web.poll() is not None:
                raise CommandError(f"The web server stopped at once (exit code {web.returncode}).")
            try:
                urllib.request.urlopen(f"http://{host}:{port}/health/", timeout=2).close()
            except OSError:
                time.sleep(POLL_SECONDS)
            else:
                return
        raise CommandError("The web server does not answer.")

    def _watch(self, children: dict[str, subprocess.Popen[bytes]], commands: dict[str, list[str]]) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            if children["web"].poll() is not None:
                raise CommandError(f"The web server stopped (exit code {children['web'].returncode}).")
            for name, child in children.items():
                if child.poll() is not None:
                    self.stderr.write(f"The {name} stopped (exit code {child.returncode}); starting it again.")
                    time.sleep(RESTART_PAUSE)
                    children[name] = _start(commands[name])


def web_command(host: str, port: int) -> list[str]:
    # Of one process only one thread computes at a time: with two of them, eight readers waited a fifth longer. The code
    # is loaded once, before they part.
    options = ["--worker-class", "gthread", "--workers", "4", "--threads", "4", "--preload", "--graceful-timeout", "5"]
    # An expert looks at a tile for longer than the two seconds after which a connection would be closed otherwise.
    options += ["--keep-alive", "75"]
    # A slide upload keeps its request open for as long as it takes.
    options += ["--timeout", "0", "--log-level", "warning", "--bind", f"{host}:{port}"]
    return [sys.executable, "-m", "gunicorn", *options, "config.wsgi:application"]


def worker_command(queue: str, jobs: int) -> list[str]:
    options = ["--queues", queue, "--hostname", f"{queue}@%h", "--concurrency", str(jobs), "--loglevel", "WARNING"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--optimization", "fair"]
    # In a container everything runs as root; celery's warning of that is not for the terminal of a demo.
    quiet = ["-W", "ignore::UserWarning:celery.platforms"]
    return [sys.executable, *quiet, "-m", "celery", "--app", "config", "--quiet", "worker", *options]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process only, which then stops the children in order.
    # Idle threads of a training must not spin: on a machine that does anything else, they take several times longer.
    environment = os.environ | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    return subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, start_new_session=True)  # noqa: S603


def stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ask every child to stop, and end its whole group if it does not: an interrupted job starts again next time."""
    for name, child in children.items():
        if child.poll() is None:
            # For celery SIGQUIT is the stop that does not wait for a training to end.
            child.send_signal(signal.SIGTERM if name == "web" else signal.SIGQUIT)
    deadline = time.monotonic() + STOP_SECONDS
    for child in children.values():
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.1, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
