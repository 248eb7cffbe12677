"""What all views of the API have in common."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.api.bodies import ObjectParser
from annotation.api.pages import Pages

MAX_KEY = 2**63 - 1


def key(help_text: str = "") -> serializers.IntegerField:
    """A filter by the key of something."""
    return serializers.IntegerField(required=False, min_value=1, max_value=MAX_KEY, help_text=help_text)


def checked(form: type[serializers.Serializer], data: Any, **context: Any) -> dict[str, Any]:
    """The data as the serializer understands them. Raises a ValidationError that names what is wrong: 400."""
    serializer = form(data=data, context=context)
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = dict(serializer.validated_data)
    return values


class Filters(serializers.Serializer):
    """Of a query; a filter that is not there, or empty, filters nothing."""

    def to_internal_value(self, data: Any) -> Any:
        return super().to_internal_value({name: value for name, value in data.items() if value != ""})


class Strict(serializers.Serializer):
    """Of a body whose fields may be left out: one that is misspelt must not be passed over."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(str(name)[:40] for name in data if name not in self.fields) if isinstance(data, dict) else []
        if unknown:
            raise serializers.ValidationError(dict.fromkeys(unknown[:5], "There is no such field."))
        return super().to_internal_value(data)


class OwnNegotiation(DefaultContentNegotiation):
    """The API speaks JSON, pictures and files are what they are: nobody is refused for what they would rather have."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


class View(APIView):
    """`scopes` names what a method needs where that is not the usual; `api_tag` groups the description."""

    content_negotiation_class = OwnNegotiation
    parser_classes = [ObjectParser]
    scopes: dict[str, str] = {}
    api_tag = "more"

    def paged(
        self, request: Request, rows: QuerySet[Any], row: type[serializers.Serializer], pages: type[Pages] = Pages
    ) -> Response:
        """One page of the list, as `row` tells it."""
        paginator = pages()
        found = paginator.paginate_queryset(rows, request, view=self)
        return paginator.get_paginated_response(row(found, many=True).data)
