"""The form of a cross-validation, and what it has in common with that of a round: how a detector is trained."""

from dataclasses import asdict, fields
from itertools import groupby
from typing import Any

from django import forms
from django.core.validators import RegexValidator
from django.forms import BoundField

from inference.models import DetectorKind
from training.engine.architectures import UnknownModel, architecture, architectures
from training.engine.config import DEVICE, RANGES, Recipe, check_size
from training.services.training_settings import TrainingSettings, backbone_files, weights_files

MODELS = {
    "yolo11n": "yolo11n (2.6 M weights; fit for a processor)",
    "yolo11s": "yolo11s (9.4 M weights)",
    "yolo11m": "yolo11m (20 M weights; GPU)",
    "yolo11l": "yolo11l (25 M weights; GPU)",
    "yolo11x": "yolo11x (57 M weights; GPU)",
    "rtdetr-l": "rtdetr-l (33 M weights; GPU)",
    "rtdetr-x": "rtdetr-x (67 M weights; GPU)",
}
CLASSIFIER = ("classifier_epochs", "backbone", "backbone_file")
CLASSIFIER_EPOCHS = TrainingSettings().classifier_epochs
SCRATCH, PREVIOUS, FILE = "scratch", "previous", "file:"

# How a recipe is shown: in groups, each with the fields' labels and help.
PROBABILITY = "How probable, 0 to 1."
RECIPE: dict[str, dict[str, tuple[str, str]]] = {
    "Course": {
        "learning_rate": ("Learning rate", "At its highest. Empty: 0.002, and 0.0001 for an RT-DETR."),
        "patience": ("Patience (epochs)", "Without a better validation, training ends after so many; 0: never."),
        "device": ("Device", "auto, cpu, cuda, or several GPUs by their numbers: 0,1."),
        "threads": ("Threads", "Of the processor. Empty: all that other processes leave."),
        "cache_megabytes": ("Tile memory (MB)", "The rest is read from disk. Empty: half of what is free."),
    },
    "Rare classes": {
        "rare_classes": ("Tiles with rare classes", "Shown more often by repeat factors (LVIS), or left alone."),
        "repeat_threshold": ("Rare below", "Share of the tiles that a class is on; 0.1: every tenth tile."),
    },
    "Colour": {
        "hue": ("Hue", "Shifted by up to this share of the colour circle."),
        "saturation": ("Saturation", "Changed by up to this share."),
        "brightness": ("Brightness", "Changed by up to this share."),
    },
    "Place and size": {
        "flip_vertical": ("Flip top to bottom", PROBABILITY),
        "flip_horizontal": ("Flip left to right", PROBABILITY),
        "rotation": ("Rotation (degrees)", "Either way. Boxes grow to hold the turned cell."),
        "scale": ("Scale", "Larger or smaller by up to this share; what grows out of the tile is cropped."),
        "shift": ("Shift and crop", "By up to this share of the side; what moves out is cropped."),
    },
    "Mixing tiles": {
        "mosaic": ("Mosaic", "How probable. A window cut out of four tiles laid together."),
        "cutmix": ("Cutmix", "How probable. A piece of another tile laid in."),
        "mixup": ("Mixup", "How probable. Two tiles blended."),
    },
}
WHOLE = ("patience", "threads", "cache_megabytes")
AUTOMATIC = ("learning_rate", "threads", "cache_megabytes")  # may be left empty
LABELS = {name: label for group in RECIPE.values() for name, (label, _) in group.items()}


