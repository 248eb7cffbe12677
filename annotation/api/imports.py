"""Imports of annotations: files are sent, read, tried out, and only then written, as on their pages."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for
from annotation.api.base import Filters, Strict, View, checked
from annotation.api.bodies import FilesParser
from annotation.api.errors import Refused
from annotation.api.inputs import AnyObject
from annotation.api.pages import NewestFirst
from annotation.api.rows import JobRow
from annotation.api.schema import Error, reads, writes
from annotation.formats.trees import TREE_FORMATS
from annotation.import_forms import LEAVE_OUT, ImportSettingsForm
from annotation.models import Job, JobKind, JobState, Role, Scope, User
from annotation.services.label_imports import (
    READ,
    TRY,
    WRITE,
    UploadRefused,
    is_readable,
    queue_dry_run,
    queue_writing,
    stage_labels,
)
from annotation.services.label_plans import BAD_BOXES, BECOMES, TARGETS

STEPS = {READ: "found in the files", TRY: "dry run", WRITE: "import"}


class ImportRow(JobRow):
    """One of the three steps. `result`: what it found, `problems` and their count in it; what stands in the others is
    in docs/api.md.
    """

    subject = serializers.CharField(help_text="The file's name.")
    step = serializers.ChoiceField(list(STEPS.items()), source="arguments.step")
    read = serializers.IntegerField(
        source="arguments.read", default=None, allow_null=True, help_text="The step that read the files."
    )
    tried = serializers.IntegerField(
        source="arguments.tried", default=None, allow_null=True, help_text="The dry run that it carries out."
    )
    settings = serializers.DictField(source="arguments.settings", default=None, allow_null=True)
    result = serializers.DictField()
    created_at = serializers.DateTimeField()


READ_ROW: dict[str, Any] = {
    "id": 73,
    "kind": "import_labels",
    "state": "succeeded",
    "progress": 1.0,
    "seconds_left": None,
    "message": "811 boxes on 120 tiles",
    "subject": "labels.zip",
    "step": "read",
    "read": None,
    "tried": None,
    "settings": None,
    "result": {
        "format": "coco",
        "tiles": 120,
        "boxes": 811,
        "known": 120,
        "images": 0,
        "classes": [{"name": "Blast", "boxes": 811, "tiles": 97}],
        "problems": [],
        "problems_count": 0,
    },
    "created_at": "2026-03-02T08:00:00Z",
}
SETTINGS: dict[str, Any] = {"becomes": "truth", "bad_boxes": "clip", "classes": {"Blast": 0, "smudge": None}}
STAYS: dict[str, Any] = READ_ROW | {"state": "queued", "progress": 0.0, "message": "", "result": {}}
TRY_ROW: dict[str, Any] = STAYS | {"id": 74, "step": "try", "read": 73, "settings": SETTINGS}
WRITE_ROW: dict[str, Any] = TRY_ROW | {"id": 75, "step": "write", "tried": 74}


class Upload(serializers.Serializer):
    files = serializers.ListField(
        child=serializers.FileField(allow_empty_file=True, max_length=255),
        max_length=200,
        help_text="One zip archive; or the files of one folder, up to 200.",
    )
    format = serializers.ChoiceField(
        list(TREE_FORMATS.items()), required=False, allow_blank=True, help_text="Left out: found by what they hold."
    )


class Settings(Strict):
    """What becomes of the files. What is left out is as the page proposes it."""

    becomes = serializers.ChoiceField(list(BECOMES.items()), required=False)
    reader = serializers.CharField(max_length=150, required=False, help_text="User name, of a reader's annotations.")
    targets = serializers.ChoiceField(list(TARGETS.items()), required=False)
    patient = serializers.CharField(
        max_length=60, required=False, allow_blank=True, help_text="Pseudonym, of new images."
    )
    leave_out_unmatched = serializers.BooleanField(required=False)
    bad_boxes = serializers.ChoiceField(list(BAD_BOXES.items()), required=False)
    first_pixel = serializers.ChoiceField([0, 1], required=False, help_text="Of Pascal VOC only.")
    classes = AnyObject(
        required=False,
        help_text="For each class name of the files the number of a class, or null to leave its boxes out. A name that "
        "is a class's code or name may be left out.",
    )


def _imports() -> QuerySet[Job]:
    return Job.objects.filter(kind=JobKind.IMPORT_LABELS).select_related("project__taxonomy")


class ImportFilters(Filters):
    state = serializers.ChoiceField(JobState.choices, required=False)
    step = serializers.ChoiceField(list(STEPS.items()), required=False)


class _OfFiles(View):
    api_tag = "exports and imports"
    scopes = {"GET": Scope.LEAD, "POST": Scope.LEAD}


class Imports(_OfFiles):
    parser_classes = [FilesParser]

    @reads(
        ImportRow,
        about="A project's imports, each step by itself, the newest first; for leads",
        name="imports",
        filters=ImportFilters,
        pages=NewestFirst,
        example=READ_ROW,
    )
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.LEAD)
        chosen = checked(ImportFilters, request.query_params)
        if "step" in chosen:
            chosen["arguments__step"] = chosen.pop("step")
        return self.paged(request, _imports().filter(project=project, **chosen), ImportRow, NewestFirst)

    @writes(
        Upload,
        {201: ImportRow},
        about="Send files to be read: formats, classes, problems; nothing is written yet; for leads",
        name="read_files",
        example=STAYS,
    )
    def post(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.LEAD)
        sent = checked(Upload, request.data)
        try:
            job = stage_labels(
                project=project, uploads=sent["files"], file_format=sent.get("format", ""), user=request.user
            )
        except UploadRefused as error:
            raise serializers.ValidationError(str(error)) from error
        return Response(ImportRow(_imports().get(pk=job.pk)).data, status=201)


class OneImport(_OfFiles):
    @reads(ImportRow, about="A step of an import, with what it found; for leads", name="import", example=READ_ROW)
    def get(self, request: Request, pk: int) -> Response:
        return Response(ImportRow(get_for(request.user, _imports(), pk, Role.LEAD)).data)


class TryImport(_OfFiles):
    @writes(
        Settings,
        {201: ImportRow, 409: Error},
        about="Dry run: what would happen to the files that this step has read; for leads",
        name="try_import",
        body=SETTINGS,
        example=TRY_ROW,
    )
    def post(self, request: Request, pk: int) -> Response:
        job = get_for(request.user, _imports(), pk, Role.LEAD)
        asked = checked(Settings, request.data)
        if not is_readable(job):
            raise Refused("Only files that were read without problems can be tried out.")
        form = ImportSettingsForm(_form_values(job, asked), job=job)
        if not form.is_valid():
            raise serializers.ValidationError(_errors(job, form))
        tried = queue_dry_run(read=job, settings=form.settings(), user=request.user)
        return Response(ImportRow(_imports().get(pk=tried.pk)).data, status=201)


def _form_values(job: Job, asked: dict[str, Any]) -> dict[str, Any]:
    """The page's form as it proposes itself, changed by what was asked for. Raises a ValidationError."""
    proposed = ImportSettingsForm(job=job)
    values = {name: proposed.get_initial_for_field(field, name) for name, field in proposed.fields.items()}
    # A choice that proposes nothing stands at its first option, as it does in a browser.
    values |= {name: next(iter(known)) for name, known in CHOICES.items() if values[name] is None}
    values |= {name: value for name, value in asked.items() if name not in ("classes", "reader")}
    if "reader" in asked:
        reader = User.objects.filter(username=asked["reader"]).first()
        values["reader"] = reader.pk if reader else 0
    if "first_pixel" in asked and "first_pixel" not in proposed.fields:
        raise serializers.ValidationError({"first_pixel": "These files are no Pascal VOC."})
    return values | _class_values(job, asked.get("classes", {}))


