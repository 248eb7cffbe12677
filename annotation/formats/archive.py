"""A zip archive that fills while the tiles stream by, and its `manifest.json`.

Nothing is unpacked on disk but the few files that grow line by line, so a hundred thousand label files cost no hundred
thousand files. The same files in the same order give the same bytes: entries carry no time and no owner.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TextIO

MANIFEST = "manifest.json"
# A fixed time in the archive: the same data gives the same bytes.
ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)
_PACKED_ALREADY = frozenset({".jpg", ".png"})
_LEVEL = 1  # label text shrinks to a quarter at this level already, and in a third of the time


class ArchiveWriter:
    """Fills a new archive at `path`, as a context manager; an error leaves nothing there.

    The archive grows under another name beside `path` and is moved into place at the end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scratch = Path()
        self._grown: list[tuple[str, Path]] = []

    def __enter__(self) -> "ArchiveWriter":
        self._scratch = Path(tempfile.mkdtemp(dir=self._path.parent, prefix=".export-"))
        self._zip = zipfile.ZipFile(self._scratch / "archive", "w", zipfile.ZIP_DEFLATED, strict_timestamps=False)
        self._files = (self._scratch / "files").open("w", encoding="utf-8", newline="")
        self._separator = ""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._files.close()
            if kind is None:
                self._take_in_grown()
                self._zip.close()
                (self._scratch / "archive").replace(self._path)
            else:
                with suppress(OSError):  # the disk may be full: that error is on its way already
                    self._zip.close()
        finally:
            shutil.rmtree(self._scratch)

    def make_folder(self, relative: str) -> None:
        """A folder that is there even when no file is in it."""
        info = zipfile.ZipInfo(f"{relative}/", ARCHIVE_TIME)
        info.external_attr = (0o40755 << 16) | 0x10
        self._zip.writestr(info, b"")

    def write(self, relative: str, content: str | bytes) -> None:
        """Write one file; text becomes UTF-8 with the line ends it has."""
        data = content.encode("utf-8") if isinstance(content, str) else content
        info = zipfile.ZipInfo(relative, ARCHIVE_TIME)
        packed = PurePosixPath(relative).suffix in _PACKED_ALREADY
        info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
        info.external_attr = 0o100644 << 16
        self._zip.writestr(info, data, compresslevel=_LEVEL)
        self._list(relative, hashlib.sha256(data).hexdigest(), len(data))

    def open_text(self, relative: str) -> TextIO:
        """Open one file for text that grows while the tiles stream by; the caller closes it."""
        path = self._scratch / f"grown-{len(self._grown)}"
        self._grown.append((relative, path))
        return path.open("w", encoding="utf-8", newline="")

    def add_manifest(self, facts: Mapping[str, object]) -> None:
        """Add `manifest.json` as the last file: the facts, then path, sha256 and bytes of every other file as `files`.

        Every file opened by `open_text` must be closed.
        """
        self._take_in_grown()
        self._files.flush()
        with self.open_text(MANIFEST) as manifest:
            head = json.dumps(facts, ensure_ascii=False, allow_nan=False, indent=1)
            manifest.write(f'{head.removesuffix("}").rstrip()},\n "files": [')
            with (self._scratch / "files").open(encoding="utf-8", newline="") as files:
                shutil.copyfileobj(files, manifest, 1 << 20)
            manifest.write("\n ]\n}\n")

    def _list(self, relative: str, sha256: str, size: int) -> None:
        line = json.dumps({"path": relative, "sha256": sha256, "bytes": size}, ensure_ascii=False)
        self._files.write(f"{self._separator}\n  {line}")
        self._separator = ","

    def _take_in_grown(self) -> None:
        for relative, path in self._grown:
            # zipfile takes times and rights from the file itself; a time before 1980 becomes 1980's first second.
            os.utime(path, (0, 0))
            path.chmod(0o644)
            self._zip.write(path, relative, compresslevel=_LEVEL)
            if relative != MANIFEST:
                with path.open("rb") as file:
                    self._list(relative, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
            path.unlink()
        self._grown = []
