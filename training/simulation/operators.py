"""What work in the editor costs: the Keystroke-Level Model.

Card, Moran & Newell 1980, "The keystroke-level model for user performance time with interactive systems",
Communications of the ACM 23(7): an expert's time for a routine task is the sum of its operators' times.
"""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Operators:
    """Seconds of each operator.

    key (K): of an average typist who is no secretary. point (P): to a target with a mouse. mental (M): to prepare one
    decision. All three: Card, Moran & Newell 1980. button (B): one press or release; Kieras 2001, "Using the
    keystroke-level model to estimate execution times". recognise (R): to look at one cell and name it; **our
    assumption**, the same with a pre-label as without one.

    No homing between devices is counted: one hand rests on the keys, the other on the mouse (our assumption).
    """

    key: float = 0.28
    point: float = 1.10
    button: float = 0.10
    mental: float = 1.35
    recognise: float = 1.50

    def __post_init__(self) -> None:
        wrong = [field.name for field in fields(self) if not 0 <= getattr(self, field.name) < 3600]
        if wrong:
            raise ValueError(f"Seconds of an operator lie between 0 and 3600: {', '.join(wrong)}.")

    def scaled(self, name: str, factor: float) -> "Operators":
        """The same with one operator's time multiplied."""
        return replace(self, **{name: factor * getattr(self, name)})


@dataclass(frozen=True)
class Work:
    """How often each operator was needed."""

    keys: int = 0
    points: int = 0
    buttons: int = 0
    mentals: int = 0
    recognised: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def times(self, count: int) -> "Work":
        return Work(*(count * getattr(self, field.name) for field in fields(self)))

    def seconds(self, operators: Operators) -> float:
        return (
            self.keys * operators.key
            + self.points * operators.point
            + self.buttons * operators.button
            + self.mentals * operators.mental
            + self.recognised * operators.recognise
        )


# What the editor needs for each edit (docs/editor.md). A capital hotkey needs Shift besides.
OPEN = Work(mentals=1)  # the next tile is there already: it is taken in
CONFIRM = Work(keys=1)  # Space
CELL = Work(recognised=1)
CLICK = Work(points=1, buttons=2)  # selects a box
STEP = Work(keys=1)  # Tab: selects the next box, the least certain first
DRAG = Work(points=2, buttons=2)  # from one corner to the other
DELETE = Work(keys=1)
DECIDE = Work(mentals=1)  # that what is drawn there is wrong


def class_key(hotkey: str) -> Work:
    return Work(keys=2 if hotkey.isupper() else 1)
