"""Forms of the pages."""

from collections.abc import Sequence
from typing import Any

from django import forms

from annotation.models import CellClass, Preparation, Role, User
from annotation.services.exports import FORMATS
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


class SlidesForm(forms.Form):
    files = SeveralFilesField(  # type: ignore[assignment]
        label="Slide files or images",
        allow_empty_file=True,
        max_length=255,
        widget=SeveralFiles(attrs={"accept": ",".join(READABLE_SUFFIXES)}),
        help_text=(
            "Several at once; the files of a DICOM series together. "
            "PNG, JPEG, BMP, WebP and ordinary TIFF images of up to 4096 × 4096 px become one tile each."
        ),
    )
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


class ExportForm(forms.Form):
    format = forms.ChoiceField(choices=list(FORMATS.items()))
    split = forms.ChoiceField(
        choices=[("all", "all tiles"), ("train", "training"), ("val", "validation"), ("test", "locked test")]
    )
    with_images = forms.BooleanField(required=False, initial=True, label="with the images")


class MemberForm(forms.Form):
    user_name = forms.CharField(max_length=150, label="User name")
    role = forms.ChoiceField(choices=Role.choices)

    def clean_user_name(self) -> User:
        name = self.cleaned_data["user_name"]
        user = User.objects.filter(username=name, is_active=True).first()
        if user is None:
            raise forms.ValidationError(f"There is no user {name}. An administrator makes users.")
        return user


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
