"""Bodies of requests: JSON objects by the same rules as the editor's, and files where files are asked for."""

from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, MultiPartParser

from annotation.api.errors import TooLarge
from annotation.views.request import NotJSON, json_object


class ObjectParser(BaseParser):
    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        try:
            return json_object(stream.body if isinstance(stream, HttpRequest) else stream.read())
        except NotJSON as error:
            raise ParseError(str(error)) from error
        except RequestDataTooBig as error:
            raise TooLarge("The request is larger than this server takes.") from error


class FilesParser(MultiPartParser):
    """Files, with fields beside them."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RequestDataTooBig as error:
            raise TooLarge("The request is larger than this server takes.") from error
        except SuspiciousOperation as error:  # too many files or fields
            raise ParseError(str(error)) from error
