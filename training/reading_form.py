"""How the tiles of a round's batch are read: the part of its form."""

from typing import Any

from django import forms
from django.forms import BoundField

from annotation.models import Policy, ReviewBy
from annotation.services.policies import MOST_READERS, ReadingPolicy
from training.forms import TrainingForm
from training.services.training_settings import TrainingSettings

READING = ("policy", "readers", "review_percent", "review_by", "blind_percent")
USUAL: dict[str, Any] = {
    "policy": Policy.SINGLE,
    "readers": None,
    "review_percent": 100,
    "review_by": "chance",
    "blind_percent": 0,
}


class ReadingForm(TrainingForm):
    """Adds to the form of a training how a batch is read."""

    policy = forms.ChoiceField(
        choices=Policy.choices,
        required=False,
        label="Each tile is",
        help_text="Reviewed: a reviewer looks over what was drawn. Independent: nobody sees the others' boxes.",
    )
    readers = forms.IntegerField(
        required=False,
        min_value=2,
        max_value=MOST_READERS,
        label="Readers of a tile",
        help_text="If they are independent.",
    )
    review_percent = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=100,
        label="Reviewed (%)",
        help_text="Of the tiles, if they are reviewed.",
    )
    review_by = forms.ChoiceField(choices=ReviewBy.choices, required=False, label="Which of them")
    blind_percent = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=100,
        label="Audit without pre-labels (%)",
        help_text="Of the random audit: shows what pre-labels do to their readers.",
    )

    @classmethod
    def initial_of(cls, settings: TrainingSettings) -> dict[str, Any]:
        """As of any training, with shares in percent."""
        values = super().initial_of(settings)
        if isinstance(settings, ReadingPolicy):
            values |= {
                "readers": settings.readers if settings.policy == Policy.INDEPENDENT else None,
                "review_percent": round(100 * settings.review_share),
                "blind_percent": round(100 * settings.blind_share),
            }
        return values

    @property
    def reading_fields(self) -> list[BoundField]:
        return [self[name] for name in READING]

    @property
    def reading_is_open(self) -> bool:
        """Whether something in there is wrong, or not as it is by default."""
        return any(name in self.errors or self.initial.get(name, USUAL[name]) != USUAL[name] for name in READING)

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        if values.get("policy") == Policy.INDEPENDENT and not values.get("readers") and "readers" not in self.errors:
            self.add_error("readers", f"How many: 2 to {MOST_READERS}.")
        return values

    def reading_values(self) -> dict[str, Any]:
        """The cleaned values as the fields of ReadingPolicy; what was left empty is as usual."""
        values = {name: self.cleaned_data[name] for name in READING}
        given = {name: USUAL[name] if value in (None, "") else value for name, value in values.items()}
        return {
            "policy": given["policy"],
            "readers": given["readers"] if given["policy"] == Policy.INDEPENDENT else 1,
            "review_share": given["review_percent"] / 100,
            "review_by": given["review_by"],
            "blind_share": given["blind_percent"] / 100,
        }
