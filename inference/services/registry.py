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
    classifier: Path | None = None,
    export: ModelExport | None = None,
    user: User | None = None,
) -> ModelVersion:
    """Put weights, and their export, into storage and make them the project's next version.

    `classifier`: of a two-stage detector, whose `weights` then are the finder's.
    """
    # Two registrations at once would take the same number; the project's row is the queue.
    Project.objects.select_for_update().get(pk=project.pk)
    number = (project.model_versions.aggregate(highest=Max("number"))["highest"] or 0) + 1
    digest = sha256_of(weights)
    name = store(weights, f"weights/{project.pk}/{number}-{digest[:16]}.pt")
    classifier_name = store(classifier, f"weights/{project.pk}/{number}-classifier.pt") if classifier else ""
    author = Author.objects.create(project=project, kind=AuthorKind.MODEL, name=f"model {number}")
    version = ModelVersion.objects.create(
        project=project,
        number=number,
        author=author,
        taxonomy=project.taxonomy,
        kind=DetectorKind.TWO_STAGE if classifier else DetectorKind.ONE_STAGE,
        weights=name,
        weights_sha256=digest,
        classifier=classifier_name,
        classifier_sha256=sha256_of(classifier) if classifier else "",
        snapshot_hash=snapshot_hash,
        config=config,
        exports=export.keep(name, classifier_name) if export else {},
    )
    record(project=project, user=user, verb="registered", subject=version, sha256=digest)
    return version


@transaction.atomic
def make_current(*, version: ModelVersion, user: User | None = None) -> None:
    """Use this version for pre-labels and selection from now on."""
    Project.objects.select_for_update().get(pk=version.project_id)
    verb = "rolled back to" if rolls_back(version) else "made current"
    ModelVersion.objects.filter(project=version.project, is_current=True).exclude(pk=version.pk).update(
        is_current=False
    )
    if ModelVersion.objects.filter(pk=version.pk, is_current=False).update(is_current=True):
        record(project=version.project, user=user, verb=verb, subject=version)


def rolls_back(version: ModelVersion) -> bool:
    """Whether to make this version current would be to go back: it is older than the current one."""
    current = current_version(version.project)
    return current is not None and version.number < current.number


def current_version(project: Project) -> ModelVersion | None:
    return project.model_versions.filter(is_current=True).first()


def detector_of(version: ModelVersion) -> Detector:
    """Load a version, by its OpenVINO export if it may be used; only a worker does this.

    Raises WeightsError or FileNotFoundError.
    """
    from inference.engine.detector import load_detector

    return load_detector(
        local_path(version.weights),
        classifier=local_path(version.classifier) if version.classifier else None,
        image_size=int(version.config["image_size"]),
        runtime="auto" if has_export(version) else "torch",
    )
