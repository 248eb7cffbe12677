import json
import re
from dataclasses import replace

import pytest

from annotation.taxonomies import (
    PRESETS,
    RESERVED_HOTKEYS,
    ClassSpec,
    TaxonomyError,
    TaxonomySpec,
    check_taxonomy,
    hotkey_label,
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


@pytest.mark.parametrize("key", "fhlnszvw,.[]?+-=/")
def test_a_key_of_the_editor_is_refused(key):
    with pytest.raises(TaxonomyError, match=f"AAA: The editor itself uses the key {re.escape(key)}"):
        check_taxonomy(spec(one(hotkey=key)))


def test_the_space_bar_is_refused_by_its_name():
    with pytest.raises(TaxonomyError, match="uses the key Space"):
        check_taxonomy(spec(one(hotkey=" ")))


@pytest.mark.parametrize("key", ["", "12", "ab", "ä", "É", "²", "!", "_", "\n", 1, None, ["a"]])
def test_what_is_no_digit_and_no_letter_is_no_hotkey(key):
    with pytest.raises(TaxonomyError, match="one digit or one letter"):
        check_taxonomy(spec(one(hotkey=key)))


@pytest.mark.parametrize("key", "FHLNSZVWAQ")
def test_every_letter_is_free_with_shift(key):
    check_taxonomy(spec(one(hotkey=key)))
    assert hotkey_label(key) == f"Shift {key}"


@pytest.mark.parametrize("key", "07aq")
def test_a_key_without_shift_is_its_own_label(key):
    assert hotkey_label(key) == key


def test_a_letter_and_the_same_with_shift_are_two_keys():
    check_taxonomy(spec(one(hotkey="a"), one("BBB", "b cell", "A")))


@pytest.mark.parametrize("colour", ["", "red", "#fff", "#12345", "#1234567", "#12345g", "112233", "#112233\n", None, 7])
def test_a_colour_that_is_none_is_refused(colour):
    with pytest.raises(TaxonomyError, match="AAA: A colour is written #rrggbb"):
        check_taxonomy(spec(one(colour=colour)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"code": "A" * 9}, "code is a text of 1 to 8"),
        ({"code": ""}, "code is a text"),
        ({"name": "x" * 61}, "name is a text of 1 to 60"),
        ({"name": 7}, "name is a text"),
        ({"lineage": None}, "lineage is a text"),
        ({"maturation": -1}, "maturation is a whole number"),
        ({"maturation": True}, "maturation is a whole number"),
        ({"in_ndc": "no"}, "in_ndc is true or false"),
    ],
)
def test_a_fact_that_cannot_be_stored_is_named(fields, words):
    with pytest.raises(TaxonomyError, match=words):
        check_taxonomy(spec(replace(one(), **fields)))


@pytest.mark.parametrize("name", ["", "x" * 101, None])
def test_a_list_needs_a_name_that_can_be_stored(name):
    with pytest.raises(TaxonomyError, match="1 to 100 characters"):
        check_taxonomy(TaxonomySpec(name, (one(),)))


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


def file_of(folder, *hotkeys):
    """A taxonomy file of one class for each hotkey; None leaves the hotkey out."""
    classes = [
        {"code": f"C{number}", "name": f"cell {number}", "colour": "#000000"} | ({"hotkey": key} if key else {})
        for number, key in enumerate(hotkeys)
    ]
    path = folder / "list.json"
    path.write_text(json.dumps({"name": "A lab's list", "classes": classes}), encoding="utf-8")
    return path


def keys_in(path):
    return [one.hotkey for one in read_taxonomy(path).classes]


def test_classes_without_a_hotkey_are_given_the_free_ones_in_order(tmp_path):
    assert keys_in(file_of(tmp_path, None, "q", None, "2", None)) == ["1", "q", "3", "2", "4"]


def test_36_classes_each_get_a_key_of_their_own(tmp_path):
    keys = keys_in(file_of(tmp_path, *[None] * 36))
    assert "".join(keys) == "1234567890abcdegijkmopqrtuxyABCDEFGH"
    assert not set(keys) & RESERVED_HOTKEYS


def test_there_are_keys_for_54_classes_and_no_more(tmp_path):
    assert len(set(keys_in(file_of(tmp_path, *[None] * 54)))) == 54
    with pytest.raises(TaxonomyError, match=r"list\.json: 55 classes: there are keys for 54"):
        read_taxonomy(file_of(tmp_path, *[None] * 55))


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_hotkey_is_none(tmp_path, empty):
    item = {"code": "AAA", "name": "a cell", "colour": "#000000", "hotkey": empty}
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"name": "A lab's list", "classes": [item]}), encoding="utf-8")
    assert keys_in(path) == ["1"]


@pytest.mark.parametrize(
    "content", ['{"name": "x", "classes": [7]}', '{"name": "x", "classes": {"a": 1}}', '{"name": "x", "classes": null}']
)
def test_a_file_whose_classes_are_none_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TaxonomyError, match=r"broken\.json"):
        read_taxonomy(path)


def test_a_file_with_a_key_of_the_editor_is_named_with_the_class(tmp_path):
    with pytest.raises(TaxonomyError, match=r"list\.json: A lab's list: C1: The editor itself uses the key w"):
        read_taxonomy(file_of(tmp_path, "1", "w"))


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"name": "x"}', '{"name": "x", "classes": [{"code": "A"}]}'])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TaxonomyError, match=r"broken\.json"):
        read_taxonomy(path)
