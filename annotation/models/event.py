"""The event log: who did what, when."""

from django.db import models

from annotation.models.annotation import ImmutableModel
from annotation.models.project import Project, User


class Event(ImmutableModel):
    """Names are copied, so that the log can still be read when a user or an object is gone."""

    at = models.DateTimeField(auto_now_add=True)
    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.DO_NOTHING, db_constraint=False)
    user = models.ForeignKey(User, null=True, blank=True, on_delete=models.DO_NOTHING, db_constraint=False)
    user_name = models.CharField(max_length=150, blank=True)
    verb = models.CharField(max_length=40)
    subject = models.CharField(max_length=200)
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["project", "at"], name="event_by_project")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.user_name} {self.verb} {self.subject}"
