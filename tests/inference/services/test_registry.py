import threading
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.db import connection, transaction

from annotation.models import Event, JobKind, JobState
from annotation.services import jobs
from annotation.services.jobs import create_job
from annotation.services.storage import sha256_of
from inference.services.registry import current_version, detector_of, make_current, register_version, rolls_back
from tests import factories

pytestmark = pytest.mark.django_db


def weights(folder, content=b"weights"):
    path = folder / "best.pt"
    path.write_bytes(content)
    return path


def register(project, path, **options):
    return register_version(
        project=project, weights=path, snapshot_hash="a" * 64, config={"image_size": 320}, **options
    )


def test_a_version_keeps_its_weights_and_where_they_come_from(tmp_path):
    path = weights(tmp_path)
    version = register(factories.make_project(), path)
    assert version.number == 1
    assert version.weights_sha256 == sha256_of(path)
    assert default_storage.open(version.weights).read() == b"weights"
    assert (version.author.kind, version.author.name, version.is_current) == ("model", "model 1", False)


def test_versions_are_numbered_within_their_project(tmp_path):
    project, other = factories.make_project(), factories.make_project()
    path = weights(tmp_path)
    assert [register(one, path).number for one in (project, project, other)] == [1, 2, 1]


@pytest.mark.django_db(transaction=True)
def test_registrations_at_once_take_different_numbers(tmp_path):
    project, path = factories.make_project(), weights(tmp_path)
    start, numbers = threading.Barrier(4), []

    def go():
        start.wait()
        try:
            numbers.append(register(project, path).number)
        finally:
            connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4]


class Away(Exception):
    """The broker, or whatever else is told on commit."""


def fail(*arguments, **options):
    raise Away


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("on_version", [lambda version: transaction.on_commit(fail), fail], ids=["after", "before"])
def test_weights_go_with_their_version_alone(tmp_path, on_version):
    """What fails after the commit leaves both, what fails before it neither."""
    project = factories.make_project()
    with pytest.raises(Away):
        register(project, weights(tmp_path), on_version=on_version)
    folder = Path(default_storage.path(f"weights/{project.pk}"))
    kept = {f"weights/{project.pk}/{path.name}" for path in folder.iterdir()}
    assert kept == set(project.model_versions.values_list("weights", flat=True))
    assert len(kept) == (0 if on_version is fail else 1)


@pytest.mark.django_db(transaction=True)
def test_a_version_is_registered_where_the_broker_of_the_next_job_is_away(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.current_app, "send_task", fail)
    project = factories.make_project()
    version = register(
        project, weights(tmp_path), on_version=lambda _: create_job(project=project, kind=JobKind.EVALUATE)
    )
    assert default_storage.exists(version.weights)
    assert project.jobs.get().state == JobState.QUEUED


def test_one_version_is_current():
    project = factories.make_project()
    assert current_version(project) is None
    first, second = factories.make_version(project), factories.make_version(project)
    for version in (first, second, second):
        make_current(version=version)
        assert current_version(project) == version
    assert Event.objects.filter(verb="made current").count() == 2


def test_going_back_to_an_older_version_is_recorded_as_such():
    project = factories.make_project()
    first, second = factories.make_version(project), factories.make_version(project)
    assert not rolls_back(first)  # there is none yet
    make_current(version=second)
    assert (rolls_back(first), rolls_back(second)) == (True, False)
    make_current(version=first)
    assert current_version(project) == first
    assert [event.verb for event in Event.objects.filter(subject=str(first)).order_by("pk")][-1] == "rolled back to"


def test_weights_that_are_gone_say_so():
    version = factories.make_version(factories.make_project())
    default_storage.delete(version.weights)
    with pytest.raises(FileNotFoundError):
        detector_of(version)
