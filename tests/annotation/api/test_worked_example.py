"""The Python of docs/api.md, run as it stands; the worked example against a real server."""

import os
import re
import subprocess
import sys
import time

import pytest
from django.conf import settings

from annotation.models import Role, Scope, Task
from annotation.services.deliveries import signed_headers
from tests import factories


def blocks(language):
    text = (settings.BASE_DIR / "docs/api.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def example():
    (found,) = [block for block in blocks("python") if "urllib" in block]
    return found


def test_the_documented_checks_of_a_signature_know_what_is_ours(tmp_path):
    names = {}
    (code,) = [block for block in blocks("python") if "is_genuine" in block]
    exec(code, names)
    secret, body, now = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", '{"name": "Zoë\\n"}'.encode(), int(time.time())
    headers = signed_headers("one", now, body, secret)
    assert names["is_genuine"](headers, body, secret)
    assert not names["is_genuine"](headers, body + b" ", secret)
    assert not names["is_genuine"](headers, body, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
    assert not names["is_genuine"](headers | {"webhook-id": "two"}, body, secret)
    assert not names["is_genuine"](signed_headers("one", now - 400, body, secret), body, secret)

    (script,) = [block for block in blocks("sh") if "signature()" in block]
    (tmp_path / "body").write_bytes(body)
    command = ["bash", "-c", f'{script}\nsignature one {now} "$1"', "bash", str(tmp_path / "body")]
    done = subprocess.run(command, env={"SECRET": secret, "PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert (done.stderr, f"v1,{done.stdout.strip()}") == ("", headers["webhook-signature"])


@pytest.mark.django_db(transaction=True)
def test_the_example_pre_labels_and_reads_back_the_corrections(live_server, smear):
    project = factories.make_project()
    lead, reader = factories.make_member(project, Role.LEAD), factories.make_member(project)
    batch = factories.make_batch(project, factories.make_slide(project, file=smear, tiles=2).tiles.all())
    environment = {
        "MARROWLOOP_URL": live_server.url,
        "MARROWLOOP_TOKEN": factories.make_token(lead, Scope.LEAD),
        "PROJECT": str(project.pk),
        "BATCH": str(batch.pk),
    }

    def run():
        done = subprocess.run([sys.executable, "-c", example()], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert run() == []
    first, second = batch.tasks.select_related("pre_label", "tile", "batch__project__taxonomy")
    box = first.pre_label.boxes.get()
    assert (first.pre_label.author.name, box.score) == ("our YOLO 3", 0.9)
    factories.submit_task(first, reader, (1, 10, 20, 30, 40, box.pk))
    factories.submit_task(second, reader, (1, 200, 20, 30, 40))
    lines = run()
    assert [line.split()[:2] for line in lines] == [
        [str(first.tile_id), "reclassified"],
        [str(second.tile_id), "added"],
        [str(second.tile_id), "deleted"],
    ]
    assert Task.objects.filter(pre_label__author__name="our YOLO 3").count() == 2
