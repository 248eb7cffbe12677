"""The taxonomies that come with Marrowloop, and the file form of a lab's own.

Colours: related cells share a hue family, the neutrophil series from light to dark as the cells get younger, and all
stay apart for colour-blind readers (tests/annotation/test_colours.py); the code is always shown beside the colour.
A hotkey is one digit or letter; an upper-case letter is that letter with Shift. Hotkeys leave out the keys that the
editor itself uses (see docs/editor.md).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

RESERVED_HOTKEYS = frozenset("fhlnsvwz,.[]?+-=/ ")
# In the order in which classes without a key are given one: the keys that one finger reaches come first.
HOTKEYS = "1234567890" + "".join(key for key in ascii_lowercase if key not in RESERVED_HOTKEYS) + ascii_uppercase
COLOUR = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)
# What the database has room for.
LONGEST_NAME = 100
LENGTHS = {"code": (1, 8), "name": (1, 60), "lineage": (0, 30)}
FLAGS = ("in_ndc", "in_me_numerator", "in_me_denominator", "ignored_in_training")


@dataclass(frozen=True)
class ClassSpec:
    """One cell class of a taxonomy; its number is its place in the list, from 0."""

    code: str
    name: str
    colour: str
    hotkey: str
    lineage: str = ""
    maturation: int | None = None
    in_ndc: bool = True
    in_me_numerator: bool = False
    in_me_denominator: bool = False
    ignored_in_training: bool = False


@dataclass(frozen=True)
class TaxonomySpec:
    name: str
    classes: tuple[ClassSpec, ...]


def _granulocyte(code: str, name: str, colour: str, hotkey: str, maturation: int | None) -> ClassSpec:
    return ClassSpec(code, name, colour, hotkey, "granulocytic", maturation, in_me_numerator=True)


HCT = TaxonomySpec(
    "Bone marrow, 19 classes (Tayebi 2022)",
    (
        _granulocyte("NEU", "neutrophil", "#f7e1ff", "1", 5),
        _granulocyte("MET", "metamyelocyte", "#a694ac", "2", 4),
        _granulocyte("MYE", "myelocyte", "#8c70ff", "3", 3),
        _granulocyte("PRO", "promyelocyte", "#796b9a", "4", 2),
        _granulocyte("BLA", "blast", "#7f01f9", "5", 1),
        ClassSpec("ERY", "erythroblast", "#bf0d02", "6", "erythroid", in_me_denominator=True),
        ClassSpec("MGN", "megakaryocyte nucleus", "#f3cd85", "7", "megakaryocytic", in_ndc=False),
        ClassSpec("LYM", "lymphocyte", "#318c5d", "8", "lymphoid"),
        ClassSpec("MON", "monocyte", "#89fecd", "9", "monocytic"),
        ClassSpec("PLC", "plasma cell", "#56ad8e", "0", "lymphoid"),
        _granulocyte("EOS", "eosinophil", "#d89d2f", "e", None),
        ClassSpec("BAS", "basophil", "#e2fb00", "b", "granulocytic"),
        ClassSpec("MGK", "megakaryocyte", "#ab7c00", "m", "megakaryocytic", in_ndc=False),
        ClassSpec("DEB", "debris", "#576254", "d", "", in_ndc=False),
        ClassSpec("HIS", "histiocyte", "#2f676c", "i", "monocytic", in_ndc=False),
        ClassSpec("MAS", "mast cell", "#db9cfe", "t", "mast", in_ndc=False),
        ClassSpec("PLT", "platelet", "#cb027c", "p", "megakaryocytic", in_ndc=False),
        ClassSpec("CLP", "platelet clump", "#fe637d", "c", "megakaryocytic", in_ndc=False),
        ClassSpec("OTH", "other cell", "#bdc0c1", "o", "", in_ndc=False, ignored_in_training=True),
    ),
)

BLOOD_AND_MARROW = TaxonomySpec(
    "Blood and marrow cells, 10 classes",
    (
        _granulocyte("SEG", "segmented neutrophil", "#f7e1ff", "1", 6),
        _granulocyte("BND", "band neutrophil", "#bcadff", "2", 5),
        _granulocyte("MET", "metamyelocyte", "#a694ac", "3", 4),
        _granulocyte("MYE", "myelocyte", "#8c70ff", "4", 3),
        _granulocyte("PRO", "promyelocyte", "#796b9a", "5", 2),
        ClassSpec("ERY", "erythroblast", "#bf0d02", "6", "erythroid", in_me_denominator=True),
        ClassSpec("LYM", "lymphocyte", "#318c5d", "7", "lymphoid"),
        ClassSpec("MON", "monocyte", "#89fecd", "8", "monocytic"),
        _granulocyte("EOS", "eosinophil", "#d89d2f", "9", None),
        ClassSpec("BAS", "basophil", "#e2fb00", "0", "granulocytic"),
    ),
)

PRESETS = {"hct": HCT, "blood-and-marrow": BLOOD_AND_MARROW}


class TaxonomyError(ValueError):
    """A taxonomy that cannot be used; the text says what is wrong with it."""


def read_taxonomy(path: Path) -> TaxonomySpec:
    """Read `{"name": ..., "classes": [{"code", "name", "colour", "hotkey", ...}, ...]}`.

    A class without a hotkey gets the first one that is free, in the order of HOTKEYS. Raises TaxonomyError naming
    the file and the reason.
    """
    allowed = {field.name for field in fields(ClassSpec)}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        items = _with_hotkeys(raw["classes"])
        classes = tuple(ClassSpec(**{key: value for key, value in item.items() if key in allowed}) for item in items)
        spec = TaxonomySpec(raw["name"], classes)
        check_taxonomy(spec)
    except TaxonomyError as error:
        raise TaxonomyError(f"{path.name}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TaxonomyError(f"{path.name}: not a taxonomy ({error}).") from error
    return spec


def _with_hotkeys(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The classes of a file, each with a hotkey; raises TaxonomyError where there are not enough."""
    if len(items) > len(HOTKEYS):
        raise TaxonomyError(f"{len(items)} classes: there are keys for {len(HOTKEYS)}.")
    taken = {item.get("hotkey") for item in items}
    free = iter([key for key in HOTKEYS if key not in taken])
    return [item | {"hotkey": next(free)} if item.get("hotkey") in (None, "") else item for item in items]


