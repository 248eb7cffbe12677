import json
from dataclasses import replace

import numpy as np
import pytest

from annotation.models import Annotation, Box
from annotation.services.truth import (
    Truth,
    TruthError,
    check_classes,
    countable_tiles,
    enter_truth,
    find_truth_files,
    read_truth,
)
from tests import factories


def truth(*boxes, zones=("mmmmmmmmmmmm",) * 12, row_shift=None):
    """A truth of these (class, x, y, width, height) over 12 x 12 fields of 128 px."""
    places = np.array([box[1:] for box in boxes], dtype=float).reshape(-1, 4)
    names = tuple(box[0] for box in boxes)
    return Truth("T.tif", names, places, 128, tuple(zones), tuple(row_shift or [0] * len(zones)))


# Which tiles are countable


@pytest.mark.parametrize(
    ("fields", "countable"),
    [("mmmm", True), ("mbmm", True), ("bbbb", False), ("mmtm", False), ("mmmd", False), ("tttt", False)],
)
def test_a_tile_is_countable_with_monolayer_and_without_thick_or_debris(fields, countable):
    zones = [fields + "tttttttt"] * 4 + ["tttttttttttt"] * 8
    assert truth(zones=zones).is_countable(0, 0, 512) is countable


def test_a_field_that_a_tile_only_touches_does_not_count():
    zones = ["tmmmmttttttt"] * 12
    assert truth(zones=zones).is_countable(128, 0, 512)
    assert not truth(zones=zones).is_countable(127, 0, 512)
    assert not truth(zones=zones).is_countable(129, 0, 512)


def test_a_shifted_row_is_looked_up_where_it_lies():
    zones = ["mmmmtttttttt"] * 12
    assert not truth(zones=zones, row_shift=[-10] * 12).is_countable(0, 0, 512)
    assert truth(zones=zones, row_shift=[0] * 12).is_countable(0, 0, 512)


def test_an_oblong_image_is_judged_by_both_of_its_sides():
    zones = ["mmmmt"] * 2 + ["ttttt"] * 4
    assert truth(zones=zones).is_countable(0, 0, (512, 256))
    assert not truth(zones=zones).is_countable(0, 0, (512, 257))
    assert not truth(zones=zones).is_countable(0, 0, (513, 256))
    assert truth(zones=zones).has_nothing_to_count(0, 256, (640, 512))


def test_a_tile_beyond_the_zones_is_not_countable():
    assert not truth().is_countable(5000, 5000, 512)


# Entering


@pytest.mark.django_db
def test_a_box_belongs_to_the_tile_with_its_centre_and_is_cut_there():
    slide = factories.make_slide(factories.make_project())
    left, right = slide.tiles.all()[:2]
    entered = enter_truth(
        truth=truth(
            ("neutrophil", 490, 100, 40, 40), ("erythroblast", 500, 200, 40, 40), ("neutrophil", 1400, 1400, 9, 9)
        ),
        tiles=[left, right],
        source="T.json",
    )
    assert entered == 2
    boxes = {
        box.annotation.tile_id: (box.cell_class.code, box.x, box.y, box.width, box.height) for box in Box.objects.all()
    }
    assert boxes == {left.pk: ("NEU", 490, 100, 22, 40), right.pk: ("ERY", 0, 200, 28, 40)}


@pytest.mark.django_db
def test_boxes_are_scaled_to_tile_px():
    slide = factories.make_slide(factories.make_project(), tiles=1, mpp=0.5)
    slide.tiles.update(extent=256)
    enter_truth(truth=truth(("neutrophil", 100, 50, 20, 30)), tiles=list(slide.tiles.all()), source="T.json")
    box = Box.objects.get()
    assert (box.x, box.y, box.width, box.height) == (200, 100, 40, 60)


@pytest.mark.django_db
def test_a_tile_without_boxes_becomes_confirmed_empty():
    tile = factories.make_tile()
    assert enter_truth(truth=truth(), tiles=[tile], source="T.json") == 0
    tile.refresh_from_db()
    assert tile.truth is not None
    assert tile.truth.author.name == "T.json"


@pytest.mark.django_db
def test_entered_twice_it_counts_once():
    tile = factories.make_tile()
    for _ in range(2):
        enter_truth(truth=truth(("neutrophil", 1, 2, 30, 40)), tiles=[tile], source="T.json")
    assert (Annotation.objects.count(), Box.objects.count()) == (1, 1)


@pytest.mark.django_db
def test_unknown_classes_are_all_listed_and_nothing_is_entered():
    tile = factories.make_tile()
    strange = truth(("neutrophil", 1, 2, 30, 40), ("blast", 50, 2, 30, 40), ("ufo", 90, 2, 30, 40))
    with pytest.raises(TruthError, match=r"T\.json: not in the taxonomy Three classes v1: blast, ufo\."):
        enter_truth(truth=strange, tiles=[tile], source="T.json")
    assert not Annotation.objects.exists()
    with pytest.raises(TruthError):
        check_classes(strange, tile.slide.project, "T.json")


@pytest.mark.django_db
def test_tiles_that_have_a_truth_are_left_alone():
    slide = factories.make_slide(factories.make_project())
    first = slide.tiles.first()
    factories.make_truth(first)
    assert first not in countable_tiles(truth(), slide)
    assert len(countable_tiles(truth(), slide)) == 8


# Reading


def test_a_drawn_slides_truth_is_read(smear):
    read = read_truth(smear.with_suffix(".json"))
    raw = json.loads(smear.with_suffix(".json").read_text())
    assert read.slide == "T01.tif"
    assert (len(read.boxes), read.field, len(read.zones)) == (len(raw["boxes"]), 128, 12)
    assert replace(read, zones=()).is_countable(0, 0, 512) is False


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": [["blast", 1, 2, 3]]},
        {"boxes": [["blast", 1, 2, 0, 4]]},
        {"boxes": [["blast", 1, 2, float("nan"), 4]]},
        {"boxes": None},
        {"field": 0},
        {"zones": ["mm"], "row_shift": [0, 0]},
        {"slide": None, "zones": 3},
    ],
)
def test_a_broken_truth_is_named(tmp_path, change):
    path = tmp_path / "broken.json"
    good = {"slide": "T.tif", "boxes": [], "field": 128, "zones": ["mm"], "row_shift": [0]}
    path.write_text(json.dumps(good))
    read_truth(path)
    path.write_text(json.dumps(good | change))
    with pytest.raises(TruthError, match=r"broken\.json"):
        read_truth(path)


def test_text_is_no_truth(tmp_path):
    path = tmp_path / "letter.json"
    path.write_text("Dear colleague")
    with pytest.raises(TruthError, match=r"letter\.json: not a truth file"):
        read_truth(path)


def test_truth_files_are_found_by_their_slides_names(smear):
    assert find_truth_files(smear.parent, ["T01.tif", "other.tif"]) == {"T01.tif": smear.with_suffix(".json")}


def test_a_tile_without_monolayer_has_nothing_to_count():
    zones = ("tdbbmmmm",) * 4
    assert truth(zones=zones).has_nothing_to_count(0, 0, 512)
    assert not truth(zones=zones).has_nothing_to_count(1, 0, 512)
