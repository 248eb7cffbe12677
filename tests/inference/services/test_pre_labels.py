import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from django.core.files.storage import default_storage
from django.db import connection, transaction
from PIL import Image

from annotation.models import Annotation, Box, Draft, Task, Tile
from annotation.services.annotations import parse_boxes
from annotation.services.batches import claim_next
from annotation.services.tiles import read_tile
from annotation.slides.reader import SlideError
from inference.engine.embeddings import unpack
from inference.models import TileScore
from inference.services import pre_labels
from inference.services.pre_labels import detect_tiles, pre_label_batch, score_tiles
from tests import factories
from tests.factories.detector import ToldDetector

pytestmark = pytest.mark.django_db


@pytest.fixture
def batch(smear):
    project = factories.make_project()
    return factories.make_batch(project, factories.make_slide(project, file=smear).tiles.all())


@pytest.fixture
def version(batch):
    return factories.make_version(batch.project, current=True)


@pytest.fixture
def told(monkeypatch):
    """Let this detector stand for every version's weights."""

    def tell(*found):
        detector = ToldDetector(*found)
        monkeypatch.setattr(pre_labels, "detector_of", lambda version: detector)
        return detector

    return tell


def label(batch, version):
    return pre_label_batch(batch=batch, version=version, on_progress=lambda done, total: None)


def test_every_open_task_gets_the_versions_boxes(batch, version, told):
    told((1, 10, 20, 30, 40, 0.9), (0, 100, 100, 50, 50, 0.1))
    assert label(batch, version) == 9
    for task in batch.tasks.all():
        box = task.pre_label.boxes.get()  # the second is below the score that is shown to readers
        assert (box.cell_class.number, box.x, box.y, box.width, box.height) == (1, 10, 20, 30, 40)
        assert (box.score, box.class_scores) == (0.9, [0.09, 0.9, 0.09])
        assert task.pre_label.author == version.author
    assert not batch.tasks.filter(tile__truth__isnull=False).exists()


def test_boxes_are_shown_from_the_score_of_the_version(batch, version, told):
    version.config["shown_from"] = 0.08
    told((1, 10, 20, 30, 40, 0.09), (0, 100, 100, 50, 50, 0.07))
    label(batch, version)
    assert [box.score for box in batch.tasks.first().pre_label.boxes.all()] == [0.09]


def test_what_a_young_version_expects_is_on_the_scale_of_the_others(batch, version, told):
    tiles = list(batch.project.slides.get().tiles.values_list("pk", flat=True))
    told((1, 10, 20, 30, 40, 0.25))
    score_tiles(tile_ids=tiles, version=version, on_progress=lambda done, total: None)
    young = factories.make_version(batch.project)
    young.config["shown_from"] = 0.0625
    told((1, 10, 20, 30, 40, 0.0625))  # half as far down on the scale of logarithms
    score_tiles(tile_ids=tiles, version=young, on_progress=lambda done, total: None)
    expected = [sum(TileScore.objects.filter(model_version=one).first().expected) for one in (version, young)]
    assert expected == pytest.approx([0.25, 0.25], abs=1e-3)


def test_labelled_again_nothing_is_new(batch, version, told):
    detector = told((1, 10, 20, 30, 40, 0.9))
    label(batch, version)
    assert label(batch, version) == 0
    assert (detector.tiles, Annotation.objects.count()) == (9, 9)


def test_a_labelling_that_was_killed_goes_on_where_it_stopped(batch, version, told, monkeypatch):
    told((1, 10, 20, 30, 40, 0.9))
    monkeypatch.setattr(pre_labels, "CHUNK", 4)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pre_label_batch(batch=batch, version=version, on_progress=stop)
    assert label(batch, version) == 5
    assert Annotation.objects.count() == 9
    assert batch.tasks.filter(pre_label=None).count() == 0


