"""The taxonomies that come with Marrowloop, and the file form of a lab's own.

Colours: 36 hues would not stay apart, so related cells share a hue family and the code is always shown beside the
colour. Hotkeys leave out the letters that the editor itself uses (see docs/editor.md).
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

RESERVED_HOTKEYS = frozenset("fhlnsz,?+-= ")


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
        _granulocyte("NEU", "neutrophil", "#56b4e9", "1", 5),
        _granulocyte("MET", "metamyelocyte", "#0072b2", "2", 4),
        _granulocyte("MYE", "myelocyte", "#4a5fc1", "3", 3),
        _granulocyte("PRO", "promyelocyte", "#8a63d2", "4", 2),
        _granulocyte("BLA", "blast", "#d55e00", "5", 1),
        ClassSpec("ERY", "erythroblast", "#cc3311", "6", "erythroid", in_me_denominator=True),
        ClassSpec("MGN", "megakaryocyte nucleus", "#997700", "7", "megakaryocytic", in_ndc=False),
        ClassSpec("LYM", "lymphocyte", "#009e73", "8", "lymphoid"),
        ClassSpec("MON", "monocyte", "#44aa99", "9", "monocytic"),
        ClassSpec("PLC", "plasma cell", "#117733", "0", "lymphoid"),
        _granulocyte("EOS", "eosinophil", "#e69f00", "e", None),
        ClassSpec("BAS", "basophil", "#a6d854", "b", "granulocytic"),
        ClassSpec("MGK", "megakaryocyte", "#bb9a2f", "m", "megakaryocytic", in_ndc=False),
        ClassSpec("DEB", "debris", "#777777", "d", "", in_ndc=False),
        ClassSpec("HIS", "histiocyte", "#aa4499", "i", "monocytic", in_ndc=False),
        ClassSpec("MAS", "mast cell", "#882255", "t", "mast", in_ndc=False),
        ClassSpec("PLT", "platelet", "#cc79a7", "p", "megakaryocytic", in_ndc=False),
        ClassSpec("CLP", "platelet clump", "#b05a8f", "c", "megakaryocytic", in_ndc=False),
        ClassSpec("OTH", "other cell", "#444444", "o", "", in_ndc=False, ignored_in_training=True),
    ),
)

BLOOD_AND_MARROW = TaxonomySpec(
    "Blood and marrow cells, 10 classes",
    (
        _granulocyte("SEG", "segmented neutrophil", "#56b4e9", "1", 6),
        _granulocyte("BND", "band neutrophil", "#2f8fc4", "2", 5),
        _granulocyte("MET", "metamyelocyte", "#0072b2", "3", 4),
        _granulocyte("MYE", "myelocyte", "#4a5fc1", "4", 3),
        _granulocyte("PRO", "promyelocyte", "#8a63d2", "5", 2),
        ClassSpec("ERY", "erythroblast", "#cc3311", "6", "erythroid", in_me_denominator=True),
        ClassSpec("LYM", "lymphocyte", "#009e73", "7", "lymphoid"),
        ClassSpec("MON", "monocyte", "#44aa99", "8", "monocytic"),
        _granulocyte("EOS", "eosinophil", "#e69f00", "9", None),
        ClassSpec("BAS", "basophil", "#a6d854", "0", "granulocytic"),
    ),
)

PRESETS = {"hct": HCT, "blood-and-marrow": BLOOD_AND_MARROW}


class TaxonomyError(ValueError):
    """A taxonomy that cannot be used; the text says what is wrong with it."""


def read_taxonomy(path: Path) -> TaxonomySpec:
    """Read `{"name": ..., "classes": [{"code", "name", "colour", "hotkey", ...}, ...]}`.

    Raises TaxonomyError naming the file and the reason.
    """
    allowed = {field.name for field in fields(ClassSpec)}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        classes = tuple(
            ClassSpec(**{key: value for key, value in item.items() if key in allowed}) for item in raw["classes"]
        )
        spec = TaxonomySpec(raw["name"], classes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaxonomyError(f"{path.name}: not a taxonomy ({error}).") from error
    check_taxonomy(spec)
    return spec


def check_taxonomy(spec: TaxonomySpec) -> None:
    """Raise TaxonomyError for an empty list, a code, name or hotkey used twice, or a hotkey that the editor needs."""
    if not spec.classes:
        raise TaxonomyError(f"{spec.name}: a taxonomy needs at least one class.")
    for attribute in ("code", "name", "hotkey"):
        values = [getattr(one, attribute) for one in spec.classes]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise TaxonomyError(f"{spec.name}: {attribute} used twice: {', '.join(twice)}.")
    taken = sorted({one.hotkey for one in spec.classes} & RESERVED_HOTKEYS)
    if taken:
        raise TaxonomyError(f"{spec.name}: the editor itself uses the keys {', '.join(taken)}.")
