"""The event log of a project, and its export."""

from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotation.access import get_project_for
from annotation.event_log import EventFilter, csv_lines, events_of, log_rows
from annotation.models import Event, Project, Role
from annotation.views.request import SignedIn, page_of

EVENTS_PER_PAGE = 100


def _filter(request: SignedIn, project: Project) -> EventFilter:
    return EventFilter(request.GET or None, project=project)


@require_GET
def project_events(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    form = _filter(request, project)
    # A filter that cannot be understood shows nothing, rather than everything as if it were what was asked for.
    chosen = form.cleaned_data if form.is_bound and form.is_valid() else {}
    events = Event.objects.none() if form.errors else events_of(project, chosen)
    page = Paginator(events, EVENTS_PER_PAGE).get_page(request.GET.get("page"))
    asked = {name: request.GET[name] for name in form.fields if request.GET.get(name)}
    context = page_of(request, project, "events") | {
        "form": form,
        "page": page,
        "rows": log_rows(list(page)),
        "query": f"?{urlencode(asked)}" if asked else "",
    }
    return render(request, "annotation/events.html", context, status=422 if form.errors else 200)


@require_GET
def events_table(request: SignedIn, pk: int) -> HttpResponseBase:
    """What the page shows at the same address, all pages of it, as CSV."""
    project = get_project_for(request.user, pk, Role.LEAD)
    form = _filter(request, project)
    if form.errors:
        return HttpResponse("The filter cannot be understood.", status=400, content_type="text/plain; charset=utf-8")
    events = events_of(project, form.cleaned_data if form.is_bound else {})
    name = f"marrowloop-{project.pk}-events.csv"
    return StreamingHttpResponse(
        csv_lines(events),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
