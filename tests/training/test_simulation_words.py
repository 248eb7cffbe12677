"""What a simulation found, in words."""

from dataclasses import fields

import pytest

from training.simulation.expert import Errors
from training.simulation.operators import Operators
from training.simulation.settings import Settings
from training.simulation_words import ERRORS, OPERATORS, assumptions, headlines, in_short, settings_in_words

SETTINGS = Settings(arms=("a", "c"))


def found(mean=None, interval=None, reached=(), never=(), best=0.62):
    share = {"mean": mean, "interval": interval}
    share["by_seed"] = {str(seed): one for seed, one in enumerate(reached)}
    share["never_reached_at_least"] = {str(seed + len(reached)): one for seed, one in enumerate(never)}
    return {"result": {"best_map50": {"a": {"mean": best, "interval": None}}}, "shares": {"c": share}}


@pytest.mark.parametrize(
    ("outcome", "words", "short"),
    [
        (
            found(0.46, [0.3, 0.62], [0.4, 0.46, 0.52]),
            "Arm c (assisted, rare cells first) took 0.46 of the hours (95% interval 0.30 to 0.62) to reach the best "
            "mAP@0.5 of manual labelling (0.620).",
            "c 0.46",
        ),
        (
            found(0.46, None, [0.46]),
            "took 0.46 of the hours to reach the best mAP@0.5 of manual labelling (0.620). With one seed there is no "
            "interval.",
            "c 0.46",
        ),
        (
            found(never=[0.8, 0.7]),
            "never reached the best mAP@0.5 of manual labelling (0.620); it ended after 0.70 of the hours that took "
            "by hand.",
            "c never",
        ),
        (
            found(0.5, None, [0.5], [0.9, 0.8]),
            "with 1 of 3 seeds, in 0.50 of the hours there; with the others it ended after 0.80 without reaching it, "
            "so that its true share is greater.",
            "c more than 0.50",
        ),
        (found(best=0.0), "cannot be compared: manual labelling has learned nothing.", "c unknown"),
    ],
)
def test_each_outcome_has_its_sentence(outcome, words, short):
    (sentence,) = headlines(outcome, SETTINGS)
    assert sentence.endswith(words)
    assert in_short(outcome, SETTINGS) == short


def test_every_assumption_is_told():
    assert set(OPERATORS) == {one.name for one in fields(Operators)}
    assert set(ERRORS) == {one.name for one in fields(Errors)}
    assert ("K, a key", "0.28 s", "Card, Moran & Newell 1980") in assumptions(SETTINGS)
    assert ("a wrong pre-label is left as it is", "10%", "our assumption") in assumptions(SETTINGS)


def test_the_settings_are_told():
    told = dict(settings_in_words(SETTINGS))
    assert told["Arm c"] == "assisted, rare cells first"
    assert "Arm e" not in told
    assert told["Cells that its classifier sees"] == SETTINGS.classifier_passes
    assert "Cells that its classifier sees" not in dict(settings_in_words(Settings(kind="one-stage")))
