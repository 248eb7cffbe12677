"""Storage on a real S3 server: what goes through it, and what is said when it does not answer."""

import hashlib
import ipaddress
import os
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
from django.conf import settings as django_settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from annotation import tasks
from annotation.models import Job, JobState, Role, Slide
from annotation.services import patience
from annotation.services.jobs import run_job
from annotation.services.patience import StorageError
from annotation.services.s3 import RemoteStorage
from annotation.services.slides import SlideFacts, import_staged, stage_uploads
from annotation.services.storage import cache_dir, discard, local_path, open_stored, store
from annotation.services.tiles import read_tile
from annotation.slides.reader import SlideReader
from tests import factories
from tests.memory import peak_memory
from tests.s3_server import S3Server

pytestmark = pytest.mark.django_db
MIB = 1 << 20


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def stage(project, *files, patient="P1"):
    uploads = [SimpleUploadedFile(path.name, path.read_bytes()) for path in files]
    facts = SlideFacts(patient=patient, tiling="edge")
    return stage_uploads(project=project, uploads=uploads, facts=facts, user=None)


def imported(project, smear):
    (job,) = stage(project, smear)
    tasks.import_slide(job.pk)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED, job.message
    return Slide.objects.get(pk=job.result["slide"])


def cached():
    return sorted(path.name for path in (cache_dir() / "storage").rglob("*") if path.is_file())


@pytest.fixture
def at_once(settings):
    """A job does not ask again."""
    settings.S3_WAIT = 0


@pytest.fixture
def back_after(monkeypatch, remote):
    """The server starts again in the so-manieth pause of a job; returns what the job's pauses were, in seconds."""

    def begin(pauses):
        seen = []

        def rest(over, seconds):
            seen.append(seconds)
            if len(seen) == pauses:
                remote.server.start()
            return over.is_set()

        monkeypatch.setattr(patience, "rest", rest)
        return seen

    return begin


# What is stored, and how


def test_a_slide_is_imported_and_its_tiles_are_read_both_ways(remote, project, smear):
    slide = imported(project, smear)
    digest = hashlib.sha256(smear.read_bytes()).hexdigest()
    assert remote.objects == {f"slides/{project.pk}/{digest}/0{smear.suffix}": smear.read_bytes()}
    with SlideReader(smear) as reader:
        for tile in slide.tiles.all():
            by_openslide = np.asarray(reader._read_region((tile.x, tile.y), 0, (512, 512)))
            assert np.array_equal(read_tile(tile), by_openslide)
    assert cached() == [f"0{smear.suffix}"]  # the staged copy is not kept


def test_a_plain_image_goes_the_same_way(remote, project, tmp_path):
    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    Image.fromarray(pixels).save(tmp_path / "cells.png")
    slide = imported(project, tmp_path / "cells.png")
    assert np.array_equal(read_tile(slide.tiles.get()), pixels)


def test_what_is_stored_again_is_replaced_and_private(remote, tmp_path):
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        assert store(tmp_path / "file", "exports/1/1.zip") == "exports/1/1.zip"
    assert remote.objects == {"exports/1/1.zip": b"two"}
    grants = remote.server.client.get_object_acl(Bucket=remote.bucket, Key="exports/1/1.zip")["Grants"]
    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"]


def test_a_large_file_goes_in_parts_and_comes_out_as_it_was(remote, tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(40 * MIB))
    store(tmp_path / "large", "large")
    assert local_path("large").read_bytes() == (tmp_path / "large").read_bytes()


def test_a_download_holds_little_of_a_file_in_memory(remote, project, client):
    job = factories.make_export(project)
    # The first one loads what boto3 needs.
    assert b"".join(client.get(reverse("export_download", args=[job.pk])).streaming_content) == b"PK an archive"
    body, received = os.urandom(24 * MIB), hashlib.sha256()
    remote.put(job.result["file"], body)
    with peak_memory() as peak:
        response = client.get(reverse("export_download", args=[job.pk]))
        assert response["Content-Length"] == str(len(body))
        for chunk in response.streaming_content:
            received.update(chunk)
    assert received.digest() == hashlib.sha256(body).digest()
    assert peak.bytes < 4 * MIB


