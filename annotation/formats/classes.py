"""Class lists: one name a line in `classes.txt`, line n (from 0) being class id n; and names turned into ids."""

from collections.abc import Sequence

from annotation.formats.records import FormatError, Problem

CLASS_LIST = "classes.txt"


def class_list_problem(names: Sequence[str]) -> str | None:
    """Why `names` cannot be a class list (empty, repeated, blank at an end, unprintable), or None when it can."""
    if not names:
        return "the class list is empty"
    bad = [name for name in names if not name or name != name.strip() or not name.isprintable()]
    if bad:
        return "class names must be printable and without blanks at the ends: " + ", ".join(repr(name) for name in bad)
    repeated = sorted({name for name in names if names.count(name) > 1})
    return "classes named twice: " + ", ".join(repr(name) for name in repeated) if repeated else None


def check_class_list(names: Sequence[str], file: str) -> tuple[str, ...]:
    """Return `names` as a tuple; raises FormatError naming `file` when they cannot be a class list."""
    reason = class_list_problem(names)
    if reason is not None:
        raise FormatError([Problem(file, reason)])
    return tuple(names)


def class_list_text(classes: Sequence[str]) -> str:
    """The text of `classes.txt`."""
    return "".join(f"{name}\n" for name in classes)


class ClassIndex:
    """Turns class names into ids.

    With a frozen list, other names are unknown and gathered (never a new class). Without one, names get ids in the
    order in which they are first seen.
    """

    def __init__(self, frozen: Sequence[str] | None) -> None:
        self._frozen = frozen is not None
        # The names by id; grows with the ids.
        self.in_order = list(frozen or ())
        self._ids = {name: class_id for class_id, name in enumerate(self.in_order)}
        self._unknown: dict[str, str] = {}

    def freeze(self, names: Sequence[str]) -> None:
        """From now on these are the names, in this order. Nothing may have been looked up before."""
        self._frozen = True
        self.in_order[:] = names
        self._ids = {name: class_id for class_id, name in enumerate(names)}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.in_order)

    def find(self, name: str, file: str) -> int | None:
        """The id of `name`, or None (and remembered, with the file that used it) when it is unknown."""
        class_id = self._ids.get(name)
        if class_id is not None:
            return class_id
        if self._frozen:
            self._unknown.setdefault(name, file)
            return None
        self.in_order.append(name)
        return self._ids.setdefault(name, len(self._ids))

    def problem(self) -> Problem | None:
        """One problem that lists every unknown class, or None."""
        if not self._unknown:
            return None
        names = ", ".join(repr(name[:80]) for name in sorted(self._unknown))
        known = ", ".join(repr(name) for name in self._ids)
        return Problem(next(iter(self._unknown.values())), f"unknown classes: {names} (known classes: {known})")