def check_taxonomy(spec: TaxonomySpec) -> None:
    """Raise TaxonomyError for an empty list, a code, name or hotkey used twice, a hotkey that the editor needs or that
    is no digit or letter, a colour that is not #rrggbb, or a fact that the database cannot store.
    """
    if not isinstance(spec.name, str) or not 0 < len(spec.name) <= LONGEST_NAME:
        raise TaxonomyError(f"A taxonomy's name is a text of 1 to {LONGEST_NAME} characters, not {spec.name!r}.")
    if not spec.classes:
        raise TaxonomyError(f"{spec.name}: a taxonomy needs at least one class.")
    for one in spec.classes:
        problem = _fact_problem(one) or hotkey_problem(one.hotkey) or colour_problem(one.colour)
        if problem:
            raise TaxonomyError(f"{spec.name}: {one.code}: {problem}")
    for attribute in ("code", "name", "hotkey"):
        values = [getattr(one, attribute) for one in spec.classes]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise TaxonomyError(f"{spec.name}: {attribute} used twice: {', '.join(twice)}.")


def hotkey_problem(key: object) -> str:
    """Why this cannot be a class's hotkey, as a sentence; empty if it can."""
    if isinstance(key, str) and len(key) == 1 and key in HOTKEYS:
        return ""
    if isinstance(key, str) and key in RESERVED_HOTKEYS:
        return f"The editor itself uses the key {'Space' if key == ' ' else key}."
    return f"A hotkey is one digit or one letter from a to z or A to Z, not {key!r}."


def colour_problem(colour: object) -> str:
    """Why this cannot be a class's colour, as a sentence; empty if it can."""
    good = isinstance(colour, str) and COLOUR.fullmatch(colour)
    return "" if good else f"A colour is written #rrggbb, such as #cc3311, not {colour!r}."


def hotkey_label(key: str) -> str:
    """What to press, in words."""
    return f"Shift {key}" if key.isupper() else key


def _fact_problem(one: ClassSpec) -> str:
    for attribute, (shortest, longest) in LENGTHS.items():
        text = getattr(one, attribute)
        if not isinstance(text, str) or not shortest <= len(text) <= longest:
            return f"Its {attribute} is a text of {shortest} to {longest} characters, not {text!r}."
    if one.maturation is not None and not (type(one.maturation) is int and 0 <= one.maturation < 1000):
        return f"Its maturation is a whole number from 0 to 999, not {one.maturation!r}."
    wrong = [name for name in FLAGS if not isinstance(getattr(one, name), bool)]
    return f"Its {wrong[0]} is true or false, not {getattr(one, wrong[0])!r}." if wrong else ""
