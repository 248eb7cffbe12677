"""Projects and the people in them."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """Somebody who signs in."""

    preferences = models.JSONField(default=dict, blank=True, help_text="The editor's settings, as the user left them.")


class Project(models.Model):
    """A set of slides, one taxonomy, its members, batches and rounds."""

    name = models.CharField(max_length=100, unique=True)
    taxonomy = models.ForeignKey("annotation.Taxonomy", on_delete=models.PROTECT, related_name="projects")
    hours_per_expert_day = models.FloatField(default=6.0)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    """What a member may do; each role may do all that the ones before it may."""

    ANNOTATOR = "annotator", "annotator"
    REVIEWER = "reviewer", "reviewer"
    LEAD = "lead", "lab lead"

    def covers(self, needed: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Membership(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_role_per_member"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="known_role"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.get_role_display()} of {self.project}"
