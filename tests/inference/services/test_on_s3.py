"""All that a lab does with its files, on a real S3 server: images, weights, pre-labels, exports, and their deletion."""

import hashlib
import io
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from annotation import tasks as annotation_tasks
from annotation.models import Job, JobKind, JobState, Role, Slide, Tile
from annotation.services.patience import StorageError
from annotation.services.projects import create_project, create_taxonomy
from annotation.taxonomies import ClassSpec, TaxonomySpec
from inference.engine.openvino_detector import OpenvinoDetector
from inference.models import ModelVersion
from inference.services import registry
from inference.services.model_exports import ModelExport, export_folder, make_export
from inference.services.pre_labels import pre_label_batch
from inference.services.registry import detector_of, register_version
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
def project(client):
    project = create_project(name="Drawn", taxonomy=create_taxonomy(spec=CELLS), lead=None)
    client.force_login(factories.make_member(project, Role.LEAD, "lead", is_staff=True))
    return project


def done(job):
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED, job.message
    return job


def picture(seed):
    buffer = io.BytesIO()
    Image.fromarray(draw_tile(seed)[0]).save(buffer, "PNG")
    return SimpleUploadedFile(f"{seed}.png", buffer.getvalue())


def content(response):
    return b"".join(response.streaming_content)


def test_images_weights_pre_labels_and_exports(remote, project, client, learned):
    # Images come in through the page.
    values = {"tiling": "edge", "patient": "P1", "site": "", "preparation": "", "mpp": ""}
    client.post(
        reverse("slides_import", args=[project.pk]), values | {"files": [picture(seed) for seed in range(200, 203)]}
    )
    for job in Job.objects.filter(kind=JobKind.IMPORT_SLIDE):
        annotation_tasks.import_slide(job.pk)
        done(job)
    slides = {name for slide in Slide.objects.all() for name in slide.files}
    assert set(remote.objects) == slides
    assert len(slides) == 3

    # A model comes in through the page, and draws pre-labels by the OpenVINO export that lies beside its weights.
    upload = SimpleUploadedFile("best.pt", learned.read_bytes())
    client.post(reverse("model_import", args=[project.pk]), {"file": upload, "image_size": SIDE, "trusted": "on"})
    job = Job.objects.get(kind=JobKind.IMPORT_MODEL)
    tasks.import_model(job.pk)
    version = ModelVersion.objects.get(pk=done(job).result["model_version"])
    assert version.exports["openvino"]["accepted"], version.exports
    folder = version.weights.removesuffix(".pt") + ".openvino"
    files = {version.weights, *(f"{folder}/{name}" for name in version.exports["openvino"]["files"])}
    assert set(remote.objects) == slides | files
    assert isinstance(detector_of(version), OpenvinoDetector)
    batch = factories.make_batch(project, Tile.objects.all())
    assert pre_label_batch(batch=batch, version=version, on_progress=lambda done, total: None) == 3
    assert version.author.annotations.filter(boxes__isnull=False).exists()

    # All that can be downloaded, through the pages.
    assert content(client.get(reverse("model_weights", args=[version.pk]))) == learned.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content(client.get(reverse("model_openvino", args=[version.pk]))))) as archive:
        assert archive.read("model.bin") == (export_folder(learned) / "model.bin").read_bytes()
    factories.make_truth(Tile.objects.first(), (0, 10, 20, 30, 40))
    client.post(reverse("export_create", args=[project.pk]), {"format": "coco", "split": "all", "with_images": "on"})
    job = Job.objects.get(kind=JobKind.EXPORT)
    tasks.export(job.pk)
    archive = content(client.get(reverse("export_download", args=[done(job).pk])))
    assert hashlib.sha256(archive).hexdigest() == job.result["sha256"]
    assert set(remote.objects) == slides | files | {job.result["file"]}

    # Deleted, nothing of it is left.
    client.post(reverse("export_delete", args=[job.pk]))
    assert set(remote.objects) == slides | files


def test_labels_are_uploaded_read_and_thrown_away(remote, project, client):
    upload = SimpleUploadedFile("labels.csv", b"not a table of ours\n")
    client.post(reverse("import_create", args=[project.pk]), {"files": [upload]})
    job = Job.objects.get(kind=JobKind.IMPORT_LABELS)
    assert list(remote.objects) == [job.arguments["file"]]
    annotation_tasks.import_labels(job.pk)
    assert "refused" in done(job).message


def test_a_version_that_cannot_be_stored_whole_leaves_nothing(remote, project, learned, monkeypatch, tmp_path):
    class Breaks(ModelExport):
        def keep(self, weights_name, classifier_name=""):
            raise StorageError(weights_name, "no connection")

    with pytest.raises(StorageError):
        register_version(
            project=project,
            weights=learned,
            snapshot_hash="",
            config={"image_size": SIDE},
            export=Breaks(tmp_path, True, ""),
        )
    monkeypatch.setattr(registry, "record", lambda **fields: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        register_version(project=project, weights=learned, snapshot_hash="", config={"image_size": SIDE})
    assert (remote.objects, project.model_versions.exists()) == ({}, False)


def test_a_slide_that_cannot_be_read_says_nothing_of_an_export(remote, project, learned, tmp_path):
    """The job fails and can be run again; it does not end with a model that computes slowly for ever."""
    tile = factories.make_image(project, width=SIDE, height=SIDE)
    remote.server.stop()
    with pytest.raises(StorageError):
        make_export(weights=learned, folder=tmp_path / "export", image_size=SIDE, tiles=[tile])
