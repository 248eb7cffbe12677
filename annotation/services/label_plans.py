"""What an import of annotations would do: each label file's tile, boxes and class, and all that speaks against it.

A plan is made anew for the dry run and for the import itself, from the same files and settings, and writes nothing.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from annotation.formats.files import FileTree
from annotation.formats.reading import BadBoxes, ImageTree
from annotation.formats.records import FormatError, LabelledTile, Problem
from annotation.formats.trees import read_tree
from annotation.models import Annotation, BatchState, Project, Slide, Task, TaskKind, TaskState, Tile, Tiling
from annotation.services.annotations import EDGE_TOLERANCE, MAX_BOXES, MIN_SIDE
from annotation.services.exports import place_name
from annotation.services.slides import CheckedSlide, SlideFacts, check_slide
from annotation.services.storage import sha256_of
from annotation.slides.reader import SlideError

BECOMES = {
    "truth": "the tiles' truth",
    "reader": "a reader's annotations",
    "pre-labels": "pre-labels",
}
TARGETS = {
    "existing": "tiles that the project has",
    "new": "tiles that the project has, and new ones from the images of the upload",
}
BAD_BOXES = {
    "refuse": "refuse the import",
    "skip": "leave such boxes out",
    "clip": "cut boxes at the tile's edge, leave out those without an area",
}
_MOST_PROBLEMS = 1000
_LISTED = 200
_CHUNK = 2000
# What is kept of a planned box's columns in its annotation's UUID: a box that differs less is the same box.
_ROUNDED = np.array([1, 1000, 1000, 1000, 1000, 1e6])

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class ImportSettings:
    """What the lead says of an import.

    `classes`: for each class name of the files the number of a class, or None to leave its boxes out.
    `reader`: the key of the user whose annotations they become. `leave_out_unmatched`: labels without a tile do no
    harm. `patient`: of new images; empty: each file's name.
    """

    file_format: str
    classes: Mapping[str, int | None]
    becomes: str = "truth"
    targets: str = "existing"
    first_pixel: int = 1
    bad_boxes: str = "refuse"
    leave_out_unmatched: bool = False
    reader: int | None = None
    patient: str = ""

    def __post_init__(self) -> None:
        known = (self.becomes in BECOMES, self.targets in TARGETS, self.bad_boxes in BAD_BOXES)
        if not all(known) or self.first_pixel not in (0, 1):
            raise ValueError("There is no such way to import annotations.")
        if (self.becomes == "reader") != (self.reader is not None):
            raise ValueError("A reader is named for a reader's annotations, and only for them.")

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"classes": dict(self.classes)}


def box_rules(choice: str) -> BadBoxes:
    """How the readers treat boxes that cannot be kept, as one of BAD_BOXES says."""
    least = MIN_SIDE - EDGE_TOLERANCE
    return BadBoxes(leave_out=choice != "refuse", cut=choice == "clip", minimum_side=least, most=MAX_BOXES)


class KnownTile(NamedTuple):
    """What is asked of a tile of the project; sizes in px."""

    pk: int
    slide: int
    x: int
    y: int
    width: int
    height: int


class TileMatcher:
    """Finds a project's tile by the name that our exports give it, or a plain image by its content or its name."""

    def __init__(self, project: Project) -> None:
        self._by_name: dict[str, KnownTile] = {}
        self._by_content: dict[str, KnownTile] = {}
        self._by_stem: dict[str, list[KnownTile]] = {}
        slides = Slide.objects.filter(project=project).values_list("pk", "sha256", "name", "tiling")
        self.slides = {pk: (sha256, name) for pk, sha256, name, _ in slides}
        images = {pk for pk, _, _, tiling in slides if tiling == Tiling.IMAGE}
        rows = Tile.objects.filter(slide__project=project).order_by()
        for values in rows.values_list("pk", "slide_id", "x", "y", "width", "height").iterator(_CHUNK):
            tile = KnownTile(*values)
            self._by_name[place_name(tile.slide, tile.x, tile.y)] = tile
            if tile.slide in images:
                sha256, name = self.slides[tile.slide]
                self._by_content[sha256] = tile
                self._by_stem.setdefault(PurePath(name).stem, []).append(tile)

    def size(self, name: str) -> tuple[int, int] | None:
        """Width and height in px of the tile of this name; None without one, or with several."""
        found = [self._by_name[name]] if name in self._by_name else self._by_stem.get(name, [])
        return (found[0].width, found[0].height) if len(found) == 1 else None

    def find(self, labelled: LabelledTile, content: str | None, *, by_stem: bool) -> KnownTile | None:
        """The tile that a label file is of; `content` is the sha256 of its image in the upload.

        `by_stem`: an image of the same name is taken for the same image. Raises ValueError with a reason when it
        cannot be told which tile is meant.
        """
        tile = self._by_name.get(labelled.name)
        slide = labelled.extra.get("slide")
        if tile is not None and slide is not None and slide != self.slides[tile.slide][1]:
            here = self.slides[tile.slide][1]
            raise ValueError(f"it is of the slide {str(slide)[:80]!r}, here it would be of {here!r}")
        if tile is None and content is not None:
            tile = self._by_content.get(content)
        if tile is None and by_stem:
            several = self._by_stem.get(labelled.name, [])
            if len(several) > 1:
                raise ValueError(f"{len(several)} images of the project have this name")
            tile = several[0] if several else None
        return tile


