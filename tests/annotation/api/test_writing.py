"""Tasks through the API, and annotations from outside."""

from uuid import uuid4

import pytest

from annotation.models import Annotation, BatchState, Event, Role, Scope, TaskKind, TaskState
from annotation.services.batches import claim_next
from tests import factories
from tests.annotation.api.asking import program

pytestmark = pytest.mark.django_db


@pytest.fixture
def task():
    return factories.make_task()


@pytest.fixture
def ann(task):
    return program(task.project, Role.ANNOTATOR, Scope.ANNOTATE, "ann")


def submission(*boxes, revision=0, **fields):
    return {"uuid": str(uuid4()), "revision": revision, "boxes": list(boxes)} | fields


def test_a_task_is_leased_saved_and_submitted(task, ann):
    leased = ann.send("task_next", task.batch_id, body={}).json()["task"]
    assert (leased["id"], leased["boxes"], leased["draft"]) == (task.pk, [], None)
    task.refresh_from_db()
    assert (task.state, task.reader) == (TaskState.LEASED, ann.user)

    draft = {"sequence": 1, "revision": 0, "boxes": [factories.box_json()], "effort": {"keys": 3}}
    saved = ann.client.put(leased["urls"]["draft"], draft, content_type="application/json")
    assert (saved.status_code, saved.json()) == (200, {"saved": 1, "held_by": None})
    assert ann.read("task", task.pk)["task"]["draft"]["boxes"] == [factories.box_json()]

    body = submission(factories.box_json(1), effort={"active_seconds": 7})
    done = ann.client.post(leased["urls"]["submit"], body, content_type="application/json")
    annotation = Annotation.objects.get()
    assert (done.status_code, done.json()) == (200, {"annotation": annotation.pk, "revision": 1, "new": True})
    assert (annotation.author.user, annotation.active_seconds) == (ann.user, 7)
    task.tile.refresh_from_db()
    assert task.tile.truth == annotation
    again = ann.send("task_submit", task.pk, body=body).json()
    assert (again["annotation"], again["new"]) == (annotation.pk, False)
    assert ann.send("task_next", task.batch_id, body={}).json()["task"]["id"] != task.pk


def test_tasks_that_are_held_are_not_leased_again(task, ann):
    first = ann.send("task_next", task.batch_id, body={}).json()["task"]["id"]
    assert ann.send("task_next", task.batch_id, body={}).json()["task"]["id"] == first
    assert ann.send("task_next", task.batch_id, body={"held": [first]}).json()["task"]["id"] != first


def test_a_closed_batch_hands_out_nothing_and_takes_nothing(task, ann):
    task.batch.state = BatchState.CLOSED
    task.batch.save()
    assert ann.send("task_next", task.batch_id, body={}).json() == {"task": None}
    response = ann.send("task_submit", task.pk, body=submission())
    assert (response.status_code, response.json()["closed"]) == (409, True)


def test_reviews_are_leased_to_reviewers_only(task, ann):
    assert ann.send("task_next", task.batch_id, body={"kind": TaskKind.REVIEW}).status_code == 403
    reviewer = program(task.project, Role.REVIEWER, Scope.ANNOTATE)
    assert reviewer.send("task_next", task.batch_id, body={"kind": TaskKind.REVIEW}).json() == {"task": None}


def test_a_stale_submission_is_answered_with_the_newer_annotation(task, ann):
    factories.submit_task(task, factories.make_member(task.project, name="ben"), (1, 5, 6, 30, 40))
    response = ann.send("task_submit", task.pk, body=submission(factories.box_json()))
    theirs = response.json()["theirs"]
    assert (response.status_code, theirs["revision"], theirs["author"]) == (409, 1, "ben")
    assert [(box["class"], box["x"]) for box in theirs["boxes"]] == [(1, 5)]
    draft = {"sequence": 1, "revision": 0, "boxes": []}
    assert ann.send("task_draft", task.pk, body=draft, method="put").status_code == 409
    assert ann.send("task_skip", task.pk, body={"reason": "blurred"}).status_code == 409
    assert ann.send("task_submit", task.pk, body=submission(revision=1)).status_code == 200


