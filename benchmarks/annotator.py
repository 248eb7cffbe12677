"""One annotator of benchmarks/server.py: a process of its own that asks for tiles and submits them, and says how long
each answer took. Nothing but the standard library: it is to cost little beside the server that it measures.

Reads one JSON line (host, port, user, session) and answers "ready"; then for each further line (batch, tiles, warm_up,
pause) one JSON line: the times in seconds, what it was served, what was taken, what went wrong.
"""

import json
import random
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any
from uuid import uuid4

TOKEN = "0123456789abcdef0123456789abcdef"  # against forged requests: the same in the cookie and in the header


class Annotator:
    """A signed-in reader with one connection that stays open, as a browser's does. It opens with the first request."""

    def __init__(self, host: str, port: int, user: str, session: str) -> None:
        self.connection = HTTPConnection(host, port, timeout=120)
        self.headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Cookie": f"sessionid={session}; csrftoken={TOKEN}",
            "X-CSRFToken": TOKEN,
            "X-Reader": user,
        }

    def annotate(self, batch: int, tiles: int, warm_up: int, pause: float) -> dict[str, Any]:
        """Ask for the next tile and submit it as it is, `tiles` times; the first `warm_up` are not timed.

        Each tile is looked at for `pause` seconds, between half and one and a half of it.
        """
        told: dict[str, Any] = {"next": [], "submit": [], "served": [], "taken": [], "errors": []}
        started = time.time()
        for number in range(tiles):
            try:
                next_seconds, task = self._post(f"/batches/{batch}/next/", {"except": []})
                if task["task"] is None:
                    break
                task = task["task"]
                told["served"].append(task["id"])
                work = _work_on(task)
                time.sleep(pause * random.uniform(0.5, 1.5))
                submit_seconds, _ = self._post(task["urls"]["submit"], work)
                told["taken"].append([task["id"], work["uuid"], len(work["boxes"])])
            except (HTTPException, OSError, ValueError, RuntimeError) as error:
                told["errors"].append(f"{type(error).__name__}: {error}"[:300])
                self.connection.close()  # the next request opens it again
                continue
            if number >= warm_up:
                told["next"].append(next_seconds)
                told["submit"].append(submit_seconds)
        return told | {"started": started, "ended": time.time()}

    def _post(self, path: str, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds from the request to the last byte of its answer, and the answer. Raises RuntimeError if not 200."""
        sent = json.dumps(body).encode()
        before = time.perf_counter()
        self.connection.request("POST", path, sent, self.headers)
        response = self.connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - before
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {content[:200].decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(content)
        return seconds, answer


def _work_on(task: dict[str, Any]) -> dict[str, Any]:
    """What the editor sends when a reader accepts every box."""
    names = ("class", "x", "y", "width", "height", "origin")
    effort = {"active_seconds": 12.5, "wall_seconds": 20.0, "keys": 1, "clicks": 0}
    boxes = [{name: box[name] for name in names} for box in task["boxes"]]
    return {"uuid": str(uuid4()), "revision": task["revision"], "boxes": boxes, "effort": effort}


def main() -> None:
    annotator = Annotator(**json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(annotator.annotate(**json.loads(line))), flush=True)
    with suppress(OSError):
        annotator.connection.close()


if __name__ == "__main__":
    main()
