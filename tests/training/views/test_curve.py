"""The curve page and its files."""

import csv
import io
import re

import pytest
from django.urls import reverse

from annotation.models import Event, Role
from tests import factories
from tests.training.test_curve import BEFORE, TODAY, done_round, make_snapshot
from training.models import Mode

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def reader(client, project):
    user = factories.make_member(project, name="ann")
    client.force_login(user)
    return user


@pytest.fixture
def rounds(project, reader):
    """A manual round measured elsewhere, two alike, the last of them assisted and read by a person."""
    first = make_snapshot(project, factories.make_truth(factories.make_tile(project), (0, 1, 2, 30, 40)))
    batch = factories.make_batch(project)
    task = batch.tasks.first()
    factories.make_pre_label(task, factories.make_version(project), (0, 10, 10, 30, 30))
    origin = task.pre_label.boxes.get().pk
    truth = factories.submit_task(task, reader, (0, 10, 10, 30, 30, origin), (1, 90, 10, 30, 30), seconds=3600)
    done_round(project, 1, (0.3, BEFORE), snapshot=first)
    done_round(project, 2, (0.4, TODAY), snapshot=first)
    snapshot = make_snapshot(project, *(one.annotation for one in first.tiles.all()), truth)
    return done_round(project, 3, (0.5, TODAY), mode=Mode.ASSISTED, batch=batch, snapshot=snapshot)


def content(client, project, **query):
    response = client.get(reverse("project_curve", args=[project.pk]), query)
    assert response.status_code == 200
    return response.content.decode()


def text(page):
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_a_project_without_rounds_says_what_comes(client, project, reader):
    page = text(content(client, project))
    assert "The curve begins when the first round has been trained and evaluated" in page
    assert "No tile read yet" in page
    assert "No class is rare" in page


def test_it_shows_every_round_with_its_values(client, project, rounds):
    page = content(client, project)
    titles = re.findall(r'aria-label="(Round \d[^"]*)"', page)
    assert titles == [
        "Round 1: mAP@0.5 0.300 (0.200 to 0.400) on other tiles or boxes, 1 tile, 1 box, 0.0 expert-hours so far",
        "Round 2: mAP@0.5 0.400 (0.300 to 0.500), 1 tile, 1 box, 0.0 expert-hours so far",
        "Round 3: mAP@0.5 0.500 (0.400 to 0.600), 2 tiles, 3 boxes, 1.0 expert-hours so far",
    ]
    assert page.count('tabindex="0"') == 3
    assert "pre-labels from here" in page
    assert reverse("model", args=[project.rounds.get(number=1).model_version_id]) in page
    assert "measured on other tiles or boxes than model 4" in text(page)


@pytest.mark.parametrize(
    ("axis", "label", "ticks"),
    [
        ("rounds", "Round", ["1", "2", "3"]),
        ("tiles", "Confirmed tiles", ["0", "0.5", "1", "1.5", "2"]),
        ("days", "Expert-days", ["0", "0.05", "0.1"]),
        ("nonsense", "Round", ["1", "2", "3"]),
    ],
)
def test_the_axis_is_chosen_by_the_address(client, project, rounds, axis, label, ticks):
    page = content(client, project, x=axis)
    curve = text(page[page.index('<svg class="curve"') : page.index("</svg>", page.index('<svg class="curve"'))])
    assert f" {label} " in curve
    assert " ".join(ticks) in curve
    assert re.search(rf'aria-current="true">{label}<', page)
    shown = "" if label == "Round" else f"?x={axis}"
    assert f'{reverse("curve_figure", args=[project.pk, "svg"])}{shown}"' in page


def test_the_last_two_rounds_are_judged_in_words_here_and_on_the_overview(client, project, rounds):
    words = "Rounds 1 and 3 were not measured on the same tiles and boxes"
    assert words in content(client, project)
    overview = client.get(reverse("project", args=[project.pk])).content.decode()
    assert words in overview
    assert reverse("project_curve", args=[project.pk]) in overview


