from pathlib import Path

import pytest
import torch
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from annotation.models import Event, JobKind, JobState
from annotation.services.projects import create_project, create_taxonomy
from annotation.taxonomies import ClassSpec, TaxonomySpec
from inference.engine.class_order import weights_facts, write_ordered
from inference.engine.detector import WeightsError
from inference.engine.openvino_detector import OpenvinoDetector
from inference.models import ModelVersion
from inference.services.model_imports import match_classes, stage_model
from inference.services.registry import current_version, detector_of
from tests import factories
from tests.inference.engine.made_weights import SIDE
from tests.training.engine.cells import draw_tile
from training import tasks

pytestmark = pytest.mark.django_db

CELLS = TaxonomySpec(
    "Drawn cells",
    (ClassSpec("LYM", "lymphocyte", "#2e8b57", "1"), ClassSpec("EOS", "eosinophil", "#d59a2e", "2")),
)


@pytest.fixture
def project(tmp_path):
    """A project with plain images of drawn cells."""
    project = create_project(name="Drawn", taxonomy=create_taxonomy(spec=CELLS), lead=None)
    for seed in range(200, 206):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(draw_tile(seed)[0]).save(path)
        factories.make_image(project, width=SIDE, height=SIDE, file=path)
    return project


def stage(project, weights, *, name="best.pt", image_size=SIDE, user=None):
    content = weights if isinstance(weights, bytes) else weights.read_bytes()
    upload = SimpleUploadedFile(name, content)
    return stage_model(project=project, upload=upload, image_size=image_size, user=user)


def run(job):
    tasks.import_model(job.pk)
    job.refresh_from_db()
    return job


def staged_files():
    folder = Path(default_storage.path("staging"))
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_model_comes_in_with_a_checked_export_and_is_not_current(project, learned):
    user = factories.make_user("admin")
    job = run(stage(project, learned, user=user))
    assert job.state == JobState.SUCCEEDED, job.message
    version = ModelVersion.objects.get(pk=job.result["model_version"])
    assert (version.snapshot_hash, version.is_current, version.kind) == ("", False, "one-stage")
    assert version.config == {
        "image_size": SIDE,
        "imported": True,
        "file": "best.pt",
        "imported_by": "admin",
        "import_job": job.pk,
    }
    assert version.exports["openvino"]["accepted"], version.exports
    assert isinstance(detector_of(version), OpenvinoDetector)
    assert default_storage.open(version.weights).read() == learned.read_bytes()
    assert current_version(project) is None
    assert not project.jobs.filter(kind=JobKind.EVALUATE).exists()  # there is nothing to test on
    assert staged_files() == []
    assert list(Event.objects.filter(user=user).order_by("pk").values_list("verb", "subject")) == [
        ("asked to import model", "best.pt"),
        ("registered", "model 1"),
    ]


def test_classes_in_another_order_are_put_right(project, learned, tmp_path):
    turned = write_ordered(learned, tmp_path / "turned.pt", order=[1, 0], names=("eos", "Lymphocyte"))
    job = run(stage(project, turned))
    assert job.state == JobState.SUCCEEDED, job.message
    assert "its classes were put into the taxonomy's order" in job.message
    version = ModelVersion.objects.get()
    assert weights_facts(Path(default_storage.path(version.weights))).classes == ("lymphocyte", "eosinophil")
    pixels, truth = draw_tile(200)
    (found,) = detector_of(version).detect(pixels[None], min_score=0.5)
    assert sorted(found.class_ids) == sorted(truth[:, 0])


def test_it_is_measured_on_todays_test_set(project, learned):
    tile = project.slides.first().tiles.get()
    tile.slide.patient.locked = True
    tile.slide.patient.save()
    factories.make_truth(tile, (0, 10, 10, 20, 20))
    job = run(stage(project, learned))
    assert project.jobs.get(kind=JobKind.EVALUATE).arguments == {"version": job.result["model_version"]}


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("lymphocyte", "blast"), "missing: eosinophil (EOS); unknown: blast."),
        (("lymphocyte", "LYM"), "missing: eosinophil (EOS); named twice: lymphocyte."),
    ],
)
def test_classes_that_are_not_the_taxonomys_are_listed(project, learned, tmp_path, names, text):
    other = write_ordered(learned, tmp_path / "other.pt", order=[0, 1], names=names)
    job = run(stage(project, other))
    assert job.state == JobState.FAILED
    assert job.message == f"best.pt: its classes are not those of the taxonomy {project.taxonomy}. {text}"
    assert staged_files() == []
    assert not ModelVersion.objects.exists()


def test_an_order_that_cannot_be_put_right_is_shown_beside_the_taxonomys(project, learned, tmp_path, monkeypatch):
    turned = write_ordered(learned, tmp_path / "turned.pt", order=[1, 0], names=("eosinophil", "lymphocyte"))
    monkeypatch.setattr("inference.engine.class_order._same_but_for_the_order", lambda *models: False)
    job = run(stage(project, turned))
    assert job.state == JobState.FAILED
    assert "In the file: eosinophil, lymphocyte. In the taxonomy: lymphocyte, eosinophil." in job.message


def test_what_is_no_detector_is_refused(project):
    job = run(stage(project, b"not weights"))
    assert job.state == JobState.FAILED
    assert job.message.startswith("best.pt: The weights file weights.pt is damaged")
    assert staged_files() == []


class _Touch:
    """What unpickles as a call of `Path.touch`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(project, tmp_path):
    weights = tmp_path / "evil.pt"
    torch.save({"model": _Touch(tmp_path / "touched"), "train_args": {}}, weights)
    job = run(stage(project, weights))
    assert (job.state, job.error_code) == (JobState.FAILED, "refused")
    assert not (tmp_path / "touched").exists()
    torch.load(weights, weights_only=False)
    assert (tmp_path / "touched").exists()  # it would have been run


def test_an_image_size_that_the_network_cannot_have_is_refused(project, learned):
    job = run(stage(project, learned, image_size=100))
    assert (job.state, job.error_code) == (JobState.FAILED, "refused")
    assert "must be a multiple of 32 px for this model, not 100" in job.message


def test_an_upload_that_is_gone_says_so(project, learned):
    job = stage(project, learned)
    default_storage.delete(job.arguments["file"])
    assert run(job).message == "best.pt: the file is gone; upload it again."


def test_killed_after_it_was_entered_it_is_not_entered_twice(project, learned, monkeypatch):
    job = stage(project, learned)
    with monkeypatch.context() as patched:
        patched.setattr(default_storage, "delete", lambda name: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            tasks.import_model(job.pk)
    project.jobs.filter(pk=job.pk).update(state=JobState.QUEUED)
    job = run(job)
    assert job.state == JobState.SUCCEEDED, job.message
    assert job.result["model_version"] == ModelVersion.objects.get().pk
    assert staged_files() == []


def test_uploaded_names_are_never_paths(project, learned):
    job = stage(project, learned, name="..\\..\\etc/pass\x07wd.pt")
    assert job.subject == "passwd.pt"
    assert job.arguments["file"].startswith("staging/")
    assert job.arguments["file"].endswith("/weights.pt")


def test_classes_match_by_name_or_code_whatever_the_case(project):
    classes = list(project.taxonomy.classes.all())
    assert match_classes(["Eosinophil ", "lym"], classes) == [1, 0]
    with pytest.raises(WeightsError, match="unknown: "):
        match_classes([""], classes)
