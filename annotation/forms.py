"""Forms of the pages."""

from typing import Any

from django import forms

from annotation.models import Preparation, Role, User
from annotation.services.exports import FORMATS
from annotation.slides.reader import SLIDE_SUFFIXES
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
        label="Slide files",
        allow_empty_file=True,
        max_length=255,
        widget=SeveralFiles(attrs={"accept": ",".join(SLIDE_SUFFIXES)}),
        help_text="Several at once; the files of a DICOM series together.",
    )
    patient = forms.CharField(
        max_length=60,
        required=False,
        label="Patient (pseudonym)",
        help_text="Empty: each file's name without its suffix.",
    )
    site = forms.CharField(max_length=60, required=False)
    preparation = forms.ChoiceField(choices=Preparation.choices, required=False)
    mpp = forms.FloatField(
        min_value=0.02,
        max_value=5,
        required=False,
        label="Pixel size (µm)",
        help_text="Only for files that do not state it; it is never guessed.",
    )
    tiling = forms.ChoiceField(
        choices=[("paper", "15 × 20 grid of the paper"), ("edge", "edge to edge")],
        help_text="Where a grid cell is smaller than a tile, tiles lie edge to edge.",
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