def test_time_and_corrections_stand_by_round_and_reader(client, project, rounds):
    page = text(content(client, project))
    assert "Round 3 assisted everybody 1 2 1.0 1800.0 1 100% 0% 0% 0% 1 ann 1 2 1.0 1800.0 1 100% 0% 0% 0% 1" in page


def test_few_random_tiles_are_said_to_be_too_few(client, project, rounds):
    for number in range(5):  # what makes the erythroblast rare
        factories.make_truth(factories.make_tile(project), *[(0, 10 + step, number, 30, 40) for step in range(20)])
    page = text(content(client, project))
    assert "Rare now: ERY." in page
    assert "not enough to say what chance would find" in page
    assert "Round 3 1 – 1 –" in page


def test_each_class_has_its_figures(client, project, rounds):
    page = text(content(client, project))
    assert "NEU neutrophil 0.300 0.400 0.500" in page
    assert "ERY erythroblast 0.300 0.400 0.500" in page


# The expert-day


def change(client, project, hours):
    return client.post(reverse("curve_hours", args=[project.pk]), {"hours": hours}, follow=True)


@pytest.fixture
def lead(client, project):
    user = factories.make_member(project, Role.LEAD, "the_lead")
    client.force_login(user)
    return user


def test_a_lead_sets_the_hours_of_an_expert_day(client, project, rounds, lead):
    assert "Active hours of an expert-day" in content(client, project, x="days")
    change(client, project, "0.5")
    project.refresh_from_db()
    assert project.hours_per_expert_day == 0.5
    event = Event.objects.first()
    assert (event.verb, event.user_name, event.data) == (
        "set hours of an expert-day",
        "the_lead",
        {"before": 6.0, "after": 0.5},
    )
    change(client, project, "0.5")
    assert Event.objects.first() == event


@pytest.mark.parametrize("hours", ["", "x", "0", "-1", "24.5", "nan", "inf"])
def test_impossible_hours_are_refused_in_words(client, project, lead, hours):
    assert "at most 24 active hours" in change(client, project, hours).content.decode()
    project.refresh_from_db()
    assert project.hours_per_expert_day == 6.0


def test_others_are_told_the_hours_and_do_not_set_them(client, project, rounds):
    page = content(client, project, x="days")
    assert "An expert-day is 6 active hours" in text(page)
    assert reverse("curve_hours", args=[project.pk]) not in page
    assert change(client, project, "5").status_code == 403


# Files


@pytest.mark.parametrize(("name", "lines"), [("rounds", 3), ("readers", 1)])
def test_the_tables_are_csv(client, project, rounds, name, lines):
    response = client.get(reverse("curve_table", args=[project.pk, name]))
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert f"marrowloop-{project.pk}-curve-{name}.csv" in response["Content-Disposition"]
    assert len(list(csv.DictReader(io.StringIO(response.content.decode())))) == lines


@pytest.mark.parametrize(("file_format", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_the_figure_is_a_file_for_a_paper(client, project, rounds, file_format, begin):
    response = client.get(reverse("curve_figure", args=[project.pk, file_format]), {"x": "days"})
    assert response.content.startswith(begin)
    assert f"marrowloop-{project.pk}-curve-days.{file_format}" in response["Content-Disposition"]


@pytest.mark.parametrize(("name", "arguments"), [("curve_table", ["tiles"]), ("curve_figure", ["png"])])
def test_there_are_no_other_files(client, project, rounds, name, arguments):
    assert client.get(reverse(name, args=[project.pk, *arguments])).status_code == 404


def test_a_curve_without_a_point_has_no_figure(client, project, reader):
    assert client.get(reverse("curve_figure", args=[project.pk, "svg"])).status_code == 404


@pytest.mark.parametrize(
    ("name", "arguments"), [("project_curve", []), ("curve_table", ["rounds"]), ("curve_figure", ["svg"])]
)
def test_a_stranger_finds_nothing(client, project, rounds, name, arguments):
    client.force_login(factories.make_user())
    assert client.get(reverse(name, args=[project.pk, *arguments])).status_code == 404
