import pytest

from annotation.services.batches import LockedPatient
from annotation.services.exports import TrainingFacts
from annotation.services.jobs import JobError
from tests import factories
from training.models import Part, Snapshot, SnapshotTile
from training.services.snapshots import check_no_locked_patient, facts_of_newest, take_snapshot

pytestmark = pytest.mark.django_db


def labelled_project(patients=3, tiles=4):
    """Boxes of two classes on the first tiles of each patient's slide."""
    project = factories.make_project()
    for number in range(patients):
        slide = factories.make_slide(project, patient=factories.make_patient(project, f"P{number}"))
        for index, tile in enumerate(slide.tiles.all()[:tiles]):
            factories.make_truth(tile, (index % 2, 10, 20, 30, 40 + number))
    return project


def test_a_snapshot_holds_every_confirmed_tile_with_its_annotation():
    project = labelled_project()
    snapshot = take_snapshot(project=project, seed=0)
    assert snapshot.tiles.count() == 12
    assert all(row.annotation == row.tile.truth for row in snapshot.tiles.all())


def test_no_patient_is_on_both_sides():
    snapshot = take_snapshot(project=labelled_project(), seed=0)
    sides = {
        part: set(snapshot.tiles.filter(part=part).values_list("tile__slide__patient__code", flat=True))
        for part in (Part.TRAIN, Part.VALIDATION)
    }
    assert sides[Part.TRAIN]
    assert sides[Part.VALIDATION]
    assert not sides[Part.TRAIN] & sides[Part.VALIDATION]
    assert ", ".join(sorted(sides[Part.VALIDATION])) in snapshot.split_note


def test_the_same_truth_gives_the_same_snapshot():
    project = labelled_project()
    assert take_snapshot(project=project, seed=0) == take_snapshot(project=project, seed=0)
    assert Snapshot.objects.count() == 1


def test_a_box_that_changed_makes_another_snapshot():
    project = labelled_project()
    first = take_snapshot(project=project, seed=0)
    tile = first.tiles.first().tile
    box = tile.truth.boxes.get()
    factories.make_truth(tile, (box.cell_class.number, box.x + 0.5, box.y, box.width, box.height))
    second = take_snapshot(project=project, seed=0)
    assert second.content_hash != first.content_hash
    assert first.tiles.get(tile=tile).annotation.boxes.get() == box


def test_the_same_boxes_by_another_author_are_the_same_content():
    project = labelled_project()
    first = take_snapshot(project=project, seed=0)
    row = first.tiles.first()
    box = row.annotation.boxes.get()
    factories.make_truth(row.tile, (box.cell_class.number, box.x, box.y, box.width, box.height))
    assert take_snapshot(project=project, seed=0) == first


def test_a_new_class_of_a_box_makes_another_snapshot():
    project = labelled_project()
    first = take_snapshot(project=project, seed=0)
    tile = first.tiles.first().tile
    box = tile.truth.boxes.get()
    factories.make_truth(tile, (2, box.x, box.y, box.width, box.height))
    assert take_snapshot(project=project, seed=0) != first


def test_a_confirmed_empty_tile_is_in():
    project = labelled_project()
    empty = factories.make_slide(project, tiles=1).tiles.get()
    factories.make_truth(empty)
    assert take_snapshot(project=project, seed=0).tiles.filter(tile=empty).exists()


def test_locked_patients_are_left_out():
    project = labelled_project()
    locked = factories.make_slide(project, patient=factories.make_patient(project, "T9", locked=True))
    factories.make_truth(locked.tiles.first(), (0, 1, 2, 30, 40))
    snapshot = take_snapshot(project=project, seed=0)
    assert not snapshot.tiles.filter(tile__slide=locked).exists()
    check_no_locked_patient(snapshot)


def test_training_is_refused_when_a_locked_patient_is_in_the_snapshot():
    project = labelled_project()
    snapshot = take_snapshot(project=project, seed=0)
    locked = factories.make_slide(project, patient=factories.make_patient(project, "T9", locked=True))
    truth = factories.make_truth(locked.tiles.first(), (0, 1, 2, 30, 40))
    SnapshotTile.objects.create(snapshot=snapshot, tile=truth.tile, annotation=truth, part=Part.TRAIN)
    with pytest.raises(LockedPatient, match="Refused to train: patients T9 "):
        check_no_locked_patient(snapshot)


@pytest.mark.parametrize("tiles", [0, 1])
def test_there_must_be_something_to_train_on(tiles):
    with pytest.raises(JobError, match="at least two confirmed tiles"):
        take_snapshot(project=labelled_project(patients=1, tiles=tiles), seed=0)


def test_with_one_patient_the_note_says_that_the_figures_flatter():
    snapshot = take_snapshot(project=labelled_project(patients=1, tiles=9), seed=0)
    assert snapshot.tiles.filter(part=Part.VALIDATION).count() == 1
    assert "flatter" in snapshot.split_note


def test_the_newest_snapshot_says_where_a_tile_is():
    project = labelled_project()
    assert facts_of_newest(project) == TrainingFacts({})
    snapshot = take_snapshot(project=project, seed=0)
    parts = dict(snapshot.tiles.values_list("tile_id", "part"))
    assert facts_of_newest(project) == TrainingFacts(parts, snapshot.content_hash)
