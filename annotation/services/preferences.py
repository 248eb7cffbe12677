"""How a user likes the editor: the display settings, kept with the user."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from annotation.models import User

DEFAULTS: dict[str, float | bool] = {
    "brightness": 0,
    "contrast": 0,
    "gamma": 1,
    "saturation": 1,
    "threshold": 0,
    "labels": True,
}
# Lowest and highest value of each number.
RANGES = {
    "brightness": (-1, 1),
    "contrast": (-1, 1),
    "gamma": (0.2, 5),
    "saturation": (0, 3),
    "threshold": (0, 1),
}


class InvalidPreference(ValueError):
    """A setting that there is not, or a value that it cannot have; `field` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


def editor_preferences(user: User) -> dict[str, float | bool]:
    """All of the editor's settings: the user's own, the defaults where there is none."""
    stored = user.preferences.get("editor", {})
    return {name: stored.get(name, default) for name, default in DEFAULTS.items()}


@transaction.atomic
def change_editor_preferences(*, user: User, changes: Mapping[str, Any]) -> None:
    """Store these settings and leave the others as they are. Raises InvalidPreference; then nothing is stored."""
    for name, value in changes.items():
        _check(name, value)
    stored = User.objects.select_for_update().get(pk=user.pk).preferences
    preferences = stored | {"editor": stored.get("editor", {}) | dict(changes)}
    User.objects.filter(pk=user.pk).update(preferences=preferences)


def _check(name: str, value: Any) -> None:
    if name not in DEFAULTS:
        raise InvalidPreference(name[:40], f"is not one of {', '.join(DEFAULTS)}.")
    if name not in RANGES:
        if not isinstance(value, bool):
            raise InvalidPreference(name, "is true or false.")
        return
    lowest, highest = RANGES[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and lowest <= value <= highest):  # NaN lies in no range
        raise InvalidPreference(name, f"is a number from {lowest:g} to {highest:g}.")
