"""The form of a simulation of rounds."""

from typing import Any

from django import forms

from inference.models import DetectorKind
from training.services.simulations import KnownTiles
from training.simulation.plan import ARMS
from training.simulation.settings import Settings

MANUAL = "a"  # every other arm is measured against it


class SimulationForm(forms.Form):
    """`known`: what there is to simulate with."""

    arms = forms.MultipleChoiceField(
        choices=[(arm.name, f"{arm.name}: {arm.words}") for arm in ARMS.values() if arm.name != MANUAL],
        widget=forms.CheckboxSelectMultiple,
        label="Compared with manual labelling of random tiles",
        help_text="Arms that begin alike share these rounds.",
    )
    seeds = forms.IntegerField(
        min_value=1,
        max_value=20,
        help_text="Each arm is repeated so often, with other batches and errors. Below two there is no interval.",
    )
    rounds = forms.IntegerField(min_value=2, max_value=50, help_text="The first is manual in every arm.")
    batch = forms.IntegerField(min_value=2, max_value=5000, label="Tiles in a batch")
    image_size = forms.IntegerField(
        min_value=96,
        max_value=1280,
        step_size=32,
        label="Image size (px)",
        help_text="Tiles are scaled to it; a multiple of 32.",
    )
    kind = forms.ChoiceField(choices=DetectorKind.choices, label="Kind of detector")

    def __init__(self, *args: Any, known: KnownTiles, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        usual = Settings()
        for name in ("seeds", "rounds", "image_size", "kind"):
            self.fields[name].initial = getattr(usual, name)
        self.fields["arms"].initial = [name for name in usual.arms if name != MANUAL]
        self.fields["batch"].initial = max(2, min(usual.batch, known.tiles // usual.rounds))
        self.fields["batch"].help_text = (
            f"All rounds together read at most the {known.tiles} confirmed tiles outside the locked test set. "
            "The smaller their share, the more there is to choose from."
        )

    def settings(self) -> Settings:
        values = self.cleaned_data
        chosen = {MANUAL, *values["arms"]}
        return Settings(**{**values, "arms": tuple(name for name in ARMS if name in chosen)})
