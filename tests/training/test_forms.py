from dataclasses import asdict, fields

import pytest

from training.engine.architectures import architectures
from training.engine.config import RANGES, Recipe
from training.forms import LABELS, RoundForm, model_choices, recipe_in_words
from training.services.rounds import RoundSettings

FORM = {**asdict(RoundSettings()), "mode": "manual", "start_from": "scratch"}
FORM = {name: "" if value is None else value for name, value in FORM.items()}


def filled(**data) -> RoundForm:
    return RoundForm({**FORM, **data})


@pytest.fixture
def weights_folder(settings, tmp_path):
    settings.START_WEIGHTS_DIR = tmp_path
    (tmp_path / "lab.pt").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    return tmp_path


def test_what_it_shows_of_settings_it_gives_back():
    settings = RoundSettings(
        size=7, model="yolov8s", rotation=15, hue=0.1, patience=9, rare_classes="repeat", threads=3, learning_rate=1e-4
    )
    form = RoundForm({**RoundForm.initial_of(settings), "mode": "manual", "cache_megabytes": ""})
    assert form.is_valid(), form.errors
    assert form.settings() == settings


def test_empty_fields_that_may_be_empty_mean_that_the_trainer_chooses():
    form = filled(learning_rate="", threads="", cache_megabytes="")
    assert form.is_valid(), form.errors
    settings = form.settings()
    assert (settings.learning_rate, settings.threads, settings.cache_megabytes) == (None, None, None)


def test_every_part_of_a_recipe_has_its_field():
    assert set(LABELS) == {field.name for field in fields(Recipe)}
    assert set(LABELS) <= set(RoundForm().fields)


@pytest.mark.parametrize("name", RANGES)
def test_what_lies_beyond_a_range_is_refused(name):
    least, most = RANGES[name]
    for value in (least - 1, most + 1):
        form = filled(**{name: value})
        assert not form.is_valid()
        assert list(form.errors) == [name]
        assert form.advanced_is_open


@pytest.mark.parametrize(
    ("device", "allowed"), [("auto", True), ("cuda:1", True), ("0,1", True), ("gpu", False), ("0,", False)]
)
def test_a_device_is_named_as_the_trainer_knows_it(device, allowed):
    assert filled(device=device).is_valid() == allowed


def test_the_advanced_part_is_folded_while_nothing_in_it_is_special():
    assert not RoundForm(initial=RoundForm.initial_of(RoundSettings())).advanced_is_open
    assert RoundForm(initial=RoundForm.initial_of(RoundSettings(mixup=0.2))).advanced_is_open


def test_every_model_can_be_chosen_once():
    names = [name for _, members in model_choices() for name, _ in members]
    assert sorted(names) == sorted(architectures())


def test_a_model_that_does_not_exist_is_answered_with_the_nearest():
    form = filled(model="yolo11")
    assert not form.is_valid()
    assert "did you mean" in form.errors["model"][0]
    assert "yolo11n" in form.errors["model"][0]


def test_an_image_size_that_the_model_cannot_have_is_refused():
    assert filled(model="yolov8n-p6", image_size=320).is_valid()
    form = filled(model="yolov8n-p6", image_size=352)
    assert not form.is_valid()
    assert "multiple of 64 px" in form.errors["image_size"][0]


@pytest.mark.parametrize(
    ("start", "previous", "file"), [("scratch", False, ""), ("previous", True, ""), ("file:lab.pt", False, "lab.pt")]
)
def test_it_says_what_to_start_from(weights_folder, start, previous, file):
    form = filled(start_from=start)
    assert form.is_valid(), form.errors
    assert (form.settings().from_previous, form.settings().weights_file) == (previous, file)
    assert RoundForm.initial_of(form.settings())["start_from"] == start


@pytest.mark.parametrize("name", ["other.pt", "notes.txt", "../lab.pt", "/etc/passwd"])
def test_only_weights_files_that_are_there_can_be_chosen(weights_folder, name):
    assert list(filled(start_from=f"file:{name}").errors) == ["start_from"]


def test_a_weights_file_that_is_gone_is_not_proposed_again(weights_folder):
    assert RoundForm.initial_of(RoundSettings(weights_file="gone.pt"))["start_from"] == "scratch"


def test_a_recipe_is_told_by_what_differs():
    assert recipe_in_words(RoundSettings()) == []
    assert recipe_in_words(RoundSettings(rotation=15.0, patience=9)) == [
        ("Patience (epochs)", 9),
        ("Rotation (degrees)", 15.0),
    ]
