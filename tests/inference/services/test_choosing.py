import numpy as np
import pytest

from annotation.models import Tile
from inference.engine.embeddings import DIMENSIONS, pack
from inference.models import TileScore
from inference.services import choosing, pre_labels
from inference.services.choosing import Selection, choose_tiles, confirmed_counts, in_words, summed
from tests import factories
from tests.factories.detector import ToldDetector
from tests.memory import peak_memory

pytestmark = pytest.mark.django_db


def choose(project, *, version=None, seed=1, **options):
    selection = Selection(**({"strategy": "random", "size": 4} | options))
    return choose_tiles(
        project=project, selection=selection, seed=seed, version=version, on_progress=lambda done, total: None
    )


def looks(*axes):
    """Cells that look like these axes of the embeddings."""
    return np.eye(DIMENSIONS, dtype=np.float32)[list(axes)]


def score(version, tile, expected, *, cells=(), doubts=(0.0, 0.0)):
    seen = looks(*cells)
    mean = seen.mean(axis=0) if len(cells) else np.zeros(DIMENSIONS, np.float32)
    return TileScore.objects.create(
        model_version=version,
        tile=tile,
        expected=expected,
        class_doubt=doubts[0],
        cell_doubt=doubts[1],
        embedding=pack(mean[None]),
        cell_embeddings=pack(seen),
    )


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def tiles(project):
    return list(factories.make_slide(project).tiles.all())


@pytest.fixture
def version(project, tiles):
    """A current version; tiles full of neutrophils are confirmed on another slide."""
    for tile in factories.make_slide(project).tiles.all():
        factories.make_truth(tile, *[(0, 10 * index, 10, 9, 9) for index in range(20)])
    return factories.make_version(project, current=True)


def test_cells_that_training_ignores_are_wanted_by_nobody_and_cost_as_much(project, tiles, version):
    ignored = project.taxonomy.classes.get(ignored_in_training=True)
    assert ignored.number == 2
    for tile in tiles:
        score(version, tile, [0, 1, 0])
    TileScore.objects.filter(tile=tiles[3]).update(expected=[0, 1.1, 9])
    TileScore.objects.filter(tile=tiles[5]).update(expected=[0, 1.1, 0])
    chosen = choose(project, strategy="rare", version=version, size=len(tiles), audit=0)
    order = [choice.tile_id for choice in chosen.choices]
    assert (order[0], order[-1]) == (tiles[5].pk, tiles[3].pk)
    assert chosen.expected[tiles[3].pk] == pytest.approx([0, 1.1, 0])


class TestWithoutAModel:
    def test_the_choice_is_random_and_expects_nothing(self, project, tiles):
        chosen = choose(project, strategy="rare")
        assert len({choice.tile_id for choice in chosen.choices}) == 4
        assert all(choice.reason.startswith("random; ") and not choice.audit for choice in chosen.choices)
        assert len(chosen.reserve) == 4
        assert chosen.expected == {}

    def test_the_same_seed_gives_the_same_tiles(self, project, tiles):
        assert choose(project).choices == choose(project).choices
        assert choose(project).choices != choose(project, seed=2).choices

    def test_the_pool_holds_no_locked_labelled_or_waiting_tile(self, project):
        factories.make_slide(project, patient=factories.make_patient(project, locked=True))
        first, second, *free = factories.make_slide(project).tiles.all()
        factories.make_truth(first)
        factories.make_batch(project, [second])
        factories.make_slide(factories.make_project())
        chosen = choose(project, size=99)
        assert {choice.tile_id for choice in chosen.choices} == {tile.pk for tile in free}

    def test_a_slide_that_is_gone_from_the_disk_is_left_out_and_named(self, project, tiles):
        gone = factories.lose_files(factories.make_slide(project, name="gone.svs"))
        chosen = choose(project, size=99)
        assert {choice.tile_id for choice in chosen.choices} == {tile.pk for tile in tiles}
        assert chosen.left_out == [gone.name]

    def test_an_empty_pool_gives_nothing(self, project):
        assert choose(project).choices == []


def test_rare_cells_come_first_and_the_reason_names_them(project, tiles, version):
    for tile in tiles:
        score(version, tile, [0.0, 3.0, 0.0] if tile in tiles[:2] else [5.0, 0.0, 0.0])
    chosen = choose(project, strategy="rare", size=3, version=version)
    rare = [choice for choice in chosen.choices if not choice.audit]
    assert {choice.tile_id for choice in rare} == {tile.pk for tile in tiles[:2]}
    assert "3.0 erythroblast" in rare[0].reason
    assert [chosen.expected[choice.tile_id] for choice in rare] == [[0.0, 3.0, 0.0]] * 2
    assert len(chosen.expected) == len(chosen.choices) + len(chosen.reserve)


