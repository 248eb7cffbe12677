"""What has been read of an import's label files, in one file, so that the steps that follow parse nothing again.

The file is a zip archive. Its entry `tiles` holds one block after the other: a line of JSON with what is known of some
hundred tiles, then the boxes of all of them as float64 rows. `facts` is JSON: what the files were read with, and what
was found in all of them. It is a copy of what the upload says: where it is missing, damaged, of another version or read
with other settings, the upload is read again.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from annotation.formats.files import FileTree
from annotation.formats.reading import DAMAGE, BadBoxes
from annotation.formats.records import LabelledBox, LabelledTile, Problem
from annotation.formats.trees import images_of, read_tree, slides_of_exports
from annotation.services.annotations import EDGE_TOLERANCE, MAX_BOXES, MIN_SIDE

BOX_COLUMNS = 6  # class id, x, y, width, height (tile px), score (NaN: none)
_VERSION = 2  # another one where what is read, or how it is kept, has changed
_BLOCK = 500  # tiles
_BUFFER = 1 << 20
_ROW_BYTES = 8 * BOX_COLUMNS

KnownSize = Callable[[str], tuple[int, int] | None]
Progress = Callable[[int], None]


def box_rules(choice: str) -> BadBoxes:
    """How the readers treat boxes that cannot be kept, as one of BAD_BOXES says."""
    least = MIN_SIDE - EDGE_TOLERANCE
    return BadBoxes(leave_out=choice != "refuse", cut=choice == "clip", minimum_side=least, most=MAX_BOXES)


@dataclass(frozen=True)
class ReadAs:
    """What decides how label files are read. `bad_boxes`: one of BAD_BOXES; `first_pixel` is of VOC corners only."""

    file_format: str
    first_pixel: int
    bad_boxes: str


@dataclass(frozen=True)
class Block:
    """Some tiles of the files, in the order of reading: one entry of each list, and `counts` rows, are a tile's.

    `sources`: their label files. `sizes`: width and height, px. `slides`: the slides that the files say they are of.
    `rows`: float64 (boxes, BOX_COLUMNS).
    """

    names: list[str]
    sources: list[str]
    sizes: list[tuple[int, int]]
    slides: list[str | None]
    counts: list[int]
    rows: "np.ndarray"


@dataclass
class Facts:
    """What is known of the files as a whole.

    `classes`: the names that the boxes' class ids are places of. `asked`: the sizes that the project gave, by tile
    name, where the files state none. `images`: how many image files there are; `unlabelled`: those without labels.
    `slides`: see `slides_of_exports`; `emptied`, `passed_over`: see `Dataset`.
    """

    read_as: ReadAs
    classes: tuple[str, ...] = ()
    tiles: int = 0
    images: int = 0
    unlabelled: int = 0
    left_out: list[Problem] = field(default_factory=list)
    cut: list[Problem] = field(default_factory=list)
    asked: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    slides: Mapping[str, str] = field(default_factory=dict)
    emptied: list[str] = field(default_factory=list)
    passed_over: list[Problem] = field(default_factory=list)

    def are_of(self, wanted: ReadAs) -> bool:
        """Whether reading the files as wanted would find just the same."""
        one, other = self.read_as, wanted
        if one.file_format != other.file_format or (one.file_format == "voc" and one.first_pixel != other.first_pixel):
            return False
        if one.bad_boxes == other.bad_boxes or not (self.left_out or self.cut):
            return True
        return (one.bad_boxes, other.bad_boxes) == ("clip", "skip") and not self.cut

    def as_json(self) -> str:
        return json.dumps(asdict(self) | {"version": _VERSION})

    @classmethod
    def from_json(cls, text: bytes) -> "Facts | None":
        """None when another version wrote it."""
        values = json.loads(text)
        if values.pop("version") != _VERSION:
            return None
        problems = {name: [Problem(**one) for one in values[name]] for name in ("left_out", "cut", "passed_over")}
        asked = {name: None if size is None else (size[0], size[1]) for name, size in values["asked"].items()}
        given = {"read_as": ReadAs(**values["read_as"]), "classes": tuple(values["classes"]), "asked": asked}
        return cls(**values | problems | given)


class KeptTiles:
    """An open file of tiles that were read."""

    def __init__(self, zipped: zipfile.ZipFile, facts: Facts) -> None:
        self._zipped = zipped
        self.facts = facts

    def blocks(self) -> Iterator[Block]:
        """All tiles, in the order in which they were read."""
        with self._zipped.open("tiles") as entry:
            handle = io.BufferedReader(entry, _BUFFER)  # type: ignore[type-var]  # it can be read from
            while line := handle.readline():
                head = json.loads(line)
                head["sizes"] = [(width, height) for width, height in head["sizes"]]
                content = handle.read(_ROW_BYTES * sum(head["counts"]))
                yield Block(**head, rows=np.frombuffer(content).reshape(-1, BOX_COLUMNS))


@contextmanager
def opened_kept(path: Path) -> Iterator[KeptTiles | None]:
    """The file that `keep_tiles` wrote; None when it is damaged or of another version."""
    try:
        zipped = zipfile.ZipFile(path)
    except (*DAMAGE, OSError):
        yield None
        return
    with zipped:
        try:
            facts = None if zipped.testzip() else Facts.from_json(zipped.read("facts"))
        except (*DAMAGE, OSError, KeyError, TypeError, ValueError):
            facts = None
        yield None if facts is None else KeptTiles(zipped, facts)


def keep_tiles(path: Path, tree: FileTree, read_as: ReadAs, *, known_size: KnownSize, on_progress: Progress) -> None:
    """Read all label files of the tree into a new file, tile by tile.

    `known_size`: see `read_tree`. `on_progress` is told how many tiles are read. Raises FormatError with everything
    found, and leaves a file that is of no use.
    """
    asked: dict[str, tuple[int, int] | None] = {}

    def ask(name: str) -> tuple[int, int] | None:
        asked[name] = known_size(name)
        return asked[name]

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as zipped:
        with zipped.open("tiles", "w", force_zip64=True) as entry:
            writer = _Writer(entry, on_progress)
            dataset = read_tree(
                tree,
                read_as.file_format,
                first_pixel=1 if read_as.first_pixel else 0,
                bad_boxes=box_rules(read_as.bad_boxes),
                known_size=ask,
                keep=writer.add,
            )
            writer.flush()
        facts = Facts(
            read_as=read_as,
            classes=dataset.classes,
            tiles=writer.tiles,
            images=len(images_of(tree, read_as.file_format)),
            unlabelled=len(dataset.unlabelled),
            left_out=list(dataset.left_out),
            cut=list(dataset.cut),
            asked=asked,
            slides=slides_of_exports(tree),
            emptied=list(dataset.emptied),
            passed_over=list(dataset.passed_over),
        )
        zipped.writestr("facts", facts.as_json())


class _Writer:
    """Takes one tile after the other and holds no more than a block of them."""

    def __init__(self, entry: IO[bytes], on_progress: Progress) -> None:
        self._entry, self._on_progress = entry, on_progress
        self.tiles = 0
        self._begin()

    def _begin(self) -> None:
        self._names: list[str] = []
        self._sources: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._slides: list[Any] = []
        self._counts: list[int] = []
        self._boxes: list[LabelledBox] = []

    def add(self, tile: LabelledTile, source: str, names: Sequence[str]) -> None:
        self._names.append(tile.name)
        self._sources.append(source)
        self._sizes.append((tile.width, tile.height))
        self._slides.append(tile.extra.get("slide"))
        self._counts.append(len(tile.boxes))
        self._boxes += tile.boxes
        if len(self._names) == _BLOCK:
            self.flush()

    def flush(self) -> None:
        if not self._names:
            return
        head = {
            "names": self._names,
            "sources": self._sources,
            "sizes": self._sizes,
            "slides": self._slides,
            "counts": self._counts,
        }
        self._entry.write(json.dumps(head).encode() + b"\n")
        self._entry.write(np.array(self._boxes, np.float64).reshape(-1, BOX_COLUMNS).tobytes())  # None becomes NaN
        self.tiles += len(self._names)
        self._begin()
        self._on_progress(self.tiles)
