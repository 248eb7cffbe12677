"""How the API is described (OpenAPI)."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers

from annotation.api.pages import Pages


class Error(serializers.Serializer):
    error = serializers.CharField()


ERRORS = {400: Error, 401: Error, 403: Error, 404: Error}


class Description(AutoSchema):
    """An operation is grouped by what its `api_tag` says."""

    def get_tags(self) -> list[str]:
        return [getattr(self.view, "api_tag", "more")]


def reads(
    answer: Any,
    *,
    about: str,
    name: str,
    filters: Any = None,
    pages: type[Pages] | None = None,
    example: Any = None,
) -> Any:
    """The description of a GET: of one thing, or of a list in `pages`, whose query may hold the fields of `filters`.

    `example`: of the thing, or of a row of the list.
    """
    if pages is None:
        answers = {200: answer, **ERRORS}
        return extend_schema(operation_id=name, summary=about, responses=answers, examples=_examples(None, example))
    page = example and {"next": None, "previous": None, "results": [example]}
    return extend_schema(
        operation_id=name,
        summary=about,
        parameters=[*([filters] if filters else []), *_parameters_of(pages)],
        responses={200: _page_of(answer), **ERRORS},
        examples=_examples(None, page),
    )


def writes(asked: Any, answers: dict[int, Any], *, about: str, name: str, body: Any = None, example: Any = None) -> Any:
    """The description of a POST, PUT or DELETE. Every write may be refused. Of what is sent `body` is an example,
    of the answer `example`.
    """
    errors = {**ERRORS, 413: Error, 415: Error}
    return extend_schema(
        operation_id=name,
        summary=about,
        request=asked,
        responses={**errors, **answers},
        examples=_examples(body, example),
    )


def downloads(content_type: str, *, about: str, name: str) -> Any:
    """The description of a GET of a file, whole or in part."""
    known = [
        OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="One range of bytes."),
        OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="An ETag that is at hand."),
    ]
    files = dict.fromkeys([(200, content_type), (206, content_type)], OpenApiTypes.BINARY)
    errors = {(status, "application/json"): Error for status in (401, 403, 404, 503)}
    return extend_schema(
        operation_id=name, summary=about, parameters=known, responses={**files, 304: None, **errors, 416: None}
    )


def _examples(body: Any, answer: Any) -> list[OpenApiExample]:
    told = [] if body is None else [OpenApiExample("Request", body, request_only=True)]
    return told + ([] if answer is None else [OpenApiExample("Answer", answer, response_only=True)])


def _page_of(row: Any) -> Any:
    fields = {
        "next": serializers.URLField(allow_null=True),
        "previous": serializers.URLField(allow_null=True),
        "results": row(many=True),
    }
    return type(f"{row.__name__}Page", (serializers.Serializer,), fields)


def _parameters_of(pages: type[Pages]) -> list[Any]:
    return [
        OpenApiParameter("cursor", str, description=pages.cursor_query_description),
        OpenApiParameter(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": pages.max_page_size},
            description=pages.page_size_query_description,
        ),
    ]
