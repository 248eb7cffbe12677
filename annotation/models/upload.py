"""Slide files on their way from a browser."""

from uuid import uuid4

from django.db import models
from django.db.models import F, Q

from annotation.models.job import Job
from annotation.models.project import Project, User


class Upload(models.Model):
    """A slide file that comes in chunks, from its beginning on; `received` bytes of it are here.

    What the browser says of a file identifies it, so that the same file chosen again goes on where it stopped. Its
    bytes lie in the uploads folder under `key` until it is whole, then in staging, and `job` imports it.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="uploads")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    key = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=255, help_text="The file's name as it was given; never used as a path.")
    size = models.BigIntegerField()
    modified = models.BigIntegerField(help_text="Milliseconds since 1970, as the browser says.")
    fingerprint = models.CharField(max_length=80, help_text="A hash of the file's beginning and end, by the browser.")
    received = models.BigIntegerField(default=0)
    facts = models.JSONField(help_text="What the lead said of the slide.")
    staging = models.CharField(max_length=60, blank=True, help_text="The folder in storage that it is put into.")
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now_add=True, help_text="When the last chunk came.")

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "user", "name", "size", "modified", "fingerprint"],
                condition=Q(job=None),
                name="one_upload_per_file",
            ),
            models.CheckConstraint(condition=Q(received__gte=0, received__lte=F("size")), name="received_of_its_size"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_whole(self) -> bool:
        return self.received == self.size

    @property
    def percent(self) -> int:
        return 100 * self.received // self.size