def test_a_revision_that_the_task_never_had_is_refused(task, ann):
    assert ann.send("task_submit", task.pk, body=submission(revision=7)).status_code == 400


def test_boxes_that_cannot_be_stored_are_named(task, ann):
    response = ann.send("task_submit", task.pk, body=submission(factories.box_json(), factories.box_json(9), {}))
    assert response.status_code == 400
    assert [one["index"] for one in response.json()["boxes"]] == [1, 2]
    assert not Annotation.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"uuid": "x"},
        {"uuid": None},
        {"revision": -1},
        {"revision": 2**40},
        {"revision": None},
        {"boxes": None},
        {"boxes": {}},
        {"effort": []},
    ],
)
def test_a_submission_that_is_none_is_named(task, ann, wrong):
    response = ann.send("task_submit", task.pk, body=submission() | wrong)
    assert response.status_code == 400
    assert "error" in response.json()
    assert not Annotation.objects.exists()


@pytest.mark.parametrize("raw", ["", "{", "[]", '"text"', '{"boxes": "\\u0000"}', "[" * 100_000, "\ud800"])
def test_a_body_that_is_no_object_is_named(task, ann, raw):
    address = f"/api/tasks/{task.pk}/submit/"
    data = raw.encode("utf-8", "surrogatepass")
    response = ann.client.post(address, data, content_type="application/json")
    assert (response.status_code, list(response.json())) == (400, ["error"])


