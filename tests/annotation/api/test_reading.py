"""What the API tells, page by page, and what it keeps from whom."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotation.models import Annotation, BatchState, Policy, Role, Scope, Task
from annotation.services.policies import ReadingPolicy
from tests import factories
from tests.annotation.api.asking import program

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


def test_projects_are_those_of_the_user(project):
    factories.make_project()
    (row,) = program(project, Role.REVIEWER, Scope.READ).read("projects")["results"]
    assert (row["id"], row["name"], row["role"]) == (project.pk, project.name, "reviewer")
    assert [one["code"] for one in row["taxonomy"]["classes"]] == ["NEU", "ERY", "OTH"]
    assert [one["id"] for one in row["taxonomy"]["classes"]] == [0, 1, 2]


def test_a_list_comes_in_pages_that_rows_in_between_do_not_disturb(project):
    slide = factories.make_slide(project)
    asking = program(project)
    seen, page = [], asking.read("tiles", project.pk, limit=4)
    while True:
        seen += [row["id"] for row in page["results"]]
        if page["next"] is None:
            break
        factories.make_slide(project, tiles=0)
        page = asking.client.get(page["next"]).json()
    assert seen == list(slide.tiles.order_by("pk").values_list("pk", flat=True))
    assert page["previous"]


@pytest.mark.parametrize("cursor", ["cD1hYmM=", "bm9uZQ==", "%", "cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk=", "bz0tMQ=="])
def test_a_cursor_of_nowhere_is_no_defect(project, cursor):
    factories.make_slide(project)
    response = program(project).get("tiles", project.pk, cursor=cursor)
    assert response.status_code in (200, 400, 404)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("tiles", {"slide": "x"}),
        ("tiles", {"slide": 2**63}),
        ("tiles", {"confirmed": "perhaps"}),
        ("batches", {"state": "new"}),
        ("events", {"first": "yesterday"}),
        ("events", {"last": "9999-12-31"}),
        ("annotations", {"author": "\0"}),
    ],
)
def test_a_filter_that_cannot_be_understood_is_named(project, name, wrong):
    response = program(project).get(name, project.pk, **wrong)
    assert response.status_code == 400
    assert next(iter(wrong)) in response.json()["error"]


def test_tiles_are_filtered(project):
    locked = factories.make_slide(project, patient=factories.make_patient(project, "T1", locked=True), tiles=2)
    slide = factories.make_slide(project, patient=factories.make_patient(project, "P1"), tiles=3)
    first, second, _ = slide.tiles.all()
    truth = factories.make_truth(first)
    batch = factories.make_batch(project, [second])
    asking = program(project)
    assert asking.keys("tiles", project.pk, slide=slide.pk) == asking.keys("tiles", project.pk, patient="P1")
    assert asking.keys("tiles", project.pk, locked="true") == list(locked.tiles.values_list("pk", flat=True))
    assert asking.keys("tiles", project.pk, confirmed="true") == [first.pk]
    assert len(asking.keys("tiles", project.pk, confirmed="false")) == 4
    assert asking.keys("tiles", project.pk, batch=batch.pk) == [second.pk]
    row = asking.read("tile", first.pk)
    assert (row["truth"], row["confirmed"], row["patient"], row["locked"]) == (truth.pk, True, "P1", False)
    assert row["image"] == reverse("api_tile_image", args=[first.pk])


def test_what_is_asked_of_another_projects_batch_is_nothing(project):
    elsewhere = factories.make_task()
    asking = program(project)
    assert asking.keys("tiles", project.pk, batch=elsewhere.batch_id) == []
    assert asking.keys("annotations", project.pk, batch_tiles=elsewhere.batch_id) == []


def test_annotations_carry_their_boxes(project):
    task = factories.make_task(project)
    pre_label = factories.make_pre_label(task, factories.make_version(project), (0, 1, 2, 30, 40))
    reader = factories.make_member(project, name="ann")
    factories.submit_task(task, reader, (1, 1, 2, 30, 40, pre_label.boxes.get().pk), (0, 60, 70, 30, 40), seconds=12)
    asking = program(project)
    (row,) = asking.read("annotations", project.pk, truth="true")["results"]
    assert (row["author"], row["is_truth"], row["revision"]) == ({"kind": "person", "name": "ann"}, True, 1)
    assert (row["pre_label"], row["active_seconds"], row["effort"]["reclassified"]) == (pre_label.pk, 12, 1)
    first, second = row["boxes"]
    assert (first["class"], first["x"], first["change"], first["origin"]) == (
        1,
        1,
        "reclassified",
        pre_label.boxes.get().pk,
    )
    assert (second["class"], second["change"], second["origin"]) == (0, "added", None)
    assert asking.read("annotation", row["id"]) == row
    assert asking.keys("annotations", project.pk, author_kind="model") == [pre_label.pk]
    assert asking.keys("annotations", project.pk, truth="false") == [pre_label.pk]
    assert asking.keys("annotations", project.pk, after=pre_label.pk) == [row["id"]]
    assert asking.keys("annotations", project.pk, batch=task.batch_id) == [row["id"]]
    assert asking.keys("annotations", project.pk, tile=task.tile_id) == [pre_label.pk, row["id"]]


def test_batches_and_tasks_say_how_far_they_are(project):
    batch = factories.make_batch(project)
    factories.make_batch(project, state=BatchState.CLOSED)
    asking = program(project)
    first, *_ = batch.tasks.all()
    factories.submit_task(first, asking.user)
    row = asking.read("batch", batch.pk)
    assert (row["tasks"], row["done"], row["state"], row["policy"]) == (9, 1, "open", "single")
    assert asking.keys("batches", project.pk, state="open") == [batch.pk]
    assert (
        asking.keys("tasks", batch.pk, state="submitted") == asking.keys("tasks", batch.pk, mine="true") == [first.pk]
    )
    assert len(asking.keys("tasks", batch.pk, mine="false")) == 8
    assert asking.read("tasks", batch.pk)["results"][0]["reader"] == asking.user.username


def test_the_event_log_is_told_the_newest_first(project):
    asking = program(project)
    batch = factories.make_batch(project)
    rows = asking.read("events", project.pk)["results"]
    assert [row["verb"] for row in rows[:2]] == ["opened batch", "made batch"]
    assert rows[1]["data"] == {"tiles": 9}
    (made,) = asking.read("events", project.pk, verb="made batch", text=batch.name)["results"]
    assert made["subject"] == batch.name


def test_the_event_log_is_filtered_and_read_on_from_its_cursor():
    today = timezone.localdate()
    project = factories.make_project()
    asking = program(project, name="lea")
    for number in range(5):
        factories.make_batch(project, name=f"Batch of {number}")
    assert len(asking.keys("events", project.pk, first=today.isoformat(), text="Batch of")) == 10
    assert asking.keys("events", project.pk, last=(today - timedelta(days=1)).isoformat()) == []
    assert asking.keys("events", project.pk, person="lea") == []
    assert len(asking.keys("events", project.pk, person="(itself)", verb="opened batch")) == 5
    page, seen = asking.read("events", project.pk, verb="made batch", limit=2), []
    while True:
        seen += [row["subject"] for row in page["results"]]
        if page["next"] is None:
            break
        factories.make_batch(project)  # newer than the page: neither repeats a row nor pushes one out
        page = asking.client.get(page["next"]).json()
    assert seen == [f"Batch of {number}" for number in (4, 3, 2, 1, 0)]


# No list asks the database once for each row.


def grow(project, reader):
    slide = factories.make_slide(project, tiles=3)
    batch = factories.make_batch(project, slide.tiles.all())
    for task in batch.tasks.all():
        factories.make_pre_label(task, factories.make_version(project), (0, 1, 2, 30, 40))
        factories.submit_task(task, reader, (1, 1, 2, 30, 40), (0, 60, 70, 30, 40))


@pytest.mark.parametrize(
    ("name", "most"), [("projects", 8), ("slides", 8), ("tiles", 8), ("batches", 8), ("annotations", 8), ("events", 8)]
)
@pytest.mark.parametrize("role", [Role.LEAD, Role.ANNOTATOR])
def test_a_list_takes_as_many_queries_however_long_it_is(project, name, most, role):
    if name == "events" and role != Role.LEAD:
        return
    asking = program(project, role)
    counts = []
    for _ in range(2):
        grow(project, asking.user)
        asking.read(name, *([] if name == "projects" else [project.pk]))  # the day of use is marked
        with CaptureQueriesContext(connection) as queries:
            asking.read(name, *([] if name == "projects" else [project.pk]))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= most


def test_the_list_of_tasks_takes_as_many_queries_however_long_it_is(project):
    batch, asking = factories.make_batch(project), program(project)
    counts = []
    for limit in (1, 9):
        asking.read("tasks", batch.pk, limit=limit)
        with CaptureQueriesContext(connection) as queries:
            asking.read("tasks", batch.pk, limit=limit)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 5


# Pictures


@pytest.fixture
def picture(project, smear):
    tile = factories.make_slide(project, file=smear, tiles=1).tiles.get()
    asking = program(project, Role.ANNOTATOR, Scope.READ)
    return lambda **headers: asking.client.get(reverse("api_tile_image", args=[tile.pk]), headers=headers)


def test_a_tiles_picture_is_a_jpeg_that_is_asked_for_once(picture):
    whole = picture()
    assert (whole.status_code, whole["Content-Type"], whole["Accept-Ranges"]) == (200, "image/jpeg", "bytes")
    assert whole.content[:2] == b"\xff\xd8"
    assert picture(if_none_match=whole["ETag"]).status_code == 304
    assert picture(accept="image/jpeg").status_code == 200


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-99999999", slice(5, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_a_part_of_a_picture_can_be_asked_for(picture, asked, part):
    whole, answer = picture(), picture(range=asked)
    assert answer.status_code == 206
    assert answer.content == whole.content[part]
    first, last, size = (int(text) for text in answer["Content-Range"][6:].replace("/", "-").split("-"))
    assert (whole.content[first : last + 1], size) == (answer.content, len(whole.content))


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_part_that_is_not_there_is_416(picture, asked):
    answer = picture(range=asked)
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer["Content-Range"] == f"bytes */{len(picture().content)}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=a-b"])
def test_a_range_that_cannot_be_understood_is_passed_over(picture, asked):
    assert picture(range=asked).status_code == 200


def test_a_part_of_an_older_picture_is_not_mixed_with_this_one(picture):
    assert picture(range="bytes=0-9", if_range='"other"').status_code == 200
    assert picture(range="bytes=0-9", if_range=picture()["ETag"]).status_code == 206


def test_a_picture_whose_slide_is_gone_says_so(project):
    slide = factories.make_slide(project)
    factories.lose_files(slide)
    response = program(project).get("tile_image", slide.tiles.first().pk)
    assert response.status_code == 404
    assert "missing from storage" in response.json()["error"]


# Blind readers


def seen(asking, project):
    """The annotations that a program finds, which must be the same from wherever it looks."""
    keys = asking.keys("annotations", project.pk)
    alone = [
        key
        for key in Annotation.objects.values_list("pk", flat=True)
        if asking.get("annotation", key).status_code == 200
    ]
    assert sorted(keys) == sorted(alone)
    return set(keys)


def test_independent_readers_do_not_see_each_other_nor_what_they_agree_on(project):
    policy = ReadingPolicy(policy=Policy.INDEPENDENT, readers=2)
    tile = factories.make_tile(project)
    batch = factories.make_batch(project, [tile], policy=policy)
    ann, ben = (program(project, Role.ANNOTATOR, name=name) for name in ("ann", "ben"))
    reviewer, lead = program(project, Role.REVIEWER), program(project, Role.LEAD, Scope.READ)
    first, second = batch.tasks.order_by("replica")
    anns = factories.submit_task(first, ann.user, (0, 1, 2, 30, 40))
    assert (seen(ann, project), seen(ben, project)) == ({anns.pk}, set())
    assert ben.get("task", first.pk).status_code == 403
    assert seen(reviewer, project) == seen(lead, project) == {anns.pk}
    bens = factories.submit_task(second, ben.user, (1, 200, 2, 30, 40))
    review = Task.objects.get(kind="review")
    assert review.pre_label_id in seen(reviewer, project)
    assert (seen(ann, project), seen(ben, project)) == ({anns.pk}, {bens.pk})  # nor the consensus of both
    assert ann.get("task", review.pk).status_code == 403
    decided = factories.submit_task(review, reviewer.user, (1, 200, 2, 30, 40))
    assert seen(ann, project) == {anns.pk}
    row = ann.read("tile", tile.pk)
    assert (row["confirmed"], row["truth"]) == (True, None)
    assert ann.read("tiles", project.pk)["results"] == [row]
    assert reviewer.read("tile", tile.pk)["truth"] == decided.pk
    batch.state = BatchState.CLOSED
    batch.save()
    assert {anns.pk, bens.pk, decided.pk} <= seen(ann, project)
    assert ann.read("tile", tile.pk)["truth"] == decided.pk


def test_whoever_reads_a_tile_blind_sees_no_pre_label_of_it(project):
    task = factories.make_task(project)
    pre_label = factories.make_pre_label(task, factories.make_version(project), (0, 1, 2, 30, 40))
    Task.objects.filter(pk=task.pk).update(blind=True, pre_label=None)
    ann, reviewer = program(project, Role.ANNOTATOR), program(project, Role.REVIEWER)
    assert seen(ann, project) == set()
    assert ann.read("task", task.pk)["task"]["boxes"] == []
    assert seen(reviewer, project) == {pre_label.pk}
    task.refresh_from_db()
    made = factories.submit_task(task, ann.user, (0, 1, 2, 30, 40))
    assert seen(ann, project) == {pre_label.pk, made.pk}
