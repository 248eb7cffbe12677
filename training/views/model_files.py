"""What can be downloaded of a model version: its weights, its figures, its table."""

from pathlib import PurePath
from typing import IO

from django.core.files import File
from django.http import FileResponse, Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_POST

from annotation.models import Role, User
from annotation.services.events import record
from annotation.services.storage import cache_dir, open_stored
from annotation.views.request import SignedIn, sent_file
from inference.models import ModelVersion
from inference.services.model_archives import openvino_archive, two_stage_archive
from inference.services.onnx_files import onnx_file, queue_onnx
from training.evaluation_table import as_csv, evaluation_table
from training.figures import FIGURES, FORMATS, Subject, draw
from training.models import Evaluation
from training.views.model_page import compared, evaluation_shown
from training.views.models import version_for


def _stem(version: ModelVersion) -> str:
    return f"marrowloop-{version.project_id}-model-{version.number}"


def _download(user: User, version: ModelVersion, file: "IO[bytes] | File[bytes]", name: str) -> FileResponse:
    record(project=version.project, user=user, verb="downloaded", subject=name)
    suffix = PurePath(name).suffix
    content_type = "application/zip" if suffix == ".zip" else "application/octet-stream"
    return sent_file(file, name, content_type)


@require_GET
def model_weights(request: SignedIn, pk: int) -> HttpResponseBase:
    return weights_of(version_for(request, pk, Role.REVIEWER), request.user)


def weights_of(version: ModelVersion, user: User) -> HttpResponseBase:
    """One .pt file, or of a two-stage version a .zip of its two. Raises Http404 if they are gone."""
    try:
        if version.classifier:
            return _download(user, version, two_stage_archive(version), f"{_stem(version)}.zip")
        return _download(user, version, open_stored(version.weights), f"{_stem(version)}.pt")
    except FileNotFoundError as error:
        raise Http404("The weights are gone from storage.") from error


@require_GET
def model_openvino(request: SignedIn, pk: int) -> HttpResponseBase:
    version = version_for(request, pk, Role.REVIEWER)
    try:
        return _download(request.user, version, openvino_archive(version), f"{_stem(version)}-openvino.zip")
    except FileNotFoundError as error:
        raise Http404(str(error)) from error


@require_GET
def model_onnx(request: SignedIn, pk: int) -> HttpResponseBase:
    version = version_for(request, pk, Role.REVIEWER)
    made = onnx_file(version)
    if made is None:
        raise Http404("There is no ONNX file of this model: make it first.")
    suffix = "-onnx.zip" if version.classifier else ".onnx"
    return _download(request.user, version, open_stored(made["file"]), f"{_stem(version)}{suffix}")


@require_POST
def model_export(request: SignedIn, pk: int) -> HttpResponse:
    """Make the ONNX file."""
    version = version_for(request, pk, Role.LEAD)
    queue_onnx(version=version, user=request.user)
    return redirect("model", pk)


def _evaluated(request: SignedIn, pk: int) -> tuple[ModelVersion, Evaluation]:
    """The version and the evaluation that its page shows at the same address. Raises Http404 if there is none."""
    version = version_for(request, pk, Role.ANNOTATOR)
    _, comparison = compared(request, version)
    evaluation = evaluation_shown(version, comparison)
    if evaluation is None:
        raise Http404("This model has not been evaluated.")
    return version, evaluation


def _attachment(content: bytes | str, content_type: str, name: str) -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(content, content_type=content_type, headers=headers)


@require_GET
def model_table(request: SignedIn, pk: int) -> HttpResponse:
    version, evaluation = _evaluated(request, pk)
    table = evaluation_table(list(version.taxonomy.classes.all()), evaluation.metrics)
    return _attachment(as_csv(table), "text/csv; charset=utf-8", f"{_stem(version)}.csv")


@require_GET
def model_figure(request: SignedIn, pk: int, name: str, file_format: str) -> HttpResponse:
    version, evaluation = _evaluated(request, pk)
    if name not in FIGURES or file_format not in FORMATS:
        raise Http404("There is no such figure.")
    classes = list(version.taxonomy.classes.all())
    of_name = {one.name: (one.code, one.colour) for one in classes}
    subject = Subject(
        title=f"Model {version.number}, {evaluation.tiles} {evaluation.get_part_display()} tiles",
        classes=[of_name[row["name"]] for row in evaluation.metrics["classes"]],
        codes=[*(one.code for one in classes), "BG"],
        metrics=evaluation.metrics,
    )
    content = draw(name, subject, file_format, settings_folder=cache_dir() / "matplotlib")
    return _attachment(content, FORMATS[file_format], f"{_stem(version)}-{name}.{file_format}")