def test_tiles_of_a_slide_that_is_gone_are_neither_scored_nor_chosen(project, tiles, version):
    gone = factories.lose_files(factories.make_slide(project, name="gone.svs"))
    for tile in (*tiles, *gone.tiles.all()):
        score(version, tile, [0.0, 1.0, 0.0])
    chosen = choose(project, strategy="rare", size=99, version=version)
    assert {choice.tile_id for choice in chosen.choices} == {tile.pk for tile in tiles}
    assert chosen.left_out == ["gone.svs"]


def test_a_class_that_is_not_trained_on_is_not_rare(project, tiles, version):
    for tile in tiles:
        score(version, tile, [0.0, 0.0, 9.0] if tile == tiles[0] else [0.0, 0.5, 0.0])
    rare = choose(project, strategy="rare", size=8, version=version).choices
    assert tiles[0].pk not in [choice.tile_id for choice in rare if not choice.audit]


def test_quotas_are_by_class_number(project, tiles, version):
    for tile in tiles:
        score(version, tile, [5.0, 0.0, 0.0] if tile == tiles[3] else [0.0, 1.0, 0.0])
    first = next(choice for choice in choose(project, strategy="rare", version=version).choices if not choice.audit)
    assert first.tile_id != tiles[3].pk
    chosen = choose(project, strategy="rare", version=version, quotas={"0": 5})
    assert next(choice for choice in chosen.choices if not choice.audit).tile_id == tiles[3].pk


def test_nothing_is_believed_of_a_tile_that_is_too_full(project, tiles, version):
    for tile in tiles:
        score(version, tile, [0.0, 40.0, 0.0] if tile == tiles[0] else [1.0, 0.0, 0.0], doubts=(9.0, 9.0))
    for strategy in ("rare", "uncertain"):
        chosen = choose(project, strategy=strategy, size=8, version=version)
        assert tiles[0].pk not in [choice.tile_id for choice in chosen.choices if not choice.audit]


def test_doubtful_tiles_come_first(project, tiles, version):
    for number, tile in enumerate(tiles):
        score(version, tile, [1.0, 0.0, 0.0], doubts=(number / 10, 0.0))
    chosen = choose(project, strategy="uncertain", size=3, version=version)
    assert {choice.tile_id for choice in chosen.choices if not choice.audit} == {tiles[7].pk, tiles[8].pk}


def test_tiles_like_the_confirmed_ones_are_not_diverse(project, tiles, version):
    cells = {tiles[0]: (5,), tiles[1]: (6,)}
    for tile in tiles:
        score(version, tile, [1.0, 0.0, 0.0], cells=cells.get(tile, (4,)))
    for tile in project.slides.order_by("pk").last().tiles.all():
        score(version, tile, [1.0, 0.0, 0.0], cells=(4,))
    chosen = choose(project, strategy="diverse", size=3, version=version)
    assert {choice.tile_id for choice in chosen.choices if not choice.audit} == {tiles[0].pk, tiles[1].pk}


@pytest.fixture
def told(monkeypatch):
    """What stands for the version's weights: cells of class 1 look like axis 1, and so on."""
    detector = ToldDetector((1, 100, 100, 40, 40, 0.9), (2, 200, 100, 40, 40, 0.9))
    monkeypatch.setattr(pre_labels, "detector_of", lambda version: detector)
    return detector


