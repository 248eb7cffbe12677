"""What the editor and the server say to each other."""

import json
import re
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.urls import reverse

from annotation.models import Annotation, BatchState, Draft, Role, TaskState
from annotation.services.batches import claim_next, close_batch
from annotation.services.policies import ReadingPolicy
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
    assert data["urls"] == {
        "next": reverse("batch_next", args=[task.batch_id]),
        "previous": reverse("batch_previous", args=[task.batch_id]),
        "task": "/tasks/0/",  # the editor puts a task's number in
        "preferences": reverse("preferences"),
    }
    assert [one["examples"] for one in data["classes"]] == [
        reverse("class_examples", args=[task.project.pk, number]) for number in range(3)
    ]
    task.refresh_from_db()
    assert (task.state, task.reader) == (TaskState.LEASED, reader)


def test_the_page_carries_the_readers_preferences(client, task, reader):
    url = reverse("batch_annotate", args=[task.batch_id])
    defaults = {"brightness": 0, "contrast": 0, "gamma": 1, "saturation": 1, "threshold": 0, "labels": True}
    assert page_data(client.get(url))["preferences"] == defaults
    client.post(reverse("preferences"), '{"gamma": 0.8}', content_type="application/json")
    assert page_data(client.get(url))["preferences"] == defaults | {"gamma": 0.8}


def test_a_task_says_where_its_tile_lies(client, task, reader):
    tile = task.batch.tasks.all()[5].tile
    answer = client.get(reverse("task", args=[task.batch.tasks.all()[5].pk])).json()["task"]["tile"]
    assert answer == {
        "id": tile.pk,
        "width": 512,
        "height": 512,
        "image": reverse("tile_image", args=[tile.pk]),
        "slide": tile.slide.name,
        "slide_id": tile.slide_id,
        "slide_width": 1536,
        "slide_height": 1536,
        "slide_image": reverse("slide_thumbnail", args=[tile.slide_id]),
        "neighbourhood": reverse("tile_neighbourhood", args=[tile.pk]),
        "patient": tile.slide.patient.code,
        "row": 1,
        "column": 2,
        "x": 1024,
        "y": 512,
        "extent": 512,
        "mpp": 0.25,
    }


def test_a_tiles_resolution_is_that_of_its_own_pixels(client, task, reader):
    """A slide scanned at 0.5 um per px: the tile covers 256 level-0 px with its 512."""
    slide = factories.make_slide(task.project, tiles=1, mpp=0.5)
    slide.tiles.update(extent=256)
    other = factories.make_batch(task.project, slide.tiles.all()).tasks.get()
    assert client.get(reverse("task", args=[other.pk])).json()["task"]["tile"]["mpp"] == 0.25


def test_nothing_lies_around_a_plain_image_and_nobody_knows_its_resolution(client, task, reader):
    image = factories.make_image(task.project, width=640, height=480)
    other = factories.make_batch(task.project, [image]).tasks.get()
    tile = client.get(reverse("task", args=[other.pk])).json()["task"]["tile"]
    assert (tile["neighbourhood"], tile["mpp"], tile["width"], tile["height"]) == (None, None, 640, 480)


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


# One task again


def test_a_task_can_be_looked_at_without_leasing_it(client, task, reader):
    answer = client.get(reverse("task", args=[task.pk])).json()["task"]
    assert (answer["id"], answer["revision"], answer["skipped"], answer["leased_until"]) == (task.pk, 0, "", None)
    task.refresh_from_db()
    assert (task.state, task.reader) == (TaskState.OPEN, None)


def test_a_task_that_somebody_else_leased_stays_theirs(client, task, reader):
    other = factories.make_member(task.project, Role.ANNOTATOR, "other")
    leased = claim_next(batch=task.batch, reader=other)
    assert client.get(reverse("task", args=[leased.pk])).status_code == 200
    before = leased.leased_until
    leased.refresh_from_db()
    assert (leased.reader, leased.leased_until) == (other, before)


def test_a_task_of_a_project_that_one_may_not_see_is_not_there(client, task, reader):
    elsewhere = factories.make_task(factories.make_project())
    assert client.get(reverse("task", args=[elsewhere.pk])).status_code == 404


def test_a_task_that_was_put_aside_says_why(client, task, reader):
    post(client, "task_skip", task.pk, {"reason": "out of focus"})
    assert client.get(reverse("task", args=[task.pk])).json()["task"]["skipped"] == "out of focus"


