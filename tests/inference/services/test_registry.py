import threading

import pytest
from django.core.files.storage import default_storage
from django.db import connection

from annotation.models import Event
from annotation.services.storage import sha256_of
from inference.services.registry import current_version, detector_of, make_current, register_version, rolls_back
from tests import factories

pytestmark = pytest.mark.django_db


def weights(folder, content=b"weights"):
    path = folder / "best.pt"
    path.write_bytes(content)
    return path


def register(project, path):
    return register_version(project=project, weights=path, snapshot_hash="a" * 64, config={"image_size": 320})


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
