"""The model registry: versions are added, never changed; one of them is the project's current model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.db.models import Max

from annotation.models import Author, AuthorKind, Project, User, WebhookEvent
from annotation.services.events import record
from annotation.services.storage import discard, sha256_of, store
from annotation.services.webhooks import about, announce
from inference.engine.detector import Detector
from inference.models import DetectorKind, ModelVersion
from inference.services.model_exports import ModelExport, files_of, stored_files


def register_version(
    *,
    project: Project,
    weights: Path,
    snapshot_hash: str,
    config: dict[str, Any],
    classifier: Path | None = None,
    export: ModelExport | None = None,
    user: User | None = None,
    on_version: Callable[[ModelVersion], object] = lambda version: None,
) -> ModelVersion:
    """Put weights, and their export, into storage and make them the project's next version.

    `classifier`: of a two-stage detector, whose `weights` then are the finder's. `on_version` is called in the
    transaction that writes the version: both happen or neither. Raises StorageError.
    """
    # All files come before the transaction, in which nobody is to wait for storage: their names have no number yet.
    digest = sha256_of(weights)
    name = f"weights/{project.pk}/{uuid4().hex}.pt"
    classifier_name = str(Path(name).with_suffix("")) + "-classifier.pt" if classifier else ""
    stored = [name, classifier_name] if classifier else [name]
    try:
        store(weights, name, called="the weights")
        if classifier:
            store(classifier, classifier_name, called="the classifier's weights")
        exports = export.keep(name, classifier_name) if export else {}
        stored += [*stored_files(exports, name, classifier_name)]
        with transaction.atomic():
            # Two registrations at once would take the same number; the project's row is the queue. Its key stays free:
            # whoever cancels the round meanwhile records that, and would wait for this while this waits for the round.
            Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            number = (project.model_versions.aggregate(highest=Max("number"))["highest"] or 0) + 1
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
                exports=exports,
            )
            record(project=project, user=user, verb="registered", subject=version, sha256=digest)
            on_version(version)
    except BaseException:
        # What is done on commit can fail once the version is written: that is no reason to take its files away.
        if not ModelVersion.objects.filter(weights=name).exists():
            discard(stored)
        raise
    return version


@transaction.atomic
def make_current(*, version: ModelVersion, user: User | None = None) -> None:
    """Use this version for pre-labels and selection from now on."""
    Project.objects.select_for_update(no_key=True).get(pk=version.project_id)
    verb = "rolled back to" if rolls_back(version) else "made current"
    ModelVersion.objects.filter(project=version.project, is_current=True).exclude(pk=version.pk).update(
        is_current=False
    )
    if ModelVersion.objects.filter(pk=version.pk, is_current=False).update(is_current=True):
        event = record(project=version.project, user=user, verb=verb, subject=version)
        announce(
            project=version.project,
            event=WebhookEvent.MODEL_PROMOTED,
            subject=f"model {version.pk}, event {event.pk}",  # a model may be promoted more than once
            model=about(version, "api_model"),
        )


def rolls_back(version: ModelVersion) -> bool:
    """Whether to make this version current would be to go back: it is older than the current one."""
    current = current_version(version.project)
    return current is not None and version.number < current.number


def current_version(project: Project) -> ModelVersion | None:
    return project.model_versions.filter(is_current=True).first()


def detector_of(version: ModelVersion) -> Detector:
    """Load a version, by its OpenVINO export if it may be used; only a worker does this.

    Raises WeightsError, FileNotFoundError, StorageError.
    """
    from inference.engine.detector import load_detector

    files = files_of(version)
    return load_detector(
        files.weights,
        classifier=files.classifier,
        image_size=int(version.config["image_size"]),
        runtime="auto" if files.has_export else "torch",
    )
