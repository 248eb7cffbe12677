"""Files in a local folder, and folders of jobs."""

from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import default_storage

from annotation.models import JobState
from annotation.services.jobs import JobCancelled, JobError, JobLost, run_job
from annotation.services.storage import cache_dir, drop_work, held, local_path, store, work_dir, write_whole
from annotation.services.tiles import tile_jpeg
from tests import factories


def begin(name, error, **options):
    """A job that fails half-way."""
    with work_dir(name, **options) as folder:
        (folder / "half.zip").write_bytes(b"half")
        raise error


def folder_of(name):
    return settings.DATA_DIR / "work" / name


def left_in(folder):
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.mark.parametrize("error", [JobError("no"), JobCancelled(), ValueError("no"), OSError("no")])
def test_a_jobs_folder_is_emptied_however_the_job_ends(error):
    with pytest.raises(type(error)):
        begin("export-1", error)
    assert left_in(folder_of("export-1")) == []
    with work_dir("export-1") as folder:
        (folder / "whole.zip").write_bytes(b"whole")
    assert left_in(folder) == []


@pytest.mark.parametrize("error", [JobLost(), SystemExit()])
def test_a_folder_that_another_attempt_has_or_takes_up_is_left_alone(error):
    with pytest.raises(type(error)):
        begin("export-1", error)
    assert left_in(folder_of("export-1")) == ["half.zip"]


def test_a_training_that_failed_finds_its_epochs_again():
    with pytest.raises(JobError, match="did not answer"):
        begin("train-1", JobError("storage did not answer"), resumed=True)
    with work_dir("train-1", resumed=True) as folder:
        assert left_in(folder) == ["half.zip"]
    assert left_in(folder) == []


def test_what_nobody_will_resume_is_thrown_away():
    with pytest.raises(JobError):
        begin("train-1", JobError("no"), resumed=True)
    drop_work("train-1")
    assert not folder_of("train-1").exists()
    drop_work("train-1")  # of a job that has left nothing, or on another machine


def test_a_local_file_is_not_copied(tmp_path):
    (tmp_path / "file").write_bytes(b"one")
    store(tmp_path / "file", "weights/1/a.pt")
    stored = Path(default_storage.path("weights/1/a.pt"))
    assert local_path("weights/1/a.pt") == stored
    with held(["weights/1/a.pt"]) as paths:
        assert paths == [stored]
    assert not cache_dir().exists()
    with pytest.raises(FileNotFoundError, match=r"weights/1/b.pt is not in storage"):
        local_path("weights/1/b.pt")


def test_what_cannot_be_stored_leaves_the_old_file_and_nothing_besides(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"one")
    store(tmp_path / "file", "exports/1.zip")
    monkeypatch.setattr("annotation.services.storage.shutil.copyfileobj", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store(tmp_path / "file", "exports/1.zip")
    folder = Path(default_storage.path("exports"))
    assert (left_in(folder), (folder / "1.zip").read_bytes()) == (["1.zip"], b"one")


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path):
    with pytest.raises(TypeError):
        write_whole(tmp_path / "cache" / "tile.jpg", "not bytes")
    assert left_in(tmp_path / "cache") == []


@pytest.mark.django_db
def test_a_picture_is_shown_even_if_the_cache_folder_cannot_keep_it(smear):
    tile = factories.make_slide(factories.make_project(), file=smear).tiles.first()
    cache_dir().parent.mkdir(parents=True, exist_ok=True)
    cache_dir().write_text("a file where the folder should be")
    assert tile_jpeg(tile).startswith(b"\xff\xd8")


@pytest.mark.django_db
def test_a_full_disk_is_called_that():
    job = factories.make_job(factories.make_project())

    def work(running):
        with Path("/dev/full").open("wb") as file:
            file.write(b"x")

    run_job(job_pk=job.pk, function=work)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.FAILED, "disk-full")
    assert job.message == "The disk of the worker's machine is full."
