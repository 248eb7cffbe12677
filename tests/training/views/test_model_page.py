"""The page of one model version."""

import re

import pytest
from django.urls import reverse

from annotation.models import Job, JobKind, JobState, Role
from annotation.services.jobs import RunningJob, claim_job
from tests import factories
from tests.factories.detector import ToldDetector
from training.models import Part, RoundState
from training.services import evaluations

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


@pytest.fixture
def locked_truth(project, smear):
    slide = factories.make_slide(project, patient=factories.make_patient(project, locked=True), file=smear)
    first, second, *_ = slide.tiles.all()
    factories.make_truth(first, (0, 10, 20, 30, 40), (1, 200, 200, 40, 40), (1, 300, 300, 30, 30))
    factories.make_truth(second)
    return slide


@pytest.fixture
def evaluated(project, locked_truth, monkeypatch):
    """A version that was really evaluated: it finds one cell, confuses one, misses one, and sees three on nothing."""
    told = ToldDetector((0, 10, 20, 30, 40, 0.9), (0, 201, 200, 40, 40, 0.8), (1, 400, 50, 40, 40, 0.7))
    monkeypatch.setattr(evaluations, "detector_of", lambda version: told)
    version = factories.make_version(project)
    running = RunningJob(claim_job(job_pk=factories.make_job(project).pk))
    evaluations.evaluate_version(running, version, None)
    return version


def url(version, **query):
    return reverse("model", args=[version.pk], query=query or None)


def page(client, version, **query):
    response = client.get(url(version, **query))
    assert response.status_code == 200
    return response


def text(response):
    return re.sub(r"\s+", " ", response.content.decode())


def test_it_says_from_which_score_boxes_are_shown(client, project):
    version = factories.make_version(project)
    assert "Boxes shown" not in text(page(client, version))  # of before there was such a score
    version.config["shown_from"] = 0.0712
    version.save()
    assert "from a score of 0.07 " in text(page(client, version))


def test_it_shows_the_table_the_curves_the_matrix_and_the_errors(client, evaluated, locked_truth):
    response = page(client, evaluated)
    assert [row["code"] for row in response.context["class_metrics"]] == ["NEU", "ERY"]
    assert response.context["map50"] == evaluated.evaluations.get().metrics["map50"]
    assert [curve["code"] for curve in response.context["curves"]] == ["NEU", "ERY"]
    assert "AP@[.5:.95]" in text(response)
    found = {group["kind"]: len(group["rows"]) for group in response.context["errors"]}
    assert found == {"missed": 1, "false": 4, "confused": 1}
    (confused,) = response.context["errors"][2]["rows"]
    assert (confused["truth"].code, confused["found"].code, confused["score"]) == ("ERY", "NEU", 0.8)
    assert confused["tile"] == reverse("tile", args=[locked_truth.tiles.first().pk])
    assert client.get(confused["crop"]).status_code == 200


def test_an_evaluation_of_before_curves_and_errors_were_kept_says_so(client, project):
    version = factories.make_version(project)
    factories.make_evaluation(version)
    shown = text(page(client, version))
    assert "This evaluation has no curves" in shown
    assert "made before its errors were kept" in shown


def test_a_version_that_is_not_evaluated_can_be(client, project, locked_truth):
    version = factories.make_version(project)
    shown = text(page(client, version))
    assert "Not evaluated" in shown
    assert reverse("model_evaluate", args=[version.pk]) in shown
    client.post(reverse("model_evaluate", args=[version.pk]))
    shown = text(page(client, version))
    assert "Jobs under way" in shown
    assert reverse("model_evaluate", args=[version.pk]) not in shown


def test_without_anything_to_test_on_there_is_no_button(client, project):
    version = factories.make_version(project)
    shown = text(page(client, version))
    assert "There is no confirmed tile to test this model on" in shown
    assert reverse("model_evaluate", args=[version.pk]) not in shown


def test_an_annotator_sees_the_figures_and_no_buttons(client, evaluated):
    factories.make_version(evaluated.project)
    client.force_login(factories.make_member(evaluated.project))
    shown = text(page(client, evaluated))
    assert "Worst errors" in shown
    assert 'method="post" action="/models/' not in shown


def test_the_evaluation_of_its_round_is_followed(client, project):
    version = factories.make_version(project)
    job = factories.make_job(project, state=JobState.RUNNING, kind=JobKind.EVALUATE, arguments={"round": 1})
    factories.make_round(project, state=RoundState.EVALUATING, model_version=version, job=job)
    response = page(client, version)
    assert response.context["jobs"] == [job]
    live = {"live": response.context["stamp"]}
    fragment = client.get(url(version, **live), headers={"HX-Request": "true"})
    assert "<html" not in fragment.content.decode()
    Job.objects.filter(pk=job.pk).update(state=JobState.SUCCEEDED)
    fragment = client.get(url(version, **live), headers={"HX-Request": "true"})
    assert fragment["HX-Refresh"] == "true"


def test_a_failed_evaluation_says_why(client, project):
    version = factories.make_version(project)
    factories.make_job(
        project,
        state=JobState.FAILED,
        kind=JobKind.EVALUATE,
        arguments={"version": version.pk},
        message="the slide is gone",
    )
    assert "the slide is gone" in text(page(client, version))


