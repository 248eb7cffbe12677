"""The request as our views get it: signed in, and marked when htmx sent it."""

import json
from typing import Any

from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails

from annotation.models import User


class SignedIn(HttpRequest):
    """LoginRequiredMiddleware lets nobody else through."""

    user: User
    htmx: HtmxDetails


class NotJSON(ValueError):
    """The request's body is not the JSON object that it should be."""


def json_body(request: HttpRequest) -> dict[str, Any]:
    """The body as a JSON object; raises NotJSON."""
    try:
        body = json.loads(request.body or b"{}")
    except ValueError as error:
        raise NotJSON(f"The request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise NotJSON("The request is not a JSON object.")
    return body
