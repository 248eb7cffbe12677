"""Errors as the editor tells them: `{"error": text}`."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import status
from rest_framework.exceptions import APIException, NotAuthenticated, NotFound, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from annotation.services.patience import StorageError


class Refused(APIException):
    """The request is understood and well formed, but something stands against it."""

    status_code = status.HTTP_409_CONFLICT


class StorageAway(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE


def as_json(error: Exception, context: dict[str, Any]) -> Response | None:
    """What the API answers to an exception; None for what is a defect of ours."""
    if isinstance(error, Http404):
        error = NotFound(str(error) if error.args and isinstance(error.args[0], str) else "There is no such thing.")
    if isinstance(error, StorageError):
        error = StorageAway(str(error))
    if isinstance(error, PermissionDenied):
        text = str(error) or "You may not do this."
        return Response({"error": text}, status=status.HTTP_403_FORBIDDEN)
    if isinstance(error, NotAuthenticated):
        error.detail = "The API needs a token: Authorization: Bearer <token>."
    answer = exception_handler(error, context)
    if answer is not None:
        detail = error.detail if isinstance(error, APIException) else answer.data
        answer.data = {"error": _in_words(detail) if isinstance(error, ValidationError) else str(detail)}
    return answer


def _in_words(detail: Any, name: str = "") -> str:
    """Every complaint in one text: "revision: This field is required." """
    if isinstance(detail, dict):
        return " ".join(
            _in_words(value, name if key == "non_field_errors" else f"{name} {key}".strip())
            for key, value in detail.items()
        )
    if isinstance(detail, list):
        return " ".join(_in_words(value, name) for value in detail)
    return f"{name}: {detail}" if name else str(detail)