# Comparing


def test_versions_measured_on_the_same_tiles_are_compared(client, project):
    first, second = factories.make_version(project), factories.make_version(project)
    factories.make_evaluation(first, 0.5)
    factories.make_evaluation(second, 0.625)
    response = page(client, second, **{"with": first.pk})
    shown = text(response)
    assert "difference to" in shown
    assert "+0.125" in shown
    assert "−0.125" in text(page(client, first, **{"with": second.pk}))
    assert "+0.125" not in text(page(client, second))
    assert f'<option value="{first.pk}" selected>' in shown


def test_an_older_evaluation_on_the_same_tiles_is_compared_rather_than_a_newer_one(client, project):
    first, second = factories.make_version(project), factories.make_version(project)
    factories.make_evaluation(first, 0.5)
    common = factories.make_evaluation(second, 0.6)
    newest = factories.make_evaluation(second, 0.9, truth_hash="2" * 64)
    assert page(client, second).context["evaluation"] == newest
    assert page(client, second, **{"with": first.pk}).context["evaluation"] == common


@pytest.mark.parametrize(
    ("mine", "theirs", "reason"),
    [
        ({}, {"truth_hash": "2" * 64}, "different tiles or boxes: model 1 on 7 locked test tiles with 31 boxes"),
        ({}, {"part": Part.VALIDATION}, "model 2 on 7 validation tiles"),
        (
            {"part": Part.VALIDATION},
            {"part": Part.VALIDATION, "truth_hash": "2" * 64},
            "the validation part of its own",
        ),
        ({}, None, "Model 2 has not been evaluated."),
        (None, None, "Model 1 and model 2 have not been evaluated."),
    ],
)
def test_what_cannot_be_compared_says_why(client, project, locked_truth, mine, theirs, reason):
    first, second = factories.make_version(project), factories.make_version(project)
    for version, options in ((first, mine), (second, theirs)):
        if options is not None:
            factories.make_evaluation(version, **options)
    shown = text(page(client, first, **{"with": second.pk}))
    assert "cannot be compared" in shown
    assert reason in shown
    assert "Evaluate both on today's test set" in shown.replace("&#x27;", "'")


def test_without_a_locked_test_set_it_says_that_nothing_can_be_compared(client, project):
    first, second = factories.make_version(project), factories.make_version(project)
    shown = text(page(client, first, **{"with": second.pk}))
    assert "There is no locked test set with truth" in shown
    assert "Evaluate both" not in shown


def test_both_are_evaluated_on_todays_test_set(client, project, locked_truth):
    first, second = factories.make_version(project), factories.make_version(project)
    response = client.post(reverse("model_evaluate", args=[first.pk]), {"with": second.pk})
    assert response["Location"] == url(first, **{"with": second.pk})
    jobs = Job.objects.filter(kind=JobKind.EVALUATE).order_by("pk")
    assert [job.arguments for job in jobs] == [{"version": first.pk}, {"version": second.pk}]
    response = page(client, first, **{"with": second.pk})
    assert list(response.context["jobs"]) == list(jobs)
    assert f"with={second.pk}" in re.search(r'hx-get="([^"]*)"', response.content.decode())[1]


@pytest.mark.parametrize("key", ["x", "0", "999999999999999999999999"])
def test_a_version_that_is_not_there_is_compared_with_nothing(client, evaluated, key):
    assert page(client, evaluated, **{"with": key}).context["other"] is None
    assert client.post(reverse("model_evaluate", args=[evaluated.pk]), {"with": key}).status_code == 404


def test_a_version_of_another_project_is_not_compared(client, evaluated):
    stranger = factories.make_version(factories.make_project())
    assert page(client, evaluated, **{"with": stranger.pk}).context["other"] is None
    answer = client.post(reverse("model_evaluate", args=[evaluated.pk]), {"with": stranger.pk})
    assert answer.status_code == 404
    assert not Job.objects.filter(kind=JobKind.EVALUATE).exists()


# Downloads


def test_the_table_is_a_csv_with_the_average(client, evaluated):
    response = client.get(reverse("model_table", args=[evaluated.pk]))
    assert response["Content-Type"].startswith("text/csv")
    assert "model-1.csv" in response["Content-Disposition"]
    assert [line.split(",")[0] for line in response.content.decode().split()] == ["code", "NEU", "ERY", ""]


@pytest.mark.parametrize("name", ["precision-recall", "confusion", "average-precision"])
@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_drawn(client, evaluated, name, suffix, begins):
    response = client.get(reverse("model_figure", args=[evaluated.pk, name, suffix]))
    assert response.content.startswith(begins)
    assert f"model-1-{name}.{suffix}" in response["Content-Disposition"]


@pytest.mark.parametrize(("name", "suffix"), [("other", "svg"), ("confusion", "png")])
def test_there_are_no_other_figures(client, evaluated, name, suffix):
    assert client.get(reverse("model_figure", args=[evaluated.pk, name, suffix])).status_code == 404


def test_a_version_that_is_not_evaluated_has_no_figures(client, project):
    version = factories.make_version(project)
    assert client.get(reverse("model_table", args=[version.pk])).status_code == 404
    assert client.get(reverse("model_figure", args=[version.pk, "confusion", "svg"])).status_code == 404
