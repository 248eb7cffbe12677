"""Entering what is already known of a slide: a truth file becomes import annotations."""

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np

from annotation.geometry import Sides, boxes_of_tile, sides
from annotation.models import Project, Slide, Tile, User
from annotation.services.annotations import MIN_SIDE, BoxInput, import_annotation

COUNTABLE = "m"  # monolayer: the zone in which an expert reads every cell
UNREADABLE = frozenset("td")  # thick and debris: cells lie there that nobody boxed


class TruthError(ValueError):
    """A truth file that cannot be entered; the text names the file and the reason."""


@dataclass(frozen=True)
class Truth:
    """The content of a truth file: boxes in level-0 px, and the zones of a slide in square fields."""

    slide: str
    class_names: tuple[str, ...]
    boxes: np.ndarray  # float64 (n, 4): x, y, width, height
    field: int
    zones: tuple[str, ...]
    row_shift: tuple[int, ...]

    def is_countable(self, x: float, y: float, extent: Sides) -> bool:
        """Whether every cell of this place carries its box: some of it is monolayer, none of it thick or debris."""
        seen = self.zones_of(x, y, extent)
        return COUNTABLE in seen and not seen & UNREADABLE

    def has_nothing_to_count(self, x: float, y: float, extent: Sides) -> bool:
        """Whether an expert would confirm this place without a box: none of it is monolayer."""
        return COUNTABLE not in self.zones_of(x, y, extent)

    def zones_of(self, x: float, y: float, extent: Sides) -> set[str]:
        """The zones that a rectangle in level-0 px touches."""
        seen: set[str] = set()
        across, down = sides(extent)
        for row in range(max(0, int(y // self.field)), min(len(self.zones), math.ceil((y + down) / self.field))):
            start = x - self.row_shift[row]
            first, last = max(0, int(start // self.field)), math.ceil((start + across) / self.field)
            seen.update(self.zones[row][first : max(first, last)])
        return seen


def read_truth(path: Path) -> Truth:
    """Read a truth file: `{"slide", "boxes": [[class, x, y, width, height], ...], "field", "zones", "row_shift"}`.

    Raises TruthError naming the file and the reason.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        boxes = np.array([box[1:5] for box in raw["boxes"]], dtype=np.float64).reshape(-1, 4)
        truth = Truth(
            slide=str(raw["slide"]),
            class_names=tuple(str(box[0]) for box in raw["boxes"]),
            boxes=boxes,
            field=int(raw["field"]),
            zones=tuple(raw["zones"]),
            row_shift=tuple(raw.get("row_shift") or [0] * len(raw["zones"])),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise TruthError(f"{path.name}: not a truth file ({type(error).__name__}: {error}).") from error
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= 0).any():
        raise TruthError(f"{path.name}: a box has no finite place or no area.")
    if len(truth.row_shift) != len(truth.zones) or truth.field <= 0:
        raise TruthError(f"{path.name}: zones, row_shift and field do not fit together.")
    return truth


def check_classes(truth: Truth, project: Project, source: str) -> None:
    """Raises TruthError listing every class that the project's taxonomy does not have."""
    known = set(project.taxonomy.classes.values_list("name", flat=True))
    unknown = sorted(set(truth.class_names) - known)
    if unknown:
        raise TruthError(f"{source}: not in the taxonomy {project.taxonomy}: {', '.join(unknown)}.")


def countable_tiles(truth: Truth, slide: Slide) -> list[Tile]:
    """The slide's tiles whose cells all carry their boxes, and that have no truth yet."""
    tiles = slide.tiles.filter(truth=None).select_related("slide__project__taxonomy")
    return [tile for tile in tiles if truth.is_countable(tile.x, tile.y, tile.extents)]


def enter_truth(
    *,
    truth: Truth,
    tiles: Sequence[Tile],
    source: str,
    user: User | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write one import annotation per tile from the truth's boxes; returns the number of boxes.

    A box belongs to the tile that holds its centre and is clipped to it. A tile is entered once however often this
    is called. Raises TruthError for a class that the taxonomy lacks.
    """
    if not tiles:
        return 0
    project = tiles[0].slide.project
    check_classes(truth, project, source)
    entered = 0
    for done, tile in enumerate(tiles, start=1):
        boxes = boxes_on(truth, tile)
        uuid = uuid5(NAMESPACE_OID, f"truth {project.pk} {tile.slide.sha256} {tile.x} {tile.y} {source}")
        import_annotation(tile=tile, source=source, uuid=uuid, boxes=boxes, user=user)
        entered += len(boxes)
        on_progress(done, len(tiles))
    return entered


def boxes_on(truth: Truth, tile: Tile) -> list[BoxInput]:
    """The truth's boxes on one tile, in tile px. Raises KeyError for a class that the tile's taxonomy lacks."""
    numbers = tile.slide.project.taxonomy.class_numbers
    indices, boxes = boxes_of_tile(truth.boxes, tile.x, tile.y, tile.extents, (tile.width, tile.height))
    return [
        BoxInput(numbers[truth.class_names[index]], x, y, width, height)
        for index, (x, y, width, height) in zip(indices, boxes.tolist(), strict=True)
        if min(width, height) >= MIN_SIDE
    ]


def find_truth_files(folder: Path, names: Collection[str]) -> dict[str, Path]:
    """For each slide name, the truth file of the same stem in the folder, where there is one."""
    found = {name: folder / f"{Path(name).stem}.json" for name in names}
    return {name: path for name, path in found.items() if path.exists()}
