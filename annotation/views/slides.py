"""Slides, patients and tiles."""

from collections import Counter
from collections.abc import Callable

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import get_conditional_response, patch_cache_control
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, get_project_for, require_role
from annotation.forms import SlidesForm
from annotation.models import Box, JobKind, JobState, Patient, Project, Role, Slide, Tile
from annotation.selectors import TILE_STATES, annotations_shown_to, slides_of, tile_states
from annotation.services.jobs import active_jobs
from annotation.services.projects import NotAllowed, set_locked
from annotation.services.slides import stage_uploads
from annotation.services.tiles import crop_jpeg, is_whole_slide, neighbourhood_jpeg, place_jpeg, slide_jpeg, tile_jpeg
from annotation.services.uploads import unfinished_uploads
from annotation.slides.reader import SlideError
from annotation.views.request import SignedIn, page_of

THUMBNAIL_SIDE = 256
OVERVIEW_SIDE = 2048
FAILED_SHOWN = 10
JOBS_SHOWN = 10  # each asks for itself every 2 s
SLIDES_PER_PAGE = 50


def _slides_page(request: SignedIn, project: Project, form: SlidesForm, status: int = 200) -> HttpResponse:
    imports = project.jobs.filter(kind=JobKind.IMPORT_SLIDE).order_by("pk")
    active = active_jobs(project).filter(kind__in=[JobKind.IMPORT_SLIDE, JobKind.DEMO])
    context = (
        page_of(request, project, "slides")
        | {
            "form": form,
            "jobs": active.order_by("-state", "pk")[:JOBS_SHOWN],  # the running one first
            "jobs_waiting": max(0, active.count() - JOBS_SHOWN),
            "failed_jobs": imports.filter(state=JobState.FAILED).order_by("-pk")[:FAILED_SHOWN],
            "slides": Paginator(slides_of(project), SLIDES_PER_PAGE).get_page(request.GET.get("page")),
            "can_lock": not project.batches.exists(),
            "uploads": unfinished_uploads().filter(project=project).select_related("user"),
            "upload_days": settings.UPLOAD_DAYS,
            "chunk_bytes": settings.UPLOAD_CHUNK_BYTES,
        }
    )
    template = "annotation/slides.html"
    if request.htmx:
        template = "annotation/slide_imports.html" if "imports" in request.GET else "annotation/slide_list.html"
    return render(request, template, context, status=status)


@require_GET
def project_slides(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.ANNOTATOR)
    return _slides_page(request, project, SlidesForm())