@dataclass(slots=True)
class PlannedTile:
    """One annotation that will be written: onto a tile of the project, or with a new image.

    `packed`: float64 rows of class number, x, y, width, height (tile px) and score, -1 for none. As objects, a million
    boxes would take too much memory. `replaces`: the tile has a truth.
    """

    uuid: UUID
    tile: int | None
    new: CheckedSlide | None
    packed: bytes
    replaces: bool = False
    already: bool = False

    @property
    def box_count(self) -> int:
        return len(self.packed) // (8 * len(_ROUNDED))

    def boxes(self) -> list[list[float]]:
        """The packed rows: class number, x, y, width, height, score."""
        rows: list[list[float]] = np.frombuffer(self.packed).reshape(-1, len(_ROUNDED)).tolist()
        return rows


@dataclass
class Plan:
    """All that will happen. `problems` not empty: nothing will."""

    tiles: list[PlannedTile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    cut: list[Problem] = field(default_factory=list)
    unlabelled: int = 0
    class_boxes: Counter[int] = field(default_factory=Counter)
    class_tiles: Counter[int] = field(default_factory=Counter)
    left_out_classes: Counter[str] = field(default_factory=Counter)
    replaced: int = 0
    emptied: int = 0
    tasks: int = 0

    @property
    def is_all_there(self) -> bool:
        return bool(self.tiles) and not self.problems and all(one.already for one in self.tiles)

    def save(self, path: Path) -> None:
        """Keep what will be written, if no image comes with it, so that the files need not be read once more."""
        np.savez(
            path,
            uuids=np.frombuffer(b"".join(one.uuid.bytes for one in self.tiles), np.uint8),
            tiles=np.array([one.tile for one in self.tiles], np.int64),
            boxes=np.array([one.box_count for one in self.tiles], np.int64),
            rows=np.frombuffer(b"".join(one.packed for one in self.tiles)),
        )

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """A plan that `save` has kept. What is in the database by now is still to be looked up."""
        with np.load(path) as kept:
            uuids, rows = kept["uuids"].tobytes(), kept["rows"].tobytes()
            tiles, ends = kept["tiles"].tolist(), (kept["boxes"].cumsum() * len(_ROUNDED) * 8).tolist()
        plan, start = cls(), 0
        for number, (tile, end) in enumerate(zip(tiles, ends, strict=True)):
            uuid = UUID(bytes=uuids[16 * number : 16 * number + 16])
            plan.tiles.append(PlannedTile(uuid, tile, None, rows[start:end]))
            start = end
        return plan

    def look_up(self, becomes: str) -> None:
        """Find out what is there already, whose truth is replaced, and which tasks it concerns."""
        for start in range(0, len(self.tiles), _CHUNK):
            some = self.tiles[start : start + _CHUNK]
            known = set(Annotation.objects.filter(uuid__in=[one.uuid for one in some]).values_list("uuid", flat=True))
            keys = [one.tile for one in some if one.tile is not None]
            with_truth = set(Tile.objects.filter(pk__in=keys, truth__isnull=False).values_list("pk", flat=True))
            for one in some:
                one.already, one.replaces = one.uuid in known, one.tile in with_truth
            fresh = [one for one in some if not one.already]
            if becomes == "truth":
                self.replaced += sum(one.replaces for one in fresh)
            self.tasks += concerned_tasks(becomes, [one.tile for one in fresh if one.tile is not None]).count()

    def as_json(self, project: Project) -> dict[str, Any]:
        """The plan in numbers, for the page."""
        new = sum(one.new is not None for one in self.tiles)
        classes = [
            {
                "code": one.code,
                "name": one.name,
                "colour": one.colour,
                "boxes": self.class_boxes[one.number],
                "tiles": self.class_tiles[one.number],
            }
            for one in project.taxonomy.classes.all()
            if self.class_boxes[one.number]
        ]
        return {
            "tiles": len(self.tiles),
            "new": new,
            "matched": len(self.tiles) - new,
            "already": sum(one.already for one in self.tiles),
            "empty": sum(not one.packed for one in self.tiles),
            "emptied": self.emptied,
            "boxes": sum(self.class_boxes.values()),
            "classes": classes,
            "left_out_classes": [{"name": name, "boxes": count} for name, count in self.left_out_classes.items()],
            "replaced": self.replaced,
            "tasks": self.tasks,
            "unlabelled": self.unlabelled,
            "digest": self.digest(),
        } | listed(problems=self.problems, unmatched=self.unmatched, left_out=self.left_out, cut=self.cut)

    def digest(self) -> str:
        """Alike for two plans that write the same."""
        lines = [[str(one.uuid), one.already, one.new is not None] for one in self.tiles]
        return hashlib.sha256(json.dumps([lines, self.replaced]).encode()).hexdigest()


def listed(**lists: Iterable[object]) -> dict[str, Any]:
    """The first lines of each list, and how many there are."""
    shown: dict[str, Any] = {}
    for name, items in lists.items():
        texts = [str(item) for item in items]
        shown |= {name: texts[:_LISTED], f"{name}_count": len(texts)}
    return shown


def make_plan(*, project: Project, tree: FileTree, settings: ImportSettings, on_progress: Progress) -> Plan:
    """Read the files and say what becomes of them. What is wrong with them is in the plan's problems."""
    on_progress(0.2, "looking up tiles")
    matcher = TileMatcher(project)
    on_progress(0.25, "reading labels")
    try:
        planner = _Planner(project, settings, matcher, ImageTree(tree.folder), on_progress)
        dataset = read_tree(
            tree,
            settings.file_format,
            first_pixel=1 if settings.first_pixel else 0,
            bad_boxes=box_rules(settings.bad_boxes),
            known_size=matcher.size,
            keep=planner.add,
        )
    except FormatError as error:
        return Plan(problems=list(error.problems))
    plan = planner.finish()
    plan.left_out, plan.cut, plan.unlabelled = list(dataset.left_out), list(dataset.cut), len(dataset.unlabelled)
    plan.problems = plan.problems[:_MOST_PROBLEMS]
    return plan


class _Planner:
    """Takes one tile after the other as the files are read, and holds of each what will be written."""

    def __init__(
        self,
        project: Project,
        settings: ImportSettings,
        matcher: TileMatcher,
        images: ImageTree,
        on_progress: Progress,
    ) -> None:
        self._project, self._settings, self._matcher = project, settings, matcher
        self._images, self._on_progress = images, on_progress
        self._plan = Plan()
        self._done = 0
        self._source = ""
        self._taken: dict[int | str, str] = {}  # by whose labels
        self._known_classes = project.taxonomy.class_keys
        self._numbers: list[int | None] = []  # of the class names so far, by their ids
        self._names: Sequence[str] = ()
        self._unmapped: set[str] = set()
        self._purpose = json.dumps([project.pk, settings.becomes, settings.reader])

    def add(self, labelled: LabelledTile, source: str, names: Sequence[str]) -> None:
        """Plan a tile of this label file; `names` are those that its boxes' class ids are of."""
        self._on_progress(0.3 + 0.4 * self._done / (self._done + 10_000), f"{self._done} tiles checked")
        self._done += 1
        self._source, self._names = source, names
        for name in names[len(self._numbers) :]:
            self._numbers.append(self._settings.classes.get(name, -1))
        planned = self._planned(labelled)
        if planned is not None:
            self._plan.tiles.append(planned)

    def finish(self) -> Plan:
        plan = self._plan
        for name in sorted(self._unmapped, reverse=True):
            reason = f"the class {name[:80]!r} is neither mapped to a class nor left out"
            plan.problems.insert(0, Problem("(all files)", reason))
        if not self._done:
            plan.problems.append(Problem("(all files)", "there is no tile in them"))
        elif not plan.tiles and not plan.problems:
            plan.problems.append(Problem("(all files)", "no label file is of a tile of this project"))
        plan.look_up(self._settings.becomes)
        return plan

    def _problem(self, reason: str) -> None:
        if len(self._plan.problems) < _MOST_PROBLEMS:
            self._plan.problems.append(Problem(self._source, reason))

    def _planned(self, labelled: LabelledTile) -> PlannedTile | None:
        path = self._images.path(labelled.name)
        try:
            image_size = self._images.size(labelled.name)
        except FormatError as error:
            self._plan.problems += error.problems
            return None
        stated = (labelled.width, labelled.height)
        if image_size is not None and image_size != stated:
            self._problem(f"wrong image size: {_px(stated)} in the labels, {_px(image_size)} in the image")
            return None
        content = None if path is None else sha256_of(path)
        new_images = self._settings.targets == "new"
        try:
            tile = self._matcher.find(labelled, content, by_stem=not new_images or path is None)
        except ValueError as error:
            self._problem(str(error))
            return None
        if tile is None:
            return self._without_tile(labelled, path)
        if (tile.width, tile.height) != stated:
            found = _px((tile.width, tile.height))
            self._problem(f"wrong image size: {_px(stated)} in the labels, {found} the tile of this name")
            return None
        return self._entry(labelled, tile=tile)

    def _without_tile(self, labelled: LabelledTile, path: Path | None) -> PlannedTile | None:
        if self._settings.targets == "new" and path is not None:
            facts = SlideFacts(patient=self._settings.patient)
            try:
                new = check_slide(project=self._project, paths=[path], name=path.name, facts=facts)
            except SlideError as error:
                self._problem(str(error))
                return None
            size = (new.found.info.width, new.found.info.height)
            if new.found.tiling != Tiling.IMAGE or size != (labelled.width, labelled.height):
                self._problem(f"{path.name} is no plain image of {_px((labelled.width, labelled.height))}")
                return None
            return self._entry(labelled, new=new)
        if self._settings.leave_out_unmatched:
            self._plan.unmatched.append(labelled.name)
        elif self._settings.targets == "new":
            self._problem("missing image: no tile and no image of this name")
        else:
            self._problem("the project has no tile of this name")
        return None

    def _entry(
        self, labelled: LabelledTile, *, tile: KnownTile | None = None, new: CheckedSlide | None = None
    ) -> PlannedTile | None:
        other = self._taken.setdefault(tile.pk if tile else new.digest if new else "", labelled.name)
        if other != labelled.name:
            self._problem(f"it is of the same tile as {other}")
            return None
        boxes = self._boxes(labelled)
        digest = new.digest if new else self._matcher.slides[tile.slide][0] if tile else ""
        place = (digest, tile.x, tile.y) if tile else (digest, 0, 0)
        return PlannedTile(self._uuid(place, boxes), tile.pk if tile else None, new, boxes.tobytes())

    def _boxes(self, labelled: LabelledTile) -> "array[float]":
        """The boxes as PlannedTile packs them."""
        boxes = array("d")
        found = set()
        numbers, plan = self._numbers, self._plan
        for class_id, x, y, width, height, score in labelled.boxes:
            number = numbers[class_id]
            if number is None:
                plan.left_out_classes[self._names[class_id]] += 1
            elif number not in self._known_classes:
                self._unmapped.add(self._names[class_id])
            else:
                boxes.extend((number, x, y, width, height, -1 if score is None else min(max(score, 0.0), 1.0)))
                plan.class_boxes[number] += 1
                found.add(number)
        plan.class_tiles.update(found)
        plan.emptied += bool(labelled.boxes and not boxes)
        return boxes

    def _uuid(self, place: tuple[str, int, int], boxes: "array[float]") -> UUID:
        """The same boxes on the same tile for the same purpose are the same annotation, however often they come."""
        digest = hashlib.sha256(f"imported {self._purpose} {place}".encode())
        digest.update(np.rint(np.frombuffer(boxes).reshape(-1, len(_ROUNDED)) * _ROUNDED).astype(np.int64).tobytes())
        return UUID(bytes=digest.digest()[:16], version=5)


def concerned_tasks(becomes: str, tiles: list[int]) -> Any:
    """The tasks that an import changes: those that a truth answers, or that a pre-label can still be shown in."""
    tasks = Task.objects.filter(tile__in=tiles)
    if becomes == "truth":
        return tasks.filter(state__in=[TaskState.OPEN, TaskState.LEASED], batch__state=BatchState.OPEN)
    if becomes == "pre-labels":
        # A reader who has begun would see other boxes than those that the work started from.
        untouched = tasks.filter(state=TaskState.OPEN, revision=0, kind=TaskKind.READING, blind=False, drafts=None)
        return untouched.exclude(batch__state=BatchState.CLOSED)
    return tasks.none()


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"
