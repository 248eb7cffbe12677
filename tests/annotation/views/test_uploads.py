"""Slides in chunks, as a browser sends them."""

import errno
import hashlib
import json
import shutil
import threading
import zlib
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotation.models import Event, Job, JobState, Role, Slide, Upload
from annotation.services import uploads as service
from annotation.services.jobs import run_job
from annotation.services.slides import import_staged
from annotation.services.uploads import throw_away_old
from tests import factories

pytestmark = pytest.mark.django_db

WSI = Path(__file__).resolve().parents[3] / "../shared/data/wsi"
FACTS = {"patient": "P-3", "site": "sternum", "preparation": "push", "mpp": "", "tiling": "edge"}
CHUNK = 300_000


@pytest.fixture(autouse=True)
def _small_chunks(settings):
    settings.UPLOAD_CHUNK_BYTES = CHUNK


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def described(path, **changes):
    values = {"name": path.name, "size": path.stat().st_size, "modified": 1_700_000_000_000}
    return values | {"fingerprint": f"sha-256:{hashlib.sha256(path.read_bytes()).hexdigest()}"} | changes


def post_json(client, name, key, body):
    return client.post(reverse(name, args=[key]), json.dumps(body), content_type="application/json")


def start(client, project, *files, **facts):
    return post_json(client, "uploads_start", project.pk, {"files": list(files), "facts": FACTS | facts})


def started(client, project, path, **changes):
    """The upload of this file as the server answers it."""
    return start(client, project, described(path, **changes)).json()["uploads"][0]


def sum_of(data, kind="sha-256"):
    return f"sha-256:{hashlib.sha256(data).hexdigest()}" if kind == "sha-256" else f"crc-32:{zlib.crc32(data):08x}"


def send(client, upload, offset, data, checksum=None):
    return client.generic(
        "POST",
        f"{upload['chunk']}?offset={offset}",
        data,
        content_type="application/octet-stream",
        headers={"X-Checksum": sum_of(data) if checksum is None else checksum},
    )


def send_all(client, upload, content, kind="sha-256"):
    """From where the server is to the end, chunk by chunk."""
    received = upload["received"]
    while received < len(content):
        data = content[received : received + CHUNK]
        response = send(client, upload, received, data, sum_of(data, kind))
        assert response.status_code == 200, response.content
        received = response.json()["received"]
    return received


def finish(client, project, *uploads):
    return post_json(client, "uploads_finish", project.pk, {"uploads": [upload["id"] for upload in uploads]})


def run_jobs():
    for job in Job.objects.all():
        run_job(job_pk=job.pk, function=import_staged)


def parts():
    folder = Path(settings.DATA_DIR) / "uploads" / "parts"
    return [path for path in folder.iterdir() if path.stat().st_size]


# What works


@pytest.mark.parametrize("kind", ["sha-256", "crc-32"])
def test_a_slide_in_chunks_is_imported_as_one_in_a_form(client, project, smear, kind):
    upload = started(client, project, smear)
    assert upload["received"] == 0
    content = smear.read_bytes()
    assert len(content) > 2 * CHUNK
    assert send_all(client, upload, content, kind) == len(content)
    response = finish(client, project, upload)
    job = Job.objects.get()
    assert response.json() == {"jobs": [{"id": job.pk, "url": f"/jobs/{job.pk}/"}]}
    assert (job.subject, job.created_by.username) == (smear.name, "lead")
    run_jobs()
    slide = Slide.objects.get()
    assert slide.sha256 == hashlib.sha256(content).hexdigest()
    assert (slide.name, slide.patient.code, slide.site, slide.preparation) == (smear.name, "P-3", "sternum", "push")
    assert parts() == []
    assert default_storage.listdir("staging")[1] == []


def test_the_same_file_chosen_again_goes_on_where_it_stopped(client, project, smear):
    content = smear.read_bytes()
    first = started(client, project, smear)
    send(client, first, 0, content[:CHUNK])
    again = started(client, project, smear)
    assert (again["id"], again["received"]) == (first["id"], CHUNK)
    send_all(client, again, content)
    finish(client, project, again)
    run_jobs()
    assert Slide.objects.get().sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("change", [{"name": "B.tif"}, {"size": 7}, {"modified": 5}, {"fingerprint": "crc-32:0"}])
def test_another_file_begins_anew(client, project, smear, change):
    first = started(client, project, smear)
    send(client, first, 0, smear.read_bytes()[:CHUNK])
    other = started(client, project, smear, **change)
    assert other["received"] == 0
    assert other["id"] != first["id"]


