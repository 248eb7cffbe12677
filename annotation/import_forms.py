"""Forms of the import pages."""

from typing import Any

from django import forms
from django.utils.html import escape

from annotation.formats.trees import TREE_FORMATS
from annotation.forms import SeveralFiles, SeveralFilesField
from annotation.models import Job, Project, User
from annotation.services.label_imports import LABEL_SUFFIXES
from annotation.services.label_plans import BAD_BOXES, BECOMES, TARGETS, ImportSettings
from annotation.slides.image import IMAGE_SUFFIXES, ORDINARY_TIFF_SUFFIXES

LEAVE_OUT = "leave-out"


class ImportUploadForm(forms.Form):
    files = SeveralFilesField(  # type: ignore[assignment]
        label="Zip archive or files",
        allow_empty_file=True,
        max_length=255,
        widget=SeveralFiles(attrs={"accept": ",".join((*LABEL_SUFFIXES, *IMAGE_SUFFIXES, *ORDINARY_TIFF_SUFFIXES))}),
        help_text=(
            "One zip archive with the labels and, for new tiles, their images; or the files of one folder, "
            "up to 200; or a single JSON, XML or CSV file."
        ),
    )
    format = forms.ChoiceField(required=False, choices=[("", "found by content"), *TREE_FORMATS.items()], initial="")


class ImportSettingsForm(forms.Form):
    """What becomes of the files that a job has read: one field for each of their class names, and the rest.

    `classes` of the job's result are numbered: the field `class-0` is for the first name.
    """

    becomes = forms.ChoiceField(
        label="They become",
        choices=list(BECOMES.items()),
        help_text=(
            "Truth replaces a tile's present truth, which stays in its history. A reader's annotations are kept in the "
            "history only. Pre-labels are shown in the tasks that nobody has begun."
        ),
    )
    reader = forms.ModelChoiceField(
        label="Reader", queryset=User.objects.none(), required=False, help_text="Whose annotations they become."
    )
    targets = forms.ChoiceField(label="Onto", choices=list(TARGETS.items()))
    patient = forms.CharField(
        label="Patient of new images (pseudonym)",
        max_length=60,
        required=False,
        help_text="One for all of them. Empty: each image's name without its suffix.",
    )
    leave_out_unmatched = forms.BooleanField(
        label="leave out labels that have no tile", required=False, help_text="Otherwise such a label is a problem."
    )
    bad_boxes = forms.ChoiceField(
        label="Boxes outside their tile or without an area", choices=list(BAD_BOXES.items()), initial="refuse"
    )
    first_pixel = forms.TypedChoiceField(
        label="Corners are counted",
        coerce=int,
        choices=[(0, "from 0, as LabelImg does"), (1, "from 1, as the VOC development kit does")],
    )

    def __init__(self, *args: Any, job: Job, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        project, found = job.project, job.result
        self._found = found
        readers = User.objects.filter(memberships__project=project, is_active=True).order_by("username")
        self.fields["reader"].queryset = readers  # type: ignore[attr-defined]
        if found["known"] < found["tiles"] and found["images"]:
            self.fields["targets"].initial = "new"
        if found["format"] == "voc":
            self.fields["first_pixel"].initial = found["first_pixel"]
            self.fields["first_pixel"].help_text = escape(f"Proposed because {found['first_pixel_reason']}.")
        else:
            del self.fields["first_pixel"]
        self._add_classes(project)

    def _add_classes(self, project: Project) -> None:
        classes = list(project.taxonomy.classes.all())
        choices = [("", "choose…"), (LEAVE_OUT, "leave its boxes out")]
        choices += [(str(one.number), f"{one.code} {one.name}") for one in classes]
        numbers = {word.casefold(): str(one.number) for one in classes for word in (one.code, one.name)}
        for index, one in enumerate(self._found["classes"]):
            self.fields[f"class-{index}"] = forms.ChoiceField(
                label=f"Class of {one['name']}",
                choices=choices,
                # A name of the list that no box has harms nobody; it is there for what other settings might find.
                initial=numbers.get(one["name"].strip().casefold(), "" if one["boxes"] else LEAVE_OUT),
                error_messages={"required": "Choose a class, or leave its boxes out."},
            )

    def class_rows(self) -> list[dict[str, Any]]:
        """The names that the files use, each with its field."""
        return [one | {"field": self[f"class-{index}"]} for index, one in enumerate(self._found["classes"])]

    def other_fields(self) -> list[forms.BoundField]:
        return [field for field in self if not field.name.startswith("class-")]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("becomes") == "reader" and not data.get("reader"):
            self.add_error("reader", "Choose the reader.")
        return data

    def settings(self) -> ImportSettings:
        """The settings of a form that is valid."""
        data = self.cleaned_data
        chosen = {one["name"]: data[f"class-{index}"] for index, one in enumerate(self._found["classes"])}
        return ImportSettings(
            file_format=self._found["format"],
            classes={name: None if value == LEAVE_OUT else int(value) for name, value in chosen.items()},
            becomes=data["becomes"],
            targets=data["targets"],
            first_pixel=data.get("first_pixel", 1),
            bad_boxes=data["bad_boxes"],
            leave_out_unmatched=data["leave_out_unmatched"],
            reader=data["reader"].pk if data["becomes"] == "reader" else None,
            patient=data["patient"].strip(),
        )
