"""Pages that follow the loop: a fragment asks every two seconds, and the page is loaded anew when a step has ended."""

import hashlib
import json
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django_htmx.http import HttpResponseClientRefresh

from annotation.views.request import SignedIn


def stamp_of(*facts: Any) -> str:
    """A short word that changes when these facts do."""
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]


def live_page(request: SignedIn, stamp: str, context: dict[str, Any]) -> HttpResponse | None:
    """The answer to the fragment's request `?live=<stamp>`; None for an ordinary visit.

    A stamp that is no longer true means that more than the fragment has changed: the browser loads the page anew.
    """
    if not request.htmx or "live" not in request.GET:
        return None
    if request.GET["live"] != stamp:
        return HttpResponseClientRefresh()
    return render(request, "components/live_jobs.html", context | {"stamp": stamp})
