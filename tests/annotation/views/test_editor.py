"""What the editor and the server say to each other."""

import json
import re
from uuid import uuid4

import pytest
from django.urls import reverse

from annotation.models import Annotation, BatchState, Draft, Role, TaskState
from annotation.services.batches import claim_next, close_batch
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def task():
    return factories.make_task()


@pytest.fixture
def reader(task, client):
    user = factories.make_member(task.project, Role.ANNOTATOR, "reader")
    client.force_login(user)
    return user


def post(client, name, pk, body):
    content = body if isinstance(body, str) else json.dumps(body)
    return client.post(reverse(name, args=[pk]), content, content_type="application/json")


def submission(task, *boxes, **fields):
    return {"uuid": str(uuid4()), "revision": task.revision, "boxes": list(boxes), "effort": {}} | fields


def page_data(response):
    found = re.search(r'<script id="editor-data" type="application/json">(.*?)</script>', response.content.decode())
    return json.loads(found.group(1))


# The page


def test_the_page_carries_the_next_task_and_the_classes(client, task, reader):
    data = page_data(client.get(reverse("batch_annotate", args=[task.batch_id])))
    assert data["task"]["id"] == task.pk
    assert [one["code"] for one in data["classes"]] == ["NEU", "ERY", "OTH"]
    assert (data["batch"]["done"], data["batch"]["total"]) == (0, 9)
    assert data["task"]["tile"]["image"] == reverse("tile_image", args=[task.tile_id])
    task.refresh_from_db()
    assert (task.state, task.reader) == (TaskState.LEASED, reader)


def test_a_reload_goes_on_where_it_stopped(client, task, reader):
    url = reverse("batch_annotate", args=[task.batch_id])
    assert page_data(client.get(url))["task"]["id"] == page_data(client.get(url))["task"]["id"] == task.pk


def test_a_closed_batch_hands_out_nothing(client, task, reader):
    close_batch(batch=task.batch)
    assert page_data(client.get(reverse("batch_annotate", args=[task.batch_id])))["task"] is None


def test_a_task_carries_its_pre_label_and_the_draft(client, task, reader):
    pre_label = factories.make_pre_label(task, factories.make_version(task.project), (1, 1, 2, 30, 40))
    post(client, "task_draft", task.pk, {"sequence": 3, "revision": 0, "boxes": [factories.box_json()]})
    data = page_data(client.get(reverse("batch_annotate", args=[task.batch_id])))["task"]
    (box,) = data["boxes"]
    assert (box["class"], box["origin"], box["score"]) == (1, pre_label.boxes.get().pk, 0.9)
    assert (data["draft"]["sequence"], data["draft"]["boxes"]) == (3, [factories.box_json()])


# Next


def test_next_leaves_out_what_the_browser_holds(client, task, reader):
    tasks = list(task.batch.tasks.values_list("pk", flat=True))
    answer = post(client, "batch_next", task.batch_id, {"except": tasks[:3]}).json()
    assert answer["task"]["id"] == tasks[3]


@pytest.mark.parametrize(
    "body",
    ["not JSON", "[]", '"x"', "[" * 100_000, r'{"a": "\u0000"}', r'{"a": "\ud800"}', '{"a": 1' + "0" * 5000 + "}"],
)
def test_next_refuses_what_is_no_object(client, task, reader, body):
    response = post(client, "batch_next", task.batch_id, body)
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize("held", ["12", None, [True, "1", 1.5, {}], [10**30, -1], [10**9] * 40_000])
def test_next_bears_a_strange_list_of_held_tasks(client, task, reader, held):
    assert post(client, "batch_next", task.batch_id, {"except": held}).json()["task"]["id"] == task.pk


# Submit


def test_submit_works(client, task, reader):
    response = post(client, "task_submit", task.pk, submission(task, factories.box_json(1)))
    answer = response.json()
    annotation = Annotation.objects.get()
    assert (response.status_code, answer["annotation"], answer["revision"]) == (200, annotation.pk, 1)
    assert (answer["batch"]["done"], answer["next"]) == (1, None)
    assert annotation.boxes.get().cell_class.code == "ERY"


def test_submit_gives_the_next_task_when_asked(client, task, reader):
    second = task.batch.tasks.all()[1]
    answer = post(client, "task_submit", task.pk, submission(task, want_next=True)).json()
    assert answer["next"]["id"] == second.pk


def test_the_same_submission_again_gives_the_same_answer(client, task, reader):
    body = submission(task, factories.box_json())
    first, again = (post(client, "task_submit", task.pk, body).json() for _ in range(2))
    assert first["annotation"] == again["annotation"]
    assert Annotation.objects.count() == 1