def test_what_somebody_begins_meanwhile_keeps_what_they_were_shown(batch, version, told):
    told((1, 10, 20, 30, 40, 0.9))
    reader = factories.make_member(batch.project)
    leased = []

    def begin(done, total):
        if not leased:
            leased.append(claim_next(batch=batch, reader=reader))

    pre_label_batch(batch=batch, version=version, on_progress=begin)
    assert batch.tasks.get(pre_label=None) == leased[0]


@pytest.mark.django_db(transaction=True)
def test_what_somebody_begins_at_the_last_moment_keeps_what_they_were_shown(smear, told):
    """Their lease is not yet committed when the boxes are given out; on PostgreSQL its row is then waited for."""
    told((1, 10, 20, 30, 40, 0.9))
    project = factories.make_project()
    batch = factories.make_batch(project, factories.make_slide(project, file=smear).tiles.all())
    version, reader = factories.make_version(project, current=True), factories.make_member(project)
    leased = threading.Event()

    def begin():
        try:
            with transaction.atomic():
                claim_next(batch=batch, reader=reader)
                leased.set()
                wait_until_waited_for()
        finally:
            connection.close()

    thread = threading.Thread(target=begin)
    thread.start()
    assert leased.wait(10)
    label(batch, version)
    thread.join()
    assert batch.tasks.get(pre_label=None).state == "leased"


def wait_until_waited_for():
    """At most 5 seconds; SQLite cannot tell, and lets nobody write anyway."""
    for _ in range(100 if connection.vendor == "postgresql" else 1):
        time.sleep(0.05)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))")
                if cursor.fetchone():
                    return


def test_a_draft_that_waits_keeps_the_boxes_that_it_began_with(batch, version, told):
    told((1, 10, 20, 30, 40, 0.9))
    task = batch.tasks.first()
    Draft.objects.create(
        task=task, user=factories.make_member(batch.project), sequence=1, revision=0, boxes=[], effort={}
    )
    label(batch, version)
    assert batch.tasks.get(pre_label=None) == task


def test_two_readings_of_a_tile_share_its_pre_label(batch, version, told):
    detector = told((1, 10, 20, 30, 40, 0.9))
    first = batch.tasks.first()
    second = Task.objects.create(batch=batch, tile=first.tile, position=99, replica=1)
    assert label(batch, version) == 9
    first.refresh_from_db()
    second.refresh_from_db()
    assert (detector.tiles, second.pre_label) == (9, first.pre_label)


def test_another_versions_pre_labels_are_not_mixed_in(batch, version, told):
    told((1, 10, 20, 30, 40, 0.9))
    label(batch, version)
    newer = factories.make_version(batch.project, current=True)
    assert label(batch, newer) == 9
    assert all(task.pre_label.author == newer.author for task in batch.tasks.all())


def test_what_somebody_has_begun_is_left_alone(batch, version, told):
    told((1, 10, 20, 30, 40, 0.9))
    leased = claim_next(batch=batch, reader=factories.make_user())
    assert label(batch, version) == 8
    leased.refresh_from_db()
    assert leased.pre_label is None


def test_boxes_are_cut_at_the_tile_and_slivers_are_left_out(batch, version, told):
    told((0, -10, -10, 30, 40, 0.9), (0, 500.004, 500.004, 40, 40, 0.8), (1, 511.5, 0, 40, 40, 0.7))
    label(batch, version)
    task = batch.tasks.first()
    assert [(box.x, box.y, box.width, box.height) for box in task.pre_label.boxes.all()] == [
        (0, 0, 20, 30),
        (500, 500, 12, 12),
    ]


def test_a_pre_label_can_be_confirmed_as_it_is(batch, version, told):
    told((0, 100.005, 3.335, 600, 600, 0.9), (1, 0.005, 0.015, 2.004, 2.004, 0.9))
    label(batch, version)
    task = batch.tasks.first()
    boxes = [
        factories.box_json(box.cell_class.number, box.x, box.y, box.width, box.height, origin=box.pk)
        for box in task.pre_label.boxes.all()
    ]
    assert len(parse_boxes(boxes, task=task)) == 2