def test_a_missing_file_is_missing_and_not_away(remote, project, smear, client):
    slide = imported(project, smear)
    discard(slide.files)
    response = client.get(reverse("tile_image", args=[slide.tiles.first().pk]))
    assert (response.status_code, "missing from storage" in response.content.decode()) == (404, True)
    with pytest.raises(FileNotFoundError, match="never is not in storage"):
        open_stored("never")


@pytest.mark.parametrize("wrong", ["other bytes", "cut short"])
def test_a_slide_that_is_not_what_was_stored_is_refused(remote, project, smear, wrong):
    slide = imported(project, smear)
    whole = smear.read_bytes()
    remote.put(slide.files[0], whole[:-1] if wrong == "cut short" else whole[:-1] + b"?")
    with pytest.raises(StorageError, match=f"^{slide.name}: storage gave a damaged file .its SHA-256 is not"):
        read_tile(slide.tiles.first())
    assert cached() == []


def test_a_folder_in_the_bucket(remote, settings, tmp_path):
    options = settings.STORAGES["default"] | {
        "OPTIONS": settings.STORAGES["default"]["OPTIONS"] | {"location": "haematology/marrow"}
    }
    settings.STORAGES = settings.STORAGES | {"default": options}
    (tmp_path / "file").write_text("one")
    store(tmp_path / "file", "exports/1/1.zip")
    assert list(remote.objects) == ["haematology/marrow/exports/1/1.zip"]
    assert local_path("exports/1/1.zip").read_text() == "one"
    assert open_stored("exports/1/1.zip").read() == b"one"
    assert (default_storage.size("exports/1/1.zip"), default_storage.exists("exports/1/1.zip")) == (3, True)


def test_an_upload_of_which_a_part_cannot_be_stored_leaves_nothing(remote, project, smear, tmp_path, monkeypatch):
    stored, save = [], RemoteStorage._save

    def save_one(storage, name, content):
        if stored:
            raise StorageError(name, "no connection")
        stored.append(name)
        return save(storage, name, content)

    monkeypatch.setattr(RemoteStorage, "_save", save_one)
    with pytest.raises(StorageError):
        stage(project, smear, smear)
    assert (len(stored), remote.objects, Job.objects.exists()) == (1, {}, False)


# Away


def test_a_job_waits_for_storage_with_growing_pauses_and_then_succeeds(remote, project, smear, back_after):
    (job,) = stage(project, smear)
    remote.server.stop()
    pauses = back_after(4)
    tasks.import_slide(job.pk)
    job.refresh_from_db()
    assert (job.state, job.message) == (JobState.SUCCEEDED, "9 tiles")
    assert pauses == [1, 2, 4, 8]


def test_storage_that_goes_in_mid_job_is_waited_for(remote, project, smear, back_after):
    """The file has come, and the slide cannot be stored."""
    (job,) = stage(project, smear)
    pauses = back_after(1)

    def work(running):
        report = running.report

        def stops(part, text="", **rest):
            if text == "storing the slide":
                remote.server.stop()
            report(part, text, **rest)

        running.report = stops
        return import_staged(running)

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert (job.state, pauses) == (JobState.SUCCEEDED, [1])
    assert remote.objects == {Slide.objects.get().files[0]: smear.read_bytes()}


def test_after_the_wait_a_job_fails_with_file_and_reason_and_succeeds_when_tried_again(
    remote, project, smear, client, at_once
):
    (job,) = stage(project, smear)
    remote.server.stop()
    tasks.import_slide(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.FAILED, "storage-away")
    assert job.message == (
        f"{smear.name}: storage did not answer (no connection to {remote.server.url}). Nothing is lost: run it again."
    )
    assert not Slide.objects.exists()
    assert cached() == []
    assert "storage did not answer" in client.get(reverse("job", args=[job.pk])).content.decode()
    remote.server.start()
    client.post(reverse("job_retry", args=[job.pk]))
    tasks.import_slide(job.pk)
    job.refresh_from_db()
    assert (job.state, Slide.objects.get().tiles.count()) == (JobState.SUCCEEDED, 9)