def test_an_empty_list_is_a_confirmed_empty_tile(client, task, reader):
    assert post(client, "task_submit", task.pk, submission(task)).status_code == 200
    task.tile.refresh_from_db()
    assert task.tile.truth.boxes.count() == 0


def test_a_stale_submission_gets_both_versions_and_loses_nothing(client, task, reader):
    body = submission(task, factories.box_json(0))
    other = factories.make_member(task.project, Role.ANNOTATOR, "other")
    post(client, "task_draft", task.pk, {"sequence": 1, "revision": 0, "boxes": body["boxes"]})
    factories.submit_task(task, other, (1, 5, 6, 70, 80))
    response = post(client, "task_submit", task.pk, body)
    theirs = response.json()["theirs"]
    assert response.status_code == 409
    assert "other has submitted" in response.json()["error"]
    assert (theirs["author"], theirs["revision"]) == ("other", 1)
    assert [(box["class"], box["x"], box["width"]) for box in theirs["boxes"]] == [(1, 5, 70)]
    assert Draft.objects.get(user=reader).boxes == body["boxes"]
    again = post(client, "task_submit", task.pk, body | {"revision": 1, "uuid": str(uuid4())})
    assert again.status_code == 200


def test_a_closed_batch_says_so(client, task, reader):
    close_batch(batch=task.batch)
    response = post(client, "task_submit", task.pk, submission(task))
    assert (response.status_code, response.json()["closed"]) == (409, True)
    assert "closed" in response.json()["error"]


BAD_BOXES = {
    "outside to the right": (factories.box_json(x=500), "outside"),
    "outside above": (factories.box_json(y=-5), "outside"),
    "far outside": (factories.box_json(x=1e300), "outside"),
    "no width": (factories.box_json(width=0), "at least 2 px"),
    "no height": (factories.box_json(height=1.9), "at least 2 px"),
    "negative": (factories.box_json(width=-30), "at least 2 px"),
    "not a number": (factories.box_json(x=float("nan")), "finite"),
    "infinite": (factories.box_json(width=float("inf")), "finite"),
    "infinite below": (factories.box_json(y=float("-inf")), "finite"),
    "number too large": (factories.box_json(x=10**400), "finite"),
    "unknown class": (factories.box_json(99), "99 is not in the taxonomy"),
    "class true": (factories.box_json(True), "not in the taxonomy"),
    "class as text": (factories.box_json("0"), "not in the taxonomy"),
    "class is a list": (factories.box_json([0]), "not in the taxonomy"),
    "no class": ({"x": 1, "y": 2, "width": 3, "height": 4}, "has no class"),
    "no side": ({"class": 0, "x": 1, "y": 2, "width": 3}, "has no height"),
    "side true": (factories.box_json(x=True), "must be numbers"),
    "side as text": (factories.box_json(y="12"), "must be numbers"),
    "side is null": (factories.box_json(y=None), "must be numbers"),
    "origin as text": (factories.box_json(origin="1"), "origin"),
    "origin true": (factories.box_json(origin=True), "origin"),
    "no object": ([0, 1, 2, 3], "not an object"),
}


@pytest.mark.parametrize("kind", BAD_BOXES)
def test_a_box_that_cannot_be_stored_is_refused_with_words(client, task, reader, kind):
    box, words = BAD_BOXES[kind]
    response = post(client, "task_submit", task.pk, submission(task, factories.box_json(), box))
    answer = response.json()
    assert response.status_code == 400
    assert words in answer["error"]
    assert [problem["index"] for problem in answer["boxes"]] == [1]
    assert "box 2" in answer["error"]
    task.refresh_from_db()
    assert (task.revision, Annotation.objects.count()) == (0, 0)


def test_a_box_to_the_very_edge_is_taken_and_cut_there(client, task, reader):
    post(client, "task_submit", task.pk, submission(task, factories.box_json(x=-0.005, y=0, width=512.01, height=512)))
    box = Annotation.objects.get().boxes.get()
    assert (box.x, box.y, box.width, box.height) == (0, 0, 512, 512)


def test_2000_boxes_are_taken(client, task, reader):
    assert post(client, "task_submit", task.pk, submission(task, *[factories.box_json()] * 2000)).status_code == 200


def test_2001_boxes_are_refused(client, task, reader):
    response = post(client, "task_submit", task.pk, submission(task, *[factories.box_json()] * 2001))
    assert response.status_code == 400
    assert "2001 boxes" in response.json()["error"]


@pytest.mark.parametrize("boxes", [None, {}, "[]", 7])
def test_boxes_that_are_no_list_are_refused(client, task, reader, boxes):
    response = post(client, "task_submit", task.pk, submission(task) | {"boxes": boxes})
    assert response.status_code == 400
    assert "list" in response.json()["error"]


