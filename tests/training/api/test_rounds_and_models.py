"""Rounds and models through the API."""

import pytest
from django.core.files.storage import default_storage
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotation.models import Event, JobKind, JobState, Role
from tests import factories
from tests.annotation.api.asking import program
from training.models import Mode, Part, Round, RoundState

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    project = factories.make_project()
    factories.make_slide(project)
    return project


def test_a_round_starts_as_the_form_proposes_it(project):
    lead = program(project)
    response = lead.send("rounds", project.pk, body={"settings": {"size": 4, "hold": True}})
    assert response.status_code == 201
    row, round_ = response.json(), Round.objects.get()
    assert (row["id"], row["mode"], row["state"], row["batch"]) == (round_.pk, "manual", "selecting", None)
    assert (row["settings"]["size"], row["settings"]["strategy"], row["settings"]["hold"]) == (4, "random", True)
    assert (row["step"]["kind"], row["step"]["state"]) == ("select", "queued")
    assert lead.read("round", round_.pk) == row
    assert lead.keys("rounds", project.pk, state="selecting") == [round_.pk]
    assert lead.keys("rounds", project.pk, mode="assisted") == []
    again = lead.send("rounds", project.pk, body={})
    assert (again.status_code, "under way" in again.json()["error"]) == (409, True)


def test_an_assisted_round_needs_a_model(project):
    response = program(project).send("rounds", project.pk, body={"mode": "assisted"})
    assert (response.status_code, "model" in response.json()["error"]) == (409, True)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"settings": {"size": 0}}, "size"),
        ({"settings": {"size": {"many": 1}}}, "size"),
        ({"settings": {"sise": 5}}, "sise"),
        ({"settings": {"like": "all"}}, "like"),
        ({"settings": {"model": "yolo0"}}, "model"),
        ({"settings": []}, "settings"),
        ({"mode": "quick"}, "mode"),
    ],
)
def test_a_round_that_cannot_be_is_refused_by_name(project, body, named):
    response = program(project).send("rounds", project.pk, body=body)
    assert (response.status_code, named in response.json()["error"]) == (400, True)
    assert not Round.objects.exists()


def test_a_round_that_waits_is_released(project):
    batch = factories.make_batch(project, state="draft")
    round_ = factories.make_round(project, state=RoundState.REVIEWING, batch=batch)
    lead = program(project)
    assert lead.send("round_release", round_.pk).json()["state"] == "annotating"
    batch.refresh_from_db()
    assert batch.state == "open"
    assert lead.send("round_release", round_.pk).status_code == 409


def test_a_round_is_closed_once_something_is_confirmed(project):
    batch = factories.make_batch(project)
    round_ = factories.make_round(project, batch=batch)
    lead = program(project)
    early = lead.send("round_close", round_.pk)
    assert (early.status_code, "confirmed" in early.json()["error"]) == (409, True)
    factories.submit_task(batch.tasks.first(), lead.user)
    row = lead.send("round_close", round_.pk).json()
    assert (row["state"], row["step"]["kind"], row["step"]["state"]) == ("closing", "snapshot", "queued")
    batch.refresh_from_db()
    assert batch.state == "closed"
    assert lead.send("round_close", round_.pk).status_code == 409


def test_a_failed_step_is_tried_again_and_a_round_given_up(project):
    job = factories.make_job(project, kind=JobKind.TRAIN, state=JobState.FAILED)
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job, batch=factories.make_batch(project))
    lead = program(project)
    assert lead.read("round", round_.pk)["failed"]
    row = lead.send("round_retry", round_.pk).json()
    assert (row["failed"], row["step"]["id"], row["step"]["state"]) == (False, job.pk, "queued")
    assert lead.send("round_retry", round_.pk).status_code == 409
    row = lead.send("round_cancel", round_.pk).json()
    assert (row["state"], row["step"]["state"]) == ("cancelled", "cancelled")
    assert lead.send("round_cancel", round_.pk).status_code == 409


def test_a_model_tells_what_it_scored(project):
    version = factories.make_version(project, current=True)
    factories.make_evaluation(version, 0.3, part=Part.VALIDATION)
    factories.make_evaluation(version, 0.6)
    round_ = factories.make_round(project, state=RoundState.DONE, model_version=version)
    bare = factories.make_version(project)
    asking = program(project, Role.ANNOTATOR)
    first, second = asking.read("models", project.pk)["results"]
    assert (first["id"], first["is_current"], first["round"], first["kind"]) == (
        version.pk,
        True,
        round_.pk,
        "one-stage",
    )
    assert (first["score"]["map50"], first["score"]["part"]) == (0.6, "test")
    assert first["score"]["map50_interval"] == pytest.approx([0.5, 0.7])
    assert (second["id"], second["score"], second["round"]) == (bare.pk, None, None)
    whole = asking.read("model", version.pk)
    assert [one["metrics"]["map50"] for one in whole["evaluations"]] == [0.6, 0.3]
    assert whole["config"]["image_size"] == 320


def test_weights_are_what_was_registered(project):
    version = factories.make_version(project)
    asking = program(project, Role.REVIEWER)
    response = asking.get("weights", version.pk)
    assert b"".join(response.streaming_content) == default_storage.open(version.weights).read()
    assert f"model-{version.number}.pt" in response["Content-Disposition"]
    assert Event.objects.filter(verb="downloaded").get().user == asking.user
    default_storage.delete(version.weights)
    gone = asking.get("weights", version.pk)
    assert (gone.status_code, "gone" in gone.json()["error"]) == (404, True)


def grow(project, number):
    version = factories.make_version(project)
    factories.make_evaluation(version)
    factories.make_round(
        project,
        state=RoundState.DONE,
        number=number,
        mode=Mode.MANUAL,
        model_version=version,
        batch=factories.make_batch(project),
    )


@pytest.mark.parametrize("name", ["rounds", "models"])
def test_a_list_takes_as_many_queries_however_long_it_is(project, name):
    asking = program(project)
    counts = []
    for number in (1, 2):
        grow(project, number)
        asking.read(name, project.pk)
        with CaptureQueriesContext(connection) as queries:
            asking.read(name, project.pk)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 7
