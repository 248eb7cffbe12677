from dataclasses import asdict, replace

import pytest
from django.urls import reverse

from annotation.models import Job, JobState, Role
from tests import factories
from training.forms import RoundForm
from training.models import Round, RoundState
from training.services import rounds
from training.services.rounds import RoundSettings
from training.services.snapshots import take_snapshot

pytestmark = pytest.mark.django_db

SETTINGS = RoundSettings(size=5, strategy="random", epochs=3, batch_size=4, seed=7)
FORM = {name: value for name, value in RoundForm.initial_of(SETTINGS).items() if value is not None} | {"mode": "manual"}


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def begin(client, project, **data):
    return client.post(reverse("round_new", args=[project.pk]), FORM | data)


def post(client, name, round_):
    response = client.post(reverse(name, args=[round_.pk]), follow=True)
    round_.refresh_from_db()
    return response.content.decode()


def test_start_works(client, project):
    response = begin(client, project)
    round_ = Round.objects.get()
    assert response["Location"] == reverse("round", args=[round_.pk])
    assert (round_.state, round_.settings["size"], round_.settings["seed"]) == (RoundState.SELECTING, 5, 7)
    assert Job.objects.get().kind == "select"


def test_a_second_round_at_once_is_refused_with_a_text(client, project):
    begin(client, project)
    response = begin(client, project)
    assert response.status_code == 422
    assert "under way" in response.content.decode()
    assert Round.objects.count() == 1


def test_an_assisted_round_without_a_model_is_refused_with_a_text(client, project):
    response = begin(client, project, mode="assisted")
    assert response.status_code == 422
    assert "needs a model" in response.content.decode()


@pytest.mark.parametrize(
    "data",
    [
        {"size": 0},
        {"size": "x"},
        {"image_size": 321},
        {"epochs": 0},
        {"model": "other"},
        {"seed": -1},
        {"mode": ""},
        {"mosaic": 2},
        {"start_from": "file:gone.pt"},
    ],
)
def test_settings_that_cannot_be_are_refused(client, project, data):
    assert begin(client, project, **data).status_code == 422
    assert not Round.objects.exists()


def test_the_form_begins_with_the_last_rounds_settings(client, project):
    factories.make_round(project, state=RoundState.DONE, settings=asdict(replace(SETTINGS, size=77)))
    page = client.get(reverse("round_new", args=[project.pk])).content.decode()
    assert 'value="77"' in page
    assert "Start round 2" in page


def test_a_round_of_before_the_recipe_keeps_its_page(client, project):
    old = {
        "size": 5,
        "strategy": "rare",
        "model": "yolo11n",
        "epochs": 3,
        "image_size": 320,
        "batch_size": 4,
        "seed": 7,
    }
    round_ = factories.make_round(project, settings=old | {"from_previous": True})
    page = client.get(reverse("round", args=[round_.pk])).content.decode()
    assert "the current model" in page


def test_the_page_tells_what_differs_from_the_usual_recipe(client, project):
    settings = asdict(replace(SETTINGS, rotation=15.0, weights_file="lab.pt"))
    page = client.get(reverse("round", args=[factories.make_round(project, settings=settings).pk])).content.decode()
    assert "Rotation (degrees)" in page
    assert "lab.pt" in page
    assert "Mosaic" not in page


def test_the_page_names_the_classes_without_a_box(client, project):
    for tile in factories.make_slide(project, tiles=2).tiles.all():
        factories.make_truth(tile, (0, 10, 20, 30, 40))
    snapshot = take_snapshot(project=project, seed=0)
    round_ = factories.make_round(project, state=RoundState.TRAINING, snapshot=snapshot)
    facts = dict(client.get(reverse("round", args=[round_.pk])).context["settings"])
    assert facts["No box to train on"] == "erythroblast"


def annotating(project):
    batch = factories.make_batch(project)
    return factories.make_round(project, batch=batch)


def test_close_works(client, project):
    round_ = annotating(project)
    factories.submit_task(round_.batch.tasks.first(), factories.make_member(project))
    post(client, "round_close", round_)
    assert (round_.state, round_.job.kind) == (RoundState.CLOSING, "snapshot")


def test_a_round_without_work_is_not_closed(client, project):
    round_ = annotating(project)
    assert "No tile of this round" in post(client, "round_close", round_)
    assert round_.state == RoundState.ANNOTATING


def test_closing_twice_says_so(client, project):
    round_ = annotating(project)
    factories.submit_task(round_.batch.tasks.first(), factories.make_member(project))
    post(client, "round_close", round_)
    assert "is not being annotated" in post(client, "round_close", round_)


def test_retry_works(client, project):
    job = factories.make_job(project, state=JobState.FAILED)
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job)
    post(client, "round_retry", round_)
    job.refresh_from_db()
    assert job.state == JobState.QUEUED


def test_a_step_that_has_not_failed_is_not_tried_again(client, project):
    job = factories.make_job(project, state=JobState.RUNNING)
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job)
    assert "has failed" in post(client, "round_retry", round_)


def test_cancel_works_once(client, project):
    round_ = annotating(project)
    post(client, "round_cancel", round_)
    assert round_.state == RoundState.CANCELLED
    assert "is over" in post(client, "round_cancel", round_)


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
@pytest.mark.parametrize("name", ["round_close", "round_retry", "round_cancel"])
def test_it_needs_a_lead(client, project, name, role):
    round_ = annotating(project)
    client.force_login(factories.make_member(project, role))
    assert client.post(reverse(name, args=[round_.pk])).status_code == 403
    round_.refresh_from_db()
    assert round_.state == RoundState.ANNOTATING


def test_the_first_round_proposes_more_where_there_is_a_gpu(client, project, tmp_path, monkeypatch):
    address = reverse("round_new", args=[project.pk])
    monkeypatch.setattr(rounds, "GPU_DEVICE", tmp_path / "nvidia0")
    assert client.get(address).context["form"]["image_size"].value() == 320
    rounds.GPU_DEVICE.touch()
    assert client.get(address).context["form"]["image_size"].value() == 640