def test_another_users_upload_of_the_same_file_is_another(client, project, smear):
    mine = started(client, project, smear)
    client.force_login(factories.make_member(project, Role.LEAD, "second"))
    theirs = started(client, project, smear)
    assert theirs["id"] != mine["id"]
    assert send(client, mine, 0, b"x").status_code == 404
    assert finish(client, project, mine).status_code == 410


def test_the_facts_are_those_of_the_last_start(client, project, smear):
    started(client, project, smear)
    start(client, project, described(smear), patient="P-4")
    assert Upload.objects.get().facts["patient"] == "P-4"


def test_a_file_is_imported_again_once_its_upload_is_over(client, project, smear):
    """It is then refused by the import, with the same words as after any other upload."""
    for _ in range(2):
        upload = started(client, project, smear)
        send_all(client, upload, smear.read_bytes())
        finish(client, project, upload)
        run_jobs()
    assert "already in this project" in Job.objects.get(state=JobState.FAILED).message


def test_files_of_one_series_make_one_job(client, project):
    paths = [WSI / "dicom" / "boxes_0.dcm", WSI / "dicom" / "boxes_1.dcm"]
    begun = start(client, project, *map(described, paths)).json()["uploads"]
    for upload, path in zip(begun, paths, strict=True):
        send_all(client, upload, path.read_bytes())
    finish(client, project, *begun)
    assert len(Job.objects.get().arguments["files"]) == 2


def test_nothing_of_a_name_becomes_a_path(client, project, smear):
    upload = started(client, project, smear, name="../../etc/passwd\x01.tif")
    assert Upload.objects.get().name == "passwd.tif"
    send_all(client, upload, smear.read_bytes())
    finish(client, project, upload)
    (key,) = Job.objects.get().arguments["files"]
    assert key.startswith("staging/")
    assert "passwd" not in key
    assert ".." not in key


# A chunk that is not taken


def test_a_damaged_chunk_is_refused_and_sent_again(client, project, smear):
    upload = started(client, project, smear)
    data = smear.read_bytes()[:CHUNK]
    damaged = bytes([data[0] ^ 1]) + data[1:]
    for checksum in (sum_of(data), sum_of(data, "crc-32"), "", "md5:0", "sha-256:"):
        response = send(client, upload, 0, damaged, checksum)
        assert response.status_code == 422
        assert smear.name in response.json()["error"]
    assert Upload.objects.get().received == 0
    assert send(client, upload, 0, data).json() == {"received": CHUNK}


def test_a_chunk_that_is_sent_twice_counts_once(client, project, smear):
    upload = started(client, project, smear)
    content = smear.read_bytes()
    for offset in (0, 0, CHUNK, 0):
        response = send(client, upload, offset, content[offset : offset + CHUNK])
        assert response.status_code == 200
    assert response.json() == {"received": 2 * CHUNK}
    assert parts()[0].read_bytes() == content[: 2 * CHUNK]


def test_a_chunk_of_another_content_does_not_overwrite_what_is_here(client, project, smear):
    upload = started(client, project, smear)
    send(client, upload, 0, b"a" * 100)
    assert send(client, upload, 0, b"b" * 100).json() == {"received": 100}
    assert parts()[0].read_bytes() == b"a" * 100


def test_a_chunk_further_on_is_told_where_the_file_goes_on(client, project, smear):
    upload = started(client, project, smear)
    send(client, upload, 0, b"a" * 100)
    for offset in (101, 50):
        response = send(client, upload, offset, b"b" * 100)
        assert response.status_code == 409
        assert response.json()["received"] == 100


@pytest.mark.parametrize(("offset", "length"), [(100, 1), (99, 2), (-1, 1), (10**30, 1), (0, 0)])
def test_a_chunk_outside_the_file_is_refused(client, project, smear, offset, length):
    upload = started(client, project, smear, size=100)
    response = send(client, upload, offset, b"a" * length)
    assert response.status_code == 409
    assert "none of a file of 100 bytes" in response.json()["error"]
    assert parts() == []


def test_a_chunk_that_is_too_large_is_refused_unread(client, project, smear):
    upload = started(client, project, smear)
    assert send(client, upload, 0, b"a" * (CHUNK + 1)).status_code == 413


@pytest.mark.parametrize("offset", ["", "x", "1.5"])
def test_a_place_that_is_no_number_is_refused(client, project, smear, offset):
    assert send(client, started(client, project, smear), offset, b"a").status_code == 400


