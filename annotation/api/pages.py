"""Lists in pages, each with the address of the next: `{"next", "previous", "results"}`."""

from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request


class Pages(CursorPagination):
    """In the order of the keys, so that rows that come meanwhile neither repeat others nor push them out."""

    ordering = "pk"
    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 500
    cursor_query_description = "Where the page begins: take it from `next` or `previous`."
    page_size_query_description = "Rows of a page, 500 at most."

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> list[Any] | None:
        try:
            page: list[Any] | None = super().paginate_queryset(queryset, request, view)
        except (ValueError, OverflowError, TypeError) as error:
            raise ValidationError("The cursor is none of this list's.") from error
        return page


class NewestFirst(Pages):
    ordering = "-pk"