def test_the_wait_is_bounded(remote, project, smear, settings, monkeypatch):
    settings.S3_WAIT = 100
    now, pauses = [0.0], []
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    def rest(over, seconds):
        pauses.append(seconds)
        now[0] += seconds
        return False

    monkeypatch.setattr(patience, "rest", rest)
    asked = []

    def ask():
        asked.append(1)
        raise StorageError("a file", "no connection")

    with patience.patience() as own, pytest.raises(StorageError):
        patience.patiently(ask)
    assert own.text == "a file: storage did not answer (no connection); asking again"
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 9]
    assert len(asked) == len(pauses) + 1


def test_a_job_that_waits_says_so_and_hears_that_it_is_cancelled(remote, project, monkeypatch):
    """What the heartbeat does every few seconds is done here in the first pause."""
    remote.server.stop()
    job = factories.make_job(project)
    found = []

    def work(running):
        def rest(over, seconds):
            Job.objects.filter(pk=job.pk).update(cancel_requested=True)
            running._beat_once()
            found.append(Job.objects.get(pk=job.pk).message)
            return over.is_set()

        monkeypatch.setattr(patience, "rest", rest)
        local_path("weights/1/a.pt", called="the weights of model 1")

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    assert found == [f"weights/1/a.pt: storage did not answer (no connection to {remote.server.url}); asking again"]


def test_pages_and_the_api_say_that_storage_is_away(remote, project, smear, client):
    slide = imported(project, smear)
    tile, job = slide.tiles.first(), factories.make_export(project)
    discard_cache()
    remote.server.stop()
    for url in (reverse("tile_image", args=[tile.pk]), reverse("export_download", args=[job.pk])):
        response = client.get(url)
        page = response.content.decode()
        assert (response.status_code, response["Retry-After"]) == (503, "30")
        assert "Storage is away" in page
        assert f"storage did not answer (no connection to {remote.server.url})" in page
        response = client.get(url, headers={"Accept": "application/json"})
        assert (response.status_code, "did not answer" in response.json()["error"]) == (503, True)
    token = factories.make_token(factories.make_member(project))
    response = client.get(reverse("api_tile_image", args=[tile.pk]), headers={"Authorization": f"Bearer {token}"})
    assert (response.status_code, f"{slide.name}: storage did not answer" in response.json()["error"]) == (503, True)
    remote.server.start()
    assert client.get(reverse("tile_image", args=[tile.pk])).status_code == 200


def discard_cache():
    for path in (cache_dir() / "storage").glob("*/files/*"):
        path.unlink()


def test_an_export_is_not_forgotten_while_its_archive_cannot_be_deleted(remote, project, client):
    job = factories.make_export(project)
    remote.server.stop()
    assert client.post(reverse("export_delete", args=[job.pk])).status_code == 503
    assert Job.objects.filter(pk=job.pk).exists()
    remote.server.start()
    client.post(reverse("export_delete", args=[job.pk]))
    assert (remote.objects, Job.objects.exists()) == ({}, False)


def test_a_server_that_is_silent_is_given_up(remote, settings):
    options = settings.STORAGES["default"]["OPTIONS"] | {"timeout": 0.5}
    settings.STORAGES = settings.STORAGES | {"default": settings.STORAGES["default"] | {"OPTIONS": options}}
    remote.server.freeze()
    try:
        with pytest.raises(StorageError, match=rf"a: storage did not answer \(no answer of {remote.server.url} within"):
            open_stored("a")
    finally:
        remote.server.thaw()


