"""The page of a tile's annotations: in order, side by side, as a difference, restored."""

import re

import pytest
from django.urls import reverse

from annotation.models import Event, Role, Tile
from annotation.services.batches import close_batch
from annotation.services.policies import ReadingPolicy
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def lead(client, project):
    return sign_in(client, project, Role.LEAD)


def sign_in(client, project, role):
    user = factories.make_member(project, role, f"the_{role}")
    client.force_login(user)
    return user


@pytest.fixture
def tile(project):
    """A pre-label, then a reading that keeps one box, renames one, deletes one and adds one, then an import."""
    task = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all(), name="Round 1").tasks.get()
    drawn = factories.make_pre_label(
        task, factories.make_version(project), (0, 10, 10, 30, 30), (0, 60, 10, 30, 30), (0, 110, 10, 30, 30)
    )
    first, second, _ = drawn.boxes.all()
    reader = factories.make_member(project, name="reader_one")
    factories.submit_task(
        task, reader, (0, 10, 10, 30, 30, first.pk), (1, 60, 10, 30, 30, second.pk), (1, 300, 10, 30, 30)
    )
    return Tile.objects.get()


def page(client, tile, **query):
    response = client.get(reverse("tile_history", args=[tile.pk]), query)
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


def annotations(tile):
    return list(tile.annotations.order_by("pk"))


def test_all_annotations_stand_there_with_author_kind_and_boxes(client, tile, lead):
    factories.make_truth(tile)
    tile.refresh_from_db()
    text = page(client, tile)
    rows = text[text.index("In place of") : text.index("Compare left and right")]
    assert rows.index("made truth") < rows.index("reader_one") < rows.index("model 1")
    assert "3 made truth truth import" in rows
    assert "2 reader_one reading in Round 1" in rows
    assert "1 model 1 pre-label" in rows
    assert re.search(r"0 No\. 2", rows)


def test_what_the_truth_started_from_is_compared_with_it(client, tile, lead):
    assert "No. 1 and No. 2" in page(client, tile)


def test_two_that_are_asked_for_are_compared(client, tile, lead):
    factories.make_truth(tile)
    first, second, third = annotations(tile)
    assert "No. 1 and No. 3" in page(client, tile, left=first.pk, right=third.pk)
    assert "No. 3 and No. 2" in page(client, tile, left=third.pk, right=second.pk)


@pytest.mark.parametrize("asked", ["x", "-1", "99999999", ""])
def test_what_the_tile_has_not_is_not_compared(client, tile, lead, asked):
    assert "No. 1 and No. 2" in page(client, tile, left=asked, right=asked, view=asked)


def test_the_difference_is_counted_and_listed(client, tile, lead):
    text = page(client, tile, view="difference")
    legend = text[text.index("From No. 1 to No. 2") :]
    assert "same 1 moved 0 reclassified 1 only in No. 1 1 only in No. 2 1" in legend
    assert "reclassified NEU ERY 60, 10" in legend
    assert "only left NEU – 110, 10" in legend
    assert "only right – ERY 300, 10" in legend
    drawn = client.get(reverse("tile_history", args=[tile.pk]), {"view": "difference"}).content.decode()
    assert "NEU→ERY" in drawn
    assert drawn.count('class="box difference-same"') == 1


def test_an_annotation_and_itself_are_the_same(client, tile, lead):
    _, second = annotations(tile)
    assert "box for box" in page(client, tile, left=second.pk, right=second.pk, view="difference")


def test_a_tile_that_nobody_has_annotated_says_so(client, project, lead):
    assert "Not annotated yet" in page(client, factories.make_tile(project))


def test_one_annotation_alone_is_shown_without_a_comparison(client, project, lead):
    tile = factories.make_tile(project)
    factories.make_truth(tile, (0, 1, 2, 30, 40))
    text = page(client, tile)
    assert "Compare left and right" not in text
    assert "and No." not in text


@pytest.mark.parametrize(("role", "offered"), [(Role.ANNOTATOR, False), (Role.REVIEWER, True), (Role.LEAD, True)])
def test_who_may_restore_is_offered_it_but_never_the_truth(client, project, tile, role, offered):
    sign_in(client, project, role)
    content = client.get(reverse("tile_history", args=[tile.pk])).content.decode()
    first, second = annotations(tile)
    assert (reverse("annotation_restore", args=[first.pk]) in content) is offered
    assert reverse("annotation_restore", args=[second.pk]) not in content


