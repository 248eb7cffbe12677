import pytest

from annotation.models import BatchState
from annotation.selectors import pool_of, tile_states
from annotation.services.annotations import skip
from annotation.services.batches import claim_next, close_batch
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def slide():
    return factories.make_slide(factories.make_project(), tiles=4)


def test_what_nobody_read_goes_back_to_the_pool_when_its_batch_is_closed(slide):
    project, reader = slide.project, factories.make_user()
    *_, leased, waiting = slide.tiles.all()
    batch = factories.make_batch(project, slide.tiles.all())
    factories.submit_task(claim_next(batch=batch, reader=reader), reader)
    skip(task=claim_next(batch=batch, reader=reader), user=reader, reason="out of focus")
    assert claim_next(batch=batch, reader=reader).tile == leased
    assert list(pool_of(project)) == []
    close_batch(batch=batch)
    assert list(pool_of(project)) == [leased, waiting]
    assert [state for _, state in tile_states(slide)] == ["empty", "skipped", "unlabelled", "unlabelled"]


def test_a_tile_of_a_second_batch_is_not_in_the_pool(slide):
    close_batch(batch=factories.make_batch(slide.project, slide.tiles.all()))
    factories.make_batch(slide.project, slide.tiles.all()[:3])
    assert list(pool_of(slide.project)) == [slide.tiles.last()]


def test_a_batch_given_up_before_it_was_opened_gives_its_tiles_back(slide):
    batch = factories.make_batch(slide.project, slide.tiles.all(), state=BatchState.DRAFT)
    assert pool_of(slide.project).count() == 0
    assert close_batch(batch=batch)
    assert pool_of(slide.project).count() == 4
    assert not close_batch(batch=batch)