def test_boxes_that_a_person_left_are_touched_and_keep_the_score_of_their_class(client, task, reader):
    pre_label = factories.make_pre_label(
        task,
        factories.make_version(task.project),
        (0, 1, 2, 30, 40),
        (1, 50, 2, 30, 40),
        (1, 90, 2, 30, 40),
        score=0.75,
    )
    kept, moved, renamed = pre_label.boxes.all()
    boxes = [
        factories.box_json(0, 1, 2, origin=kept.pk),
        factories.box_json(1, 60, 2, origin=moved.pk),
        factories.box_json(0, 90, 2, origin=renamed.pk),
        factories.box_json(2, 200, 200),
    ]
    post(client, "task_submit", task.pk, submission(task, *boxes))
    answer = client.get(reverse("task", args=[task.pk])).json()["task"]
    assert answer["revision"] == 1
    assert [(box["origin"], box["score"], box["touched"]) for box in answer["boxes"]] == [
        (kept.pk, 0.75, True),
        (moved.pk, 0.75, True),
        (renamed.pk, None, True),
        (None, None, True),
    ]


def test_boxes_that_nobody_has_touched_do_not_say_so(client, task, reader):
    factories.make_pre_label(task, factories.make_version(task.project), (1, 1, 2, 30, 40))
    (box,) = client.get(reverse("task", args=[task.pk])).json()["task"]["boxes"]
    assert "touched" not in box


def test_a_task_shows_its_newest_annotation(client, task, reader):
    for x in (10, 20, 30):
        factories.submit_task(task, reader, (0, x, 20, 30, 40))
    answer = client.get(reverse("task", args=[task.pk])).json()["task"]
    assert [(box["x"], answer["revision"]) for box in answer["boxes"]] == [(30, 3)]


@pytest.mark.parametrize("boxes", [1, 40])
def test_the_number_of_queries_does_not_grow_with_the_boxes(client, task, reader, boxes, django_assert_num_queries):
    places = [(index % 3, index, 20, 30, 40) for index in range(boxes)]
    pre_label = factories.make_pre_label(task, factories.make_version(task.project), *places)
    url = reverse("task", args=[task.pk])
    client.get(url)
    # The session, the user, the task, the role, the draft and the boxes.
    with django_assert_num_queries(6):
        client.get(url)
    body = [factories.box_json(index % 3, index, origin=box.pk) for index, box in enumerate(pre_label.boxes.all())]
    post(client, "task_submit", task.pk, submission(task, *body))
    with django_assert_num_queries(7):  # and the annotation
        assert len(client.get(url).json()["task"]["boxes"]) == boxes


# Previous


def previous(client, task, *seen):
    return post(client, "batch_previous", task.batch_id, {"except": [one.pk for one in seen]}).json()["task"]


def test_previous_goes_back_over_ones_own_tiles(client, task, reader):
    first, second, third, *_ = task.batch.tasks.all()
    factories.submit_task(first, reader, (1, 5, 6, 70, 80))
    factories.submit_task(second, reader)
    back = previous(client, task)
    assert (back["id"], back["boxes"]) == (second.pk, [])
    assert previous(client, task, third)["id"] == second.pk
    back = previous(client, task, second)
    assert (back["id"], back["revision"], back["boxes"][0]["touched"]) == (first.pk, 1, True)
    assert previous(client, task, second, first) is None


def test_previous_leases_nothing(client, task, reader):
    factories.submit_task(task, reader)
    previous(client, task)
    assert not task.batch.tasks.filter(state=TaskState.LEASED).exists()
    task.refresh_from_db()
    assert (task.state, task.reader, task.leased_until) == (TaskState.SUBMITTED, reader, None)


def test_what_one_went_back_to_can_be_corrected(client, task, reader):
    factories.submit_task(task, reader, (1, 5, 6, 70, 80))
    back = previous(client, task)
    answer = post(client, "task_submit", task.pk, submission(task, revision=back["revision"])).json()
    assert answer["revision"] == 2
    task.tile.refresh_from_db()
    assert task.tile.truth.boxes.count() == 0


@pytest.mark.parametrize("seen", [["1"], [-1], [True], [1.5], [{}], [10**30], "1", 1, None])
def test_previous_takes_no_notice_of_what_is_no_task(client, task, reader, seen):
    factories.submit_task(task, reader)
    response = post(client, "batch_previous", task.batch_id, {"except": seen})
    assert response.json()["task"]["id"] == task.pk


def test_previous_refuses_what_is_no_object(client, task, reader):
    assert post(client, "batch_previous", task.batch_id, "[]").status_code == 400


# Preferences


def prefer(client, body):
    content = body if isinstance(body, str) else json.dumps(body)
    return client.post(reverse("preferences"), content, content_type="application/json")


def test_preferences_are_kept_with_the_user(client, reader):
    response = prefer(client, {"threshold": 0.4, "labels": False})
    assert (response.status_code, response.content) == (204, b"")
    reader.refresh_from_db()
    assert reader.preferences == {"editor": {"threshold": 0.4, "labels": False}}


