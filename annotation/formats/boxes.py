"""When a box is fit to be written or read: finite, with an area, inside its tile."""

import math

from annotation.formats.records import LabelledBox

# Files round to whole pixels or to a few digits, so boxes at the edge stick out a little: those are cut at the edge.
ROUNDING_OVERHANG = 0.5
MINIMUM_SIDE = 0.01


class UnfitBox(ValueError):
    """The reason why a box cannot be kept."""


def fit_box(box: LabelledBox, width: int, height: int, *, minimum_side: float = MINIMUM_SIDE) -> LabelledBox:
    """Return `box` (px) cut to the `width` x `height` px tile where it sticks out by rounding only (0.5 px).

    Raises UnfitBox when a number is not finite, a side is shorter than `minimum_side` px, or it lies outside.
    """
    _, x, y, box_width, box_height, score = box
    right, bottom = x + box_width, y + box_height
    sides = box_width >= minimum_side and box_height >= minimum_side
    if sides and score is None and x >= 0 and y >= 0 and right <= width and bottom <= height:
        return box  # as nearly always
    if not math.isfinite(right + bottom):
        raise UnfitBox("a number of the box is not finite")
    if box.score is not None and not math.isfinite(box.score):
        raise UnfitBox("the score of the box is not finite")
    if box.width < minimum_side or box.height < minimum_side:
        raise UnfitBox(f"degenerate box of {box.width:g} x {box.height:g} px")
    overhang = max(-box.x, -box.y, right - width, bottom - height)
    if overhang <= 0:
        return box
    if overhang > ROUNDING_OVERHANG:
        raise UnfitBox(f"the box reaches {overhang:.2f} px outside the tile of {width} x {height} px")
    left, top = max(box.x, 0.0), max(box.y, 0.0)
    cut_width, cut_height = min(right, width) - left, min(bottom, height) - top
    if cut_width < minimum_side or cut_height < minimum_side:
        raise UnfitBox(f"the box lies outside the tile of {width} x {height} px")
    return LabelledBox(box.class_id, left, top, cut_width, cut_height, box.score)


def cut_box(box: LabelledBox, width: int, height: int, *, minimum_side: float = MINIMUM_SIDE) -> LabelledBox:
    """Return what of `box` (px) lies on the `width` x `height` px tile, however far it sticks out.

    Raises UnfitBox when a number is not finite, or what is left has a side shorter than `minimum_side` px.
    """
    right, bottom = min(box.x + box.width, float(width)), min(box.y + box.height, float(height))
    left, top = max(box.x, 0.0), max(box.y, 0.0)
    cut = LabelledBox(box.class_id, left, top, right - left, bottom - top, box.score)
    return fit_box(cut, width, height, minimum_side=minimum_side)