def test_a_body_that_is_too_large_or_no_json_is_refused(task, ann, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    assert ann.send("task_submit", task.pk, body=submission(reason="x" * 200)).status_code == 413
    address = f"/api/tasks/{task.pk}/submit/"
    assert ann.client.post(address, {"uuid": "x"}).status_code == 415


@pytest.mark.parametrize("boxes", [[1], [{"x": 1e999}], "all", [[]]])
def test_a_draft_that_cannot_be_kept_is_named(task, ann, boxes):
    raw = {"sequence": 1, "revision": 0, "boxes": boxes}
    response = ann.send("task_draft", task.pk, body=raw, method="put")
    assert response.status_code == 400


def test_a_tile_is_put_aside_with_a_reason(task, ann):
    assert ann.send("task_skip", task.pk, body={"reason": " "}).status_code == 400
    assert ann.send("task_skip", task.pk, body={"reason": "blurred"}).json() == {"skipped": True}
    task.refresh_from_db()
    assert (task.state, task.skip_reason, task.reader) == (TaskState.SKIPPED, "blurred", ann.user)
    assert ann.send("task_skip", task.pk, body={"reason": "blurred"}).json() == {"skipped": False}


# From outside


@pytest.fixture
def lead(task):
    return program(task.project, Role.LEAD, Scope.LEAD, "lea")


def addition(*boxes, kind="pre-label", source="their YOLO 3", **fields):
    return {"uuid": str(uuid4()), "kind": kind, "source": source, "boxes": list(boxes)} | fields


def test_an_outside_models_boxes_are_what_readers_start_from(task, lead, ann):
    body = addition(factories.box_json(1, score=0.8), factories.box_json(0, 100, 100))
    response = lead.send("annotation_add", task.tile_id, body=body)
    assert response.status_code == 201
    annotation = Annotation.objects.get(pk=response.json()["annotation"])
    assert (annotation.author.kind, annotation.author.name) == ("model", "their YOLO 3")
    assert [box.score for box in annotation.boxes.all()] == [0.8, None]
    task.refresh_from_db()
    task.tile.refresh_from_db()
    assert (task.pre_label, task.tile.truth) == (annotation, None)
    assert Event.objects.filter(verb="pre-labelled").get().data["tasks"] == 1
    again = lead.send("annotation_add", task.tile_id, body=body)
    assert (again.status_code, again.json()) == (200, {"annotation": annotation.pk, "new": False})

    first, second = ann.read("task", task.pk)["task"]["boxes"]
    assert (first["score"], first["origin"]) == (0.8, first["id"])
    kept = {name: first[name] for name in ("class", "x", "y", "width", "height", "origin")}
    moved = {name: second[name] for name in ("class", "y", "width", "height", "origin")} | {"x": 120}
    assert ann.send("task_submit", task.pk, body=submission(kept, moved)).status_code == 200
    (row,) = lead.read("annotations", task.project.pk, truth="true")["results"]
    assert [box["change"] for box in row["boxes"]] == ["kept", "moved"]
    assert row["pre_label"] == annotation.pk


def test_truth_from_elsewhere_counts_at_once(task, lead):
    response = lead.send("annotation_add", task.tile_id, body=addition(factories.box_json(), kind="truth"))
    assert response.status_code == 201
    task.refresh_from_db()
    task.tile.refresh_from_db()
    assert (task.tile.truth_id, task.state) == (response.json()["annotation"], TaskState.SUBMITTED)
    assert task.tile.truth.author.kind == "import"


def test_what_somebody_has_begun_keeps_what_it_started_from(task, lead, ann):
    claim_next(batch=task.batch, reader=ann.user)
    lead.send("annotation_add", task.tile_id, body=addition(factories.box_json()))
    task.refresh_from_db()
    assert task.pre_label is None


def test_a_blind_task_stays_blind_and_a_draft_keeps_its_origin(task, lead):
    _, blind, begun, *_ = task.batch.tasks.all()
    blind.blind = True
    blind.save()
    begun.drafts.create(user=lead.user, sequence=1, revision=0, boxes=[])
    for one in (blind, begun):
        assert lead.send("annotation_add", one.tile_id, body=addition(factories.box_json())).status_code == 201
        one.refresh_from_db()
        assert one.pre_label is None


def test_the_locked_test_set_takes_no_models_boxes(lead, task):
    patient = factories.make_patient(task.project, "T1", locked=True)
    tile = factories.make_slide(task.project, patient=patient).tiles.first()
    response = lead.send("annotation_add", tile.pk, body=addition(factories.box_json()))
    assert (response.status_code, "locked" in response.json()["error"]) == (409, True)
    assert lead.send("annotation_add", tile.pk, body=addition(factories.box_json(), kind="truth")).status_code == 201


def test_a_uuid_is_of_one_annotation(task, lead):
    body = addition(factories.box_json())
    other = task.batch.tasks.last()
    assert lead.send("annotation_add", task.tile_id, body=body).status_code == 201
    assert lead.send("annotation_add", other.tile_id, body=body).status_code == 409
    assert lead.send("annotation_add", task.tile_id, body=body | {"kind": "truth"}).status_code == 409
    assert lead.send("annotation_add", task.tile_id, body=body | {"source": "another"}).status_code == 409
    assert Annotation.objects.count() == 1


@pytest.mark.parametrize("source", ["model 1", "Model 77", "consensus of readers"])
def test_nobody_passes_for_something_of_the_project_itself(task, lead, source):
    for kind in ("pre-label", "truth"):
        response = lead.send("annotation_add", task.tile_id, body=addition(kind=kind, source=source))
        assert response.status_code == 409
    assert not Annotation.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"boxes": [{"class": 0, "x": 0, "y": 0, "width": 0, "height": 5}]},
        {"boxes": [{"class": 0, "x": 500, "y": 0, "width": 50, "height": 5}]},
        {"boxes": [{"class": 42, "x": 0, "y": 0, "width": 9, "height": 9}]},
        {"boxes": [{"class": 0, "x": 0, "y": 0, "width": 9, "height": 9, "score": 2}]},
        {"boxes": [{"class": 0, "x": 0, "y": 0, "width": 9, "height": 9, "score": "high"}]},
        {"boxes": [{"class": 0, "x": 0, "y": 0, "width": 9, "height": 9, "origin": 1}]},
        {"boxes": "none"},
        {"kind": "guess"},
        {"source": ""},
        {"uuid": "7"},
    ],
)
@pytest.mark.parametrize("kind", ["pre-label", "truth"])
def test_what_cannot_be_added_is_named(task, lead, wrong, kind):
    response = lead.send("annotation_add", task.tile_id, body=addition(kind=kind) | wrong)
    assert (response.status_code, "error" in response.json()) == (400, True)
    assert not Annotation.objects.exists()
