"""The form of a project's schedule."""

from typing import Any

from django import forms

from training.models import Schedule, ScheduleMode
from training.services.schedule import ScheduleSettings

WEEKDAYS = [("1", "Mon"), ("2", "Tue"), ("3", "Wed"), ("4", "Thu"), ("5", "Fri"), ("6", "Sat"), ("7", "Sun")]


class ScheduleForm(forms.Form):
    """Each way to schedule has its own fields; those of the others keep what they had."""

    mode = forms.ChoiceField(choices=ScheduleMode.choices, widget=forms.RadioSelect, label="Close the round and train")
    new_tiles = forms.IntegerField(min_value=1, max_value=100_000, label="New confirmed tiles")
    at = forms.TimeField(
        label="Time",
        input_formats=["%H:%M", "%H:%M:%S"],
        widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
    )
    weekdays = forms.MultipleChoiceField(choices=WEEKDAYS, widget=forms.CheckboxSelectMultiple, label="Days")
    start_next = forms.BooleanField(
        required=False,
        label="Start the next round by itself",
        help_text=(
            "Once the round that the schedule has closed is done: its tiles are selected and released with the "
            "settings of the round before, so that readers find them in the morning."
        ),
    )

    @classmethod
    def initial_of(cls, schedule: Schedule) -> dict[str, Any]:
        values = {name: getattr(schedule, name) for name in cls.base_fields}
        return values | {"weekdays": list(schedule.weekdays)}

    def settings(self) -> ScheduleSettings:
        data = self.cleaned_data
        return ScheduleSettings(
            mode=ScheduleMode(data["mode"]),
            new_tiles=data["new_tiles"],
            at=data["at"],
            weekdays="".join(sorted(data["weekdays"])),
            start_next=data["start_next"],
        )
