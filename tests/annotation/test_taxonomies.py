import json
import re

import pytest

from annotation.taxonomies import (
    PRESETS,
    RESERVED_HOTKEYS,
    ClassSpec,
    TaxonomyError,
    TaxonomySpec,
    check_taxonomy,
    read_taxonomy,
)


def spec(*classes):
    return TaxonomySpec("A list", classes)


def one(code="AAA", name="a cell", hotkey="1", colour="#112233"):
    return ClassSpec(code, name, colour, hotkey)


@pytest.mark.parametrize("key", PRESETS)
def test_a_preset_is_valid(key):
    check_taxonomy(PRESETS[key])


@pytest.mark.parametrize("key", PRESETS)
@pytest.mark.parametrize("attribute", ["code", "name", "hotkey", "colour"])
def test_no_two_classes_of_a_preset_share(key, attribute):
    values = [getattr(one, attribute) for one in PRESETS[key].classes]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("key", PRESETS)
def test_a_preset_leaves_the_editor_its_keys(key):
    assert not {one.hotkey for one in PRESETS[key].classes} & RESERVED_HOTKEYS


@pytest.mark.parametrize("key", PRESETS)
def test_a_presets_colours_are_written_as_the_pages_need_them(key):
    assert all(re.fullmatch(r"#[0-9a-f]{6}", one.colour) for one in PRESETS[key].classes)


def test_the_papers_list_has_19_classes_and_its_ratio():
    classes = PRESETS["hct"].classes
    assert len(classes) == 19
    over = {one.name for one in classes if one.in_me_numerator}
    assert over == {"blast", "promyelocyte", "myelocyte", "metamyelocyte", "neutrophil", "eosinophil"}
    assert [one.name for one in classes if one.in_me_denominator] == ["erythroblast"]
    assert [one.name for one in classes if one.ignored_in_training] == ["other cell"]


def test_an_empty_list_is_refused():
    with pytest.raises(TaxonomyError, match="at least one class"):
        check_taxonomy(spec())


@pytest.mark.parametrize(
    ("second", "word"),
    [
        (one(name="b cell", hotkey="2"), "code used twice: AAA"),
        (one(code="BBB", hotkey="2"), "name used twice: a cell"),
        (one(code="BBB", name="b cell"), "hotkey used twice: 1"),
    ],
)
def test_what_is_used_twice_is_named(second, word):
    with pytest.raises(TaxonomyError, match=word):
        check_taxonomy(spec(one(), second))


def test_a_key_of_the_editor_is_refused():
    with pytest.raises(TaxonomyError, match="the keys z"):
        check_taxonomy(spec(one(hotkey="z")))


def test_a_file_gives_the_taxonomy_in_its_order(tmp_path):
    path = tmp_path / "list.json"
    classes = [
        {"code": "BBB", "name": "b cell", "colour": "#000000", "hotkey": "2", "remark": "left out"},
        {"code": "AAA", "name": "a cell", "colour": "#111111", "hotkey": "1", "ignored_in_training": True},
    ]
    path.write_text(json.dumps({"name": "A lab's list", "classes": classes}), encoding="utf-8")
    read = read_taxonomy(path)
    assert read.name == "A lab's list"
    assert [(one.code, one.ignored_in_training) for one in read.classes] == [("BBB", False), ("AAA", True)]


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"name": "x"}', '{"name": "x", "classes": [{"code": "A"}]}'])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TaxonomyError, match=r"broken\.json"):
        read_taxonomy(path)
