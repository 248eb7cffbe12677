"""What every label format is written from and read into: tiles with boxes in tile pixels, and the problems of a file.

Pixels are continuous with the origin at the tile's top-left corner: a box covers x to x + width and y to y + height,
and the whole tile is 0 to width by 0 to height. The formats' own conventions are converted at the edge.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SPLITS = ("train", "val", "test")
_SHOWN_PROBLEMS = 20
# Forbidden by Windows or a path anywhere: an export is unpacked on machines we do not know.
_UNSAFE_CHARACTERS = re.compile(r'[\\/:*?"<>|]')
_RESERVED_STEM = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|classes", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the file (relative to the data set's folder), the reason, and the line where known."""

    file: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.reason}"


class FormatError(ValueError):
    """A data set that cannot be read or written. `problems` holds everything found; the message shows the first 20."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = [f"{len(self.problems)} problems:", *(f"- {problem}" for problem in self.problems[:_SHOWN_PROBLEMS])]
        hidden = len(self.problems) - _SHOWN_PROBLEMS
        return "\n".join([*lines, f"and {hidden} more"] if hidden > 0 else lines)


class LabelledBox(NamedTuple):
    """A box in tile px (float, top-left origin); `class_id` is the index into the frozen class list.

    `score` is the model's certainty; an expert's box has none. Only COCO carries it. A tuple, because a data set has a
    million of them.
    """

    class_id: int
    x: float
    y: float
    width: float
    height: float
    score: float | None = None


def name_problem(name: str) -> str | None:
    """Why `name` cannot be the stem of a file on every system, or None when it can."""
    if not name or len(name.encode("utf-8", "replace")) > 200:
        return "a tile's name must have 1 to 200 bytes"
    if not name.isprintable() or _UNSAFE_CHARACTERS.search(name) or name[0] in ". " or name[-1] in ". ":
        return f"{name[:80]!r} is not a safe file name for a tile"
    if _RESERVED_STEM.fullmatch(name):
        return f"{name!r} is reserved and cannot be a tile's name"
    return None


@dataclass(frozen=True)
class LabelledTile:
    """One tile and all its boxes; a tile without boxes is data too. `width` and `height` are px.

    `name` is a safe file stem, `suffix` the ending of its image file, `extra` (JSON values) travels with COCO only.
    Raises FormatError when the name, suffix, split or size cannot be written.
    """

    name: str
    width: int
    height: int
    boxes: tuple[LabelledBox, ...]
    split: str = "train"
    suffix: str = ".jpg"
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        reason = name_problem(self.name)
        if reason is None and not _SUFFIX.fullmatch(self.suffix):
            reason = f"{self.suffix[:20]!r} is not the ending of an image file"
        if reason is None and self.split not in SPLITS:
            reason = f"{self.split!r} is not a split (train, val or test)"
        if reason is None and (self.width < 1 or self.height < 1):
            reason = f"a tile of {self.width} x {self.height} px has no size"
        if reason is not None:
            raise FormatError([Problem(self.name[:80] or "(tile without a name)", reason)])


@dataclass(frozen=True)
class Dataset:
    """What a reader returns: the class names in id order and the tiles, split by split.

    `left_out` lists the boxes that were left out because the caller asked for it, `cut` those that were cut at the
    tile's edge; `unlabelled` names image files that have no label file at all, which says nothing about whether they
    hold cells (an empty label file does), and those that nobody has annotated. `sources` gives each tile's label file
    by the tile's name, for messages. `emptied` names the tiles all of whose boxes were left out; `passed_over` lists
    what was not read, though it is there.
    """

    classes: tuple[str, ...]
    tiles: tuple[LabelledTile, ...]
    left_out: tuple[Problem, ...] = ()
    unlabelled: tuple[str, ...] = ()
    cut: tuple[Problem, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    emptied: tuple[str, ...] = ()
    passed_over: tuple[Problem, ...] = ()
