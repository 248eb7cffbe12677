"""Lists of JSON files, entry by entry, wherever the text happens to be cut."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.formats import json_stream
from annotation.formats.json_stream import find_value, stream_list, stream_lists
from annotation.formats.records import FormatError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(json_stream, "_CHUNK", 1)
    return tmp_path / "a.json"


def lists_of(path: Path, limit: int = 1 << 20) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"images": [], "boxes": []}
    for key, entry in stream_lists(path, "a.json", ("images", "boxes"), limit):
        found[key].append(entry)
    return found


@given(images=OBJECTS, boxes=OBJECTS, others=st.dictionaries(st.text(), VALUES, max_size=2), indent=st.integers(0, 2))
def test_every_entry_comes_as_it_was_wherever_the_text_is_cut(
    tmp_path_factory: pytest.TempPathFactory, images: Any, boxes: Any, others: dict[str, Any], indent: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_stream, "_CHUNK", 1)
        path.write_text(json.dumps({**others, "images": images, "boxes": boxes}, indent=indent or None), "utf-8")
        assert lists_of(path) == {"images": images, "boxes": boxes}
        path.write_text(json.dumps(boxes, indent=indent or None), "utf-8-sig")
        assert list(stream_list(path, "a.json", 1 << 20, "tasks")) == boxes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a.json, line 1: the file is not valid JSON"),
        ('{"images": [\n{"a": 1}\n{"a": 2}', "a.json, line 3: the file is not valid JSON (expecting ']')"),
        ('{"images": [{"a": 1},\n]}', "a.json, line 2: the file is not valid JSON"),
        ('{"images": [], "boxes": []', "a.json, line 1: the file is not valid JSON"),
        ('{"images": [], "boxes": []}\n\n1', "a.json, line 3: the file is not valid JSON (extra data)"),
        ('{"images": [], 1: []}', "expecting a name in double quotes"),
        ('{"images" []}', "expecting ':'"),
        ('{"images": [' + "[" * 100_000, "a.json: the file is not valid JSON"),
        ('{"images": [1]}', "a.json: `images` must be a list of objects"),
        ('{"images": {}}', "a.json: `images` must be a list of objects"),
        ('{"images": []}', "a.json: `boxes` must be a list of objects"),
        ("[]", "a.json: `images` must be a list of objects"),
        ("12", "a.json: `images` must be a list of objects"),
        ("rubbish", "a.json, line 1: the file is not valid JSON"),
        (b'{"images": ["\xff"]}', "a.json: the file is not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_named(path: Path, text: str | bytes, reason: str) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FormatError) as caught:
        lists_of(path)
    assert reason in str(caught.value)


def test_a_list_of_something_else_is_refused(path: Path) -> None:
    for text in ("{}", "[1]"):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"a\.json: expected a list of tasks"):
            list(stream_list(path, "a.json", 100, "tasks"))


def test_an_entry_without_end_is_not_read_to_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_MOST", 1 << 20)
    path.write_text('{"images": [{"a": "' + "x" * (3 << 20))
    with pytest.raises(FormatError, match=r"a\.json: an entry is longer than 1 MB"):
        lists_of(path, limit=1 << 30)


def test_a_file_beyond_the_limit_is_refused(path: Path) -> None:
    path.write_text('{"images": [], "boxes": []}' + " " * 100)
    assert lists_of(path, limit=127) == {"images": [], "boxes": []}
    with pytest.raises(FormatError, match=r"a\.json: the file is larger than 0 MB"):
        lists_of(path, limit=126)


def test_a_value_is_found_and_what_comes_after_it_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"a": [1, {"slides": 2}], "b": {"slides": 3}, "slides": {"4": "ff"}, "files": [ this is no JSON')
    assert find_value(path, "manifest.json", "slides", 1000) == {"4": "ff"}
    with pytest.raises(FormatError, match=r"manifest\.json, line 1: the file is not valid JSON"):
        find_value(path, "manifest.json", "c", 1000)
    for text in ("{}", '{"a": 1}'):
        path.write_text(text)
        assert find_value(path, "manifest.json", "slides", 1000) is None