def test_a_full_disk_is_said_and_the_upload_goes_on_later(client, project, smear):
    upload = started(client, project, smear)
    part = Path(settings.DATA_DIR) / "uploads" / "parts" / str(Upload.objects.get().key)
    part.symlink_to("/dev/full")
    response = send(client, upload, 0, smear.read_bytes()[:CHUNK])
    assert response.status_code == 507
    assert smear.name in response.json()["error"]
    assert "No space left" in response.json()["error"]
    part.unlink()
    assert send(client, upload, 0, smear.read_bytes()[:CHUNK]).json() == {"received": CHUNK}


def test_bytes_that_are_gone_from_the_server_are_sent_again(client, project, smear):
    upload = started(client, project, smear)
    content = smear.read_bytes()
    send(client, upload, 0, content[:CHUNK])
    shutil.rmtree(Path(settings.DATA_DIR) / "uploads")
    response = send(client, upload, CHUNK, content[CHUNK : CHUNK + 10])
    assert (response.status_code, response.json()["received"]) == (409, 0)
    send(client, upload, 0, content[:CHUNK])
    shutil.rmtree(Path(settings.DATA_DIR) / "uploads")
    assert started(client, project, smear)["received"] == 0


@pytest.mark.django_db(transaction=True)
def test_two_tabs_at_once_send_one_good_file(client, project, smear):
    content = smear.read_bytes()
    user = client.session["_auth_user_id"]
    problems = []
    both_have_begun = threading.Barrier(2, timeout=60)

    def tab():
        try:
            own = Client()
            own.force_login(service.User.objects.get(pk=user))
            upload = started(own, project, smear)
            both_have_begun.wait()
            received = upload["received"]
            while received < len(content):
                answer = send(own, upload, received, content[received : received + 50_000])
                assert answer.status_code in (200, 409), answer.content
                received = answer.json()["received"]
            assert finish(own, project, upload).status_code == 200
        except Exception as error:
            problems.append(error)
        finally:
            connection.close()

    tabs = [threading.Thread(target=tab) for _ in range(2)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    assert problems == []
    assert Job.objects.count() == 1
    run_jobs()
    assert Slide.objects.get().sha256 == hashlib.sha256(content).hexdigest()


# A start that is refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "report.pdf"}, "report.pdf: not a slide or image format"),
        ({"size": 0}, "the file is empty (0 bytes)"),
        ({"size": 10**16}, "not enough space on the server's disk"),
    ],
)
def test_a_file_that_cannot_be_taken_stops_all_before_anything_is_sent(client, project, smear, changes, reason):
    response = start(client, project, described(smear, name="good.tif"), described(smear, **changes))
    assert response.status_code in (422, 507)
    assert reason in response.json()["error"]
    assert not Upload.objects.exists()


def test_uploads_that_are_under_way_claim_their_space(client, project, smear, monkeypatch):
    disk = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(service.shutil, "disk_usage", lambda path: disk)
    assert start(client, project, described(smear, size=400)).status_code == 200
    refused = start(client, project, described(smear, name="B.tif", size=400))
    assert refused.status_code == 507
    assert refused.json()["error"].startswith("B.tif: not enough space on the server's disk.")
    Upload.objects.update(changed_at=timezone.now() - timedelta(days=2))  # it rests
    assert start(client, project, described(smear, name="B.tif", size=400)).status_code == 200


def test_an_impossible_fact_is_refused_before_anything_is_sent(client, project, smear):
    response = start(client, project, described(smear), mpp="72")
    assert response.status_code == 422
    assert "Pixel size (µm): Ensure this value is less than or equal to 5" in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"files": 5, "facts": {}}',
        b'{"files": [{}], "facts": {}}',
        b'{"files": [], "facts": 7}',
        b'{"files": [{"name": "a.tif", "size": 1e999, "modified": 0, "fingerprint": ""}], "facts": {}}',
        b'{"files": [{"name": "a.tif", "size": 99999999999999999999, "modified": 0, "fingerprint": ""}], "facts": {}}',
        b'{"uploads": "x"}',
    ],
)
@pytest.mark.parametrize("name", ["uploads_start", "uploads_finish"])
def test_a_request_that_makes_no_sense_is_refused(client, project, name, body):
    response = client.post(reverse(name, args=[project.pk]), body, content_type="application/json")
    assert response.status_code == 400
    assert "cannot be understood" in response.json()["error"]


# The end


def test_a_file_that_is_not_whole_is_not_imported(client, project, smear):
    upload = started(client, project, smear)
    send(client, upload, 0, smear.read_bytes()[:CHUNK])
    response = finish(client, project, upload)
    assert (response.status_code, response.json()["received"]) == (409, CHUNK)
    assert not Job.objects.exists()


