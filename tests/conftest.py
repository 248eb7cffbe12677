"""What every test stands on: an own data folder, a database that threads can share, one real slide."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from annotation.services import jobs
from annotation.slides.smear import draw_smear
from tests.s3_server import S3Server

# How long an example takes says something about what else the machine does, nothing about the code.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")

TESTS = Path(__file__).resolve().parent
REAL_DATA = TESTS.parent / "../shared/data"
# Files of tests that read real slides and labels; those that can do without mark what cannot.
NEEDS_REAL_DATA = ("../shared/data", "SHARED_DATA")
CAN_DO_WITHOUT = ("skipif", "if shared.exists()")
collect_ignore = []
if not REAL_DATA.is_dir():
    if os.environ.get("CI"):
        raise pytest.UsageError(f"{REAL_DATA} is missing: in CI nothing is left out.")
    texts = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    collect_ignore = [
        str(path)
        for path, text in texts.items()
        if any(word in text for word in NEEDS_REAL_DATA) and not any(word in text for word in CAN_DO_WITHOUT)
    ]


def pytest_report_header() -> str:
    found = "at hand" if not collect_ignore else f"missing; {len(collect_ignore)} files of tests left out"
    return f"real slides and labels (../shared/data): {found}"


def pytest_collection_modifyitems(config, items):
    """Where processes share the files of tests out (`make test`), the longest come first: those with a browser, the
    pages' before the editor's, then those that train.
    """
    if config.getoption("dist", "no") != "no" or hasattr(config, "workerinput"):
        items.sort(key=lambda item: ("browser" in item.path.parts, str(item.path)), reverse=True)


# A process of tests that ends by itself is not replaced (Makefile): xdist 3.8 would wait for ever for the files that it
# had. Which test it was, and how it ended, is said at once.


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    if error:
        process = getattr(getattr(node.gateway, "_io", None), "popen", None)
        ended = process.wait(10) if process is not None else "an unknown exit code"
        print(f"\n{node.gateway.id} ended with {ended}", flush=True)  # noqa: T201


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem):
    print(f"\nit was at {crashitem}", flush=True)  # noqa: T201


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix, tmp_path_factory):
    """SQLite's test database lies in memory by default, where two threads cannot wait for each other."""
    database = django_settings.DATABASES["default"]
    if database["ENGINE"] == "django.db.backends.sqlite3":
        database.setdefault("TEST", {})["NAME"] = str(tmp_path_factory.mktemp("database") / "tests.sqlite3")


@pytest.fixture(autouse=True)
def _own_data_dir(settings, tmp_path, monkeypatch):
    """Files of one test are not seen by the next: keys of rows, and so names of files, come again."""
    settings.DATA_DIR = tmp_path / "data"
    settings.STORAGES = {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path / "data" / "storage", "base_url": None},
        },
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    # A heartbeat comes over a connection of its own, which cannot see what a test's transaction holds back.
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", 3600)
    monkeypatch.setattr(jobs, "REPORT_SECONDS", 0.0)
    cache.clear()


@pytest.fixture(scope="session")
def smear(tmp_path_factory) -> Path:
    """A small real slide of patient T01 (1536 x 1536 px, 3 x 3 tiles), its truth beside it."""
    return draw_smear(tmp_path_factory.mktemp("smears"), patient="T01", seed=1, width=1536, height=1536)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@dataclass(frozen=True)
class Remote:
    """A bucket of its own for one test."""

    server: S3Server
    bucket: str

    @property
    def objects(self) -> dict[str, bytes]:
        return self.server.objects(self.bucket)

    def put(self, name: str, body: bytes) -> None:
        self.server.client.put_object(Bucket=self.bucket, Key=name, Body=body)


@pytest.fixture
def remote(s3_server, settings, monkeypatch) -> Iterator[Remote]:
    """Storage is an empty bucket of a real S3 server, which answers again when the test has ended."""
    s3_server.start()
    bucket = f"lab-{uuid4().hex}"
    s3_server.client.create_bucket(Bucket=bucket)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    options = {"bucket_name": bucket, "endpoint_url": s3_server.url, "addressing_style": "path", "timeout": 30}
    settings.STORAGES = settings.STORAGES | {
        "default": {"BACKEND": "annotation.services.s3.RemoteStorage", "OPTIONS": options}
    }
    settings.CACHE_BYTES = 10**9
    yield Remote(s3_server, bucket)
    s3_server.start()