class TrainingForm(forms.Form):
    """How a detector is trained."""

    kind = forms.ChoiceField(
        choices=DetectorKind.choices,
        label="Kind of detector",
        help_text="One-stage finds and names cells at once; two-stage by a finder and a classifier, from fewer tiles.",
    )
    model = forms.CharField(
        label="Detector", widget=forms.Select, help_text="From n, small and fast, to x, large. P6 needs large images."
    )
    epochs = forms.IntegerField(min_value=1, max_value=2000)
    image_size = forms.IntegerField(
        min_value=96,
        max_value=1280,
        step_size=32,
        label="Image size (px)",
        help_text="Tiles are scaled to it; a multiple of 32.",
    )
    batch_size = forms.IntegerField(min_value=1, max_value=256, label="Tiles per training step")
    seed = forms.IntegerField(min_value=0, max_value=2**31 - 1)
    start_from = forms.ChoiceField(
        label="Start from", help_text="From scratch, as in the paper, or from weights: layers that fit are taken over."
    )

    classifier_epochs = forms.IntegerField(
        min_value=1, max_value=500, label="Epochs", help_text="Turns over all cells.", initial=CLASSIFIER_EPOCHS
    )
    backbone = forms.CharField(
        required=False, max_length=100, label="Backbone", help_text="A name of timm. Empty: EfficientNet-Lite0."
    )
    backbone_file = forms.ChoiceField(
        required=False, label="Its weights", help_text="From the folder of start weights; the default brings its own."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["backbone_file"].choices = [  # type: ignore[attr-defined]
            ("", "none"),
            *((name, name) for name in backbone_files()),
        ]
        self.fields["model"].widget.choices = model_choices()
        self.fields["start_from"].choices = [  # type: ignore[attr-defined]
            (SCRATCH, "scratch"),
            (PREVIOUS, "the current model"),
            *((FILE + name, name) for name in weights_files()),
        ]
        for group in RECIPE.values():
            for name, (label, help_text) in group.items():
                self.fields[name] = _recipe_field(name, label, help_text)

    @classmethod
    def initial_of(cls, settings: TrainingSettings) -> dict[str, Any]:
        """The form's values for settings; a weights file that is gone falls back to scratch."""
        start = PREVIOUS if settings.from_previous else SCRATCH
        if settings.weights_file in weights_files():
            start = FILE + settings.weights_file
        backbone = settings.backbone_file if settings.backbone_file in backbone_files() else ""
        return asdict(settings) | {"start_from": start, "backbone_file": backbone}

    @property
    def main_fields(self) -> list[BoundField]:
        return [self[name] for name in self.fields if name not in LABELS and name not in CLASSIFIER]

    @property
    def advanced(self) -> list[tuple[str, list[BoundField]]]:
        """The recipe in its groups."""
        groups = {"Classifier of a two-stage detector": CLASSIFIER, **RECIPE}
        return [(title, [self[name] for name in group]) for title, group in groups.items()]

    @property
    def advanced_is_open(self) -> bool:
        """Whether something in there is wrong, or not as it is by default."""
        usual = asdict(TrainingSettings())
        names = (*LABELS, *CLASSIFIER)
        return any(name in self.errors or self.initial.get(name, usual[name]) != usual[name] for name in names)

    def clean_model(self) -> str:
        name: str = self.cleaned_data["model"]
        try:
            architecture(name)
        except UnknownModel as error:
            raise forms.ValidationError(str(error)) from error
        return name

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        if bool(values.get("backbone")) != bool(values.get("backbone_file")):
            wrong = "backbone_file" if values.get("backbone") else "backbone"
            self.add_error(wrong, "A backbone other than the default needs its name and its weights.")
        if "model" in values and "image_size" in values:
            try:
                check_size(values["model"], values["image_size"])
            except ValueError as error:
                self.add_error("image_size", str(error))
        return values

    def training_values(self) -> dict[str, Any]:
        """The cleaned values as the fields of TrainingSettings."""
        known = {field.name for field in fields(TrainingSettings)}
        values = {name: value for name, value in self.cleaned_data.items() if name in known}
        start = self.cleaned_data["start_from"]
        values["from_previous"] = start == PREVIOUS
        values["weights_file"] = start.removeprefix(FILE) if start.startswith(FILE) else ""
        return values


class CrossValidationForm(TrainingForm):
    folds = forms.IntegerField(
        min_value=2,
        max_value=20,
        initial=5,
        help_text="At least as many patients are needed. Each fold is held out once, so as many detectors are trained.",
    )
    field_order = ("folds",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        start = self.fields["start_from"]
        # The current model has seen the patients that a fold holds out.
        start.choices = [choice for choice in start.choices if choice[0] != PREVIOUS]  # type: ignore[attr-defined]

    def settings(self) -> TrainingSettings:
        return TrainingSettings(**self.training_values())


def model_choices() -> list[tuple[str, list[tuple[str, str]]]]:
    """All detectors by family, for a select."""
    return [
        (family, [(one.name, MODELS.get(one.name, one.name)) for one in members])
        for family, members in groupby(architectures().values(), key=lambda one: one.family)
    ]


def recipe_in_words(settings: TrainingSettings) -> list[tuple[str, object]]:
    """What of a recipe is not as it is by default."""
    usual = asdict(Recipe())
    return [
        (label, getattr(settings, name)) for name, label in LABELS.items() if getattr(settings, name) != usual[name]
    ]


def _recipe_field(name: str, label: str, help_text: str) -> forms.Field:
    initial = getattr(Recipe(), name)
    if name == "rare_classes":
        choices = [("alone", "left alone"), ("repeat", "repeat factors")]
        return forms.ChoiceField(label=label, help_text=help_text, choices=choices, initial=initial)
    if name == "device":
        valid = RegexValidator(rf"^({DEVICE.pattern})$", "Give auto, cpu, cuda, cuda:1, or several GPUs as 0,1.")
        return forms.CharField(label=label, help_text=help_text, initial=initial, validators=[valid])
    least, most = RANGES[name]
    options: dict[str, Any] = {"label": label, "help_text": help_text, "initial": initial}
    options["required"] = name not in AUTOMATIC
    if name in WHOLE:
        return forms.IntegerField(min_value=int(least), max_value=int(most), **options)
    widget = forms.NumberInput(attrs={"step": "any"})
    return forms.FloatField(min_value=least, max_value=most, widget=widget, **options)
