import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from annotation.models import Annotation, Box
from annotation.services.slides import SlideFacts, import_slide
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(smear):
    project = factories.make_hct_project()
    import_slide(project=project, paths=[smear], name=smear.name, facts=SlideFacts(patient="T01"), user=None)
    return project


def import_truth(project, *paths, **options):
    out = StringIO()
    call_command("import_truth", *map(str, paths), project=project.name, stdout=out, **options)
    return out.getvalue()


def test_it_enters_the_boxes_of_every_tile_that_it_wholly_describes(project, smear):
    out = import_truth(project, smear.with_suffix(".json"))
    tiles = Annotation.objects.count()
    assert f"entered {Box.objects.count()} boxes on {tiles} tiles of 1 slides" in out
    assert Box.objects.count() > 20
    # Thick fields in the top left corner: nobody could count that tile.
    assert 0 < tiles < 9


def test_entered_twice_it_counts_once(project, smear):
    import_truth(project, smear.with_suffix(".json"))
    before = Annotation.objects.count()
    assert "entered 0 boxes" in import_truth(project, smear.with_suffix(".json"))
    assert Annotation.objects.count() == before


def test_it_enters_at_most_so_many_tiles(project, smear):
    import_truth(project, smear.with_suffix(".json"), tiles=3)
    assert Annotation.objects.count() == 3


def test_it_answers_the_waiting_tiles_of_a_batch(project, smear):
    tiles = list(project.slides.get().tiles.all())
    batch = factories.make_batch(project, tiles[4:6], name="Round 1")
    import_truth(project, smear.with_suffix(".json"), batch="Round 1")
    assert {annotation.tile for annotation in Annotation.objects.all()} == set(tiles[4:6])
    assert set(batch.tasks.values_list("state", flat=True)) == {"submitted"}


def test_a_class_that_the_taxonomy_lacks_is_listed_and_nothing_is_entered(smear):
    project = factories.make_project()
    import_slide(project=project, paths=[smear], name=smear.name, facts=SlideFacts(patient="T01"), user=None)
    with pytest.raises(CommandError, match=r"T01\.json: not in the taxonomy.*lymphocyte.*myelocyte"):
        import_truth(project, smear.with_suffix(".json"))
    assert not Annotation.objects.exists()


def test_a_slide_that_is_not_in_the_project_is_named(smear):
    with pytest.raises(CommandError, match=r"its slide T01\.tif is not in"):
        import_truth(factories.make_hct_project(), smear.with_suffix(".json"))


def test_one_broken_file_among_several_enters_nothing(project, smear, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"slide": "T01.tif", "boxes": [["blast", 1, 2, -3, 4]], "field": 128, "zones": []}))
    with pytest.raises(CommandError, match=r"broken\.json"):
        import_truth(project, smear.with_suffix(".json"), broken)
    assert not Annotation.objects.exists()


def test_an_unknown_project_is_named(smear):
    with pytest.raises(CommandError, match="no project Nowhere"):
        call_command("import_truth", str(smear), project="Nowhere")
