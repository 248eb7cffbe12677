"""What an import of annotations would do: each label file's tile, boxes and class, and all that speaks against it.

A plan is made anew for the dry run and for the import itself, from what was read of the same files and with the same
settings, and writes nothing.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from annotation.formats.reading import ImageTree
from annotation.formats.records import FormatError, Problem
from annotation.models import Annotation, BatchState, Patient, Project, Slide, Task, TaskKind, TaskState, Tile, Tiling
from annotation.services.exports import place_name
from annotation.services.kept_tiles import BOX_COLUMNS, Block, Facts, KeptTiles, ReadAs
from annotation.services.policies import unanswered
from annotation.services.slides import CheckedSlide, SlideFacts, check_slide, patient_code_from
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
_ROW_BYTES = 8 * BOX_COLUMNS
_LEFT_OUT, _UNMAPPED = -1, -2  # in place of a class's number

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

    @property
    def read_as(self) -> ReadAs:
        return ReadAs(self.file_format, self.first_pixel, self.bad_boxes)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"classes": dict(self.classes)}


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
        slides = Slide.objects.filter(project=project).values_list("pk", "sha256", "name", "tiling", "patient__locked")
        self.slides = {pk: (sha256, name) for pk, sha256, name, _, _ in slides}
        self._locked = {pk for pk, *_, locked in slides if locked}
        self._locked_patients = set(Patient.objects.filter(project=project, locked=True).values_list("code", flat=True))
        images = {pk for pk, _, _, tiling, _ in slides if tiling == Tiling.IMAGE}
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

    def is_locked(self, tile: KnownTile | None, new: CheckedSlide | None) -> bool:
        """Whether a tile, or the patient of a new image, is in the locked test set."""
        if tile is not None:
            return tile.slide in self._locked
        return new is not None and (new.facts.patient or patient_code_from(new.name)) in self._locked_patients

    def other_slide(self, name: str, told: Mapping[str, str]) -> int | None:
        """The number in a tile's name, if the export that it comes from means another slide than the one here.

        `told`: the export's slides, sha256 by number.
        """
        tile = self._by_name.get(name)
        if tile is None or told.get(str(tile.slide)) in (None, self.slides[tile.slide][0]):
            return None
        return tile.slide

    def find(
        self, name: str, slide: str | None, content: str | None, told: Mapping[str, str], *, by_stem: bool
    ) -> KnownTile | None:
        """The tile that labels are of: by its name, its slide where they state one, and the sha256 of its image.

        `told`: see `other_slide`. `by_stem`: an image of the same name is taken for the same image. Raises ValueError
        with a reason when it cannot be told which tile is meant.
        """
        tile = None if self.other_slide(name, told) is not None else self._by_name.get(name)
        if tile is not None and slide is not None and slide != self.slides[tile.slide][1]:
            here = self.slides[tile.slide][1]
            raise ValueError(f"it is of the slide {slide[:80]!r}, here it would be of {here!r}")
        if tile is None and content is not None:
            tile = self._by_content.get(content)
        if tile is None and by_stem:
            several = self._by_stem.get(name, [])
            if len(several) > 1:
                raise ValueError(f"{len(several)} images of the project have this name")
            tile = several[0] if several else None
        return tile


@dataclass(slots=True)
class PlannedTile:
    """One annotation that will be written: onto a tile of the project, or with a new image.

    `packed`: float64 rows of class number, x, y, width, height (tile px) and score, -1 for none. As objects, a million
    boxes would take too much memory. `replaces`: the truth (key) whose place it takes.
    """

    uuid: UUID
    tile: int | None
    new: CheckedSlide | None
    packed: bytes
    replaces: int | None = None
    already: bool = False

    @property
    def box_count(self) -> int:
        return len(self.packed) // _ROW_BYTES


@dataclass
class Plan:
    """All that will happen. `problems` not empty: nothing will.

    `emptied`: tiles all of whose boxes are of classes that are left out; `all_bad`: of boxes that cannot be kept.
    """

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
    all_bad: int = 0
    tasks: int = 0

    @property
    def is_all_there(self) -> bool:
        return bool(self.tiles) and not self.problems and all(one.already for one in self.tiles)

    def look_up(self, becomes: str) -> None:
        """Find out what is there already, whose truth is replaced, and which tasks it concerns."""
        for start in range(0, len(self.tiles), _CHUNK):
            some = self.tiles[start : start + _CHUNK]
            known = set(Annotation.objects.filter(uuid__in=[one.uuid for one in some]).values_list("uuid", flat=True))
            for one in some:
                one.already = one.uuid in known
            fresh = [one for one in some if not one.already]
            if becomes == "truth":
                tiles = Tile.objects.filter(pk__in=[one.tile for one in fresh if one.tile is not None])
                truths: dict[int | None, int | None] = dict(tiles.values_list("pk", "truth"))
                for one in fresh:
                    one.replaces = truths.get(one.tile)
                self.replaced += sum(one.replaces is not None for one in fresh)
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
            "all_bad": self.all_bad,
            "boxes": sum(self.class_boxes.values()),
            "classes": classes,
            "left_out_classes": [{"name": name, "boxes": count} for name, count in self.left_out_classes.items()],
            "replaced": self.replaced,
            "tasks": self.tasks,
            "unlabelled": self.unlabelled,
            "digest": self.digest(),
        } | listed(problems=self.problems, unmatched=self.unmatched, left_out=self.left_out, cut=self.cut)

    def digest(self) -> str:
        """Alike for two plans that write the same in the place of the same."""
        digest = hashlib.sha256()
        for one in self.tiles:
            digest.update(one.uuid.bytes + bytes((one.already, one.new is not None)))
            digest.update(f"{one.tile} {one.replaces},".encode())
        return digest.hexdigest()


def listed(**lists: Iterable[object]) -> dict[str, Any]:
    """The first lines of each list, and how many there are."""
    shown: dict[str, Any] = {}
    for name, items in lists.items():
        texts = [str(item) for item in items]
        shown |= {name: texts[:_LISTED], f"{name}_count": len(texts)}
    return shown


def make_plan(
    *,
    project: Project,
    kept: KeptTiles,
    images: ImageTree | None,
    matcher: TileMatcher,
    settings: ImportSettings,
    on_progress: Progress,
) -> Plan:
    """Say what becomes of the tiles that were read. What is wrong with them is in the plan's problems.

    `images`: those of the upload, None without any.
    """
    facts = kept.facts
    planner = _Planner(project, settings, matcher, images, facts)
    for block in kept.blocks():
        planner.add(block)
        on_progress(0.5 + 0.2 * planner.tiles / facts.tiles, f"{planner.tiles} of {facts.tiles} tiles checked")
    plan = planner.finish()
    plan.left_out, plan.cut, plan.unlabelled = facts.left_out, facts.cut, facts.unlabelled
    plan.problems = plan.problems[:_MOST_PROBLEMS]
    return plan


class _Target(NamedTuple):
    """Where the boxes of a label file go: onto a tile of the project, or onto a new image."""

    tile: KnownTile | None
    new: CheckedSlide | None


class _Planner:
    """Takes one block of tiles after the other, and holds of each tile what will be written."""

    def __init__(
        self,
        project: Project,
        settings: ImportSettings,
        matcher: TileMatcher,
        images: ImageTree | None,
        facts: Facts,
    ) -> None:
        class_names = facts.classes
        self._project, self._settings, self._matcher, self._images = project, settings, matcher, images
        self._told, self._other_slides = facts.slides, set[int]()
        self._all_bad = frozenset(facts.emptied)
        self._plan = Plan()
        self.tiles = 0
        self._source = ""
        self._taken: dict[int | str, str] = {}  # by whose labels
        self._class_names = class_names
        # The class numbers by class ids, and how often the ids were left out and unmapped.
        self._numbers = np.array([self._number(name) for name in class_names], np.int64)
        self._left_out = np.zeros(len(class_names), np.int64)
        self._unmapped = np.zeros(len(class_names), np.int64)
        self._purpose = json.dumps([project.pk, settings.becomes, settings.reader])

    def _number(self, name: str) -> int:
        number = self._settings.classes.get(name, _UNMAPPED)
        if number is None:
            return _LEFT_OUT
        return number if number in self._project.taxonomy.class_keys else _UNMAPPED

    def add(self, block: Block) -> None:
        """Plan the tiles of a block."""
        facts = zip(block.names, block.sources, block.sizes, block.slides, strict=True)
        targets = [self._target(name, source, size, slide) for name, source, size, slide in facts]
        counts = np.array(block.counts)
        of_tile = np.repeat(np.arange(len(counts)), counts)
        has_target = np.array([target is not None for target in targets])
        self._count_others(block.rows[has_target[of_tile], 0].astype(np.int64))
        numbers = self._numbers[block.rows[:, 0].astype(np.int64)]
        stays = has_target[of_tile] & (numbers >= 0)
        rows, of_tile = block.rows[stays], of_tile[stays]
        rows[:, 0] = numbers[stays]
        rows[:, 5] = np.where(np.isnan(rows[:, 5]), -1, np.clip(rows[:, 5], 0, 1))
        self._count(rows[:, 0].astype(np.int64), of_tile)
        left = np.bincount(of_tile, minlength=len(counts))
        self._plan.emptied += int((has_target & (counts > 0) & (left == 0)).sum())
        all_bad = np.array([name in self._all_bad for name in block.names])
        self._plan.all_bad += int((has_target & all_bad).sum())
        packed, rounded = rows.tobytes(), np.rint(rows * _ROUNDED).astype(np.int64).tobytes()
        start = 0
        for target, end in zip(targets, (np.cumsum(left) * _ROW_BYTES).tolist(), strict=True):
            if target is not None:
                self._plan.tiles.append(self._planned(target, packed[start:end], rounded[start:end]))
            start = end
        self.tiles += len(targets)

    def _count_others(self, class_ids: "np.ndarray") -> None:
        """Count the boxes that are left out for their class, and those whose class is unknown."""
        counts = np.bincount(class_ids, minlength=len(self._numbers))
        self._left_out += np.where(self._numbers == _LEFT_OUT, counts, 0)
        self._unmapped += np.where(self._numbers == _UNMAPPED, counts, 0)

    def _count(self, numbers: "np.ndarray", of_tile: "np.ndarray") -> None:
        plan = self._plan
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            plan.class_boxes[int(number)] += int(count)
            plan.class_tiles[int(number)] += len(np.unique(of_tile[numbers == number]))

    def finish(self) -> Plan:
        plan = self._plan
        counted = zip(self._class_names, self._left_out.tolist(), strict=True)
        plan.left_out_classes = Counter({name: boxes for name, boxes in counted if boxes})
        unmapped = sorted(self._class_names[class_id] for class_id in np.flatnonzero(self._unmapped))
        reasons = [f"the class {name[:80]!r} is neither mapped to a class nor left out" for name in unmapped]
        plan.problems[:0] = [Problem("(all files)", reason) for reason in reasons]
        if not self.tiles:
            plan.problems.append(Problem("(all files)", "there is no tile in them"))
        elif not plan.tiles and not plan.problems:
            plan.problems.append(Problem("(all files)", "no label file is of a tile of this project"))
        plan.look_up(self._settings.becomes)
        return plan

    def _problem(self, reason: str) -> None:
        if len(self._plan.problems) < _MOST_PROBLEMS:
            self._plan.problems.append(Problem(self._source, reason))

    def _target(self, name: str, source: str, stated: tuple[int, int], slide: str | None) -> _Target | None:
        """None where the labels are left out, or are a problem."""
        self._source = source
        path = self._images.path(name) if self._images else None
        try:
            image_size = self._images.size(name) if self._images else None
        except FormatError as error:
            self._plan.problems += error.problems
            return None
        if image_size is not None and image_size != stated:
            self._problem(f"wrong image size: {_px(stated)} in the labels, {_px(image_size)} in the image")
            return None
        content = None if path is None else sha256_of(path)
        new_images = self._settings.targets == "new"
        try:
            by_stem = not new_images or path is None
            tile = self._matcher.find(name, slide, content, self._told, by_stem=by_stem)
        except ValueError as error:
            self._problem(str(error))
            return None
        if tile is None:
            return self._without_tile(name, stated, path)
        if (tile.width, tile.height) != stated:
            found = _px((tile.width, tile.height))
            self._problem(f"wrong image size: {_px(stated)} in the labels, {found} the tile of this name")
            return None
        return self._free(name, _Target(tile, None))

    def _without_tile(self, name: str, stated: tuple[int, int], path: Path | None) -> _Target | None:
        if self._settings.targets == "new" and path is not None:
            facts = SlideFacts(patient=self._settings.patient)
            try:
                new = check_slide(project=self._project, paths=[path], name=path.name, facts=facts)
            except SlideError as error:
                self._problem(str(error))
                return None
            size = (new.found.info.width, new.found.info.height)
            if new.found.tiling != Tiling.IMAGE or size != stated:
                self._problem(f"{path.name} is no plain image of {_px(stated)}")
                return None
            return self._free(name, _Target(None, new))
        if self._settings.leave_out_unmatched:
            self._plan.unmatched.append(name)
        elif (number := self._matcher.other_slide(name, self._told)) is not None:
            self._is_of_other_slide(number)
        elif self._settings.targets == "new":
            self._problem("missing image: no tile and no image of this name")
        else:
            self._problem("the project has no tile of this name")
        return None

    def _is_of_other_slide(self, number: int) -> None:
        """One problem for all tiles of a slide."""
        if number not in self._other_slides:
            self._other_slides.add(number)
            here = f"slide {number} here, {self._matcher.slides[number][1]!r}"
            self._problem(f"slide {number} of the export is not {here}: manifest.json tells another sha256")

    def _free(self, name: str, target: _Target) -> _Target | None:
        """The target, if no other labels are of it and it may get such."""
        if self._settings.becomes == "pre-labels" and self._matcher.is_locked(*target):
            self._problem("the tile is in the locked test set: its readers never start from a model's boxes")
            return None
        key = target.tile.pk if target.tile else target.new.digest if target.new else ""
        other = self._taken.setdefault(key, name)
        if other != name:
            self._problem(f"it is of the same tile as {other}")
            return None
        return target

    def _planned(self, target: _Target, packed: bytes, rounded: bytes) -> PlannedTile:
        tile, new = target
        digest = new.digest if new else self._matcher.slides[tile.slide][0] if tile else ""
        place = (digest, tile.x, tile.y) if tile else (digest, 0, 0)
        return PlannedTile(self._uuid(place, rounded), tile.pk if tile else None, new, packed)

    def _uuid(self, place: tuple[str, int, int], rounded: bytes) -> UUID:
        """The same boxes on the same tile for the same purpose are the same annotation, however often they come."""
        digest = hashlib.sha256(f"imported {self._purpose} {place}".encode())
        digest.update(rounded)
        return UUID(bytes=digest.digest()[:16], version=5)


def concerned_tasks(becomes: str, tiles: list[int]) -> Any:
    """The tasks that an import changes: those that a truth answers, or that a pre-label can still be shown in."""
    if becomes == "truth":
        return unanswered(tiles)
    tasks = Task.objects.filter(tile__in=tiles)
    if becomes == "pre-labels":
        tasks = tasks.filter(tile__slide__patient__locked=False)
        # A reader who has begun would see other boxes than those that the work started from.
        untouched = tasks.filter(state=TaskState.OPEN, revision=0, kind=TaskKind.READING, blind=False, drafts=None)
        return untouched.exclude(batch__state=BatchState.CLOSED)
    return tasks.none()


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"