@pytest.mark.parametrize(
    "change",
    [{"uuid": "none"}, {"uuid": None}, {"revision": None}, {"revision": "0"}, {"revision": True}, {"revision": -1}],
)
def test_a_submission_without_a_number_or_revision_is_refused(client, task, reader, change):
    response = post(client, "task_submit", task.pk, submission(task) | change)
    assert response.status_code == 400
    assert response.json()["error"]
    assert not Annotation.objects.exists()


def test_a_revision_too_large_for_the_database_is_refused(client, task, reader):
    assert post(client, "task_submit", task.pk, submission(task) | {"revision": 10**30}).status_code == 400


def test_an_origin_of_another_tile_is_refused(client, task, reader):
    version = factories.make_version(task.project)
    other = factories.make_pre_label(task.batch.tasks.last(), version, (0, 1, 2, 30, 40)).boxes.get()
    response = post(client, "task_submit", task.pk, submission(task, factories.box_json(origin=other.pk)))
    assert response.status_code == 400
    assert "pre-label" in response.json()["error"]


def test_effort_that_makes_no_sense_does_not_lose_the_boxes(client, task, reader):
    body = submission(task, factories.box_json()) | {"effort": {"active_seconds": 10**400, "keys": float("nan")}}
    assert post(client, "task_submit", task.pk, body).status_code == 200


# Drafts


def test_a_draft_is_kept_and_answered_with_its_sequence(client, task, reader):
    response = post(client, "task_draft", task.pk, {"sequence": 4, "revision": 0, "boxes": [factories.box_json()]})
    assert response.json() == {"saved": 4}
    assert Draft.objects.get().user == reader


def test_a_late_draft_is_answered_with_the_newer_sequence(client, task, reader):
    post(client, "task_draft", task.pk, {"sequence": 4, "revision": 0, "boxes": []})
    response = post(client, "task_draft", task.pk, {"sequence": 3, "revision": 0, "boxes": [factories.box_json()]})
    assert response.json() == {"saved": 4}
    assert Draft.objects.get().boxes == []


def test_a_draft_renews_the_lease(client, task, reader):
    leased = claim_next(batch=task.batch, reader=reader)
    before = leased.leased_until
    post(client, "task_draft", leased.pk, {"sequence": 1, "revision": 0, "boxes": []})
    leased.refresh_from_db()
    assert leased.leased_until > before


def test_a_draft_after_somebody_submitted_gets_the_newer_version(client, task, reader):
    factories.submit_task(task, factories.make_member(task.project, Role.ANNOTATOR, "other"), (1, 5, 6, 70, 80))
    response = post(client, "task_draft", task.pk, {"sequence": 1, "revision": 0, "boxes": []})
    assert response.status_code == 409
    assert response.json()["theirs"]["author"] == "other"
    assert not Draft.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"sequence": 1, "revision": 0},
        {"sequence": -1, "revision": 0, "boxes": []},
        {"sequence": "1", "revision": 0, "boxes": []},
        {"sequence": 1, "revision": 0, "boxes": {}},
        {"sequence": 1, "revision": 0, "boxes": [0] * 5001},
        {"sequence": 10**30, "revision": 0, "boxes": []},
        {"sequence": 1, "revision": 10**30, "boxes": []},
        {"sequence": 1, "revision": 0, "boxes": [factories.box_json(x=float("nan"))]},
    ],
)
def test_a_draft_that_cannot_be_kept_is_refused(client, task, reader, body):
    response = post(client, "task_draft", task.pk, body)
    assert response.status_code == 400
    assert response.json()["error"]


# Skip


def test_skip_works_and_gives_the_next(client, task, reader):
    second = task.batch.tasks.all()[1]
    answer = post(client, "task_skip", task.pk, {"reason": "out of focus", "except": []}).json()
    task.refresh_from_db()
    assert (task.state, task.skip_reason, answer["task"]["id"]) == (TaskState.SKIPPED, "out of focus", second.pk)


@pytest.mark.parametrize("reason", [None, "", "   "])
def test_a_skip_needs_a_reason(client, task, reader, reason):
    response = post(client, "task_skip", task.pk, {"reason": reason})
    assert (response.status_code, "why" in response.json()["error"]) == (400, True)


def test_what_somebody_submitted_cannot_be_skipped(client, task, reader):
    factories.submit_task(task, factories.make_member(task.project, Role.ANNOTATOR, "other"))
    response = post(client, "task_skip", task.pk, {"reason": "out of focus"})
    assert response.status_code == 409


def test_a_batch_that_is_being_prepared_hands_out_nothing(client, reader):
    batch = factories.make_batch(factories.make_project(), state=BatchState.DRAFT)
    factories.make_member(batch.project, Role.ANNOTATOR, "other")
    assert claim_next(batch=batch, reader=reader) is None
