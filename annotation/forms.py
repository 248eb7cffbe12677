"""Forms of the pages."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from django import forms
from django.utils import timezone

from annotation.models import CellClass, PatientRule, Preparation, Project, Role, Scope, User, WebhookEvent
from annotation.models.webhook import LONGEST_URL
from annotation.services.export_choice import FORMATS, PARTS, ExportChoice, reader_names, round_numbers
from annotation.services.slides import SlideFacts
from annotation.slides.image import READABLE_SUFFIXES
from annotation.taxonomies import PRESETS


class ProjectForm(forms.Form):
    name = forms.CharField(max_length=100)
    taxonomy = forms.ChoiceField(
        choices=[(key, spec.name) for key, spec in PRESETS.items()],
        help_text="The list of cell classes. It is frozen with the project; a changed list is a new version.",
    )


class SeveralFiles(forms.ClearableFileInput):
    allow_multiple_selected = True


class SeveralFilesField(forms.FileField):
    def clean(self, data: Any, initial: Any = None) -> list[Any]:
        files = (data if isinstance(data, list | tuple) else [data]) or [None]
        # An empty file passes here: the importer refuses it with a message that names it.
        return [super(SeveralFilesField, self).clean(file, initial) for file in files]


class SlideFactsForm(forms.Form):
    """What the lead says of slides."""

    patient = forms.CharField(
        max_length=60,
        required=False,
        label="Patient (pseudonym)",
        help_text="One for all these files. Empty: each file's name without its suffix.",
    )
    site = forms.CharField(max_length=60, required=False)
    preparation = forms.ChoiceField(choices=Preparation.choices, required=False)
    mpp = forms.FloatField(
        min_value=0.02,
        max_value=5,
        required=False,
        label="Pixel size (µm)",
        help_text="Only for files that do not state it; it is never guessed. A plain image may do without.",
    )
    tiling = forms.ChoiceField(
        choices=[("paper", "15 × 20 grid of the paper"), ("edge", "edge to edge")],
        help_text="Of whole slides. Where a grid cell is smaller than a tile, tiles lie edge to edge.",
    )

    @property
    def facts(self) -> SlideFacts:
        data = self.cleaned_data
        return SlideFacts(
            patient=data.get("patient", "").strip(),
            site=data["site"].strip(),
            preparation=data["preparation"],
            mpp=data["mpp"],
            tiling=data["tiling"],
        )


class FolderForm(SlideFactsForm):
    """How a registered folder is watched. The lead chooses a rule in place of a patient."""

    patient = None  # type: ignore[assignment]
    patient_rule = forms.ChoiceField(choices=PatientRule.choices, label="The patient's pseudonym is")
    every_minutes = forms.TypedChoiceField(
        coerce=int,
        choices=[(5, "5 minutes"), (15, "15 minutes"), (60, "hour"), (1440, "day")],
        initial=60,
        label="Look into it every",
    )
    field_order = ("patient_rule", "every_minutes")


class SlidesForm(SlideFactsForm):
    files = SeveralFilesField(  # type: ignore[assignment]
        label="Slide files or images",
        allow_empty_file=True,
        max_length=255,
        widget=SeveralFiles(attrs={"accept": ",".join(READABLE_SUFFIXES)}),
        help_text=(
            "Several at once, also dropped here; the files of a DICOM series together. "
            "PNG, JPEG, BMP, WebP and ordinary TIFF images of up to 4096 × 4096 px become one tile each."
        ),
    )
    field_order = ("files",)


class ExportForm(forms.Form):
    """What an export holds. Where nothing is chosen of a list, all of it is meant."""

    format = forms.ChoiceField(choices=list(FORMATS.items()))
    split = forms.ChoiceField(choices=list(PARTS.items()))
    with_images = forms.BooleanField(required=False, initial=True, label="with the images")
    annotations = forms.ChoiceField(
        choices=[("truth", "truth only"), ("readers", "all readers")],
        required=False,
        help_text="Of all readers: the newest annotation of everybody who has drawn on a tile, as a tile of its own.",
    )
    coordinates = forms.ChoiceField(
        choices=[("tile", "tile px"), ("slide", "slide px (level 0)")],
        required=False,
        help_text="Slide px can be had as COCO, one image for each slide; CSV always holds both.",
    )
    rounds = forms.TypedMultipleChoiceField(coerce=int, required=False)
    patients = forms.MultipleChoiceField(required=False)
    classes = forms.MultipleChoiceField(
        required=False, help_text="Boxes of other classes are left out; every tile stays, so that none is mistaken."
    )
    readers = forms.MultipleChoiceField(required=False, help_text="Who drew the annotation.")
    ALWAYS = ("format", "split", "with_images")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rounds = sorted(set(round_numbers(project).values()))
        known = {
            "rounds": [(number, f"Round {number}") for number in rounds],
            "patients": [(code, code) for code in project.patients.values_list("code", flat=True)],
            "classes": [(name, name) for name in project.taxonomy.classes.values_list("name", flat=True)],
            "readers": [(name, name) for name in reader_names(project)],
        }
        for name, values in known.items():
            self.fields[name].choices = values  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                self.choice = ExportChoice(
                    format=data["format"],
                    images=data["with_images"],
                    part=data["split"],
                    annotations=data["annotations"] or "truth",
                    coordinates=data["coordinates"] or "tile",
                    **{name: tuple(data[name]) for name in ("rounds", "patients", "classes", "readers")},
                )
            except ValueError as error:
                raise forms.ValidationError(str(error)) from error
        return data

    @property
    def main_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.ALWAYS]

    @property
    def further_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in self.ALWAYS]

    @property
    def further_is_open(self) -> bool:
        """Whether something was chosen, or is wrong, among the fields that can be folded away."""
        return self.is_bound and any(field.errors or field.data for field in self.further_fields)


class MemberForm(forms.Form):
    user_name = forms.CharField(max_length=150, label="User name")
    role = forms.ChoiceField(choices=Role.choices)

    def clean_user_name(self) -> User:
        name = self.cleaned_data["user_name"]
        user = User.objects.filter(username=name, is_active=True).first()
        if user is None:
            raise forms.ValidationError(f"There is no user {name}. An administrator makes users.")
        return user


class TokenForm(forms.Form):
    name = forms.CharField(max_length=60, help_text="What uses it, such as the program or the machine.")
    scope = forms.ChoiceField(
        choices=[
            (Scope.READ, "read: look at what you may see"),
            (Scope.ANNOTATE, "annotate: also take, save and submit tasks"),
            (Scope.LEAD, "lead: also start rounds, import and add annotations, set webhooks, take weights"),
        ],
        help_text="A token may never do more than your role in a project.",
    )
    expires_on = forms.DateField(
        required=False,
        label="Last day",
        widget=forms.DateInput({"type": "date"}, "%Y-%m-%d"),
        help_text="Empty: until it is revoked.",
    )

    def clean_expires_on(self) -> date | None:
        day: date | None = self.cleaned_data["expires_on"]
        if day is not None and day < timezone.localdate():
            raise forms.ValidationError("This day has passed.")
        return day


class WebhookForm(forms.Form):
    """The service checks the address and says what is wrong with it."""

    url = forms.CharField(
        label="Address",
        max_length=LONGEST_URL,
        widget=forms.TextInput({"inputmode": "url", "spellcheck": "false", "autocapitalize": "none"}),
        help_text="https://… of a program of the lab. It answers 2xx within 10 s.",
    )
    events = forms.MultipleChoiceField(
        choices=WebhookEvent.choices, widget=forms.CheckboxSelectMultiple, initial=WebhookEvent.values
    )


class WebhookChangeForm(WebhookForm):
    active = forms.BooleanField(required=False, label="switched on")


# The fields stand in a table, their form below it. Tablets would begin each with an upper-case letter.
IN_TABLE = {"form": "keys", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
KEY_INPUT = IN_TABLE | {"size": "1", "maxlength": "1"}
COLOUR_INPUT = IN_TABLE | {"type": "color"}


class TaxonomyForm(forms.Form):
    """One hotkey and one colour for each class, in fields named by the class's number; the service checks them."""

    def __init__(self, *args: Any, classes: Sequence[CellClass], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for one in classes:
            self.fields[f"hotkey-{one.number}"] = forms.CharField(
                required=False, label=f"Hotkey of {one.name}", initial=one.hotkey, widget=forms.TextInput(KEY_INPUT)
            )
            self.fields[f"colour-{one.number}"] = forms.CharField(
                required=False, label=f"Colour of {one.name}", initial=one.colour, widget=forms.TextInput(COLOUR_INPUT)
            )

    def values(self, attribute: str) -> dict[int, str]:
        """What was entered for "hotkey" or "colour", by class number."""
        names = {name: name.removeprefix(f"{attribute}-") for name in self.fields if name.startswith(attribute)}
        return {int(number): self.cleaned_data[name] for name, number in names.items()}
