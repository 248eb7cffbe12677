"""Models made elsewhere: staged, loaded without running code, checked against the taxonomy, entered as a version."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction

from annotation.models import CellClass, Job, JobKind, Project, Tile, User
from annotation.services.events import record
from annotation.services.jobs import JobError, RunningJob, create_job
from annotation.services.slides import display_name
from annotation.services.storage import discard, keep_upload, local_path, work_dir
from inference.engine.detector import WeightsError
from inference.models import ModelVersion
from inference.services.model_exports import make_export
from inference.services.registry import register_version

MAX_BYTES = 1 << 30  # the largest YOLO, with what its trainer keeps beside it, has half of it


def stage_model(*, project: Project, upload: "UploadedFile[Any]", image_size: int, user: User | None) -> Job:
    """Put an uploaded .pt into storage and queue its import."""
    name = display_name(upload.name or "")
    key = f"staging/{uuid4()}/weights.pt"
    keep_upload(upload, key)  # before the transaction, in which nobody is to wait for storage
    with transaction.atomic():
        record(project=project, user=user, verb="asked to import model", subject=name)
        return create_job(
            project=project, kind=JobKind.IMPORT_MODEL, subject=name, created_by=user, file=key, image_size=image_size
        )


def import_model(running: RunningJob, tiles: Sequence[Tile]) -> tuple[ModelVersion, str]:
    """The import job: from staging to a version that is not current; returns it, and what was done in words.

    tiles: on which its OpenVINO export is measured. Raises JobError with a text for the user; what is refused is
    thrown away.
    """
    job = running.job
    key = job.arguments["file"]
    known = ModelVersion.objects.filter(project=job.project, config__import_job=job.pk).first()
    if known is not None:
        discard([key])
        return known, "entered by an earlier attempt"
    try:
        staged = local_path(key, called=job.subject)
    except FileNotFoundError as error:
        raise JobError(f"{job.subject}: the file is gone; upload it again.", code="missing") from error
    try:
        version, words = _enter(running, staged, tiles)
    except WeightsError as error:
        discard([key])
        raise JobError(f"{job.subject}: {error}", code="refused") from error
    discard([key])
    return version, words


def _enter(running: RunningJob, staged: Path, tiles: Sequence[Tile]) -> tuple[ModelVersion, str]:
    job, image_size = running.job, int(running.job.arguments["image_size"])
    with work_dir(f"import-model-{job.pk}") as folder:
        running.report(0.05, "reading the weights", at_once=True)
        weights, note = _checked(staged, folder, list(job.project.taxonomy.classes.all()), image_size)
        running.report(0.2, "exporting for OpenVINO, and measuring the export against torch", at_once=True)
        export = make_export(weights=weights, folder=folder / "openvino", image_size=image_size, tiles=tiles)
        running.check()
        version = register_version(
            project=job.project,
            weights=weights,
            snapshot_hash="",
            config={
                "image_size": image_size,
                "imported": True,
                "file": job.subject,
                "imported_by": job.created_by.get_username() if job.created_by else "",
                "import_job": job.pk,
            },
            export=export,
            user=job.created_by,
        )
    slower = f"; torch computes, not OpenVINO: {version.refused_export}" if version.refused_export else ""
    return version, f"{version}{note}{slower}"


def _checked(staged: Path, folder: Path, classes: Sequence[CellClass], image_size: int) -> tuple[Path, str]:
    """Weights whose classes are the taxonomy's, in its order, and what was done to them, in words."""
    from inference.engine.class_order import weights_facts, write_ordered

    facts, names = weights_facts(staged), tuple(one.name for one in classes)
    if image_size % facts.stride:
        raise WeightsError(f"the image size must be a multiple of {facts.stride} px for this model, not {image_size}.")
    order = match_classes(facts.classes, classes)
    if facts.classes == names:
        return staged, ""
    try:
        weights = write_ordered(staged, folder / "weights.pt", order=order, names=names)
    except WeightsError as error:
        orders = f"In the file: {', '.join(facts.classes)}. In the taxonomy: {', '.join(names)}."
        raise WeightsError(f"{error} {orders}") from error
    moved = order != sorted(order)
    return weights, "; its classes were put into the taxonomy's order" if moved else "; its classes were renamed"


def match_classes(names: Sequence[str], classes: Sequence[CellClass]) -> list[int]:
    """For each class of the taxonomy its place among the file's names: by name or code, whatever the case.

    Raises WeightsError that lists what is missing, unknown or named twice.
    """
    number_of = {word.casefold(): one.number for one in classes for word in (one.code, one.name)}
    numbers = [number_of.get(name.strip().casefold()) for name in names]
    unknown = [name for name, number in zip(names, numbers, strict=True) if number is None]
    missing = [f"{one.name} ({one.code})" for one in classes if one.number not in numbers]
    twice = [one.name for one in classes if numbers.count(one.number) > 1]
    wrong = {"missing": missing, "unknown": unknown, "named twice": twice}
    if any(wrong.values()):
        listed = "; ".join(f"{what}: {', '.join(some)}" for what, some in wrong.items() if some)
        raise WeightsError(f"its classes are not those of the taxonomy {classes[0].taxonomy}. {listed}.")
    return [numbers.index(one.number) for one in classes]
