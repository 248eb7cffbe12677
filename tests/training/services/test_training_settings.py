from dataclasses import asdict

import pytest

from annotation.services.jobs import JobError
from inference.services.registry import current_version
from tests import factories
from training.services.rounds import RoundSettings
from training.services.training_settings import Start, TrainingSettings, config_of, start_of, weights_files

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def folder(settings, tmp_path):
    settings.START_WEIGHTS_DIR = tmp_path / "start"
    return tmp_path / "start"


def test_a_folder_that_is_not_there_offers_nothing(folder):
    assert weights_files() == []


def test_only_weights_files_are_offered_by_name(folder):
    (folder / "more.pt").mkdir(parents=True)
    for name in ("b.pt", "a.pt", "notes.txt"):
        (folder / name).write_bytes(b"")
    assert weights_files() == ["a.pt", "b.pt"]


def test_from_scratch_is_the_default(project):
    factories.make_version(project, current=True)
    assert start_of(TrainingSettings(), project) == Start(None, "scratch")


def test_a_weights_file_is_found_by_its_name(folder, project):
    folder.mkdir()
    (folder / "lab.pt").write_bytes(b"")
    assert start_of(TrainingSettings(weights_file="lab.pt"), project) == Start(folder / "lab.pt", "lab.pt")


@pytest.mark.parametrize("name", ["gone.pt", "../lab.pt", "/lab.pt"])
def test_a_file_that_is_not_in_the_folder_is_an_error_with_its_name(folder, project, name):
    folder.mkdir()
    (folder.parent / "lab.pt").write_bytes(b"")
    with pytest.raises(JobError, match=f"{name} is no longer in the folder of start weights"):
        start_of(TrainingSettings(weights_file=name), project)


def test_the_current_model_is_found_in_storage(project):
    version = factories.make_version(project, current=True)
    start = start_of(TrainingSettings(from_previous=True), project)
    assert (start.name, start.version) == (str(version), version)
    assert start.path.read_bytes().startswith(b"weights")


def test_a_current_model_without_weights_is_an_error_with_its_name(project):
    factories.make_version(project, current=True)
    start_of(TrainingSettings(from_previous=True), project).path.unlink()
    with pytest.raises(JobError, match="weights of model 1, to start from, are gone"):
        start_of(TrainingSettings(from_previous=True), project)


def test_without_a_current_model_training_starts_from_scratch(project):
    assert current_version(project) is None
    assert start_of(TrainingSettings(from_previous=True), project) == Start()


def test_every_setting_reaches_the_trainer(tmp_path):
    settings = RoundSettings(
        model="yolov8n", epochs=7, image_size=96, batch_size=3, seed=5, patience=2, rotation=9.0, cache_megabytes=50
    )
    config = asdict(config_of(settings, Start(tmp_path / "w.pt", "w.pt")))
    same = {name: value for name, value in asdict(settings).items() if name in config}
    assert {name: config[name] for name in same} == same
    assert config["start_weights"] == tmp_path / "w.pt"
