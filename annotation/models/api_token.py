"""Tokens: how programs sign in to the API in the name of a user."""

from django.db import models
from django.db.models import Q

from annotation.models.project import User


class Scope(models.TextChoices):
    """What a token may do where its user's role allows it; each may do all that the ones before it may."""

    READ = "read", "read"
    ANNOTATE = "annotate", "annotate"
    LEAD = "lead", "lead"

    def covers(self, needed: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(needed)


class ApiToken(models.Model):
    """A token of a user. The token itself is nowhere: only its SHA-256, and its beginning to know it by."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=60)
    scope = models.CharField(max_length=8, choices=Scope.choices, default=Scope.READ)
    beginning = models.CharField(max_length=12)
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the token, in hex.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_on = models.DateField(null=True, blank=True, help_text="The last day on which it works.")
    last_used_on = models.DateField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.CheckConstraint(condition=Q(scope__in=Scope.values), name="known_scope")]

    def __str__(self) -> str:
        return f"{self.name} ({self.beginning}…)"
