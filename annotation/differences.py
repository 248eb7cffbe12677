"""What differs between two annotations of one tile: which box of the one is which of the other. No Django."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from annotation.geometry import iou_matrix

SAME_CELL = 0.5  # IoU from which two boxes may be of one cell
SAME_PLACE = 0.01  # tile px: below this a box has not been moved


class BoxLike(Protocol):
    """What is compared; `annotation.models.Box` is one. x, y, width and height are tile px."""

    pk: int
    origin_id: int | None
    cell_class_id: int
    x: float
    y: float
    width: float
    height: float


class Kind(StrEnum):
    SAME = "same"
    MOVED = "moved"
    RECLASSIFIED = "reclassified"
    ONLY_LEFT = "only left"
    ONLY_RIGHT = "only right"


@dataclass(frozen=True)
class Difference:
    """A cell in both annotations, or in one. Moved and reclassified counts as reclassified, the costlier mistake."""

    left: BoxLike | None
    right: BoxLike | None

    @property
    def kind(self) -> Kind:
        if self.left is None:
            return Kind.ONLY_RIGHT
        if self.right is None:
            return Kind.ONLY_LEFT
        if self.left.cell_class_id != self.right.cell_class_id:
            return Kind.RECLASSIFIED
        pairs = zip(_place(self.left), _place(self.right), strict=True)
        return Kind.SAME if all(abs(one - other) <= SAME_PLACE for one, other in pairs) else Kind.MOVED


def differences(left: Sequence[BoxLike], right: Sequence[BoxLike]) -> list[Difference]:
    """Every box of both, one to one: the pairs in the order of `left`, then what only `right` has.

    Boxes that come from the same pre-label box are the same cell, wherever they were moved; where one was copied, the
    copy that overlaps most. Of the others those that overlap most, from an IoU of 0.5 on, whatever their classes; the
    same class decides between equals.
    """
    overlap = iou_matrix([_place(one) for one in left], [_place(one) for one in right])
    candidates = [
        (not _same_origin(one, other), -float(overlap[i, j]), one.cell_class_id != other.cell_class_id, i, j)
        for i, one in enumerate(left)
        for j, other in enumerate(right)
        if _same_origin(one, other) or overlap[i, j] >= SAME_CELL
    ]
    pair_of: dict[int, int] = {}
    taken: set[int] = set()
    for *_, i, j in sorted(candidates):
        if i not in pair_of and j not in taken:
            pair_of[i] = j
            taken.add(j)
    both = [Difference(one, right[pair_of[i]] if i in pair_of else None) for i, one in enumerate(left)]
    return both + [Difference(None, other) for j, other in enumerate(right) if j not in taken]


def _same_origin(one: BoxLike, other: BoxLike) -> bool:
    """Whether both come from one pre-label box, or one of them is that box."""
    return (one.origin_id or one.pk) == (other.origin_id or other.pk)


def _place(box: BoxLike) -> tuple[float, float, float, float]:
    return box.x, box.y, box.width, box.height