@pytest.fixture
def images(tmp_path):
    """A batch of plain images: two small ones of different shapes, and one large enough for six windows."""
    project = factories.make_project()
    tiles = []
    for width, height in ((90, 60), (1200, 600), (64, 64)):
        path = tmp_path / f"{width}.png"
        Image.effect_noise((width, height), 60).convert("RGB").save(path)
        tiles.append(factories.make_image(project, width=width, height=height, file=path))
    return factories.make_batch(project, tiles)


def test_images_of_several_sizes_get_their_boxes(images, told):
    version = factories.make_version(images.project, current=True)
    detector = told((1, 100, 20, 30, 40, 0.9), (0, 5, 6, 20, 30, 0.8))
    assert label(images, version) == 3
    assert detector.tiles == 2 + 6
    boxes = {
        (task.tile.width, task.tile.height): sorted((box.x, box.y) for box in task.pre_label.boxes.all())
        for task in images.tasks.all()
    }
    # Beyond the edge of the small ones there is nothing; each window of the large one adds its own place.
    assert boxes[90, 60] == boxes[64, 64] == [(5, 6)]
    corners = [(x, y) for x in (0, 344, 688) for y in (0, 88)]
    assert boxes[1200, 600] == sorted((x + dx, y + dy) for x, y in corners for dx, dy in ((5, 6), (100, 20)))


def test_the_large_image_is_scored_by_all_of_its_windows(images, told):
    version = factories.make_version(images.project, current=True)
    told((1, 20, 20, 30, 40, 0.5))
    score(images, version)
    expected = {score.tile.width: score.expected[1] for score in TileScore.objects.select_related("tile")}
    one = pytest.approx(0.5 * 100 / 102, abs=1e-3)
    assert expected == {90: one, 64: one, 1200: pytest.approx(6 * 0.5 * 100 / 102, abs=1e-3)}


def test_large_images_go_through_the_detector_few_at_a_time(images, told, monkeypatch):
    monkeypatch.setattr(pre_labels, "CHUNK_PIXELS", 90 * 60)
    told((1, 20, 20, 30, 40, 0.5))
    tiles = [task.tile for task in images.tasks.order_by("pk")]
    chunks = [some for some, _ in detect_tiles(ToldDetector(), tiles, min_score=0.1)]
    assert [len(some) for some in chunks] == [1, 1, 1]
    assert [tile for some in chunks for tile in some] == tiles


def test_reading_asks_the_database_for_nothing(images, django_assert_num_queries):
    """The threads that read would each open a connection of their own, which sees no open transaction."""
    tiles = list(Tile.objects.filter(slide__project=images.project).order_by("pk"))
    with django_assert_num_queries(1):  # for the slides, before anything is read
        found = [len(some) for _, some in detect_tiles(ToldDetector(), tiles, min_score=0.1)]
    assert found == [3]


def test_a_slide_that_is_gone_says_so(images, told):
    told()
    version = factories.make_version(images.project, current=True)
    default_storage.delete(images.tasks.first().tile.slide.files[0])
    with pytest.raises(SlideError, match="missing from storage"):
        label(images, version)


def test_no_more_boxes_are_drawn_than_can_be_submitted(images, told, monkeypatch):
    monkeypatch.setattr(pre_labels, "MAX_BOXES", 4)
    version = factories.make_version(images.project, current=True)
    told((1, 20, 20, 30, 40, 0.5), (0, 60, 20, 20, 30, 0.9))
    label(images, version)
    large = images.tasks.get(tile__width=1200).pre_label
    assert [box.score for box in large.boxes.all()] == [0.9] * 4


def score(batch, version):
    keys = list(batch.tasks.values_list("tile", flat=True))
    return score_tiles(tile_ids=keys, version=version, on_progress=lambda done, total: None)


def test_the_pools_tiles_are_scored_once(batch, version, told):
    detector = told((1, 10, 20, 30, 40, 0.5), (1, 100, 20, 30, 40, 0.3))
    assert score(batch, version) is detector
    assert score(batch, version) is None
    assert (detector.tiles, TileScore.objects.count(), Box.objects.count()) == (9, 9, 0)
    assert TileScore.objects.first().expected == pytest.approx([0.8 / 102, 0.8 * 100 / 102, 0.8 / 102], abs=1e-4)


