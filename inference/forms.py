"""The form with which a model made elsewhere comes in."""

from pathlib import PurePath
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.template.defaultfilters import filesizeformat

from inference.services.model_imports import MAX_BYTES


class ModelImportForm(forms.Form):
    file = forms.FileField(
        max_length=255,
        label="Weights (.pt)",
        widget=forms.FileInput(attrs={"accept": ".pt"}),
        help_text="Of a YOLO or RT-DETR detector, as ultralytics or Marrowloop saved it.",
    )
    image_size = forms.IntegerField(
        min_value=96,
        max_value=1280,
        step_size=32,
        label="Image size (px)",
        help_text="At which it was trained; a multiple of 32.",
    )
    trusted = forms.BooleanField(label="it comes from somebody I trust")

    def clean_file(self) -> "UploadedFile[Any]":
        file: UploadedFile[Any] = self.cleaned_data["file"]
        if PurePath(file.name or "").suffix.lower() != ".pt":
            raise forms.ValidationError(f"{file.name} is not a .pt file.")
        if (file.size or 0) > MAX_BYTES:
            raise forms.ValidationError(f"{file.name} is larger than {filesizeformat(MAX_BYTES)}.")
        return file
