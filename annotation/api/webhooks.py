"""Webhooks: registered, changed, tested and deleted, and what was sent to them."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for
from annotation.api.base import Filters, Strict, View, checked
from annotation.api.errors import Refused
from annotation.api.pages import NewestFirst, Pages
from annotation.api.schema import Error, reads, writes
from annotation.models import DeliveryState, Role, Scope, Webhook, WebhookEvent
from annotation.models.webhook import LONGEST_URL
from annotation.services.webhooks import WebhookRefused, change_webhook, delete_webhook, make_webhook, send_test


class NewWebhook(Strict):
    url = serializers.CharField(max_length=LONGEST_URL, help_text="On a host that the lab's settings allow.")
    events = serializers.ListField(
        child=serializers.ChoiceField(WebhookEvent.choices), default=list(WebhookEvent.values), allow_empty=False
    )


class WebhookChange(Strict):
    """What is left out stays."""

    url = serializers.CharField(max_length=LONGEST_URL, required=False)
    events = serializers.ListField(
        child=serializers.ChoiceField(WebhookEvent.choices), required=False, allow_empty=False
    )
    active = serializers.BooleanField(required=False, help_text="Off: nothing is sent, and what waits goes on waiting.")


class WebhookRow(serializers.Serializer):
    id = serializers.IntegerField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField(WebhookEvent.choices))
    active = serializers.BooleanField()
    created_at = serializers.DateTimeField()


class MadeWebhook(WebhookRow):
    secret = serializers.CharField(help_text="What signs the messages. It is told this once.")


class DeliveryRow(serializers.Serializer):
    uuid = serializers.UUIDField(help_text="The message's webhook-id, the same in each attempt.")
    event = serializers.CharField()
    state = serializers.ChoiceField(DeliveryState.choices)
    attempts = serializers.IntegerField()
    next_at = serializers.DateTimeField(allow_null=True)
    last_at = serializers.DateTimeField(allow_null=True)
    status = serializers.IntegerField(allow_null=True, help_text="Of the last answer.")
    answer = serializers.CharField(help_text="Its beginning, or why there was none.")
    created_at = serializers.DateTimeField()


BODY: dict[str, Any] = {"url": "https://hooks.lab/marrow", "events": ["batch.ready", "model.promoted"]}
WEBHOOK: dict[str, Any] = {"id": 1, **BODY, "active": True, "created_at": "2026-03-02T08:00:00Z"}
DELIVERY: dict[str, Any] = {
    "uuid": "0b0e8a4e-6f0c-4b61-9f5e-0d8f5f6a7c11",
    "event": "batch.ready",
    "state": "delivered",
    "attempts": 2,
    "next_at": None,
    "last_at": "2026-03-02T08:05:00Z",
    "status": 204,
    "answer": "",
    "created_at": "2026-03-02T08:00:00Z",
}


def _webhooks() -> QuerySet[Webhook]:
    return Webhook.objects.select_related("project")


class _ForLeads(View):
    api_tag = "webhooks"
    scopes = dict.fromkeys(("GET", "POST", "PATCH", "DELETE"), Scope.LEAD)


class Webhooks(_ForLeads):
    @reads(WebhookRow, about="A project's webhooks; for leads", name="webhooks", pages=Pages, example=WEBHOOK)
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.LEAD)
        return self.paged(request, _webhooks().filter(project=project), WebhookRow)

    @writes(
        NewWebhook,
        {201: MadeWebhook},
        about="Make a webhook; the answer is the only one with its secret; for leads",
        name="make_webhook",
        body=BODY,
        example=WEBHOOK | {"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"},
    )
    def post(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.LEAD)
        asked = checked(NewWebhook, request.data)
        try:
            made = make_webhook(project=project, url=asked["url"], events=asked["events"], user=request.user)
        except WebhookRefused as error:
            raise serializers.ValidationError({"url": str(error)}) from error
        answer = Response(MadeWebhook(made).data, status=201)
        answer["Cache-Control"] = "no-store"
        return answer


class OneWebhook(_ForLeads):
    @reads(WebhookRow, about="A webhook; for leads", name="webhook", example=WEBHOOK)
    def get(self, request: Request, pk: int) -> Response:
        return Response(WebhookRow(get_for(request.user, _webhooks(), pk, Role.LEAD)).data)

    @writes(
        WebhookChange,
        {200: WebhookRow},
        about="Change a webhook; what is left out stays; for leads",
        name="change_webhook",
        body={"active": False},
        example=WEBHOOK | {"active": False},
    )
    def patch(self, request: Request, pk: int) -> Response:
        found = get_for(request.user, _webhooks(), pk, Role.LEAD)
        try:
            change_webhook(webhook=found, **checked(WebhookChange, request.data), user=request.user)
        except WebhookRefused as error:
            raise serializers.ValidationError({"url": str(error)}) from error
        return Response(WebhookRow(found).data)

    @writes(None, {204: None}, about="Delete a webhook, with what waits for it; for leads", name="delete_webhook")
    def delete(self, request: Request, pk: int) -> Response:
        delete_webhook(webhook=get_for(request.user, _webhooks(), pk, Role.LEAD), user=request.user)
        return Response(status=204)


class TestWebhook(_ForLeads):
    @writes(
        None,
        {201: DeliveryRow, 409: Error},
        about="Send a message of the event `test`; what comes of it is among the deliveries; for leads",
        name="test_webhook",
        example=DELIVERY | {"event": "test", "state": "waiting", "attempts": 0, "last_at": None, "status": None},
    )
    def post(self, request: Request, pk: int) -> Response:
        sent = send_test(webhook=get_for(request.user, _webhooks(), pk, Role.LEAD))
        if sent is None:
            raise Refused("The webhook is switched off: nothing is sent.")
        return Response(DeliveryRow(sent).data, status=201)


class DeliveryFilters(Filters):
    state = serializers.ChoiceField(DeliveryState.choices, required=False)


class Deliveries(_ForLeads):
    @reads(
        DeliveryRow,
        about="What was sent to a webhook or waits to be, the newest first; for leads",
        name="deliveries",
        filters=DeliveryFilters,
        pages=NewestFirst,
        example=DELIVERY,
    )
    def get(self, request: Request, pk: int) -> Response:
        found = get_for(request.user, _webhooks(), pk, Role.LEAD)
        chosen = checked(DeliveryFilters, request.query_params)
        return self.paged(request, found.deliveries.filter(**chosen), DeliveryRow, NewestFirst)
