"""The request as our views get it: signed in, and marked when htmx sent it."""

import json
from collections.abc import Callable
from functools import wraps
from typing import IO, Any
from urllib.parse import unquote

from django.core.files import File
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django_htmx.middleware import HtmxDetails

from annotation.access import require_role
from annotation.models import Project, Role, User


class SignedIn(HttpRequest):
    """LoginRequiredMiddleware lets nobody else through."""

    user: User
    htmx: HtmxDetails


def page_of(request: SignedIn, project: Project, tab: str) -> dict[str, Any]:
    """What every page of a project shows: the project, its tab, the user's role and whether that is lead."""
    role = require_role(request.user, project, Role.ANNOTATOR)
    return {"project": project, "tab": tab, "role": role.label, "can_lead": role.covers(Role.LEAD)}


def sent_file(file: "IO[bytes] | File[bytes]", name: str, content_type: str) -> FileResponse:
    """A download, read as it is sent: however large the file is, little of it is in memory."""
    response = FileResponse(file, as_attachment=True, filename=name, content_type=content_type)
    response.block_size = 1 << 16
    if isinstance(file, File):  # one that comes from another machine cannot be asked by seeking
        response["Content-Length"] = str(file.size)
    return response


class NotJSON(ValueError):
    """The request's body is not the JSON object that it should be."""


def json_body(request: HttpRequest) -> dict[str, Any]:
    """The body as a JSON object; raises NotJSON."""
    return json_object(request.body)


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object of what was sent; of nothing, an empty one. Raises NotJSON."""
    try:
        body = json.loads(raw or b"{}")
        text = json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise NotJSON(f"The request is not JSON: {error}") from error
    if b"\\u0000" in text:
        raise NotJSON("The request holds a NUL character, which the database does not store.")
    if not isinstance(body, dict):
        raise NotJSON("The request is not a JSON object.")
    return body


def from_own_page(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Take no work from a page that somebody else had opened: 401 where `X-Reader` names another than who is signed in.

    On a shared computer the next reader signs in while the last one's page is still open, with work that waits to be
    sent: it must never be stored in the name of another.
    """

    @wraps(view)
    def checked(request: SignedIn, *args: Any, **kwargs: Any) -> HttpResponse:
        reader = unquote(request.headers.get("X-Reader", ""))
        if reader and reader != request.user.get_username():
            return JsonResponse({"error": f"This page is {reader}'s, who is no longer signed in."}, status=401)
        return view(request, *args, **kwargs)

    return checked
