"""The files of a data set by their relative names, whether they lie in a folder or in an archive."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One of the files; `path` is its name relative to the tree, with forward slashes."""

    path: str
    _opener: Callable[[str], IO[bytes]]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """As pathlib has it, in a tenth of its time."""
        stem, _, ending = self.name.rpartition(".")
        return stem if stem and ending else self.name

    @property
    def suffix(self) -> str:
        """In small letters."""
        return self.name[len(self.stem) :].lower()

    @property
    def folders(self) -> list[str]:
        """The names of the folders that it lies in, from the top."""
        return self.path.split("/")[:-1]

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        return self._opener(self.path)


class FileTree:
    """All files, sorted by name. `folder` is where the images lie under the same names: programs need them as files."""

    def __init__(self, names: Iterable[str], opener: Callable[[str], IO[bytes]], folder: Path) -> None:
        self.names = sorted(names)
        self.folder = folder
        self._opener = opener

    @classmethod
    def of_folder(cls, folder: Path) -> "FileTree":
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        return cls(names, lambda name: (folder / name).open("rb"), folder)

    def file(self, name: str) -> TreeFile:
        return TreeFile(name, self._opener)

    def with_suffix(self, suffix: str) -> list[TreeFile]:
        """The files whose names end so, in large or small letters."""
        return [self.file(name) for name in self.names if name[-len(suffix) :].lower() == suffix]

    def named(self, *wanted: str) -> list[TreeFile]:
        """The files of these names in any folder."""
        return [self.file(name) for name in self.names if name.rpartition("/")[2] in wanted]

    def without_wrapping(self) -> "FileTree":
        """The tree below the one folder that is all that it holds, and so on: what an archive was made of."""
        if not self.names:
            return self
        first, last = self.names[0].split("/")[:-1], self.names[-1].split("/")[:-1]
        shared = 0
        while shared < min(len(first), len(last)) and first[shared] == last[shared]:
            shared += 1
        if not shared:
            return self
        wrapping = "/".join(first[:shared]) + "/"
        opener = self._opener
        names = [name.removeprefix(wrapping) for name in self.names]
        return FileTree(names, lambda name: opener(wrapping + name), self.folder / wrapping)
