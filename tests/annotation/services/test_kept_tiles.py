"""What was read of an import is kept for its later steps, and only used where reading again would find the same."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from django.core.files.storage import default_storage

from annotation.formats.files import FileTree
from annotation.formats.records import FormatError, Problem
from annotation.formats.trees import read_tree
from annotation.models import JobState, Tile
from annotation.services import kept_tiles
from annotation.services.kept_tiles import Facts, ReadAs, box_rules, keep_tiles, opened_kept
from annotation.services.label_imports import discard_import, queue_writing
from tests import factories
from tests.annotation.services.test_label_imports import (
    boxes_of,
    dry_run,
    import_all,
    onto_tile,
    read,
    run,
    stored_files,
    voc,
    yolo,
)

SIZES = {"a": (90, 60), "b": (40, 50)}


def labels(folder, **texts):
    (folder / "classes.txt").write_text("neutrophil\nerythroblast\n")
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return FileTree.of_folder(folder)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "labels").mkdir()
    return tmp_path / "labels"


def kept_from(path, tree, rules="clip"):
    told = []
    read_as = ReadAs("yolo", 1, rules)
    keep_tiles(path, tree, read_as, known_size=SIZES.get, on_progress=told.append)
    return told


@pytest.mark.parametrize("block", [1, 2, 500])
def test_tiles_come_back_as_they_were_read(folder, tmp_path, monkeypatch, block):
    monkeypatch.setattr(kept_tiles, "_BLOCK", block)
    monkeypatch.setitem(SIZES, "c", (64, 64))
    tree = labels(folder, a="0 .5 .5 .25 .5 .1234567890123\n1 .3 .3 .1 .5", b="", c="1 .1 .5 .2 .5")
    told = kept_from(tmp_path / "kept", tree)
    assert told[-1] == 3
    wanted = read_tree(tree, "yolo", known_size=SIZES.get)
    with opened_kept(tmp_path / "kept") as kept:
        blocks = list(kept.blocks())
    assert (kept.facts.classes, kept.facts.tiles, kept.facts.asked) == (wanted.classes, 3, SIZES)
    assert [name for one in blocks for name in one.names] == [tile.name for tile in wanted.tiles]
    assert [size for one in blocks for size in one.sizes] == [(tile.width, tile.height) for tile in wanted.tiles]
    assert [source for one in blocks for source in one.sources] == ["a.txt", "b.txt", "c.txt"]
    assert [count for one in blocks for count in one.counts] == [2, 0, 1]
    boxes = [[np.nan if value is None else value for value in box] for tile in wanted.tiles for box in tile.boxes]
    np.testing.assert_array_equal(np.concatenate([one.rows for one in blocks]), boxes)


def test_boxes_that_were_left_out_or_cut_are_kept_with_their_reasons(folder, tmp_path):
    tree = labels(folder, a="0 1 .5 .5 .5\n0 .5 .5 0 0")
    kept_from(tmp_path / "kept", tree)
    wanted = read_tree(tree, "yolo", known_size=SIZES.get, bad_boxes=box_rules("clip"))
    with opened_kept(tmp_path / "kept") as kept:
        assert (tuple(kept.facts.cut), tuple(kept.facts.left_out)) == (wanted.cut, wanted.left_out)
    assert len(wanted.cut) == len(wanted.left_out) == 1


def test_labels_that_cannot_be_read_raise_what_is_wrong_with_them(folder, tmp_path):
    with pytest.raises(FormatError, match=r"a\.txt, line 1: class 7 is not in the class list"):
        kept_from(tmp_path / "kept", labels(folder, a="7 .5 .5 .5 .5"))
    with opened_kept(tmp_path / "kept") as kept:
        assert kept is None


def rewritten(path, name, change):
    """The same file with another content of one entry."""
    with zipfile.ZipFile(path) as zipped:
        entries = {entry: zipped.read(entry) for entry in zipped.namelist()}
    entries[name] = change(entries[name])
    with zipfile.ZipFile(path, "w") as zipped:
        for entry, content in entries.items():
            zipped.writestr(entry, content)


def test_a_file_that_is_damaged_or_of_another_version_is_not_used(folder, tmp_path):
    path = tmp_path / "kept"
    kept_from(path, labels(folder, a="0 .5 .5 .5 .5"))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b'"names"') + 20] ^= 1
    for content in (whole[:-30], b"", bytes(flipped)):
        path.write_bytes(content)
        with opened_kept(path) as kept:
            assert kept is None
    for change in (lambda text: text.replace(b'"version": 2', b'"version": 1'), lambda text: b"{}", lambda text: b"[]"):
        path.write_bytes(whole)
        rewritten(path, "facts", change)
        with opened_kept(path) as kept:
            assert kept is None
    with opened_kept(tmp_path / "none") as kept:
        assert kept is None


ONE = [Problem("a.txt", "degenerate box", 1)]


@pytest.mark.parametrize(
    ("read_as", "left_out", "cut", "wanted", "same"),
    [
        (ReadAs("voc", 1, "clip"), [], [], ReadAs("voc", 1, "refuse"), True),
        (ReadAs("voc", 1, "clip"), [], [], ReadAs("voc", 0, "clip"), False),
        (ReadAs("voc", 1, "clip"), [], [], ReadAs("cvat", 1, "clip"), False),
        (ReadAs("yolo", 1, "clip"), [], [], ReadAs("yolo", 0, "skip"), True),
        (ReadAs("yolo", 1, "clip"), ONE, [], ReadAs("yolo", 1, "clip"), True),
        (ReadAs("yolo", 1, "clip"), ONE, [], ReadAs("yolo", 1, "skip"), True),
        (ReadAs("yolo", 1, "clip"), ONE, [], ReadAs("yolo", 1, "refuse"), False),
        (ReadAs("yolo", 1, "clip"), [], ONE, ReadAs("yolo", 1, "skip"), False),
        (ReadAs("yolo", 1, "skip"), ONE, [], ReadAs("yolo", 1, "clip"), False),
        (ReadAs("yolo", 1, "skip"), [], [], ReadAs("yolo", 1, "clip"), True),
    ],
)
def test_what_was_read_in_one_way_serves_another_only_if_it_would_be_the_same(read_as, left_out, cut, wanted, same):
    assert Facts(read_as, left_out=left_out, cut=cut).are_of(wanted) is same


# Within an import


@pytest.fixture
def project():
    return factories.make_project()


def gone(job):
    """The upload is no longer there: what asks for it fails."""
    default_storage.delete(job.arguments["file"])
    return job


NEEDS_IT = "labels.zip: the files are gone; upload them again."


@pytest.mark.django_db
def test_a_dry_run_and_an_import_need_the_files_no_more(project):
    job = gone(read(project, onto_tile(project)))
    tried = dry_run(job)
    assert (tried.result["problems"], tried.result["boxes"]) == ([], 1)
    skipped = dry_run(job, {"neutrophil": None}, bad_boxes="skip")
    assert (skipped.result["boxes"], skipped.result["left_out_classes"]) == (0, [{"name": "neutrophil", "boxes": 1}])
    assert run(queue_writing(tried=tried, user=None)).message == "1 box on 1 tile"
    assert boxes_of(Tile.objects.get()) == [(0, 22.5, 15, 45, 30)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("line", "fields"), [("0 1 .5 .5 .5", {"bad_boxes": "refuse"}), ("0 1 .5 .5 .5", {"bad_boxes": "skip"})]
)
def test_files_are_read_again_where_other_settings_would_find_something_else(project, line, fields):
    stem = Path(factories.make_image(project).slide.name).stem
    job = gone(read(project, yolo(line, name=stem, image=False)))
    assert dry_run(job, bad_boxes="clip").result["boxes"] == 1
    failed = dry_run(job, **fields)
    assert (failed.state, failed.message) == (JobState.FAILED, NEEDS_IT)


@pytest.mark.django_db
def test_what_a_dry_run_had_to_read_again_serves_the_import(project):
    stem = Path(factories.make_image(project).slide.name).stem
    job = read(project, {f"{stem}.xml": voc((11, 21, 40, 50))})
    assert job.result["first_pixel"] == 1
    tried = gone(dry_run(job, first_pixel=0))
    assert run(queue_writing(tried=tried, user=None)).message == "1 box on 1 tile"
    assert boxes_of(Tile.objects.get()) == [(0, 11, 21, 29, 29)]
    assert stored_files(project) == []


@pytest.mark.django_db
def test_files_are_read_again_when_the_project_gives_a_tile_another_size(project):
    tile = factories.make_image(project)
    files = yolo("0 .5 .5 .5 .5", name=Path(tile.slide.name).stem, image=False)
    job = read(project, files)
    slide = tile.slide
    name, slide.name = slide.name, "another.png"
    slide.save()
    other = factories.make_image(project, width=120, height=80)
    other.slide.name = name
    other.slide.save()
    written = run(queue_writing(tried=dry_run(job), user=None))
    assert written.message == "1 box on 1 tile"
    assert boxes_of(other) == [(0, 30, 20, 60, 40)]


@pytest.mark.django_db
@pytest.mark.parametrize("spoil", ["deleted", "damaged"])
def test_files_are_read_again_when_what_was_kept_of_them_is_lost(project, spoil):
    job = read(project, onto_tile(project))
    (name,) = [name for name in stored_files(project) if name.endswith(".tiles")]
    path = Path(default_storage.path(f"imports/{project.pk}/{name}"))
    path.unlink() if spoil == "deleted" else path.write_bytes(b"PK")
    tried = dry_run(job)
    assert run(queue_writing(tried=tried, user=None)).message == "1 box on 1 tile"


@pytest.mark.django_db
def test_nothing_is_kept_of_files_that_are_refused_and_of_dry_runs_with_problems(project, settings):
    read(project, yolo("7 .5 .5 .5 .5", name="a"))
    assert [Path(name).suffix for name in stored_files(project)] == [".zip"]
    job = read(project, yolo("0 1 .5 .5 .5"))
    before = stored_files(project)
    assert dry_run(job).result["problems_count"] == 1
    assert sorted(stored_files(project)) == sorted(before)
    assert not list((settings.DATA_DIR / "work").glob("*"))


@pytest.mark.django_db
def test_what_was_kept_goes_with_the_upload(project, settings):
    files = {f"{Path(factories.make_image(project).slide.name).stem}.xml": voc((11, 21, 40, 50))}
    job = read(project, files)
    dry_run(job, first_pixel=0)
    assert len(stored_files(project)) == 3
    discard_import(job=job, user=None)
    assert stored_files(project) == []
    import_all(project, files, first_pixel=0)
    assert stored_files(project) == []
    assert not list((settings.DATA_DIR / "work").glob("*"))
