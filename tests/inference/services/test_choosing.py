import pytest

from inference.models import TileScore
from inference.services.choosing import choose_tiles, confirmed_counts
from tests import factories

pytestmark = pytest.mark.django_db


def choose(project, **options):
    values = {"strategy": "random", "size": 4, "seed": 1, "version": None} | options
    return choose_tiles(project=project, on_progress=lambda done, total: None, **values)


def test_without_a_model_the_choice_is_random_and_expects_nothing():
    project = factories.make_project()
    factories.make_slide(project)
    choices, expected = choose(project, strategy="rare")
    assert len({choice.tile_id for choice in choices}) == 4
    assert all("random" in choice.reason for choice in choices)
    assert expected == {}


def test_the_same_seed_gives_the_same_tiles():
    project = factories.make_project()
    factories.make_slide(project)
    assert choose(project)[0] == choose(project)[0]
    assert choose(project)[0] != choose(project, seed=2)[0]


def test_rare_cells_come_first_and_the_reason_names_them():
    project = factories.make_project()
    version = factories.make_version(project, current=True)
    tiles = list(factories.make_slide(project).tiles.all())
    labelled = factories.make_slide(project).tiles.all()
    for tile in labelled:
        factories.make_truth(tile, *[(0, 10 * index, 10, 9, 9) for index in range(20)])
    TileScore.objects.bulk_create(
        TileScore(model_version=version, tile=tile, expected=[0.0, 3.0, 0.0] if tile in tiles[:2] else [5.0, 0.0, 0.0])
        for tile in tiles
    )
    choices, expected = choose(project, strategy="rare", size=3, version=version)
    assert {choice.tile_id for choice in choices[:2]} == {tile.pk for tile in tiles[:2]}
    assert "3.0 erythroblast" in choices[0].reason
    assert expected["1"] == 6.0


def test_only_the_training_patients_boxes_are_counted():
    project = factories.make_project()
    factories.make_truth(factories.make_slide(project).tiles.first(), (0, 1, 2, 30, 40), (1, 1, 2, 30, 40))
    locked = factories.make_slide(project, patient=factories.make_patient(project, locked=True))
    factories.make_truth(locked.tiles.first(), (1, 1, 2, 30, 40))
    assert dict(confirmed_counts(project)) == {0: 1, 1: 1}
