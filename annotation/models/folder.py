"""Folders of the server whose slides are read where they lie."""

from django.db import models
from django.db.models import Q

from annotation.models.job import ACTIVE, Job, JobState
from annotation.models.project import Project, User
from annotation.models.slide import Slide


class PatientRule(models.TextChoices):
    FILE = "file", "the file's name"
    BEGINNING = "beginning", "the file's name up to the first _ or space"
    FOLDER = "folder", "the folder that the file lies in"
    TOP = "top", "the first folder below the registered one"


class SlideFolder(models.Model):
    """A folder that a lead has registered; it is looked into by schedule, with all that lies below it."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="folders")
    path = models.CharField(max_length=600, help_text="Absolute, without links; under a root that the settings allow.")
    patient_rule = models.CharField(max_length=9, choices=PatientRule.choices)
    facts = models.JSONField(help_text="What the lead said of all its slides.")
    every_minutes = models.PositiveIntegerField()
    paused = models.BooleanField(default=False)
    registered_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    registered_at = models.DateTimeField(auto_now_add=True)
    next_look_at = models.DateTimeField()
    job = models.ForeignKey(
        Job, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="The last look."
    )

    class Meta:
        ordering = ["path"]
        constraints = [models.UniqueConstraint(fields=["project", "path"], name="a_folder_is_registered_once")]

    def __str__(self) -> str:
        return f"folder {self.path}"


class FileState(models.TextChoices):
    SEEN = "seen", "looked at once"
    SETTLED = "settled", "to be imported"
    TAKEN = "taken", "taken"
    CHANGED = "changed", "changed"
    VANISHED = "vanished", "vanished"
    REFUSED = "refused", "refused"


class FolderFile(models.Model):
    """A slide file of a registered folder as the last look found it; the files of one series share job and slide."""

    folder = models.ForeignKey(SlideFolder, on_delete=models.CASCADE, related_name="files")
    name = models.CharField(max_length=600, help_text="Its path below the folder.")
    size = models.BigIntegerField()
    modified = models.BigIntegerField(help_text="Nanoseconds since 1970.")
    state = models.CharField(max_length=8, choices=FileState.choices, default=FileState.SEEN)
    problem = models.CharField(max_length=300, blank=True)
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    slide = models.ForeignKey(Slide, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["folder", "name"], name="one_row_per_file")]

    def __str__(self) -> str:
        return self.name

    @property
    def standing(self) -> str:
        """A key of STANDINGS."""
        if self.state != FileState.TAKEN:
            return "refused" if self.state == FileState.REFUSED else self.state
        if self.slide_id or self.job is None or self.job.state == JobState.SUCCEEDED:
            return "imported"
        return "importing" if self.job.is_active else "refused"

    @property
    def words(self) -> str:
        """How it stands, for people."""
        return STANDINGS[self.standing][0]

    @property
    def reason(self) -> str:
        """Why it is not read, in words; empty if it is."""
        if self.problem or self.job is None or self.standing != "refused":
            return self.problem
        return self.job.message


_TAKEN = Q(state=FileState.TAKEN)
_IMPORTED = Q(slide__isnull=False) | Q(job=None) | Q(job__state=JobState.SUCCEEDED)
_ACTIVE = Q(job__state__in=ACTIVE)
# How a file stands: the words for it, and which rows are meant.
STANDINGS = {
    "imported": ("imported", _TAKEN & _IMPORTED),
    "importing": ("being imported", _TAKEN & ~_IMPORTED & _ACTIVE),
    "settled": ("to be imported", Q(state=FileState.SETTLED)),
    "seen": ("seen once", Q(state=FileState.SEEN)),
    "refused": ("refused", Q(state=FileState.REFUSED) | _TAKEN & ~_IMPORTED & ~_ACTIVE),
    "changed": ("changed", Q(state=FileState.CHANGED)),
    "vanished": ("vanished", Q(state=FileState.VANISHED)),
}
