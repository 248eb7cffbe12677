import csv
import io

import pytest
from django.urls import reverse

from annotation.models import Job, JobState, Role
from tests import factories
from training.forms import CrossValidationForm
from training.models import CrossValidation
from training.services.training_settings import TrainingSettings

pytestmark = pytest.mark.django_db

SHORT = TrainingSettings(epochs=3, batch_size=4)
VALUES = CrossValidationForm.initial_of(SHORT) | {"folds": 2}
FORM = {name: value for name, value in VALUES.items() if value is not None}


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


@pytest.fixture
def patients(project):
    for code in ("P0", "P1"):
        slide = factories.make_slide(project, patient=factories.make_patient(project, code))
        factories.make_truth(slide.tiles.first(), (0, 10, 20, 30, 40))


def begin(client, project, **data):
    return client.post(reverse("cross_validation_new", args=[project.pk]), FORM | data)


def page(client, found):
    return client.get(reverse("cross_validation", args=[found.pk]))


def test_the_list_is_empty_at_first_and_says_what_to_do(client, project):
    content = client.get(reverse("project_cross_validations", args=[project.pk])).content.decode()
    assert "Nothing cross-validated yet" in content
    assert reverse("cross_validation_new", args=[project.pk]) in content


def test_the_rounds_page_leads_there(client, project):
    content = client.get(reverse("project_rounds", args=[project.pk])).content.decode()
    assert reverse("project_cross_validations", args=[project.pk]) in content


def test_start_works(client, project, patients):
    response = begin(client, project)
    found = CrossValidation.objects.get()
    assert response["Location"] == reverse("cross_validation", args=[found.pk])
    assert (found.fold_count, found.settings["epochs"]) == (2, 3)
    assert Job.objects.get().arguments == {"cross_validation": found.pk}


def test_too_few_patients_are_told_at_the_field(client, project, patients):
    response = begin(client, project, folds=3)
    assert response.status_code == 422
    assert "choose at most 2" in response.context["form"].errors["folds"][0]
    assert not CrossValidation.objects.exists()


@pytest.mark.parametrize("data", [{"folds": 1}, {"folds": ""}, {"model": "x"}, {"start_from": "previous"}])
def test_settings_that_cannot_be_are_refused(client, project, patients, data):
    assert begin(client, project, **data).status_code == 422
    assert not CrossValidation.objects.exists()


def test_the_form_begins_with_the_newest_rounds_training_from_scratch(client, project):
    settings = vars(TrainingSettings(epochs=77, from_previous=True))
    factories.make_round(project, settings=settings)
    form = client.get(reverse("cross_validation_new", args=[project.pk])).context["form"]
    assert (form["epochs"].value(), form["start_from"].value(), form["folds"].value()) == (77, "scratch", 5)


def test_a_running_one_shows_its_job_and_asks_again(client, project):
    job = factories.make_job(project, state=JobState.RUNNING, kind="cross_validate")
    found = factories.make_cross_validation(project, 0.5, job=job)
    content = page(client, found).content.decode()
    assert "hx-get" in content
    assert "1 of 5 folds so far" in content


def test_the_page_is_loaded_anew_when_a_fold_is_done(client, project):
    job = factories.make_job(project, state=JobState.RUNNING, kind="cross_validate")
    found = factories.make_cross_validation(project, 0.5, job=job)
    stamp = page(client, found).context["stamp"]
    address = reverse("cross_validation", args=[found.pk]) + f"?live={stamp}"
    assert "HX-Refresh" not in client.get(address, headers={"HX-Request": "true"}).headers
    found.folds[1]["metrics"] = found.folds[0]["metrics"]
    found.save()
    assert client.get(address, headers={"HX-Request": "true"})["HX-Refresh"] == "true"


def test_a_finished_one_shows_mean_and_deviation(client, project):
    found = factories.make_cross_validation(project, 0.4, 0.5, 0.6, 0.5, 0.5)
    response = page(client, found)
    assert response.context["table"]["map50"].mean == pytest.approx(0.5)
    assert "± 0.071" in response.content.decode()


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"kind": "one-stage"}, {"Kind of detector": "one-stage"}),
        (
            {"classifier_epochs": 7},
            {"Kind of detector": "two-stage", "Epochs of the classifier": 7, "Backbone": "EfficientNet-Lite0"},
        ),
        ({"backbone": "vit_tiny", "backbone_file": "lab.pth"}, {"Backbone": "vit_tiny, lab.pth"}),
    ],
)
def test_it_says_which_kind_of_detector_was_trained(client, project, changes, rows):
    found = factories.make_cross_validation(project, 0.5)
    found.settings = vars(SHORT) | changes
    found.save()
    described = dict(page(client, found).context["settings"])
    assert rows.items() <= described.items()
    assert ("Backbone" in described) == ("Backbone" in rows)
    listed = client.get(reverse("project_cross_validations", args=[project.pk])).content.decode()
    assert f"{found.settings['kind']}, yolo11n" in listed


def test_one_that_has_nothing_yet_says_so(client, project):
    found = factories.make_cross_validation(project, folds=2)
    CrossValidation.objects.update(folds=[])
    assert "No fold yet" in page(client, found).content.decode()


def test_the_file_holds_every_measured_fold(client, project):
    found = factories.make_cross_validation(project, 0.4, None)
    response = client.get(reverse("cross_validation_table", args=[found.pk]))
    assert "attachment" in response["Content-Disposition"]
    lines = list(csv.DictReader(io.StringIO(response.content.decode())))
    assert {line["fold"] for line in lines} == {"1", "2", "mean", "standard deviation"}


def test_without_a_fold_there_is_no_file(client, project):
    found = factories.make_cross_validation(project)
    assert client.get(reverse("cross_validation_table", args=[found.pk])).status_code == 404


@pytest.mark.parametrize(("state", "queued"), [("failed", True), ("cancelled", True), ("succeeded", False)])
def test_one_that_stopped_can_go_on(client, project, state, queued):
    job = factories.make_job(project, state=state, kind="cross_validate")
    found = factories.make_cross_validation(project, 0.5, job=job)
    assert ("Go on with fold 2" in page(client, found).content.decode()) == queued
    client.post(reverse("cross_validation_retry", args=[found.pk]))
    job.refresh_from_db()
    assert (job.state == JobState.QUEUED) == queued


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
def test_starting_and_going_on_need_a_lead(client, project, patients, role):
    found = factories.make_cross_validation(project, job=factories.make_job(project, state=JobState.FAILED))
    client.force_login(factories.make_member(project, role))
    assert begin(client, project).status_code == 403
    assert client.post(reverse("cross_validation_retry", args=[found.pk])).status_code == 403
    assert "Go on" not in page(client, found).content.decode()


def test_of_another_project_nothing_is_shown(client, project):
    found = factories.make_cross_validation(factories.make_project())
    for name in ("cross_validation", "cross_validation_table"):
        assert client.get(reverse(name, args=[found.pk])).status_code == 404