def test_a_score_tells_doubts_and_what_the_cells_look_like(batch, version, told):
    told((1, 10, 20, 30, 40, 0.5), (0, 100, 20, 30, 40, 0.3))
    score(batch, version)
    found = TileScore.objects.first()
    # The doubt about being a cell: 0 at twice the threshold of 0.25, and 1 - 0.05 / 0.25 at 0.3.
    assert found.cell_doubt == pytest.approx(0.8)
    # Each class vector is 1/12, 10/12, 1/12: an entropy of 0.515 by one of three, a margin of 0.75.
    assert found.class_doubt == pytest.approx((0.5 + 0.3) * (0.515 + 0.25) / 2, abs=2e-3)
    cells = unpack(found.cell_embeddings)
    assert cells.shape == (2, 64)
    assert cells[0, 1] == cells[1, 0] == 1
    assert unpack(found.embedding)[0, :2] == pytest.approx([0.3 / 0.8, 0.5 / 0.8], abs=1e-3)


def test_a_tile_without_a_cell_is_scored_too(batch, version, told):
    detector = told()
    score(batch, version)
    score(batch, version)
    assert detector.tiles == 9
    assert not unpack(TileScore.objects.first().embedding).any()
    assert unpack(TileScore.objects.first().cell_embeddings).shape == (0, 64)


def test_a_score_of_before_there_were_embeddings_is_made_again(batch, version, told):
    tiles = [task.tile for task in batch.tasks.all()]
    TileScore.objects.bulk_create(TileScore(model_version=version, tile=tile, expected=[9, 9, 9]) for tile in tiles)
    told((1, 10, 20, 30, 40, 0.5))
    score(batch, version)
    assert TileScore.objects.count() == 9
    assert TileScore.objects.first().expected[1] == pytest.approx(0.5 * 100 / 102, abs=1e-4)


def test_only_the_version_that_chose_last_keeps_its_embeddings(batch, version, told):
    told((1, 10, 20, 30, 40, 0.5))
    score(batch, version)
    newer = factories.make_version(batch.project, current=True)
    score(batch, newer)
    assert version.tile_scores.filter(embedding=None, cell_embeddings=None).count() == 9
    assert newer.tile_scores.exclude(embedding=None).exclude(cell_embeddings=None).count() == 9


def test_a_detector_without_embeddings_gets_those_of_the_default_backbone(batch, version, monkeypatch):
    told = ToldDetector((1, 100, 200, 60, 60, 0.5), (0, 300, 300, 60, 60, 0.4))

    class Plain:
        classes = told.classes

        def detect(self, tiles, **options):
            return [replace(one, embeddings=None) for one in told.detect(tiles, **options)]

    monkeypatch.setattr(pre_labels, "detector_of", lambda version: Plain())
    detector = score(batch, version)
    first, second = TileScore.objects.order_by("tile__row", "tile__column")[:2]
    assert unpack(first.cell_embeddings).shape == (2, 64)
    assert not np.allclose(unpack(first.cell_embeddings), unpack(second.cell_embeddings), atol=0.1)
    # The same place again looks the same.
    seen = detector.describe(read_tile(first.tile), [(100, 200, 60, 60)])
    assert seen[0] == pytest.approx(unpack(first.cell_embeddings)[0], abs=0.02)


def test_the_rows_of_a_large_pool_come_by_and_by(batch, version, told, monkeypatch):
    monkeypatch.setattr(pre_labels, "ROWS", 4)
    monkeypatch.setattr(pre_labels, "CHUNK", 2)
    told((1, 10, 20, 30, 40, 0.5))
    seen = []
    keys = list(batch.tasks.values_list("tile", flat=True))
    score_tiles(tile_ids=keys, version=version, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]
    assert TileScore.objects.count() == 9