def test_no_preference_at_all_changes_nothing(client, reader):
    assert prefer(client, {}).status_code == 204


@pytest.mark.parametrize(
    ("field", "value"), [("gamma", 0), ("gamma", float("nan")), ("labels", "yes"), ("threshold", True), ("zoom", 2)]
)
def test_a_preference_that_is_wrong_is_named(client, reader, field, value):
    response = prefer(client, {"contrast": 0.5, field: value})
    answer = response.json()
    assert (response.status_code, answer["field"]) == (400, field)
    assert field in answer["error"]
    reader.refresh_from_db()
    assert reader.preferences == {}


@pytest.mark.parametrize("body", ["not JSON", "[]", "7"])
def test_preferences_that_are_no_object_are_refused(client, reader, body):
    assert prefer(client, body).status_code == 400


def test_nobody_has_preferences_without_signing_in(client):
    assert prefer(client, {"gamma": 2}).status_code == 302


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
    assert response.json() == {"saved": 4, "held_by": None}
    assert Draft.objects.get().user == reader


def test_a_late_draft_is_answered_with_the_newer_sequence(client, task, reader):
    post(client, "task_draft", task.pk, {"sequence": 4, "revision": 0, "boxes": []})
    response = post(client, "task_draft", task.pk, {"sequence": 3, "revision": 0, "boxes": [factories.box_json()]})
    assert response.json() == {"saved": 4, "held_by": None}
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
        {"sequence": 1, "revision": 0, "boxes": [factories.box_json(width=float("inf"))]},
        {"sequence": 1, "revision": 0, "boxes": [factories.box_json(), 7]},
        {"sequence": 1, "revision": 0, "boxes": [[0, 1, 2, 3]]},
    ],
)
def test_a_draft_that_cannot_be_kept_is_refused(client, task, reader, body):
    response = post(client, "task_draft", task.pk, body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert not Draft.objects.exists()


def test_a_draft_of_5000_boxes_is_kept_and_cannot_be_submitted(client, task, reader):
    boxes = [factories.box_json(touched=True, note="x" * 20)] * 5000
    assert post(client, "task_draft", task.pk, {"sequence": 1, "revision": 0, "boxes": boxes}).json()["saved"] == 1
    assert len(Draft.objects.get().boxes) == 5000
    response = post(client, "task_submit", task.pk, submission(task, *boxes))
    assert response.status_code == 400
    assert "5000 boxes on one tile: at most 2000" in response.json()["error"]
    assert not Annotation.objects.exists()


UNFINISHED = {
    "unknown class": factories.box_json(99),
    "outside the tile": factories.box_json(x=500, width=300),
    "no width": factories.box_json(width=0),
    "negative": factories.box_json(height=-3),
    "touched": factories.box_json(touched=True),
}


@pytest.mark.parametrize("kind", UNFINISHED)
def test_unfinished_work_is_kept_as_it_is_and_given_back(client, task, reader, kind):
    post(client, "task_draft", task.pk, {"sequence": 1, "revision": 0, "boxes": [UNFINISHED[kind]]})
    answer = client.get(reverse("task", args=[task.pk])).json()
    assert answer["task"]["draft"]["boxes"] == [UNFINISHED[kind]]


def test_a_draft_says_who_else_has_leased_the_task(client, task, reader):
    other = factories.make_member(task.project, Role.ANNOTATOR, "other")
    assert claim_next(batch=task.batch, reader=other) == task
    response = post(client, "task_draft", task.pk, {"sequence": 1, "revision": 0, "boxes": [factories.box_json()]})
    assert response.json() == {"saved": 1, "held_by": "other"}
    assert Draft.objects.get(user=reader).boxes == [factories.box_json()]


def test_a_draft_of_a_correction_says_who_submitted_the_task(client, task, reader):
    other = factories.make_member(task.project, Role.ANNOTATOR, "other", first_name="Ann", last_name="Other")
    factories.submit_task(task, other)
    response = post(client, "task_draft", task.pk, {"sequence": 1, "revision": 1, "boxes": []})
    assert response.json() == {"saved": 1, "held_by": "Ann Other"}


def test_ones_own_task_is_held_by_nobody_else(client, task, reader):
    assert claim_next(batch=task.batch, reader=reader) == task
    body = {"sequence": 1, "revision": 0, "boxes": []}
    assert post(client, "task_draft", task.pk, body).json()["held_by"] is None
    factories.submit_task(task, reader)
    assert post(client, "task_draft", task.pk, body | {"revision": 1}).json()["held_by"] is None


# Skip


def test_skip_works_and_gives_the_next(client, task, reader):
    second = task.batch.tasks.all()[1]
    body = {"reason": "out of focus", "except": [], "want_next": True}
    answer = post(client, "task_skip", task.pk, body).json()
    task.refresh_from_db()
    assert (task.state, task.skip_reason, answer["task"]["id"]) == (TaskState.SKIPPED, "out of focus", second.pk)


def test_a_skip_leases_nothing_unless_it_is_asked_to_and_can_be_sent_twice(client, task, reader):
    for _ in range(2):
        answer = post(client, "task_skip", task.pk, {"reason": "out of focus"}).json()
        assert ("task" in answer, answer["batch"]["done"]) == (False, 1)
    assert not task.batch.tasks.filter(state=TaskState.LEASED).exclude(pk=task.pk).exists()


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


# Whose page it is


@pytest.mark.parametrize(("name", "status"), [("someone", 401), ("", 200), (None, 200)])
@pytest.mark.parametrize("view", ["task_draft", "task_submit", "task_skip"])
def test_work_from_another_readers_page_is_not_taken(client, task, reader, view, name, status):
    body = submission(task, reason="out of focus", sequence=1)
    headers = {} if name is None else {"X-Reader": name or quote(reader.get_username())}
    response = client.post(reverse(view, args=[task.pk]), body, content_type="application/json", headers=headers)
    assert response.status_code == status
    task.refresh_from_db()
    assert (task.drafts.exists() or task.annotations.exists() or task.skip_reason != "") == (status == 200)


# Reviews, and readers who do not see each other


@pytest.fixture
def shared(client):
    """A tile for two readers, of whom one has read it."""
    project = factories.make_project()
    tiles = factories.make_slide(project, tiles=1).tiles.all()
    batch = factories.make_batch(project, tiles, policy=ReadingPolicy("independent", readers=2))
    first = factories.make_member(project, name="first")
    factories.submit_task(claim_next(batch=batch, reader=first), first, (0, 10, 10, 40, 40))
    client.force_login(factories.make_member(project, name="second"))
    return batch


def test_a_reader_does_not_see_what_another_has_drawn(client, shared):
    theirs, mine = shared.tasks.order_by("replica")
    assert client.get(reverse("task", args=[theirs.pk])).status_code == 403
    assert post(client, "task_submit", theirs.pk, submission(theirs)).status_code == 403
    data = page_data(client.get(reverse("batch_annotate", args=[shared.pk])))
    assert (data["task"]["id"], data["task"]["boxes"]) == (mine.pk, [])


def test_a_second_reading_is_refused_and_says_why(client, shared):
    client.force_login(shared.tasks.get(replica=0).reader)
    other = shared.tasks.get(replica=1)
    answer = post(client, "task_submit", other.pk, submission(other))
    assert (answer.status_code, answer.json()["closed"]) == (409, True)
    assert "already" in answer.json()["error"]
    assert post(client, "task_skip", other.pk, {"reason": "thick"}).status_code == 409


def test_a_reviewer_gets_reviews_with_what_readers_drew(client, shared):
    second = shared.project.memberships.get(user__username="second").user
    factories.submit_task(claim_next(batch=shared, reader=second), second)
    reviewer = factories.make_member(shared.project, Role.REVIEWER)
    client.force_login(reviewer)
    url = reverse("batch_annotate", args=[shared.pk])
    assert page_data(client.get(url))["task"] is None
    page = client.get(f"{url}?review=1")
    assert f"Review of {shared.name}" in page.content.decode()
    data = page_data(page)
    assert data["urls"]["next"].endswith("/next/?review=1")
    assert (data["batch"]["done"], data["batch"]["total"]) == (0, 1)
    [box] = data["task"]["boxes"]
    assert (box["score"], box["origin"]) == (0.5, box["id"])
    review = shared.tasks.get(kind="review")
    answer = post(client, "task_submit", review.pk, submission(review, factories.box_json(), want_next=True)).json()
    assert (answer["next"], answer["batch"]["done"]) == (None, 1)
    back = client.post(f"{reverse('batch_previous', args=[shared.pk])}?review=1", "{}", content_type="application/json")
    assert back.json()["task"]["id"] == review.pk


def test_reviews_are_for_reviewers(client, shared):
    second = shared.project.memberships.get(user__username="second").user
    factories.submit_task(claim_next(batch=shared, reader=second), second)
    review = shared.tasks.get(kind="review")
    client.force_login(factories.make_member(shared.project))
    assert client.get(f"{reverse('batch_annotate', args=[shared.pk])}?review=1").status_code == 403
    assert client.get(reverse("task", args=[review.pk])).status_code == 403
    assert post(client, "task_submit", review.pk, submission(review)).status_code == 403