CHOICES = {"becomes": BECOMES, "targets": TARGETS}


def _class_values(job: Job, classes: dict[str, Any]) -> dict[str, str]:
    numbers = {one["name"]: index for index, one in enumerate(job.result["classes"])}
    unknown = [str(name)[:80] for name in classes if name not in numbers]
    if unknown:
        raise serializers.ValidationError({"classes": f"The files have no class {unknown[0]!r}."})
    return {f"class-{numbers[name]}": LEAVE_OUT if number is None else str(number) for name, number in classes.items()}


def _errors(job: Job, form: ImportSettingsForm) -> dict[str, list[str]]:
    """By the names that the body has."""
    names = {f"class-{index}": f"classes, {one['name'][:80]}" for index, one in enumerate(job.result["classes"])}
    return {names.get(name, name): list(map(str, texts)) for name, texts in form.errors.items()}


class WriteImport(_OfFiles):
    @writes(
        None,
        {201: ImportRow, 409: Error},
        about="Carry out what a dry run without problems has described; asked twice, it is done once; for leads",
        name="write_import",
        example=WRITE_ROW,
    )
    def post(self, request: Request, pk: int) -> Response:
        job = get_for(request.user, _imports(), pk, Role.LEAD)
        try:
            written = queue_writing(tried=job, user=request.user)
        except UploadRefused as error:
            raise Refused(str(error)) from error
        return Response(ImportRow(_imports().get(pk=written.pk)).data, status=201)
