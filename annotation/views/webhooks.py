"""Webhooks: registered, changed, tested; and what was sent to them."""

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_for, get_project_for
from annotation.forms import WebhookChangeForm, WebhookForm
from annotation.models import Delivery, DeliveryState, Project, Role, Webhook, WebhookEvent
from annotation.services.webhooks import (
    WebhookRefused,
    change_webhook,
    delete_webhook,
    make_webhook,
    renew_secret,
    send_again,
    send_test,
)
from annotation.views.request import SignedIn, page_of

DELIVERIES_PER_PAGE = 50
OFF = "The webhook is switched off: nothing is sent."


def _list(request: SignedIn, project: Project, form: WebhookForm, status: int = 200) -> HttpResponse:
    counted = {
        "waiting": Count("deliveries", filter=Q(deliveries__state=DeliveryState.WAITING)),
        "given_up": Count("deliveries", filter=Q(deliveries__state=DeliveryState.GIVEN_UP)),
    }
    names = dict(WebhookEvent.choices)
    rows = [
        {"webhook": one, "events": [names[event] for event in one.events]}
        for one in project.webhooks.annotate(**counted).order_by("pk")
    ]
    context = page_of(request, project, "events") | {"form": form, "webhooks": rows, "hosts": settings.WEBHOOK_HOSTS}
    return render(request, "annotation/webhooks.html", context, status=status)


@require_GET
def project_webhooks(request: SignedIn, pk: int) -> HttpResponse:
    return _list(request, get_project_for(request.user, pk, Role.LEAD), WebhookForm())


@require_POST
@never_cache
def webhook_create(request: SignedIn, pk: int) -> HttpResponse:
    """The answer is the one page that ever shows the secret."""
    project = get_project_for(request.user, pk, Role.LEAD)
    form = WebhookForm(request.POST)
    if not form.is_valid():
        return _list(request, project, form, status=422)
    data = form.cleaned_data
    try:
        made = make_webhook(project=project, url=data["url"], events=data["events"], user=request.user)
    except WebhookRefused as error:
        form.add_error("url", str(error))
        return _list(request, project, form, status=422)
    return _one(request, made, secret=made.secret)


def _webhook_for(request: SignedIn, pk: int) -> Webhook:
    return get_for(request.user, Webhook.objects.select_related("project"), pk, Role.LEAD)


def _one(
    request: SignedIn, found: Webhook, *, form: WebhookChangeForm | None = None, secret: str = "", status: int = 200
) -> HttpResponse:
    known = {"url": found.url, "events": found.events, "active": found.active}
    context = page_of(request, found.project, "events") | {
        "webhook": found,
        "form": form or WebhookChangeForm(initial=known),
        "secret": secret,
        "deliveries": Paginator(found.deliveries.all(), DELIVERIES_PER_PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "annotation/webhook.html", context, status=status)


@require_GET
def webhook(request: SignedIn, pk: int) -> HttpResponse:
    return _one(request, _webhook_for(request, pk))


@require_POST
def webhook_change(request: SignedIn, pk: int) -> HttpResponse:
    found = _webhook_for(request, pk)
    form = WebhookChangeForm(request.POST)
    if not form.is_valid():
        return _one(request, found, form=form, status=422)
    data = form.cleaned_data
    try:
        change_webhook(webhook=found, url=data["url"], events=data["events"], active=data["active"], user=request.user)
    except WebhookRefused as error:
        form.add_error("url", str(error))
        return _one(request, found, form=form, status=422)
    messages.success(request, "The webhook is changed.")
    return redirect("webhook", pk)


@require_POST
@never_cache
def webhook_secret(request: SignedIn, pk: int) -> HttpResponse:
    found = _webhook_for(request, pk)
    return _one(request, found, secret=renew_secret(webhook=found, user=request.user))


@require_POST
def webhook_test(request: SignedIn, pk: int) -> HttpResponse:
    if send_test(webhook=_webhook_for(request, pk)):
        messages.success(request, "A test is on its way: load this page again to see what came of it.")
    else:
        messages.error(request, OFF)
    return redirect("webhook", pk)


@require_POST
def webhook_delete(request: SignedIn, pk: int) -> HttpResponse:
    found = _webhook_for(request, pk)
    delete_webhook(webhook=found, user=request.user)
    messages.success(request, f"The webhook to {found} is deleted.")
    return redirect("project_webhooks", found.project_id)


@require_POST
def delivery_again(request: SignedIn, pk: int) -> HttpResponse:
    every = Delivery.objects.select_related("webhook__project")
    found = get_for(request.user, every, pk, Role.LEAD, project=lambda one: one.webhook.project)
    if send_again(delivery=found):
        messages.success(request, "It is sent again, under the same id.")
    else:
        messages.error(request, OFF)
    return redirect("webhook", found.webhook_id)
