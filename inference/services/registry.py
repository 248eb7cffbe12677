"""The model registry: versions are added, never changed; one of them is the project's current model."""

from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import Max

from annotation.models import Author, AuthorKind, Project, User
from annotation.services.events import record
from annotation.services.storage import local_path, sha256_of, store
from inference.engine.detector import Detector
from inference.models import DetectorKind, ModelVersion
from inference.services.model_exports import ModelExport, has_export


@transaction.atomic
def register_version(
    *,
    project: Project,
    weights: Path,
    snapshot_hash: str,
    config: dict[str, Any],
    export: ModelExport | None = None,
    user: User | None = None,
) -> ModelVersion:
    """Put weights, and their export, into storage and make them the project's next version."""
    # Two registrations at once would take the same number; the project's row is the queue.
    Project.objects.select_for_update().get(pk=project.pk)
    number = (project.model_versions.aggregate(highest=Max("number"))["highest"] or 0) + 1
    digest = sha256_of(weights)
    name = store(weights, f"weights/{project.pk}/{number}-{digest[:16]}.pt")
    author = Author.objects.create(project=project, kind=AuthorKind.MODEL, name=f"model {number}")
    version = ModelVersion.objects.create(
        project=project,
        number=number,
        author=author,
        taxonomy=project.taxonomy,
        kind=DetectorKind.ONE_STAGE,
        weights=name,
        weights_sha256=digest,
        snapshot_hash=snapshot_hash,
        config=config,
        exports=export.keep(name) if export else {},
    )
    record(project=project, user=user, verb="registered", subject=version, sha256=digest)
    return version


@transaction.atomic
def make_current(*, version: ModelVersion, user: User | None = None) -> None:
    """Use this version for pre-labels and selection from now on."""
    Project.objects.select_for_update().get(pk=version.project_id)
    ModelVersion.objects.filter(project=version.project, is_current=True).exclude(pk=version.pk).update(
        is_current=False
    )
    if ModelVersion.objects.filter(pk=version.pk, is_current=False).update(is_current=True):
        record(project=version.project, user=user, verb="made current", subject=version)


def current_version(project: Project) -> ModelVersion | None:
    return project.model_versions.filter(is_current=True).first()


def detector_of(version: ModelVersion) -> Detector:
    """Load a version, by its OpenVINO export if it may be used; only a worker does this.

    Raises WeightsError or FileNotFoundError.
    """
    from inference.engine.detector import load_detector

    return load_detector(
        local_path(version.weights),
        image_size=int(version.config["image_size"]),
        runtime="auto" if has_export(version) else "torch",
    )
