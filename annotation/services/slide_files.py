"""Where a slide's files lie: in storage, or in a registered folder, where they are read in place and never written.

`Slide.files` names a file of a registered folder "folder:SIZE:MODIFIED:/its/path". A file that no longer has this size
and time of change is not the one that was imported, as far as anybody knows, and is not read.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.files.storage import default_storage

from annotation.models import Slide
from annotation.services.storage import digest_of, held
from annotation.slides.reader import SlideError

PREFIX = "folder:"


class OutsideRoots(ValueError):
    """A path that the settings do not allow. Its text is for the user."""


@dataclass(frozen=True)
class PlacedFile:
    """A file of a registered folder as it was when it was imported: bytes, and ns since 1970."""

    path: Path
    size: int
    modified: int

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.size}:{self.modified}:{self.path}"


def placed_now(path: Path) -> PlacedFile:
    """The file as it is now. Raises OSError."""
    stat = path.stat()
    return PlacedFile(path, stat.st_size, stat.st_mtime_ns)


def placed(name: str) -> PlacedFile | None:
    """What a name in `Slide.files` says; None of a file in storage."""
    if not name.startswith(PREFIX):
        return None
    size, modified, path = name.removeprefix(PREFIX).split(":", 2)
    return PlacedFile(Path(path), int(size), int(modified))


def allowed(path: Path | str) -> Path:
    """The path without links, if it is there and under a root that the settings allow. Raises OutsideRoots."""
    given = Path(path)
    if not given.is_absolute() or ".." in given.parts:
        raise OutsideRoots(f"{path}: the whole path is needed, without “..”.")
    try:
        real = given.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise OutsideRoots(f"{path} is not there, or cannot be read.") from error
    if not any(real.is_relative_to(root) for root in settings.SLIDE_ROOTS):
        raise OutsideRoots(f"{path} does not lie under a folder of slides that the settings allow.")
    return real


@contextmanager
def slide_paths(slide: Slide) -> Iterator[list[Path]]:
    """Paths on this machine to a slide's files, the one to open first; none of those in storage goes away inside.

    Raises SlideError if one is gone or changed, StorageError when storage cannot be reached.
    """

    def right(paths: Sequence[Path]) -> bool:
        return digest_of(paths) == slide.sha256

    with ExitStack() as stack:
        known = [file for name in slide.files if (file := placed(name))]
        if known:
            paths = [_path(slide, file) for file in known]
        else:
            try:
                paths = stack.enter_context(held(slide.files, right=right, called=slide.name))
            except FileNotFoundError as error:
                raise SlideError(f"{slide.name}: the slide's file is missing from storage.", code="missing") from error
        yield paths


def _path(slide: Slide, known: PlacedFile) -> Path:
    try:
        now = placed_now(allowed(known.path))
    except (OutsideRoots, OSError) as error:
        text = f"{slide.name}: the slide's file is missing from its registered folder."
        raise SlideError(text, code="missing") from error
    if now != known:
        raise SlideError(
            f"{slide.name}: the file in its registered folder has changed since it was imported; it is not read.",
            code="changed",
        )
    return now.path


def is_there(slide: Slide) -> bool:
    """Whether the slide's files are all there, unchanged; what lies in storage is not fetched for that."""
    try:
        return all(
            _path(slide, known) if (known := placed(name)) else default_storage.exists(name) for name in slide.files
        )
    except SlideError:
        return False
