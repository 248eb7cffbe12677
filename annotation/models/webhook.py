"""Webhooks: addresses outside the application that are told of a project's news, and every message to them."""

from uuid import uuid4

from django.db import models
from django.db.models import Q

from annotation.models.project import Project, User


class WebhookEvent(models.TextChoices):
    BATCH_READY = "batch.ready", "batch ready"
    ROUND_DONE = "round.done", "round done"
    MODEL_PROMOTED = "model.promoted", "model promoted"
    RUN_FAILED = "run.failed", "run failed"


LONGEST_URL = 500
TEST_EVENT = "test"  # sent by hand, whatever events are chosen


class Webhook(models.Model):
    """An address that a lead has registered. The secret signs what is sent there, so it is kept as it is."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=LONGEST_URL)
    secret = models.CharField(max_length=60)
    events = models.JSONField(default=list)
    active = models.BooleanField(default=True)
    made_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["project", "url"], name="one_webhook_per_address")]

    def __str__(self) -> str:
        return self.url


class DeliveryState(models.TextChoices):
    WAITING = "waiting", "waiting"
    DELIVERED = "delivered", "delivered"
    GIVEN_UP = "given-up", "given up"


class Delivery(models.Model):
    """One message to one webhook. It is about a `subject`, such as "batch 12", of which none is told twice.

    The body is kept as text: each attempt sends the same bytes under the same `uuid`.
    """

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    uuid = models.UUIDField(unique=True, default=uuid4, editable=False)
    event = models.CharField(max_length=20)
    subject = models.CharField(max_length=60)
    body = models.TextField()
    state = models.CharField(max_length=9, choices=DeliveryState.choices, default=DeliveryState.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True, blank=True, help_text="When to try; empty when it is over.")
    last_at = models.DateTimeField(null=True, blank=True, help_text="When it was tried last.")
    status = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Of the last answer, if there was one.")
    answer = models.CharField(max_length=300, blank=True, help_text="Its beginning, or why there was none.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "deliveries"
        indexes = [models.Index(fields=["next_at"], condition=Q(state="waiting"), name="delivery_to_send")]
        constraints = [
            models.UniqueConstraint(fields=["webhook", "event", "subject"], name="one_delivery_per_subject"),
            models.CheckConstraint(
                condition=Q(state="waiting", next_at__isnull=False) | (~Q(state="waiting") & Q(next_at__isnull=True)),
                name="what_waits_has_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook}"