def test_a_wrong_bucket_is_refused_and_not_waited_for(remote, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "rest", lambda over, seconds: pytest.fail("it waits"))
    options = settings.STORAGES["default"]["OPTIONS"] | {"bucket_name": "nobodys-bucket"}
    settings.STORAGES = settings.STORAGES | {"default": settings.STORAGES["default"] | {"OPTIONS": options}}
    (tmp_path / "file").write_text("one")
    with patience.patience(), pytest.raises(StorageError, match=r"storage refused \(there is no such bucket") as caught:
        store(tmp_path / "file", "weights/1/a.pt", called="the weights")
    assert str(caught.value).startswith("the weights: ")


def test_without_access_keys_it_says_so(remote, settings, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    settings.STORAGES = dict(settings.STORAGES)  # as a new process reads it
    with pytest.raises(StorageError, match=r"a: storage refused .no access key is set"):
        open_stored("a")


def test_access_keys_come_from_a_profile_too(remote, settings, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "keys").write_text("[lab]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    settings.STORAGES = dict(settings.STORAGES)
    remote.put("a", b"one")
    assert open_stored("a").read() == b"one"


def test_a_full_disk_under_the_cache_is_called_that(remote, project, smear, monkeypatch):
    slide = imported(project, smear)
    discard_cache()
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("annotation.services.file_cache.shutil.disk_usage", lambda folder: free)
    job = factories.make_job(project)
    run_job(job_pk=job.pk, function=lambda running: read_tile(slide.tiles.first()))
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.FAILED, "disk-full")
    assert job.message.startswith(f"{slide.name}: ")
    assert "are needed on the disk of" in job.message


# The server's certificate, and the settings


@pytest.fixture
def secure(tmp_path):
    """A server that speaks HTTPS with a certificate that only the lab trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(timezone.now() - timedelta(days=1))
        .not_valid_after(timezone.now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "lab.pem", tmp_path / "lab.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with S3Server(tmp_path, certificate=paths[0], key=paths[1]) as server:
        server.client.create_bucket(Bucket="lab")
        yield server


SHELL = """
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
default_storage.save("a", ContentFile(b"one"))
print(default_storage.open("a").read())
"""


def shell(tmp_path, **environment):
    """A process of its own that stores and reads a file with these settings; what it prints, and its last words."""
    ours = ("MARROWLOOP_", "DATABASE_URL", "CELERY_", "DJANGO_", "AWS_")
    rest = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    rest |= {"MARROWLOOP_DATA": str(tmp_path / "data"), "MARROWLOOP_SECRET_KEY": "x" * 50}
    rest |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", SHELL],
        cwd=django_settings.BASE_DIR,
        env=rest | environment,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


def test_the_labs_own_certificate_is_trusted_when_it_is_named(secure, tmp_path):
    own = {"MARROWLOOP_S3_BUCKET": "lab", "MARROWLOOP_S3_ENDPOINT": secure.url, "MARROWLOOP_S3_REGION": "eu-lab-1"}
    said, last = shell(tmp_path, **own)
    assert (said, "storage refused (its certificate:" in last) == ("", True), last
    said, last = shell(tmp_path, **own, MARROWLOOP_S3_CA=str(tmp_path / "lab.pem"), MARROWLOOP_S3_PREFIX="/deep/")
    assert said == "b'one'", last
    assert secure.objects("lab") == {"deep/a": b"one"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"MARROWLOOP_S3_ENDPOINT": "http://s3.lab"}, "MARROWLOOP_S3_BUCKET is not"),
        (
            {"MARROWLOOP_S3_BUCKET": "lab", "MARROWLOOP_S3_ENDPOINT": "s3.lab"},
            "does not begin with http:// or https://",
        ),
        ({"MARROWLOOP_S3_BUCKET": "lab", "MARROWLOOP_S3_CA": "/nowhere/lab.pem"}, "there is no file /nowhere/lab.pem"),
    ],
)
def test_settings_that_cannot_be_meant_stop_the_start(tmp_path, given, words):
    said, last = shell(tmp_path, **given)
    assert (said, words in last) == ("", True), last