@require_POST
def slides_import(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    form = SlidesForm(request.POST, request.FILES)
    if not form.is_valid():
        return _slides_page(request, project, form, status=422)
    files = form.cleaned_data["files"]
    try:
        jobs = stage_uploads(project=project, uploads=files, facts=form.facts, user=request.user)
    except SlideError as error:
        form.add_error("files", f"{error} Nothing was imported.")
        return _slides_page(request, project, form, status=422)
    messages.success(request, f"Importing {len(jobs)} slide{'' if len(jobs) == 1 else 's'}.")
    return redirect("project_slides", pk)


@require_POST
def patient_lock(request: SignedIn, pk: int) -> HttpResponse:
    patient = get_for(request.user, Patient.objects.select_related("project"), pk, Role.LEAD)
    try:
        set_locked(patient=patient, locked=request.POST.get("locked") == "1", user=request.user)
    except NotAllowed as error:
        messages.error(request, str(error))
    page, url = request.POST.get("page", ""), reverse("project_slides", args=[patient.project_id])
    return redirect(f"{url}?page={page}" if page.isdecimal() else url)


@require_GET
def slide(request: SignedIn, pk: int) -> HttpResponse:
    found = get_for(request.user, Slide.objects.select_related("project", "patient", "imported_by"), pk, Role.ANNOTATOR)
    states = tile_states(found)
    counts = Counter(state for _, state in states)
    tiles = [
        {
            "tile": tile,
            "x": tile.x,
            "y": tile.y,
            "width": round(tile.extents[0]),
            "height": round(tile.extents[1]),
            "state": state,
            "label": TILE_STATES[state],
            "url": reverse("tile", args=[tile.pk]),
        }
        for tile, state in states
    ]
    legend = [{"state": state, "label": label, "count": counts[state]} for state, label in TILE_STATES.items()]
    context = page_of(request, found.project, "slides") | {"slide": found, "tiles": tiles, "legend": legend}
    return render(request, "annotation/slide.html", context)


def _jpeg(data: bytes) -> HttpResponse:
    return HttpResponse(data, content_type="image/jpeg", headers={"X-Content-Type-Options": "nosniff"})


def _slide_image(request: SignedIn, pk: int, side: int) -> HttpResponse:
    found = get_for(request.user, Slide.objects.select_related("project"), pk, Role.ANNOTATOR)
    try:
        return _jpeg(slide_jpeg(found, side))
    except SlideError as error:
        return HttpResponse(str(error), status=404, content_type="text/plain; charset=utf-8")


@require_GET
@cache_control(private=True, max_age=86400)
def slide_thumbnail(request: SignedIn, pk: int) -> HttpResponse:
    return _slide_image(request, pk, THUMBNAIL_SIDE)


@require_GET
@cache_control(private=True, max_age=86400)
def slide_overview(request: SignedIn, pk: int) -> HttpResponse:
    return _slide_image(request, pk, OVERVIEW_SIDE)


def tile_for(request: SignedIn, pk: int) -> Tile:
    tiles = Tile.objects.select_related("slide__project__taxonomy", "slide__patient", "truth")
    return get_for(request.user, tiles, pk, Role.ANNOTATOR)


@require_GET
def tile(request: SignedIn, pk: int) -> HttpResponse:
    found = tile_for(request, pk)
    role = require_role(request.user, found.project, Role.ANNOTATOR)
    shown = annotations_shown_to(request.user, role, found).select_related("author").annotate(box_count=Count("boxes"))
    history = [
        {"annotation": one, "boxes": one.box_count, "is_truth": one.pk == found.truth_id}
        for one in shown.order_by("-pk")
    ]
    truth = found.truth if any(row["is_truth"] for row in history) else None
    boxes = list(truth.boxes.select_related("cell_class")) if truth else []
    states = {one.pk: state for one, state in tile_states(found.slide)}
    context = page_of(request, found.slide.project, "slides") | {
        "tile": found,
        "boxes": boxes,
        "history": history,
        "hidden": found.annotations.count() - len(history),
        "state": states[found.pk],
        "state_label": TILE_STATES[states[found.pk]],
    }
    return render(request, "annotation/tile.html", context)


@require_GET
def tile_image(request: SignedIn, pk: int) -> HttpResponseBase:
    found = get_for(request.user, Tile.objects.select_related("slide__project"), pk, Role.ANNOTATOR)
    return _unchanging(request, f'"tile-{pk}"', lambda: tile_jpeg(found))


@require_GET
def tile_neighbourhood(request: SignedIn, pk: int) -> HttpResponseBase:
    tiles = Tile.objects.select_related("slide__project")
    found = get_for(request.user, tiles, pk, Role.ANNOTATOR)
    if is_whole_slide(found):
        return _no_picture("This tile is the whole picture: nothing lies around it.")
    return _unchanging(request, f'"neighbourhood-{pk}"', lambda: neighbourhood_jpeg(found))


@require_GET
def box_crop(request: SignedIn, pk: int) -> HttpResponseBase:
    """A cell as a crop: of what the user is shown of the tile's annotations, and of confirmed boxes."""
    boxes = Box.objects.select_related("annotation__tile__slide__project")
    found = get_for(request.user, boxes, pk, Role.ANNOTATOR, project=lambda box: box.annotation.tile.project)
    tile = found.annotation.tile
    role = require_role(request.user, tile.project, Role.ANNOTATOR)
    confirmed = found.annotation_id == tile.truth_id
    if not (confirmed or annotations_shown_to(request.user, role, tile).filter(pk=found.annotation_id).exists()):
        raise Http404("This box is not shown to you yet.")
    return _unchanging(request, f'"box-{pk}"', lambda: crop_jpeg(found))


@require_GET
def tile_crop(request: SignedIn, pk: int) -> HttpResponseBase:
    """The square around a place of the tile: ?x=&y=&width=&height= in tile px."""
    found = get_for(request.user, Tile.objects.select_related("slide__project"), pk, Role.ANNOTATOR)
    place = _place_in(request, found)
    if place is None:
        text = "x, y, width and height must name a place of this tile, in its px."
        return HttpResponse(text, status=400, content_type="text/plain; charset=utf-8")
    etag = f'"place-{pk}-{place.x:g}-{place.y:g}-{place.width:g}-{place.height:g}"'
    return _unchanging(request, etag, lambda: place_jpeg(found, place))


def _place_in(request: HttpRequest, tile: Tile) -> Box | None:
    """The place that is asked for, to a tenth of a px; None if it is none of the tile's."""
    try:
        x, y, width, height = (round(float(request.GET[name]), 1) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return None
    size_fits = 1 <= width <= tile.width and 1 <= height <= tile.height
    centre_inside = 0 <= x + width / 2 <= tile.width and 0 <= y + height / 2 <= tile.height
    return Box(x=x, y=y, width=width, height=height) if size_fits and centre_inside else None


def _unchanging(request: HttpRequest, etag: str, draw: Callable[[], bytes]) -> HttpResponseBase:
    """A picture that never changes, for the browser to keep; only that it cannot be drawn may change."""
    known = get_conditional_response(request, etag=etag)
    if known is not None:
        return known
    try:
        response = _jpeg(draw())
    except SlideError as error:
        return _no_picture(str(error))
    response["ETag"] = etag
    patch_cache_control(response, private=True, max_age=604800, immutable=True)
    return response


def _no_picture(reason: str) -> HttpResponse:
    return HttpResponse(reason, status=404, content_type="text/plain; charset=utf-8")
