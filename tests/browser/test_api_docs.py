"""Every shell block of docs/api.md, run in its order with bash and curl against a real site with a real worker."""

import json
import os
import re
import subprocess
import time
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.site import ROOT, Site
from tests.receiver import Receiver, receiving

MOST_SECONDS = 300
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def own_site(tmp_path: Path, receiver: Receiver) -> Iterator[Site]:
    """A site that may send to the receiver."""
    made = Site(tmp_path / "site", MARROWLOOP_WEBHOOK_HOSTS=receiver.host)
    made.folder.mkdir()
    try:
        made.start()
        yield made
    finally:
        left = made.stop()
    assert left == []


@pytest.fixture
def token(own_site: Site, smears: Path) -> str:
    """Of the lead of the project "Cells", its only one, which has confirmed tiles and more."""
    own_site.make_user("lead")
    own_site.manage("import_slides", str(smears), "--project", "Cells")
    own_site.manage("import_truth", str(smears / "T01.json"), "--project", "Cells")
    made: str = own_site.read(
        """
from annotation.models import Role, Scope
from annotation.services.projects import set_member
from annotation.services.tokens import make_token
lead = User.objects.get(username="lead")
set_member(project=Project.objects.get(), member=lead, role=Role.LEAD, user=None)
answer = make_token(user=lead, name="shell", scope=Scope.LEAD)[1]
"""
    )
    return made


def script(url: str, project: int, hook: str) -> str:
    """The blocks as one script, with this site in the place of the one that is made up."""
    text = "".join(BLOCK.findall((ROOT / "docs/api.md").read_text(encoding="utf-8")))
    for name, value in {"API": f"{url}/api", "PROJECT": str(project), "HOOK": hook}.items():
        text, found = re.subn(rf"^{name}=.*$", f"{name}='{value}'", text, flags=re.MULTILINE)
        assert found == 1, name
    return f'set -euo pipefail\n{text}\nprintf "%s" "$SECRET" > secret\n'


def test_the_shell_lines_do_what_is_written(own_site: Site, token: str, receiver: Receiver, tmp_path: Path):
    project = own_site.read("answer = Project.objects.get().pk")
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", "-c", script(own_site.url, project, receiver.url)],
        cwd=work,
        env={"TOKEN": token, "PATH": os.environ["PATH"], "HOME": str(work)},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{own_site.log_tail()}"
    assert re.search(r"^[1-9]\d* boxes on [1-9]\d* tiles$", done.stdout, re.MULTILINE), done.stdout

    assert (work / "tile.jpg").read_bytes()[:2] == b"\xff\xd8"
    with zipfile.ZipFile(work / "export.zip") as archive:
        assert archive.testzip() is None
        assert "manifest.json" in archive.namelist()
    facts = own_site.read(
        """
from training.models import Round
answer = [Round.objects.get().state, sorted(Job.objects.values_list("kind", "state")),
          Annotation.objects.filter(author__name="our YOLO 3").count()]
"""
    )
    assert facts[0] == "cancelled"
    assert facts[2] == 1
    assert {state for kind, state in facts[1] if kind in ("export", "import_labels", "select")} == {"succeeded"}

    # The worker has told the receiver of the batch that was released.
    deadline = time.monotonic() + MOST_SECONDS
    while not receiver.got:
        assert time.monotonic() < deadline, own_site.log_tail()
        time.sleep(0.1)
    headers, body = receiver.got[0]
    assert json.loads(body)["type"] == "batch.ready"
    assert len(b64decode((work / "secret").read_text().removeprefix("whsec_"))) == 32
    assert headers["webhook-signature"] == f"v1,{_signature(headers, body, work)}"


def _signature(headers: dict[str, str], body: bytes, work: Path) -> str:
    """By the documented shell function."""
    (block,) = [one for one in BLOCK.findall((ROOT / "docs/api.md").read_text("utf-8")) if "signature()" in one]
    (work / "body").write_bytes(body)
    ask = f'SECRET=$(cat secret)\n{block}\nsignature "$1" "$2" body'
    command = ["bash", "-c", ask, "bash", headers["webhook-id"], headers["webhook-timestamp"]]
    return subprocess.run(command, cwd=work, capture_output=True, text=True, check=True).stdout.strip()
