import pytest
from django.urls import reverse

from annotation.models import BatchState, Role
from annotation.services.annotations import skip
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def batch(client):
    batch = factories.make_batch(factories.make_project())
    client.force_login(factories.make_member(batch.project, Role.LEAD))
    return batch


def close(client, batch):
    response = client.post(reverse("batch_close", args=[batch.pk]), follow=True)
    batch.refresh_from_db()
    return response.content.decode()


def test_close_works(client, batch):
    assert "is closed" in close(client, batch)
    assert batch.state == BatchState.CLOSED


def test_a_closed_batch_says_that_it_was_not_open(client, batch):
    close(client, batch)
    assert "was not open" in close(client, batch)


def test_a_rounds_batch_is_closed_with_its_round(client, batch):
    factories.make_round(batch.project, batch=batch)
    assert "close the round instead" in close(client, batch)
    assert batch.state == BatchState.OPEN
    assert "/close/" not in client.get(reverse("batch", args=[batch.pk])).content.decode()


def test_a_finished_batch_offers_no_annotating(client, batch):
    url, annotate = reverse("batch", args=[batch.pk]), reverse("batch_annotate", args=[batch.pk])
    assert annotate in client.get(url).content.decode()
    for task in batch.tasks.all():
        skip(task=task, user=factories.make_user(), reason="thick")
    assert annotate not in client.get(url).content.decode()


def test_its_tiles_can_be_narrowed_to_a_state(client, batch):
    first = batch.tasks.first()
    skip(task=first, user=factories.make_user(), reason="thick")
    page = client.get(reverse("batch", args=[batch.pk]), {"state": "skipped"}).content.decode()
    assert page.count(reverse("tile_image", args=[first.tile_id])) == 1
    assert page.count("/image/") == 1
