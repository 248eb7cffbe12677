import stat
import zipfile
from pathlib import Path

import pytest

from annotation.formats.archives import Limits, open_archive
from annotation.formats.reading import read_text
from annotation.formats.records import FormatError


def archive(tmp_path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path = tmp_path / "labels.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in entries:
            zipped.writestr(name, data)
    return path


def refusal(path: Path, tmp_path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(FormatError) as caught, open_archive(path, tmp_path / "out", file="labels.zip", limits=limits):
        pass
    return str(caught.value)


def test_labels_are_read_in_place_and_images_unpacked(tmp_path: Path) -> None:
    entries = [("set/a.txt", b"1"), ("set/labels/b.txt", b"22"), ("set/b.PNG", b"p"), ("__MACOSX/set/._a.txt", b"x")]
    path = archive(tmp_path, *entries)
    seen: list[tuple[int, int]] = []
    with open_archive(path, tmp_path / "out", file="labels.zip", on_progress=lambda *parts: seen.append(parts)) as tree:
        assert tree.names == ["a.txt", "b.PNG", "labels/b.txt"]
        assert read_text(tree.file("labels/b.txt"), "b.txt", 100) == "22"
        assert (tree.folder / "b.PNG").read_bytes() == b"p"
    assert seen == [(1, 1)]
    assert [found.name for found in (tmp_path / "out").rglob("*") if found.is_file()] == ["b.PNG"]


@pytest.mark.parametrize(
    "name", ["../a.txt", "a/../../b.txt", "/etc/a.txt", "C:/a.txt", "a\\..\\b.txt", "a\nb.txt", "a?b"]
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    assert "path" in refusal(archive(tmp_path, ("fine.txt", b"1"), (name, b"1")), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("a.txt")
    entry.external_attr = (kind | 0o777) << 16
    assert "'a.txt': links and devices are not unpacked" in refusal(
        archive(tmp_path, (entry, b"/etc/passwd")), tmp_path
    )


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path, ("a.txt", bytes(3_000_000)))
    limits = Limits(free_bytes=1_000_000)
    assert "it unpacks to more than 100 times its size" in refusal(path, tmp_path, limits)
    assert "unpacked it would be larger than 0 GB" in refusal(path, tmp_path, Limits(total_bytes=2_000_000))
    assert "'a.txt': the file is larger than 1 MB" in refusal(path, tmp_path, Limits(file_bytes=1 << 20))
    assert "1 files: an archive holds at most 0" in refusal(path, tmp_path, Limits(files=0))
    assert not (tmp_path / "out").exists()


def label_refusal(path: Path, tmp_path: Path) -> str:
    with open_archive(path, tmp_path / "labels", file="labels.zip") as tree:
        with pytest.raises(FormatError) as caught:
            read_text(tree.file("a.txt"), "a.txt", 1 << 20)
    return str(caught.value)


def test_a_file_that_is_larger_than_it_says_stops_the_unpacking(tmp_path: Path) -> None:
    path = archive(tmp_path, ("a.txt", b"1" * 5000), ("a.png", b"1" * 5000))
    said, lie = (5000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(said, lie))
    assert "'a.png': the entry is damaged" in refusal(path, tmp_path)
    assert sum(found.stat().st_size for found in (tmp_path / "out").rglob("*")) <= 10
    path.write_bytes(archive(tmp_path, ("a.txt", b"1" * 5000)).read_bytes().replace(said, lie))
    assert "a.txt: the entry is damaged" in label_refusal(path, tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "a.txt"):
        path = archive(tmp_path, (name, bytes(range(256)) * 40))
        content = bytearray(path.read_bytes())
        content[60:90] = bytes(30)
        path.write_bytes(content)
        if name == "a.png":
            assert "'a.png': the entry is damaged" in refusal(path, tmp_path)
        else:
            assert "a.txt: the entry is damaged" in label_refusal(path, tmp_path)
    path.write_bytes(b"no zip")
    assert "labels.zip: the file is not a zip archive" in refusal(path, tmp_path)


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    assert "'a/b': is a file and a folder" in refusal(archive(tmp_path, ("a/b", b"1"), ("a/b/c.txt", b"2")), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    assert "'a.txt': is in the archive twice" in refusal(archive(tmp_path, ("a.txt", b"1"), ("a.txt", b"2")), tmp_path)


def test_an_encrypted_file_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, ("a.txt", b"1"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "'a.txt': the file is encrypted" in refusal(path, tmp_path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("name", ["a.txt", "a.png"])
def test_a_file_that_is_packed_in_a_rare_way_is_refused_damaged_or_not(tmp_path: Path, packing: int, name: str) -> None:
    path = tmp_path / "labels.zip"
    with zipfile.ZipFile(path, "w", packing) as zipped:
        zipped.writestr(name, bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    for data in (content, content[:60] + bytes(30) + content[90:]):
        path.write_bytes(data)
        assert f"'{name}': the file is packed in another way than deflated" in refusal(path, tmp_path)
    assert not (tmp_path / "out").exists()
