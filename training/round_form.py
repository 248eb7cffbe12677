"""The form of a round: its batch, how that is read, and how its detector is trained."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from django import forms
from django.forms import BoundField

from annotation.models import Box, CellClass, Project
from annotation.selectors import examples_of
from inference.services.choosing import STRATEGIES, confirmed_counts, ticked_boxes
from training.models import Mode
from training.reading_form import READING, ReadingForm
from training.services.rounds import RoundSettings, default_settings, next_mode, settings_of
from training.services.training_settings import TrainingSettings

# The strategies of a mix, with what is said of each.
MIX = {
    "rare": "Rare cells first",
    "like": "Cells like examples",
    "uncertain": "Where the model is in doubt",
    "diverse": "Unlike what is confirmed",
    "random": "Random",
}
LIMITS = ("audit", "patient_cap")
LIKE = ("like", "like_boxes")
SHOWN_EXAMPLES = 8  # of each class


@dataclass(frozen=True)
class ClassExamples:
    """A class in the list of examples: how many confirmed boxes it has, and its newest ones, ticked or not."""

    cell_class: CellClass
    count: int
    ticked: bool
    boxes: list[tuple[Box, bool]]


class KeysField(forms.TypedMultipleChoiceField):
    """Whole numbers; what they are of is looked up in `clean`."""

    def valid_value(self, value: str) -> bool:
        text = str(value)
        return text.isascii() and text.isdecimal() and len(text) < 19  # a key of the database


class RoundForm(ReadingForm):
    """What a round is to be. `project`: whose classes can have quotas and be looked for."""

    mode = forms.ChoiceField(
        choices=Mode.choices,
        help_text="Manual: experts draw every box. Assisted: the current model draws them first.",
    )
    size = forms.IntegerField(min_value=1, max_value=5000, label="Tiles in the batch")
    strategy = forms.ChoiceField(
        choices=list(STRATEGIES.items()),
        label="Selection",
        help_text="All but random need a model; without one the choice is random.",
    )
    hold = forms.BooleanField(
        required=False,
        label="Look at the batch before it is released",
        help_text="Tiles can be swapped out; readers get the batch once you release it.",
    )
    audit = forms.IntegerField(
        min_value=1,
        max_value=100,
        label="Random audit (%)",
        help_text="Of the tiles, drawn by chance: what the model never expects is found there.",
    )
    patient_cap = forms.IntegerField(
        required=False, min_value=0, label="Most tiles of one patient", help_text="Empty: twice an equal share."
    )
    like = KeysField(required=False, coerce=int, widget=forms.CheckboxSelectMultiple)
    like_boxes = KeysField(required=False, coerce=int, widget=forms.CheckboxSelectMultiple)
    field_order = ("mode", "size", "strategy", "hold")

    def __init__(self, *args: Any, project: Project | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        self.classes: list[CellClass] = []
        self.counts: Counter[int] = Counter()
        if project is not None:
            self.classes = [one for one in project.taxonomy.classes.all() if not one.ignored_in_training]
            self.counts = confirmed_counts(project)
        for name, label in MIX.items():
            self.fields[f"mix_{name}"] = forms.IntegerField(
                required=False, min_value=0, max_value=100, label=f"{label} (%)"
            )
        for one in self.classes:
            count = self.counts[one.number]
            self.fields[f"quota_{one.number}"] = forms.IntegerField(
                required=False, min_value=0, max_value=100_000, label=one.name, help_text=f"{count} confirmed"
            )

    @classmethod
    def initial_of(cls, settings: TrainingSettings) -> dict[str, Any]:
        """As of any training, with each share of the mix and each quota by itself."""
        values = super().initial_of(settings)
        shares = {f"mix_{name}": share for name, share in values.pop("mix", {}).items()}
        quotas = {f"quota_{number}": count for number, count in values.pop("quotas", {}).items()}
        return values | shares | quotas | {"patient_cap": values.get("patient_cap") or ""}

    @property
    def main_fields(self) -> list[BoundField]:
        more = (*LIMITS, *LIKE, *READING)
        return [
            one for one in super().main_fields if one.name not in more and not one.name.startswith(("mix_", "quota_"))
        ]

    @property
    def selection_groups(self) -> list[tuple[str, str, list[BoundField]]]:
        """More of the selection: titles, what they are about, and fields."""
        groups = {
            "Limits": ("", LIMITS),
            "Quotas": (
                "Expected boxes that the batch should hold before anything else counts, for rare cells first.",
                [f"quota_{one.number}" for one in self.classes],
            ),
            "Shares of a mix": (
                "Of the tiles that are no audit; what lacks to 100 is random. They count for the selection “a mix”.",
                [f"mix_{name}" for name in MIX],
            ),
        }
        return [(title, about, [self[name] for name in names]) for title, (about, names) in groups.items() if names]

    @property
    def selection_is_open(self) -> bool:
        """Whether something in there is wrong, or not as it is by default."""
        usual = asdict(RoundSettings())
        names = [name for name in self.fields if name in LIMITS or name in LIKE or name.startswith(("mix_", "quota_"))]
        return any(
            name in self.errors or self.initial.get(name) not in (usual.get(name), "", None, 0) for name in names
        )

    @property
    def examples(self) -> list[ClassExamples]:
        """The classes that have confirmed boxes, the rarest first, with some of these, and those that are ticked."""
        if self.project is None:
            return []
        classes = {str(one) for one in self["like"].value() or []}
        keys = [int(key) for key in self["like_boxes"].value() or [] if str(key).isdecimal()]
        ticked = list(ticked_boxes(self.project, keys)) if "like_boxes" not in self.errors else []
        known = [one for one in self.project.taxonomy.classes.all() if self.counts[one.number]]
        return [
            ClassExamples(
                one,
                self.counts[one.number],
                str(one.number) in classes,
                [(box, True) for box in ticked if box.cell_class == one]
                + [(box, False) for box in examples_of(self.project, one, SHOWN_EXAMPLES) if box not in ticked],
            )
            for one in sorted(known, key=lambda one: self.counts[one.number])
        ]

    def clean_patient_cap(self) -> int:
        return self.cleaned_data["patient_cap"] or 0

    def clean_like(self) -> list[int]:
        numbers: list[int] = self.cleaned_data["like"]
        if self.project and not set(numbers) <= set(self.project.taxonomy.classes.values_list("number", flat=True)):
            raise forms.ValidationError("There is no such class.")
        return numbers

    def clean_like_boxes(self) -> list[int]:
        keys: list[int] = self.cleaned_data["like_boxes"]
        if self.project and keys and ticked_boxes(self.project, keys).count() < len(set(keys)):
            raise forms.ValidationError("Some of these cells are not, or no longer, confirmed: choose others.")
        return keys

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        mix = self._numbers("mix_")
        if sum(mix.values()) > 100:
            self.add_error("mix_rare", "The shares of a mix sum to more than 100 %.")
        strategy = values.get("strategy")
        if strategy == "mix" and not mix:
            self.add_error("mix_rare", "Give the share of at least one strategy.")
        looks = strategy == "like" or (strategy == "mix" and mix.get("like"))
        if looks and not (values.get("like") or values.get("like_boxes")) and "like_boxes" not in self.errors:
            self.add_error("like", "Choose a class, or some cells, that the tiles are to show the like of.")
        return values

    def _numbers(self, prefix: str) -> dict[str, int]:
        return {
            name.removeprefix(prefix): value
            for name, value in self.cleaned_data.items()
            if name.startswith(prefix) and value
        }

    def settings(self) -> RoundSettings:
        names = ("size", "strategy", "hold", "audit", "patient_cap", "like", "like_boxes")
        own = {name: self.cleaned_data[name] for name in names} | self.reading_values()
        return RoundSettings(**self.training_values(), **own, mix=self._numbers("mix_"), quotas=self._numbers("quota_"))


def proposed_round(project: Project) -> dict[str, Any]:
    """The form's values for the project's next round: the last one's, as far as the mode is the same."""
    newest = project.rounds.order_by("-number").first()
    mode = next_mode(project)
    settings = settings_of(newest) if newest else default_settings()
    assisted = mode == Mode.ASSISTED
    known = newest is not None and newest.mode == mode
    return RoundForm.initial_of(settings) | {
        "mode": mode,
        "strategy": settings.strategy if known else "rare" if assisted else "random",
        "hold": settings.hold if known else assisted,
    }
