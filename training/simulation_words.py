"""What a simulation found and what it rests on, in words. Its arms, operators and errors: docs/active-learning."""

from collections.abc import Mapping, Sequence
from typing import Any

from inference.models import DetectorKind
from training.simulation.plan import ARMS
from training.simulation.settings import Settings

KLM = "Card, Moran & Newell 1980"
OURS = "our assumption"
# Name, meaning, source; as training.simulation.operators and expert define them.
OPERATORS = {
    "key": ("K, a key", KLM),
    "point": ("P, to point with the mouse", KLM),
    "button": ("B, to press or release a button", "Kieras 2001"),
    "mental": ("M, to prepare a decision", KLM),
    "recognise": ("R, to look at a cell and name it", OURS),
}
ERRORS = {
    "miss": "a cell is missed where nothing is drawn on it",
    "mistake": "a cell is called by the name of its neighbour in maturation",
    "accept": "a wrong pre-label is left as it is",
}


def headlines(found: Mapping[str, Any], settings: Settings) -> list[str]:
    """A sentence for each arm but the manual one. found: the result of a simulation's job."""
    best = found["result"]["best_map50"].get("a", {}).get("mean")
    shares = [(name, found["shares"][name]) for name in settings.arms if name in found["shares"]]
    return [f"Arm {name} ({ARMS[name].words}) {_outcome(share, best)}" for name, share in shares]


def in_short(found: Mapping[str, Any], settings: Settings) -> str:
    """The shares of hours only, for a list, such as "c 0.46, e never"."""
    shares = {name: found["shares"][name] for name in settings.arms if name in found["shares"]}
    return ", ".join(f"{name} {_short(share)}" for name, share in shares.items())


def _short(share: Mapping[str, Any]) -> str:
    if share["by_seed"]:
        return f"{'more than ' if share['never_reached_at_least'] else ''}{_times(share['mean'])}"
    return "never" if share["never_reached_at_least"] else "unknown"


def _outcome(share: Mapping[str, Any], best: float | None) -> str:
    reached, never = share["by_seed"], share["never_reached_at_least"]
    seeds = len(reached) + len(never)
    if not seeds or best is None:
        return "cannot be compared: manual labelling has learned nothing."
    goal = f"the best mAP@0.5 of manual labelling ({best:.3f})"
    if not reached:
        return f"never reached {goal}; it ended after {_times(min(never.values()))} of the hours that took by hand."
    hours = f"{_times(share['mean'])} of the hours{_interval(share['interval'])}"
    if not never:
        alone = " With one seed there is no interval." if seeds == 1 else ""
        return f"took {hours} to reach {goal}.{alone}"
    return (
        f"reached {goal} with {len(reached)} of {seeds} seeds, in {hours} there; with the others it ended after "
        f"{_times(min(never.values()))} without reaching it, so that its true share is greater."
    )


def _times(share: float) -> str:
    return f"{share:.2f}"


def _interval(interval: Sequence[float] | None) -> str:
    return f" (95% interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""


def settings_in_words(settings: Settings) -> list[tuple[str, object]]:
    return [
        *((f"Arm {name}", ARMS[name].words) for name in settings.arms),
        ("Seeds", settings.seeds),
        ("Rounds", settings.rounds),
        ("Tiles in a batch", settings.batch),
        ("Detector", f"{DetectorKind(settings.kind).label}, {settings.model}"),
        ("Image size", f"{settings.image_size} px"),
        ("Starts from", "the round before" if settings.from_previous else "scratch"),
        ("Tiles that a training sees", settings.finder_passes),
        *([("Cells that its classifier sees", settings.classifier_passes)] if settings.kind == "two-stage" else []),
    ]


def assumptions(settings: Settings) -> list[tuple[str, str, str]]:
    """What is assumed of an expert: what, how much, by whom."""
    times = [(words, f"{getattr(settings.operators, name):g} s", source) for name, (words, source) in OPERATORS.items()]
    return times + [(words, f"{100 * getattr(settings.errors, name):g}%", OURS) for name, words in ERRORS.items()]
