"""What a page or a request for JSON is answered when storage cannot be read or written: 503, and why."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from annotation.services.patience import AWAY, StorageError

RETRY_SECONDS = 30


class StorageAwayMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, StorageError):
            return None
        if request.accepts("text/html"):
            response = render(request, "503.html", {"reason": str(error), "away": error.code == AWAY}, status=503)
        else:
            response = JsonResponse({"error": str(error)}, status=503)
        response["Retry-After"] = str(RETRY_SECONDS)
        return response
