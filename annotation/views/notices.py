"""A user's notices, over all projects."""

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_notice_for, notices_of
from annotation.services.notices import gets_mail, mark_read, set_mail
from annotation.views.request import SignedIn

NOTICES_PER_PAGE = 50


@require_GET
def notices(request: SignedIn) -> HttpResponse:
    found = notices_of(request.user)
    context = {
        "notices": Paginator(found.select_related("project"), NOTICES_PER_PAGE).get_page(request.GET.get("page")),
        "unread": found.filter(read_at__isnull=True).count(),
        "lab_mails": settings.MAIL_ON,
        "gets_mail": gets_mail(request.user),
    }
    return render(request, "annotation/notices.html", context)


@require_GET
def notice(request: SignedIn, pk: int) -> HttpResponse:
    """To the page that the notice is about: whoever goes there has read it."""
    found = get_notice_for(request.user, pk)
    mark_read(user=request.user, notice=found)
    return redirect(found.path)


@require_POST
def notice_read(request: SignedIn, pk: int) -> HttpResponse:
    mark_read(user=request.user, notice=get_notice_for(request.user, pk))
    return redirect("notices")


@require_POST
def notices_read(request: SignedIn) -> HttpResponse:
    mark_read(user=request.user)
    return redirect("notices")


@require_POST
def notices_mail(request: SignedIn) -> HttpResponse:
    wanted = request.POST.get("wanted") == "yes"
    set_mail(user=request.user, wanted=wanted)
    messages.success(request, "Notices are mailed to you." if wanted else "Notices are no longer mailed to you.")
    return redirect("notices")