def restore(client, annotation, truth):
    return client.post(reverse("annotation_restore", args=[annotation.pk]), {"truth": truth}, follow=True)


def test_restoring_leads_back_to_the_page_which_shows_it(client, tile, lead):
    first, second = annotations(tile)
    text = restore(client, first, second.pk).content.decode()
    assert "its boxes are the tile&#x27;s truth again" in text
    assert "restored No. 1" in text
    tile.refresh_from_db()
    assert tile.truth.boxes.count() == 3


def test_a_second_click_is_told_that_the_truth_has_changed(client, tile, lead):
    first, second = annotations(tile)
    restore(client, first, second.pk)
    assert "Somebody has changed this tile&#x27;s truth" in restore(client, first, second.pk).content.decode()
    assert tile.annotations.count() == 3


@pytest.mark.parametrize("truth", ["", "x", "-1"])
def test_a_restore_that_names_no_truth_changes_nothing(client, tile, lead, truth):
    first, second = annotations(tile)
    restore(client, first, truth)
    tile.refresh_from_db()
    assert tile.truth == second


def test_an_annotator_may_not_restore_and_a_stranger_finds_nothing(client, project, tile):
    sign_in(client, project, Role.ANNOTATOR)
    first, second = annotations(tile)
    assert restore(client, first, second.pk).status_code == 403
    client.force_login(factories.make_user())
    assert restore(client, first, second.pk).status_code == 404
    assert client.get(reverse("tile_history", args=[tile.pk])).status_code == 404
    assert not Event.objects.filter(verb="restored").exists()


def test_blind_readers_do_not_see_each_others_boxes_here(client, project):
    policy = ReadingPolicy(policy="independent", readers=2)
    batch = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all(), policy=policy)
    first, second = batch.tasks.order_by("replica")
    mine = sign_in(client, project, Role.ANNOTATOR)
    factories.submit_task(first, factories.make_member(project, name="other"), (0, 10, 20, 30, 40))
    assert authors(client, first.tile) == []
    assert "read blind" in page(client, first.tile)
    of_tile = client.get(reverse("tile", args=[first.tile_id])).content.decode()
    assert "Being read blind" in of_tile
    assert "other" not in of_tile.split("<main", 1)[1].split("What others", 1)[0]
    factories.submit_task(second, mine, (1, 300, 20, 30, 40))
    assert "the_annotator" in authors(client, first.tile)
    assert "other" not in authors(client, first.tile)
    close_batch(batch=batch)
    assert {"the_annotator", "other"} <= set(authors(client, first.tile))
    assert "read blind" not in page(client, first.tile)


def test_a_reviewer_sees_what_blind_readers_draw(client, project):
    policy = ReadingPolicy(policy="independent", readers=2)
    batch = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all(), policy=policy)
    sign_in(client, project, Role.REVIEWER)
    task = batch.tasks.first()
    factories.submit_task(task, factories.make_member(project, name="other"), (0, 10, 20, 30, 40))
    assert authors(client, task.tile) == ["other"]


def test_the_pre_label_of_a_tile_that_is_read_blind_is_shown_when_it_has_been_read(client, project):
    reader = sign_in(client, project, Role.ANNOTATOR)
    task = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all()).tasks.get()
    factories.make_pre_label(task, factories.make_version(project), (0, 10, 10, 30, 30))
    task.pre_label, task.blind = None, True
    task.save()
    assert authors(client, task.tile) == []
    assert "1 more annotation is shown" in page(client, task.tile)
    factories.submit_task(task, reader)
    assert authors(client, task.tile) == ["the_annotator", "model 1"]


def authors(client, tile):
    response = client.get(reverse("tile_history", args=[tile.pk]))
    return [row["annotation"].author.name for row in response.context["rows"]]


def test_the_tile_page_leads_here(client, tile, lead):
    assert reverse("tile_history", args=[tile.pk]) in client.get(reverse("tile", args=[tile.pk])).content.decode()
