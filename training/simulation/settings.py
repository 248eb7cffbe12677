"""What a simulation is made with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from training.simulation.expert import Errors
from training.simulation.operators import Operators
from training.simulation.plan import ARMS


@dataclass(frozen=True)
class Settings:
    """arms: names of training.simulation.plan. seeds: how many repetitions of each arm. batch: tiles of a round.

    kind, model, image_size, from_previous: of training, as in a round's form. finder_passes: tiles that one training
    sees, each as often as it takes, twice as many where there is one stage; classifier_passes: cells that the training
    of a two-stage detector's classifier sees. Both are the same in every round and arm, so that the curves show data
    and not compute.
    """

    arms: Sequence[str] = ("a", "c", "e")
    seeds: int = 3
    rounds: int = 6
    batch: int = 20
    kind: str = "two-stage"
    model: str = "yolo11n"
    image_size: int = 320
    finder_passes: int = 1600
    classifier_passes: int = 3000
    from_previous: bool = True
    operators: Operators = field(default_factory=Operators)
    errors: Errors = field(default_factory=Errors)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.arms) - set(ARMS))
        if unknown or not self.arms:
            raise ValueError(f"There is no arm {', '.join(unknown) or 'at all'}: choose from {', '.join(ARMS)}.")
        least = {"seeds": 1, "rounds": 2, "batch": 2, "finder_passes": 1, "classifier_passes": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name.replace('_', ' ').capitalize()}: at least {lowest}.")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "arms": list(self.arms)}

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> "Settings":
        made = {"operators": Operators(**raw["operators"]), "errors": Errors(**raw["errors"])}
        return cls(**{**raw, **made, "arms": tuple(raw["arms"])})

    def differs_from(self, other: "Settings") -> list[str]:
        """What makes rounds of one no rounds of the other. Times of operators, and how many arms, seeds and rounds
        there are, change no round.
        """
        free = {"arms", "seeds", "rounds", "operators"}
        names = [one.name for one in fields(self) if one.name not in free]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


QUICK = Settings(
    arms=("a", "c"),
    seeds=1,
    rounds=2,
    batch=12,
    image_size=160,
    finder_passes=40,
    classifier_passes=60,
)
