"""Annotations and their boxes: immutable once written."""

from typing import Any, NoReturn, TypeVar

from django.db import models
from django.db.models import F, Q

from annotation.models.project import Project, User
from annotation.models.slide import Tile
from annotation.models.taxonomy import CellClass

M = TypeVar("M", bound=models.Model)


class ImmutableError(Exception):
    """Somebody tried to change or delete what never changes."""


class ImmutableQuerySet(models.QuerySet[M]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise ImmutableError(f"{self.model.__name__} rows never change; write a new annotation that supersedes.")

    def delete(self) -> NoReturn:
        raise ImmutableError(f"{self.model.__name__} rows are never deleted.")


class ImmutableModel(models.Model):
    """A row that is written once."""

    objects = ImmutableQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None and not self._state.adding:
            raise ImmutableError(f"{type(self).__name__} rows never change.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ImmutableError(f"{type(self).__name__} rows are never deleted.")


class AuthorKind(models.TextChoices):
    PERSON = "person", "person"
    MODEL = "model", "model"
    IMPORT = "import", "import"


class Author(models.Model):
    """Who drew an annotation: a person, a model version or an import."""

    kind = models.CharField(max_length=6, choices=AuthorKind.choices)
    user = models.OneToOneField(User, null=True, blank=True, on_delete=models.PROTECT, related_name="author")
    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.CASCADE, related_name="authors")
    name = models.CharField(max_length=150)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="person", user__isnull=False, project__isnull=True)
                | (~Q(kind="person") & Q(user__isnull=True, project__isnull=False)),
                name="a_person_is_a_user",
            ),
            models.UniqueConstraint(fields=["project", "kind", "name"], name="one_author_per_name"),
        ]

    def __str__(self) -> str:
        return self.name


class Annotation(ImmutableModel):
    """One complete set of boxes on one tile by one author."""

    uuid = models.UUIDField(unique=True, help_text="Made by the client: sent twice, it counts once.")
    tile = models.ForeignKey(Tile, on_delete=models.PROTECT, related_name="annotations")
    author = models.ForeignKey(Author, on_delete=models.PROTECT, related_name="annotations")
    task = models.ForeignKey(
        "annotation.Task", null=True, blank=True, on_delete=models.PROTECT, related_name="annotations"
    )
    revision = models.PositiveIntegerField(
        null=True, blank=True, help_text="1 for a task's first submission, then 2 ..."
    )
    supersedes = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="superseded_by"
    )
    pre_label = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    submitted_at = models.DateTimeField(auto_now_add=True)
    active_seconds = models.FloatField(default=0.0)
    wall_seconds = models.FloatField(default=0.0)
    effort = models.JSONField(
        default=dict, help_text="Keys, clicks, and boxes kept, moved, reclassified, deleted, added."
    )

    class Meta:
        ordering = ["pk"]
        indexes = [models.Index(fields=["tile", "author"], name="annotation_by_tile_author")]
        constraints = [
            models.UniqueConstraint(fields=["task", "revision"], name="one_annotation_per_revision"),
            models.CheckConstraint(
                condition=Q(task__isnull=True, revision__isnull=True) | Q(task__isnull=False, revision__isnull=False),
                name="a_revision_belongs_to_a_task",
            ),
            models.CheckConstraint(
                condition=Q(active_seconds__gte=0, wall_seconds__gte=F("active_seconds")),
                name="active_time_in_wall_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.author} on {self.tile}"


class Change(models.TextChoices):
    """What a reader did to a box, against the pre-label box that it came from."""

    KEPT = "kept", "kept"
    MOVED = "moved", "moved"
    RECLASSIFIED = "reclassified", "reclassified"
    ADDED = "added", "added"


class Box(ImmutableModel):
    """A box in tile px (float, top-left origin)."""

    annotation = models.ForeignKey(Annotation, on_delete=models.PROTECT, related_name="boxes")
    cell_class = models.ForeignKey(CellClass, on_delete=models.PROTECT, related_name="+")
    x = models.FloatField()
    y = models.FloatField()
    width = models.FloatField()
    height = models.FloatField()
    score = models.FloatField(null=True, blank=True, help_text="Models only.")
    class_scores = models.JSONField(null=True, blank=True, help_text="Models only: one score per class number.")
    # Nobody asks for the boxes that came from one: an index of a million rows would only be written.
    origin = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    change = models.CharField(max_length=12, choices=Change.choices, blank=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(condition=Q(width__gt=0, height__gt=0, x__gte=0, y__gte=0), name="box_has_an_area"),
            models.CheckConstraint(
                condition=Q(score__isnull=True) | Q(score__gte=0, score__lte=1), name="score_in_0_1"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.cell_class} at {self.x:.0f}, {self.y:.0f}"


class Draft(models.Model):
    """A reader's work in progress on one task: the newest state that the browser has sent."""

    task = models.ForeignKey("annotation.Task", on_delete=models.CASCADE, related_name="drafts")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="drafts")
    sequence = models.PositiveBigIntegerField(help_text="The browser's counter: an older state never replaces a newer.")
    revision = models.PositiveIntegerField(help_text="The task's revision that the work started from.")
    boxes = models.JSONField()
    effort = models.JSONField(default=dict)
    saved_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "user"], name="one_draft_per_reader")]

    def __str__(self) -> str:
        return f"{self.user}'s draft of task {self.task_id}"
