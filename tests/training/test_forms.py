from dataclasses import asdict, fields

import pytest

from annotation.services.policies import ReadingPolicy
from tests import factories
from training.engine.architectures import architectures
from training.engine.config import RANGES, Recipe
from training.forms import LABELS, model_choices, recipe_in_words
from training.round_form import SHOWN_EXAMPLES, RoundForm
from training.services.rounds import RoundSettings

FORM = {**asdict(RoundSettings()), "readers": "", "mode": "manual", "start_from": "scratch"}
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
        size=7,
        audit=20,
        patient_cap=9,
        strategy="mix",
        mix={"rare": 60, "uncertain": 30},
        hold=True,
        model="yolov8s",
        rotation=15,
        hue=0.1,
        patience=9,
        rare_classes="repeat",
        threads=3,
        learning_rate=1e-4,
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


class TestSelection:
    @pytest.fixture
    def project(self, db):
        return factories.make_project()

    def form(self, project, **data):
        return RoundForm({**FORM, **data}, project=project)

    @pytest.fixture
    def example(self, project):
        truth = factories.make_truth(factories.make_tile(project), (1, 10, 20, 30, 40), (1, 60, 20, 30, 40))
        return truth.boxes.first()

    def test_each_class_that_is_trained_on_can_have_a_quota(self, project):
        form = self.form(project, quota_0="", quota_1=20)
        assert form.is_valid(), form.errors
        assert form.settings().quotas == {"1": 20}
        assert "quota_2" not in form.fields
        assert RoundForm(initial=RoundForm.initial_of(form.settings()), project=project)["quota_1"].value() == 20

    @pytest.mark.parametrize(
        ("data", "field"),
        [
            ({"audit": 0}, "audit"),
            ({"audit": 101}, "audit"),
            ({"patient_cap": -1}, "patient_cap"),
            ({"strategy": "best"}, "strategy"),
            ({"strategy": "mix"}, "mix_rare"),
            ({"mix_rare": 60, "mix_diverse": 50}, "mix_rare"),
            ({"strategy": "like"}, "like"),
            ({"strategy": "mix", "mix_like": 10}, "like"),
            ({"like": ["9"]}, "like"),
            ({"like_boxes": ["x"]}, "like_boxes"),
            ({"like_boxes": ["9" * 400]}, "like_boxes"),
        ],
    )
    def test_what_cannot_be_is_refused_and_shown(self, project, data, field):
        form = self.form(project, **data)
        assert list(form.errors) == [field]
        assert form.selection_is_open or field == "strategy"

    def test_classes_and_single_cells_are_examples(self, project, example):
        form = self.form(project, strategy="like", like=["1"], like_boxes=[str(example.pk)])
        assert form.is_valid(), form.errors
        assert (form.settings().like, form.settings().like_boxes) == ([1], [example.pk])
        (row,) = form.examples
        assert (row.cell_class.number, row.count, row.ticked) == (1, 2, True)
        assert {box.pk: ticked for box, ticked in row.boxes} == {example.pk: True, example.pk + 1: False}

    def test_a_ticked_cell_is_shown_when_newer_ones_have_come(self, project, example):
        for _ in range(SHOWN_EXAMPLES):
            factories.make_truth(factories.make_tile(project), (1, 10, 20, 30, 40))
        initial = RoundForm.initial_of(RoundSettings(like_boxes=[example.pk]))
        (row,) = RoundForm(initial=initial, project=project).examples
        assert row.boxes[0] == (example, True)
        assert len(row.boxes) == 1 + SHOWN_EXAMPLES

    def test_a_cell_that_is_not_confirmed_here_is_no_example(self, project):
        other = factories.make_truth(factories.make_tile(), (1, 10, 20, 30, 40)).boxes.get()
        form = self.form(project, strategy="like", like_boxes=[other.pk])
        assert list(form.errors) == ["like_boxes"]

    def test_more_of_the_selection_is_folded_while_nothing_in_it_is_special(self, project):
        initial = RoundForm.initial_of(RoundSettings())
        assert not RoundForm(initial=initial, project=project).selection_is_open
        for special in ({"mix": {"rare": 5}}, {"quotas": {"1": 4}}, {"audit": 20}, {"patient_cap": 3}, {"like": [1]}):
            initial = RoundForm.initial_of(RoundSettings(**special))
            assert RoundForm(initial=initial, project=project).selection_is_open

    def test_the_main_fields_stay_few(self, project):
        names = [field.name for field in RoundForm(project=project).main_fields]
        assert names[:4] == ["mode", "size", "strategy", "hold"]
        assert not [name for name in names if name.startswith(("mix_", "quota_", "like", "audit", "patient"))]


# How a batch is read


def test_a_tile_is_read_once_unless_the_lead_says_otherwise():
    form = RoundForm({key: value for key, value in FORM.items() if key not in asdict(ReadingPolicy())})
    assert form.is_valid(), form.errors
    assert (form.settings().policy, form.settings().readers) == ("single", 1)
    assert not form.reading_is_open


def test_independent_readers_and_a_blind_audit_can_be_set():
    form = RoundForm(FORM | {"policy": "independent", "readers": "3", "blind_percent": "50"})
    assert form.is_valid(), form.errors
    settings = form.settings()
    assert (settings.policy, settings.readers, settings.blind_share) == ("independent", 3, 0.5)
    again = RoundForm(initial=RoundForm.initial_of(settings))
    assert again.reading_is_open
    assert (again["readers"].value(), again["blind_percent"].value()) == (3, 50)


def test_a_share_of_reviews_can_be_set_and_none_is_kept():
    form = RoundForm(FORM | {"policy": "reviewed", "readers": "", "review_percent": "0", "review_by": "disagreement"})
    assert form.is_valid(), form.errors
    assert (form.settings().review_share, form.settings().review_by) == (0.0, "disagreement")


def test_independent_readers_need_their_number():
    form = RoundForm(FORM | {"policy": "independent", "readers": ""})
    assert not form.is_valid()
    assert "How many" in form.errors["readers"][0]
