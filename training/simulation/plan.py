"""The arms of a simulation: how each round's batch is chosen and read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

MOSTLY_RARE = 80  # percent of the paper's later batches here; the paper says "mostly"
ONE_STAGE = "one-stage"
ONE_STAGE_PASSES = 2  # of tiles through a one-stage detector for each through a finder: it has no classifier to train


@dataclass(frozen=True)
class Step:
    """One round: whether its reader starts from pre-labels, how its tiles are chosen, and the kind of detector that is
    trained in it; "" is the one of the settings.
    """

    assisted: bool
    strategy: str
    kind: str = ""

    @property
    def key(self) -> str:
        return "-".join([*filter(None, [self.kind]), "assisted" if self.assisted else "manual", self.strategy])

    @property
    def mix(self) -> dict[str, int]:
        return {"rare": MOSTLY_RARE} if self.strategy == "mix" else {}


FIRST = Step(assisted=False, strategy="random")  # of every arm: there is no model yet


@dataclass(frozen=True)
class Arm:
    """second, later: the second round, and every one after it. kind: of all of its detectors, as in Step."""

    name: str
    words: str
    second: Step
    later: Step
    kind: str = ""

    def steps(self, rounds: int) -> list[Step]:
        return [replace(step, kind=self.kind) for step in (FIRST, self.second, *[self.later] * (rounds - 2))][:rounds]

    @property
    def assisted_from(self) -> int | None:
        """The first round with pre-labels."""
        if self.second.assisted:
            return 2
        return 3 if self.later.assisted else None


def _arm(name: str, words: str, later: Step, *, second: Step | None = None, kind: str = "") -> Arm:
    return Arm(name, words, second or later, later, kind)


_MIX = Step(assisted=True, strategy="mix")
ARMS = {
    arm.name: arm
    for arm in (
        _arm("a", "manual, random tiles", FIRST),
        _arm("b", "assisted, random tiles", Step(assisted=True, strategy="random")),
        _arm("c", "assisted, rare cells first", Step(assisted=True, strategy="rare")),
        _arm("d", "assisted, where the model is in doubt", Step(assisted=True, strategy="uncertain")),
        _arm("e", "the paper's: two manual rounds, then mostly rare", _MIX, second=FIRST),
        _arm("e1", "the paper's, with a detector of one stage", _MIX, second=FIRST, kind=ONE_STAGE),
    )
}


def epochs_for(passes: int, items: int) -> int:
    """How many epochs over so many tiles or cells make about so many passes: the same work whatever their number."""
    return max(1, round(passes / max(1, items)))


def prefixes(arms: Sequence[Arm], rounds: int) -> list[tuple[Step, ...]]:
    """Every beginning that an arm has, the shorter ones first: arms that begin alike share their rounds."""
    found = {tuple(arm.steps(rounds)[:number]) for arm in arms for number in range(1, rounds + 1)}
    return sorted(found, key=lambda steps: (len(steps), [step.key for step in steps]))
