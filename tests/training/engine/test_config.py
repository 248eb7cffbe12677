import math
from dataclasses import replace

import pytest

from training.engine.architectures import UnknownModel
from training.engine.config import RANGES, TrainingConfig, check_config

GOOD = TrainingConfig(epochs=2)


def test_the_defaults_are_allowed() -> None:
    check_config(GOOD)


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_a_range_are_allowed_and_what_lies_beyond_is_refused_by_name(name: str) -> None:
    least, most = RANGES[name]
    for value in (least, most):
        check_config(replace(GOOD, **{name: value}))
    for value in (least - 0.5, most + 0.5, math.nan):
        with pytest.raises(ValueError, match=name.replace("_", " ").capitalize()):
            check_config(replace(GOOD, **{name: value}))


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"batch_size": 0}, {"image_size": 300}, {"image_size": 32}, {"rare_classes": "dropped"}],
)
def test_what_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        check_config(replace(GOOD, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["yolo11n.pt", "../yolo11n", "yolo99n", ""])
def test_a_model_that_does_not_exist_is_refused(model: str) -> None:
    with pytest.raises(UnknownModel):
        check_config(replace(GOOD, model=model))


def test_a_model_with_a_coarser_map_needs_another_multiple() -> None:
    check_config(replace(GOOD, model="yolov8n-p6", image_size=320))
    with pytest.raises(ValueError, match=r"multiple of 64 px .* yolov8n-p6"):
        check_config(replace(GOOD, model="yolov8n-p6", image_size=352))


def test_the_learning_rate_is_the_models_own_unless_one_is_set() -> None:
    assert GOOD.highest_rate == 2e-3
    assert replace(GOOD, model="rtdetr-l").highest_rate == 1e-4
    assert replace(GOOD, model="rtdetr-l", learning_rate=5e-4).highest_rate == 5e-4
