import hashlib
import json
import time
import zipfile
from pathlib import Path

import pytest

from annotation.formats.archive import ArchiveWriter
from annotation.formats.crops import class_folder, write_crops
from annotation.formats.records import FormatError, LabelledBox, LabelledTile
from tests.annotation.formats.made_tiles import CLASSES, snapshot, some_tiles


def fill(path: Path) -> None:
    with ArchiveWriter(path) as archive:
        archive.make_folder("images")
        with archive.open_text("grown/ä.txt") as handle:
            archive.write("a.txt", "Ä\n")
            handle.write("late\n" * 1000)
        archive.write("images/b.jpg", b"\xff\xd8" * 500)
        archive.add_manifest({"name": "x"})


def test_it_packs_files_folders_and_a_manifest(tmp_path: Path) -> None:
    fill(tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["images/", "a.txt", "images/b.jpg", "grown/ä.txt", "manifest.json"]
        manifest = json.loads(archive.read("manifest.json"))
        contents = {name: archive.read(name) for name in archive.namelist()[1:-1]}
    assert manifest == {
        "name": "x",
        "files": [
            {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in contents.items()
        ],
    }


def test_an_archive_of_nothing_has_a_manifest(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.zip") as archive:
        archive.add_manifest({"name": "x"})
    assert json.loads(zipfile.ZipFile(tmp_path / "a.zip").read("manifest.json")) == {"name": "x", "files": []}


def test_time_and_time_zone_do_not_change_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = set()
    for zone in ("UTC", "Pacific/Auckland", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        fill(tmp_path / "a.zip")
        contents.add((tmp_path / "a.zip").read_bytes())
    monkeypatch.undo()
    time.tzset()
    assert len(contents) == 1
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"older")

    def fail() -> None:
        with ArchiveWriter(path) as archive:
            archive.write("a.txt", "a")
            raise OSError("the slide is gone")

    with pytest.raises(OSError, match="the slide is gone"):
        fail()
    assert [one.name for one in tmp_path.iterdir()] == ["a.zip"]
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize(
    ("number", "name", "folder"),
    [
        (3, "promyelocyte", "03_promyelocyte"),
        (0, "érythroblaste (early)", "00_erythroblaste-early"),
        (12, "../etc", "12_etc"),
        (7, "骨髓", "07"),
    ],
)
def test_a_class_has_a_folder_of_a_safe_name(number: int, name: str, folder: str) -> None:
    assert class_folder(number, name) == folder


def test_crops_are_written_by_class_with_their_table(tmp_path: Path) -> None:
    written = write_crops(tmp_path, some_tiles(), CLASSES, crops=lambda tile: [b"png"] * len(tile.boxes))
    files = snapshot(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in written} == set(files)
    boxes = sum(len(tile.boxes) for tile in some_tiles())
    assert len([name for name in files if name.endswith(".png")]) == boxes
    assert len(files["manifest.csv"].splitlines()) == boxes + 1
    assert "00_blast/S1.tile (1)_001.png" in files
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == len(CLASSES)


def test_crops_of_a_bad_box_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    bad = LabelledTile("bad", 64, 64, (LabelledBox(0, 1, 1, 0, 0),))
    with pytest.raises(FormatError, match="degenerate box"):
        write_crops(tmp_path, [bad], CLASSES, crops=lambda tile: [b"png"])
    assert list(tmp_path.iterdir()) == []
