"""An expert who answers from known truth, with errors. Boxes are (n, 4) arrays as in annotation.geometry."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annotation.agreement import Reading, match_boxes
from annotation.geometry import iou_matrix
from training.simulation.operators import (
    CELL,
    CLICK,
    CONFIRM,
    DECIDE,
    DELETE,
    DRAG,
    OPEN,
    STEP,
    Operators,
    Work,
    class_key,
)

WELL_PLACED = 0.7  # IoU of a pre-label with the cell below which an expert would put it right; our assumption


@dataclass(frozen=True)
class Errors:
    """How often an expert is wrong, 0 to 1 each; all three are our assumptions.

    miss: a cell is not seen where nothing is drawn on it. mistake: a cell that the expert names is called by the name
    of its neighbour in maturation. accept: a wrong pre-label (no cell, another class, badly placed) is left as it is:
    automation bias.
    """

    miss: float = 0.02
    mistake: float = 0.06
    accept: float = 0.10

    def __post_init__(self) -> None:
        if not all(0 <= one <= 1 for one in (self.miss, self.mistake, self.accept)):
            raise ValueError("The shares of errors lie between 0 and 1.")

    def scaled(self, name: str, factor: float) -> "Errors":
        """The same with one of them more or less frequent, at most always."""
        return replace(self, **{name: min(1.0, factor * getattr(self, name))})


@dataclass(frozen=True)
class Classes:
    """What the expert knows of a taxonomy, by class number: hotkeys, and the neighbours in maturation of each class."""

    hotkeys: Sequence[str]
    neighbours: Sequence[Sequence[int]]

    @classmethod
    def of(cls, hotkeys: Sequence[str], lineages: Sequence[str], maturations: Sequence[int | None]) -> "Classes":
        return cls(hotkeys, [_neighbours(number, lineages, maturations) for number in range(len(hotkeys))])


def _neighbours(number: int, lineages: Sequence[str], maturations: Sequence[int | None]) -> list[int]:
    """The next younger and the next older class of the same lineage."""
    own = maturations[number]
    if own is None or not lineages[number]:
        return []
    others = [
        (order, other)
        for other, order in enumerate(maturations)
        if order is not None and order != own and lineages[other] == lineages[number]
    ]
    younger = max((one for one in others if one[0] < own), default=None)
    older = min((one for one in others if one[0] > own), default=None)
    return [one[1] for one in (younger, older) if one is not None]


@dataclass(frozen=True)
class Answered:
    """A box that the expert leaves on the tile: class number, place, and the index of the pre-label it came from."""

    class_number: int
    place: tuple[float, float, float, float]
    origin: int | None = None


@dataclass(frozen=True)
class Answer:
    boxes: list[Answered]
    work: Work


class Expert:
    """Answers tiles one after the other. The same seed and tile give the same errors, whatever else was answered.

    operators: where the editor has two ways to the same end, the expert takes the one that is quicker by these times
    (the selection rules of Card, Moran & Newell 1983, "The psychology of human-computer interaction", chapter 5).
    """

    def __init__(self, classes: Classes, errors: Errors, operators: Operators | None = None, *, seed: int) -> None:
        self._classes, self._errors, self._seed = classes, errors, seed
        self._operators = operators or Operators()

    def answer(self, truth: Reading, shown: Reading | None, *, tile: int, armed: int) -> Answer:
        """truth: the tile's cells. shown: its pre-labels in the order in which Tab walks over them, the least certain
        first; None where the reader starts from nothing. tile: a number of its own, that the errors are drawn for.
        armed: the class that the next box is drawn with.
        """
        # One stream for each kind of error, so that one more of a kind changes none of the others.
        seeds = np.random.SeedSequence([self._seed, tile]).spawn(3)
        unseen, mistaken, accepted = (np.random.default_rng(seed) for seed in seeds)
        named = [self._named(int(number), mistaken) for number in truth.classes]
        missed = unseen.random(len(named)) < self._errors.miss
        boxes: list[Answered] = []
        work = OPEN + CONFIRM
        found: set[int] = set()
        if shown is not None:
            pairs = match_boxes(shown.boxes, truth.boxes)
            cell_of = dict(pairs.tolist())
            found = set(cell_of.values())
            overlap = iou_matrix(shown.boxes, truth.boxes)
            accepts = accepted.random((len(shown.classes), 2)) < self._errors.accept
            touched = []
            for index in range(len(shown.classes)):
                kept, needed = self._look(index, cell_of.get(index), shown, truth, named, overlap, accepts[index])
                boxes += kept
                work += CELL + needed
                if needed != Work():
                    touched.append(index)
            work += self._reaching(touched)
        drawn = [cell for cell in range(len(named)) if cell not in found and not missed[cell]]
        boxes += [Answered(named[cell], _place(truth.boxes[cell])) for cell in drawn]
        work += (CELL + DRAG).times(len(drawn))
        for number in {named[cell] for cell in drawn} - {armed}:  # drawn class by class: a class stays armed
            work += class_key(self._classes.hotkeys[number])
        return Answer(boxes, work)

    def _reaching(self, touched: Sequence[int]) -> Work:
        """To select these boxes one after the other: by a click on each, or walking over all up to the last one."""
        return self._quicker(CLICK.times(len(touched)), STEP.times(max(touched, default=-1) + 1))

    def _named(self, number: int, chance: np.random.Generator) -> int:
        wrong, which = chance.random(2)
        neighbours = self._classes.neighbours[number]
        return neighbours[int(which * len(neighbours))] if neighbours and wrong < self._errors.mistake else number

    def _look(
        self,
        index: int,
        cell: int | None,
        shown: Reading,
        truth: Reading,
        named: Sequence[int],
        overlap: NDArray[np.float64],
        accepts: NDArray[np.bool_],
    ) -> tuple[list[Answered], Work]:
        """What becomes of one pre-label, and what that costs once it has been looked at and selected; nothing where it
        is left as it is.
        """
        drawn, place = int(shown.classes[index]), _place(shown.boxes[index])
        if cell is None:
            return ([Answered(drawn, place, index)], Work()) if accepts[0] else ([], DECIDE + DELETE)
        renamed = drawn != truth.classes[cell] and not accepts[0] and named[cell] != drawn
        moved = overlap[index, cell] < WELL_PLACED and not accepts[1]
        number = named[cell] if renamed else drawn
        key = class_key(self._classes.hotkeys[number])
        if not moved:
            return [Answered(number, place, index)], DECIDE + key if renamed else Work()
        corners = DRAG + DRAG + (key if renamed else Work())  # one corner, then the one across
        anew = DELETE + DRAG + key
        quicker = self._quicker(corners, anew)
        origin = index if quicker is corners else None
        return [Answered(number, _place(truth.boxes[cell]), origin)], DECIDE + quicker

    def _quicker(self, *ways: Work) -> Work:
        return min(ways, key=lambda work: work.seconds(self._operators))


def _place(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(side) for side in box)
    return x, y, width, height
