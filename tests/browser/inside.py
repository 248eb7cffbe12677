"""Python inside the application of a running site: one process for all that is asked, so that asking costs little."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STOP_SECONDS = 10
# Every request runs in names of its own: the models, as `manage.py shell` gives them.
LOOP = """
import contextlib, json, sys, traceback
for line in sys.stdin:
    names = dict(globals())
    try:
        with contextlib.redirect_stdout(sys.stderr):
            exec(json.loads(line), names)
        said = json.dumps({"answer": names["answer"]})
    except Exception:
        said = json.dumps({"error": traceback.format_exc()})
    print(said, flush=True)
"""


class Inside:
    """Started by the first request, ended by `close`."""

    def __init__(self, root: Path, environment: Mapping[str, str], log: Path) -> None:
        self.root, self.environment, self.log = root, environment, log
        self._process: subprocess.Popen[str] | None = None

    def ask(self, code: str) -> Any:
        """Run the code, which sets `answer`; the answer comes back through JSON."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        process.stdin.write(json.dumps(code) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the application's shell ended (exit code {process.wait(STOP_SECONDS)}); see {self.log}"
        said = json.loads(line)
        assert "error" not in said, said["error"]
        return said["answer"]

    def close(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(STOP_SECONDS)
        self._process = None

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", LOOP],
                    cwd=self.root,
                    env=dict(self.environment),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        return self._process
