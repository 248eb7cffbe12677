"""JSON files of any size, entry by entry: the lists of a top-level object, or a top-level list.

A file of a million boxes takes some GiB when it is loaded as a whole. The decoder is Python's own, in C; what is added
here is to give it one entry after the other. ijson would have to go through a file once for each of its lists, and
says neither the line of an error nor that a list is missing.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import TextIO

from annotation.formats.reading import LabelFile, bounded_text, opened
from annotation.formats.records import FormatError, Problem

_CHUNK = 1 << 20
# Characters of one entry. The image of a whole slide lists all its tiles.
_MOST = 64 << 20
_BLANK = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_MAY_GO_ON = frozenset({"", *"0123456789.eE+-"})
_decode = json.JSONDecoder().raw_decode


class _Text:
    """Text that is read as far as it is needed; what is wrong is named with its line."""

    def __init__(self, text: TextIO, file: str) -> None:
        self._text, self._file = text, file
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False

    def problem(self, reason: str) -> FormatError:
        return FormatError([Problem(self._file, reason)])

    def invalid(self, message: str, at: int | None = None) -> FormatError:
        line = self._line + self._buffer.count("\n", 0, self._at if at is None else at)
        return FormatError([Problem(self._file, f"the file is not valid JSON ({message})", line)])

    def _read_on(self) -> bool:
        if self._ended:
            return False
        left = len(self._buffer) - self._at
        if left > _MOST:
            raise self.problem(f"an entry is longer than {_MOST >> 20} MB")
        chunk = self._text.read(max(_CHUNK, left))
        self._line += self._buffer.count("\n", 0, self._at)
        self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        self._ended = not chunk
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            self._at = _BLANK.match(self._buffer, self._at).end()  # type: ignore[union-attr]  # it matches nothing too
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._read_on():
                return ""

    def take(self, wanted: str) -> bool:
        """Go past the next character if it is this one."""
        if self.peek() != wanted:
            return False
        self._at += 1
        return True

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise self.invalid(f"expecting {wanted!r}")

    def value(self) -> object:
        """Decode the next value."""
        if self._buffer[self._at : self._at + 1] != "{":
            self.peek()
        while True:
            try:
                value, end = _decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if not self._read_on():  # what is cut off cannot be told from what is wrong
                    raise self.invalid(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.problem("the file is not valid JSON") from error
            else:
                # A number that is cut off is one too.
                if self._buffer[end : end + 1] not in _MAY_GO_ON or not self._read_on():
                    self._at = end
                    return value

    def entries(self) -> Iterator[object]:
        """The values of the list that begins here."""
        self.expect("[")
        if self.take("]"):
            return
        while True:
            yield self.value()
            comma = _COMMA.match(self._buffer, self._at)
            if comma is not None:  # as nearly always: the buffer goes on
                self._at = comma.end()
            elif not self.take(","):
                self.expect("]")
                return

    def finish(self) -> None:
        if self.peek():
            raise self.invalid("extra data")


def _object(value: object) -> dict[str, object] | None:
    return value if isinstance(value, dict) else None


def stream_lists(
    path: LabelFile, file: str, keys: Collection[str], limit: int
) -> Iterator[tuple[str, dict[str, object]]]:
    """Each object in the lists that a top-level object has under `keys`, with its key; in the file's order.

    Raises FormatError when the file is not valid JSON, larger than `limit` bytes, or lacks one of the lists.
    """
    with opened(path, file) as handle:
        text = _Text(bounded_text(handle, file, limit), file)
        missing = list(keys)
        if text.peek() not in ("{", ""):
            text.value()  # may not be JSON at all
            raise text.problem(f"`{missing[0]}` must be a list of objects")
        text.expect("{")
        more = not text.take("}")
        while more:
            if text.peek() != '"':
                raise text.invalid("expecting a name in double quotes")
            key = str(text.value())
            text.expect(":")
            if key not in keys:
                text.value()
            elif text.peek() != "[":
                raise text.problem(f"`{key}` must be a list of objects")
            else:
                missing = [name for name in missing if name != key]
                for value in text.entries():
                    entry = _object(value)
                    if entry is None:
                        raise text.problem(f"`{key}` must be a list of objects")
                    yield key, entry
            more = text.take(",")
            if not more:
                text.expect("}")
        text.finish()
        if missing:
            raise text.problem(f"`{missing[0]}` must be a list of objects")


def stream_list(path: LabelFile, file: str, limit: int, wanted: str) -> Iterator[dict[str, object]]:
    """Each object of a top-level list; `wanted` says in messages what the list is of. Raises FormatError."""
    with opened(path, file) as handle:
        text = _Text(bounded_text(handle, file, limit), file)
        if text.peek() not in ("[", ""):
            text.value()
            raise text.problem(f"expected a list of {wanted}")
        for value in text.entries():
            entry = _object(value)
            if entry is None:
                raise text.problem(f"expected a list of {wanted}")
            yield entry
        text.finish()


def find_value(path: LabelFile, file: str, key: str, limit: int) -> object:
    """What a top-level object has under `key`, None without it; what comes after it is not read.

    Raises FormatError when the file up to there is not valid JSON, or larger than `limit` bytes.
    """
    with opened(path, file) as handle:
        text = _Text(bounded_text(handle, file, limit), file)
        text.expect("{")
        more = not text.take("}")
        while more:
            if text.peek() != '"':
                raise text.invalid("expecting a name in double quotes")
            name = text.value()
            text.expect(":")
            if name == key:
                return text.value()
            if text.peek() == "[":
                for _ in text.entries():
                    pass
            else:
                text.value()
            more = text.take(",")
    return None
