import pytest
from django.urls import reverse

from annotation.models import BatchState, Role
from annotation.services.annotations import skip
from annotation.services.batches import claim_next
from annotation.services.policies import ReadingPolicy
from tests import factories
from training.models import RoundState

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


def test_a_closed_batch_says_so(client, batch):
    close(client, batch)
    assert "is closed already" in close(client, batch)


def test_a_draft_is_given_up_with_its_round_only(client, batch):
    draft = factories.make_batch(batch.project, state=BatchState.DRAFT)
    factories.make_round(batch.project, batch=draft, state=RoundState.REVIEWING)
    assert "cancel its round" in close(client, draft)
    assert draft.state == BatchState.DRAFT


def test_a_rounds_batch_is_stopped_and_reopened_while_it_is_annotated(client, batch):
    round_ = factories.make_round(batch.project, batch=batch)
    assert "it can be reopened" in close(client, batch)
    assert reverse("batch_reopen", args=[batch.pk]) in client.get(reverse("batch", args=[batch.pk])).content.decode()
    assert "9 tiles left to read" in reopen(client, batch)
    assert batch.state == BatchState.OPEN
    round_.refresh_from_db()
    assert round_.state == RoundState.ANNOTATING


@pytest.mark.parametrize("state", [RoundState.CLOSING, RoundState.TRAINING, RoundState.EVALUATING])
def test_a_batch_whose_round_trains_stays_closed(client, batch, state):
    factories.make_round(batch.project, batch=batch, state=state)
    close(client, batch)
    assert "wait until it is done" in reopen(client, batch)
    assert batch.state == BatchState.CLOSED
    assert "reopen" not in client.get(reverse("batch", args=[batch.pk])).content.decode().lower()


def test_an_open_batch_cannot_be_reopened(client, batch):
    assert "is not closed" in reopen(client, batch)


def reopen(client, batch):
    response = client.post(reverse("batch_reopen", args=[batch.pk]), follow=True)
    batch.refresh_from_db()
    return response.content.decode()


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


# Assigning


def assign(client, batch, **body):
    return client.post(reverse("batch_assign", args=[batch.pk]), body, follow=True).content.decode()


def test_ticked_tiles_are_kept_for_a_reader(client, batch):
    reader = factories.make_member(batch.project, name="mona")
    first, second = batch.tasks.all()[:2]
    page = assign(client, batch, reader=reader.pk, task=[first.pk, second.pk])
    assert "2 tiles now kept for mona." in page
    assert page.count("kept for mona") == 3
    assert assign(client, batch, task=[first.pk]).count("1 tile now for everybody.") == 1


def test_a_patient_s_tiles_are_kept_for_a_reader(client, batch):
    reader = factories.make_member(batch.project)
    code = batch.tasks.first().tile.slide.patient.code
    assert f"{code} (9 open)" in client.get(reverse("batch", args=[batch.pk])).content.decode()
    assert "9 tiles now kept for" in assign(client, batch, reader=reader.pk, patient=code)


def test_somebody_who_has_left_is_assigned_nothing(client, batch):
    assert "no longer a member" in assign(client, batch, reader=factories.make_user().pk)
    assert not batch.tasks.filter(reader__isnull=False).exists()


@pytest.mark.parametrize("name", ["batch_assign", "batch_reopen", "batch_close"])
def test_only_a_lead_changes_a_batch(client, batch, name):
    client.force_login(factories.make_member(batch.project, Role.REVIEWER))
    assert client.post(reverse(name, args=[batch.pk])).status_code == 403
    client.force_login(factories.make_user())
    assert client.post(reverse(name, args=[batch.pk])).status_code == 404


# Reviews and agreement


@pytest.fixture
def independent(batch):
    """A tile that two readers have read otherwise, and a review that waits."""
    tiles = factories.make_slide(batch.project, tiles=1).tiles.all()
    made = factories.make_batch(batch.project, tiles, policy=ReadingPolicy("independent", readers=2))
    for name, box in (("ann", (0, 10, 10, 40, 40)), ("ben", (1, 10, 10, 40, 40))):
        reader = factories.make_member(batch.project, name=name)
        factories.submit_task(claim_next(batch=made, reader=reader), reader, box, (1, 200, 200, 30, 30))
    return made


def test_a_reviewer_is_offered_the_review_and_an_annotator_is_not(client, independent):
    url, review = (
        reverse("batch", args=[independent.pk]),
        f"{reverse('batch_annotate', args=[independent.pk])}?review=1",
    )
    page = client.get(url).content.decode()
    assert review in page
    assert "0 of 1 reviews done" in page
    assert "2 of 2 readings done" in page
    client.force_login(factories.make_member(independent.project))
    assert review not in client.get(url).content.decode()


def test_a_review_is_kept_for_a_reviewer_when_all_is_read(client, independent):
    reviewer = factories.make_member(independent.project, Role.REVIEWER, name="rosa")
    (review,) = independent.tasks.filter(kind="review")
    page = client.get(reverse("batch", args=[independent.pk])).content.decode()
    assert reverse("batch_assign", args=[independent.pk]) in page
    assert f'name="task" value="{review.pk}"' in page
    assert "1 tile now kept for rosa." in assign(client, independent, reader=reviewer.pk, task=[review.pk])
    skip(task=review, user=reviewer, reason="thick")
    assert (
        reverse("batch_assign", args=[independent.pk])
        not in client.get(reverse("batch", args=[independent.pk])).content.decode()
    )


def test_the_agreement_page_says_how_far_readers_agree(client, independent):
    page = client.get(reverse("batch_agreement", args=[independent.pk])).content.decode()
    assert "ann and ben" in page
    assert "Each tile has 2 readers who do not see each other" in page
    table = client.get(reverse("batch_agreement_csv", args=[independent.pk])).content.decode().splitlines()
    # Two cells, one called otherwise: by chance 1 - (1*0 + 1*2)/4 of 2 would be.
    assert table[0].startswith("first,second,tiles,both,only_first,only_second,detection,")
    assert table[1].startswith("ann,ben,1,2,0,0,1.0,1.0,1.0,0.5,")


def test_a_batch_of_single_readings_has_nothing_to_compare(client, batch):
    page = client.get(reverse("batch_agreement", args=[batch.pk])).content.decode()
    assert "Nothing to compare yet" in page


@pytest.mark.parametrize("name", ["batch_agreement", "batch_agreement_csv"])
def test_agreement_is_for_reviewers(client, independent, name):
    url = reverse(name, args=[independent.pk])
    client.force_login(factories.make_member(independent.project, Role.REVIEWER))
    assert client.get(url).status_code == 200
    client.force_login(factories.make_member(independent.project))
    assert client.get(url).status_code == 403
    client.force_login(factories.make_user())
    assert client.get(url).status_code == 404