class TestExamples:
    @pytest.fixture
    def example(self, project, version, smear):
        """A confirmed tile with a cell of each kind."""
        tile = factories.make_slide(project, tiles=1, file=smear).tiles.get()
        return factories.make_truth(tile, (1, 100, 100, 40, 40), (2, 200, 100, 40, 40))

    @pytest.fixture(autouse=True)
    def _scores(self, version, tiles, example, told):
        for tile in tiles:
            score(version, tile, [1.0, 0.0, 0.0], cells={tiles[2]: (0, 1), tiles[5]: (0, 2)}.get(tile, (0, 7)))

    def test_a_class_is_looked_for_by_its_confirmed_boxes(self, project, tiles, version):
        (choice,) = choose(project, strategy="like", like=[1], size=1, version=version).choices
        assert choice.tile_id == tiles[2].pk
        assert choice.reason.startswith("a cell that looks like erythroblast (similarity 1.00)")

    def test_single_boxes_can_be_looked_for(self, project, tiles, version, example):
        box = example.boxes.get(cell_class__number=2)
        (choice,) = choose(project, strategy="like", like_boxes=[box.pk], size=1, version=version).choices
        assert choice.tile_id == tiles[5].pk
        assert "looks like the ticked cells" in choice.reason

    def test_boxes_of_locked_patients_and_of_other_projects_are_no_examples(self, project, version, example):
        other = factories.make_truth(factories.make_tile(), (2, 200, 100, 40, 40)).boxes.get()
        locked = factories.make_slide(project, patient=factories.make_patient(project, locked=True))
        hidden = factories.make_truth(locked.tiles.first(), (2, 200, 100, 40, 40)).boxes.get()
        chosen = choose(project, strategy="like", like_boxes=[other.pk, hidden.pk], size=3, version=version)
        assert {choice.strategy for choice in chosen.choices} == {"random"}

    def test_in_a_mix_every_strategy_has_its_share(self, project, version):
        mix = {"like": 50, "diverse": 0}
        chosen = choose(project, strategy="mix", mix=mix, like=[1], size=5, audit=20, version=version)
        strategies = sorted((choice.strategy, choice.audit) for choice in chosen.choices)
        assert strategies == [("like", False)] * 2 + [("random", False)] * 2 + [("random", True)]


def test_the_cells_of_a_large_pool_are_never_in_memory_together(project, tiles, version, monkeypatch):
    """2,000 tiles with 24 cells each: their embeddings take 6 MB, and as rows far more."""
    monkeypatch.setattr(choosing, "ROWS", 100)
    monkeypatch.setattr(choosing, "describing_detector", lambda version: None)
    monkeypatch.setattr(choosing, "_examples", lambda *facts: {"erythroblast": looks(3)})
    monkeypatch.setattr(choosing, "_known_tiles", lambda *facts: looks(5))
    for tile in tiles:
        score(version, tile, [1.0, 0.0, 0.0])
    slide = factories.make_slide(project, tiles=0)
    places = [divmod(index, 50) for index in range(2000)]
    many = Tile.objects.bulk_create(
        Tile(slide=slide, row=row, column=column, x=512 * column, y=512 * row, extent=512) for row, column in places
    )
    cells = pack(looks(*range(24)))
    TileScore.objects.bulk_create(
        [
            TileScore(
                model_version=version,
                tile=tile,
                expected=[1.0, 0.1, 0.0],
                class_doubt=1.0,
                embedding=pack(looks(tile.pk % 64)),
                cell_embeddings=cells,
            )
            for tile in many
        ],
        batch_size=200,
    )
    pool = 2000 * len(cells)
    for strategy in ("rare", "uncertain", "diverse", "like"):
        with peak_memory() as peak:
            chosen = choose(project, strategy=strategy, like=[1], size=50, version=version)
        assert len(chosen.choices) == 50
        assert peak.bytes < 0.75 * pool


def test_only_the_training_patients_boxes_are_counted():
    project = factories.make_project()
    factories.make_truth(factories.make_slide(project).tiles.first(), (0, 1, 2, 30, 40), (1, 1, 2, 30, 40))
    locked = factories.make_slide(project, patient=factories.make_patient(project, locked=True))
    factories.make_truth(locked.tiles.first(), (1, 1, 2, 30, 40))
    assert dict(confirmed_counts(project)) == {0: 1, 1: 1}


def test_expected_boxes_are_summed_by_class():
    assert summed([[1.0, 0.25], [0.5, 0.0]]) == {"0": 1.5, "1": 0.25}
    assert summed([]) == {}


def test_a_selection_is_told_by_what_differs():
    assert in_words(Selection(), {}) == [("Selection", "rare cells first"), ("Random audit", "10 %")]
    names = {3: "basophil", 4: "eosinophil"}
    selection = Selection(
        strategy="mix", mix={"rare": 60, "like": 10}, quotas={"3": 20}, patient_cap=9, like=[4], like_boxes=[1, 2]
    )
    assert in_words(selection, names) == [
        ("Selection", "60 % rare cells first, 10 % cells like examples, 30 % random"),
        ("Random audit", "10 %"),
        ("Most of a patient", "9 tiles"),
        ("Quotas", "20 basophil"),
        ("Looks for", "eosinophil, 2 ticked cells"),
    ]
