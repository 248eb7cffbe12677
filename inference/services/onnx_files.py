"""A version's ONNX file, for other programs: made once by a job, measured against torch, stored beside the weights.

What a version's `exports` say never changes, so the file is recorded in the result of the job that made it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.files.storage import default_storage
from django.db import transaction

from annotation.models import Job, JobKind, JobState, Tile, User
from annotation.services.events import record
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.storage import sha256_of, store, work_dir
from annotation.slides.reader import SlideError
from inference.engine.detector import WeightsError
from inference.models import ModelVersion
from inference.services.model_archives import zip_files
from inference.services.model_exports import choose_tiles, files_of, pixels_of


def onnx_job(version: ModelVersion) -> Job | None:
    """The newest job that makes, or made, the version's ONNX file."""
    jobs = Job.objects.filter(project=version.project_id, kind=JobKind.EXPORT_MODEL, arguments__version=version.pk)
    return jobs.order_by("-pk").first()


def onnx_file(version: ModelVersion) -> dict[str, Any] | None:
    """What is recorded of the version's ONNX file (file, sha256, message); None while there is none."""
    job = onnx_job(version)
    made = job is not None and job.state == JobState.SUCCEEDED and default_storage.exists(job.result["file"])
    return job.result if job is not None and made else None


@transaction.atomic
def queue_onnx(*, version: ModelVersion, user: User | None) -> Job:
    """Make the version's ONNX file; the job that is under way if there is one."""
    known = onnx_job(version)
    if known is not None and known.is_active:
        return known
    record(project=version.project, user=user, verb="asked for ONNX of", subject=version)
    return create_job(
        project=version.project,
        kind=JobKind.EXPORT_MODEL,
        subject=f"{version} as ONNX",
        created_by=user,
        version=version.pk,
        format="onnx",
    )


def make_onnx(running: RunningJob, version: ModelVersion, tiles: Sequence[Tile]) -> dict[str, Any]:
    """The job of `queue_onnx`: export, measure on some of the tiles, store. A file that differs is not kept.

    Of a two-stage version it is a .zip of finder.onnx and classifier.onnx. Raises JobError with a text for the user.
    """
    from inference.engine.onnx_export import compare_onnx, export_classifier_onnx, export_onnx

    image_size = int(version.config["image_size"])
    with running.alone("detector"), work_dir(f"onnx-{version.pk}") as folder:
        try:
            files = files_of(version)
            weights, classifier = files.weights, files.classifier
            running.report(0.1, "exporting", at_once=True)
            path = export_onnx(weights, folder / "finder.onnx", image_size=image_size)
            second = export_classifier_onnx(classifier, folder / "classifier.onnx") if classifier else None
            running.report(0.6, "measuring the export against torch", at_once=True)
            pictures = pixels_of(choose_tiles(tiles))
            found = compare_onnx(
                weights, path, pictures, image_size=image_size, classifier=classifier, classifier_path=second
            )
        except (WeightsError, SlideError, FileNotFoundError) as error:
            raise JobError(str(error)) from error
        if found.boxes and not found.is_small:
            raise JobError(f"The ONNX file differs from the weights, so it is not offered: {found.in_words()}.")
        if second is not None:
            path = zip_files({path.name: path, second.name: second}, folder / "onnx.zip")
        digest = sha256_of(path)
        suffix = ".onnx" if second is None else ".onnx.zip"
        name = store(path, str(Path(version.weights).with_suffix(suffix)), move=True)
    words = "checked against torch" if found.boxes else "not checked against torch:"
    return {"file": name, "sha256": digest, "message": f"{words} {found.in_words()}"}
