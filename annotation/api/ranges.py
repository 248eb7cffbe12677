"""One range of the bytes of an answer (RFC 9110, section 14)."""

import re
from collections.abc import Callable, Iterator

from django.core.files import File
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from annotation.views.request import sent_file

# A first and a last byte, both included; the last may be left out. Or the last so many bytes.
RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)
BLOCK = 1 << 20


def part_of(request: HttpRequest, data: bytes, *, content_type: str, etag: str) -> HttpResponse:
    """All of the data, or the one range that was asked for: 206; 416 if there is no such range.

    A header that asks for several ranges, or that cannot be understood, is passed over, as is one for another ETag.
    """
    headers = _headers(etag)
    asked = _asked(request, etag)
    if asked is None:
        return HttpResponse(data, content_type=content_type, headers=headers)
    first, last = _bounds(asked, len(data))
    if first > last:
        return _no_such_part(len(data), content_type, headers)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return HttpResponse(data[first : last + 1], status=206, content_type=content_type, headers=headers)


def part_of_file(
    request: HttpRequest,
    opened: Callable[[int], "File[bytes]"],
    size: int,
    *,
    name: str,
    content_type: str,
    etag: str,
) -> HttpResponseBase:
    """The same of a file of this size in bytes, which is read block by block and closed in the end.

    opened: gives the file, to be read from a byte on.
    """
    headers = _headers(etag)
    asked = _asked(request, etag)
    if asked is None:
        whole = sent_file(opened(0), name, content_type)
        for header, value in headers.items():
            whole[header] = value
        return whole
    first, last = _bounds(asked, size)
    if first > last:
        return _no_such_part(size, content_type, headers)
    headers |= {
        "Content-Range": f"bytes {first}-{last}/{size}",
        "Content-Length": str(last - first + 1),
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    part = _Part(opened(first), last - first + 1)
    return StreamingHttpResponse(part, status=206, content_type=content_type, headers=headers)


class _Part:
    """So many bytes of a file from where it stands, closed with the answer."""

    def __init__(self, file: "File[bytes]", size: int) -> None:
        self._file, self._left = file, size

    def __iter__(self) -> Iterator[bytes]:
        while self._left and (block := self._file.read(min(BLOCK, self._left))):
            self._left -= len(block)
            yield block

    def close(self) -> None:
        self._file.close()


def _headers(etag: str) -> dict[str, str]:
    return {"ETag": etag, "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}


def _asked(request: HttpRequest, etag: str) -> re.Match[str] | None:
    asked = RANGE.fullmatch(request.headers.get("Range", "").strip())
    backwards = asked is not None and asked[1] and asked[2] and int(asked[2]) < int(asked[1])
    return None if backwards or request.headers.get("If-Range", etag) != etag else asked


def _no_such_part(size: int, content_type: str, headers: dict[str, str]) -> HttpResponse:
    return HttpResponse(status=416, content_type=content_type, headers=headers | {"Content-Range": f"bytes */{size}"})


def _bounds(asked: re.Match[str], size: int) -> tuple[int, int]:
    """The first and the last byte; the first lies above the last where the data have none of them."""
    first, last, suffix = asked.groups()
    if suffix is not None:
        return max(0, size - int(suffix)) if int(suffix) else size, size - 1
    return int(first), min(int(last or size), size - 1)
