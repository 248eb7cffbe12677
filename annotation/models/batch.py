"""Batches: the tiles put before experts together, and the tasks that hand them out."""

from django.db import models
from django.db.models import Q

from annotation.models.project import Project, User
from annotation.models.slide import Tile


class BatchState(models.TextChoices):
    DRAFT = "draft", "being prepared"
    OPEN = "open", "open"
    CLOSED = "closed", "closed"


class Purpose(models.TextChoices):
    """A training batch never holds a locked patient's tile; a test batch holds nothing else."""

    TRAINING = "training", "training"
    TEST = "test", "locked test set"


class Batch(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="batches")
    name = models.CharField(max_length=60)
    purpose = models.CharField(max_length=8, choices=Purpose.choices, default=Purpose.TRAINING)
    state = models.CharField(max_length=6, choices=BatchState.choices, default=BatchState.DRAFT)
    expected = models.JSONField(
        default=dict, help_text="Expected boxes per class number, when a detector chose the tiles."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "batches"
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_batch_per_name")]

    def __str__(self) -> str:
        return self.name


class TaskState(models.TextChoices):
    OPEN = "open", "open"
    LEASED = "leased", "being read"
    SUBMITTED = "submitted", "submitted"
    SKIPPED = "skipped", "skipped"


class Task(models.Model):
    """One tile of a batch for one reader."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="tasks")
    tile = models.ForeignKey(Tile, on_delete=models.PROTECT, related_name="tasks")
    position = models.PositiveIntegerField()
    replica = models.PositiveSmallIntegerField(default=0, help_text="0 for the first reader of a tile, then 1 ...")
    reason = models.CharField(max_length=200, blank=True, help_text="Why this tile was chosen.")
    state = models.CharField(max_length=9, choices=TaskState.choices, default=TaskState.OPEN)
    reader = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="tasks")
    leased_until = models.DateTimeField(null=True, blank=True)
    revision = models.PositiveIntegerField(default=0, help_text="How many annotations this task has.")
    skip_reason = models.CharField(max_length=200, blank=True)
    pre_label = models.ForeignKey(
        "annotation.Annotation", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = ["position"]
        indexes = [models.Index(fields=["batch", "state", "position"], name="task_next")]
        constraints = [
            models.UniqueConstraint(fields=["batch", "tile", "replica"], name="one_task_per_reading"),
            models.CheckConstraint(
                condition=~Q(state="leased") | Q(reader__isnull=False, leased_until__isnull=False),
                name="a_lease_has_a_reader_and_an_end",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tile} in {self.batch}"

    @property
    def project(self) -> Project:
        return self.batch.project