def test_a_file_that_is_finished_twice_is_imported_once(client, project, smear):
    upload = started(client, project, smear)
    send_all(client, upload, smear.read_bytes())
    answers = [finish(client, project, upload).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert Job.objects.count() == 1
    assert send(client, upload, 0, smear.read_bytes()[:CHUNK]).json() == {"received": smear.stat().st_size}


@pytest.mark.parametrize("stop_at", ["_move", "_queue"])
def test_an_end_that_is_killed_half_way_goes_on(client, project, smear, monkeypatch, stop_at):
    upload = started(client, project, smear)
    send_all(client, upload, smear.read_bytes())
    real = getattr(service, stop_at)

    def killed(*arguments):
        if stop_at == "_move":
            real(*arguments)
        raise OSError(errno.EIO, "the machine stops")

    with monkeypatch.context() as patched:
        patched.setattr(service, stop_at, killed)
        with pytest.raises(OSError, match="the machine stops"):
            finish(client, project, upload)
    assert not Job.objects.exists()
    again = started(client, project, smear)
    assert (again["id"], again["received"]) == (upload["id"], smear.stat().st_size)
    assert finish(client, project, again).status_code == 200
    run_jobs()
    assert Slide.objects.get().sha256 == hashlib.sha256(smear.read_bytes()).hexdigest()


def test_a_whole_file_that_is_gone_is_sent_again(client, project, smear):
    upload = started(client, project, smear)
    send_all(client, upload, smear.read_bytes())
    shutil.rmtree(Path(settings.DATA_DIR) / "uploads")
    response = finish(client, project, upload)
    assert (response.status_code, response.json()["upload"], response.json()["received"]) == (409, upload["id"], 0)
    send_all(client, response.json() | upload | {"received": 0}, smear.read_bytes())
    assert finish(client, project, upload).status_code == 200


# Uploads that are not finished


def test_an_upload_that_is_not_finished_is_listed_and_discarded(client, project, smear):
    upload = started(client, project, smear)
    send(client, upload, 0, smear.read_bytes()[:CHUNK])
    page = client.get(reverse("project_slides", args=[project.pk])).content.decode()
    assert "Uploads that are not finished" in page
    assert smear.name in page
    client.force_login(factories.make_member(project, Role.LEAD, "second"))  # any lead may
    answer = client.post(upload["discard"], follow=True).content.decode()
    assert f"What was here of {smear.name} is discarded." in answer
    assert not Upload.objects.exists()
    assert parts() == []
    assert Event.objects.get(verb="discarded upload").subject == smear.name


def test_a_chunk_of_a_discarded_upload_is_not_taken(client, project, smear):
    upload = started(client, project, smear)
    client.post(upload["discard"])
    assert send(client, upload, 0, b"a").status_code == 404


def test_an_upload_that_was_discarded_while_a_chunk_came_takes_nothing(project):
    upload = factories.make_upload(project, factories.make_user())
    Upload.objects.all().delete()
    with pytest.raises(service.UploadGone, match=r"A\.tif: this upload was discarded"):
        service.take_chunk(upload=upload, offset=0, data=b"a", checksum=sum_of(b"a"))
    assert parts() == []


def test_an_upload_whose_import_has_begun_is_not_discarded(client, project, smear):
    upload = started(client, project, smear)
    send_all(client, upload, smear.read_bytes())
    finish(client, project, upload)
    answer = client.post(upload["discard"], follow=True).content.decode()
    assert "its import has begun" in answer
    run_jobs()
    assert Slide.objects.count() == 1


def test_old_uploads_are_thrown_away(client, project, smear, settings):
    settings.UPLOAD_DAYS = 3
    for name in ("old.tif", "new.tif"):
        send(client, started(client, project, smear, name=name), 0, smear.read_bytes()[:CHUNK])
    Upload.objects.filter(name="old.tif").update(changed_at=timezone.now() - timedelta(days=4))
    assert throw_away_old() == 1
    assert [upload.name for upload in Upload.objects.all()] == ["new.tif"]
    assert len(parts()) == 1
    assert throw_away_old(now=timezone.now() + timedelta(days=4)) == 1
    assert parts() == []


def test_the_bytes_of_a_project_that_is_gone_are_thrown_away(client, project, smear):
    send(client, started(client, project, smear), 0, smear.read_bytes()[:CHUNK])
    Upload.objects.all().delete()
    throw_away_old()
    assert len(parts()) == 1
    throw_away_old(now=timezone.now() + timedelta(days=30))
    assert parts() == []
