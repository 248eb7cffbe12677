"""The round's form."""

from typing import Any

from django import forms

from inference.services.choosing import STRATEGIES
from training.models import Mode
from training.services.rounds import RoundSettings

MODELS = {
    "yolo11n": "YOLO11 n (2.6 M weights; fit for a processor)",
    "yolo11s": "YOLO11 s (9.4 M weights)",
    "yolo11m": "YOLO11 m (20 M weights; GPU)",
    "yolo11l": "YOLO11 l (25 M weights; GPU)",
    "yolo11x": "YOLO11 x (57 M weights; GPU)",
}


class RoundForm(forms.Form):
    mode = forms.ChoiceField(
        choices=Mode.choices,
        help_text="Manual: experts draw every box. Assisted: the current model draws them first.",
    )
    size = forms.IntegerField(min_value=1, max_value=5000, label="Tiles in the batch")
    strategy = forms.ChoiceField(
        choices=list(STRATEGIES.items()), help_text="Rare cells first needs a model; without one the choice is random."
    )
    model = forms.ChoiceField(choices=list(MODELS.items()), label="Detector")
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
    from_previous = forms.BooleanField(
        required=False,
        label="start from the current model",
        help_text="Otherwise training starts from scratch, as in the paper.",
    )

    def settings(self) -> RoundSettings:
        values: dict[str, Any] = {key: value for key, value in self.cleaned_data.items() if key != "mode"}
        return RoundSettings(**values)
