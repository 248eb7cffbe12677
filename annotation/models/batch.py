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


class Policy(models.TextChoices):
    """How often each tile of a batch is read, and what becomes truth."""

    SINGLE = "single", "single read"
    REVIEWED = "reviewed", "read, then reviewed"
    INDEPENDENT = "independent", "independent readers"


class ReviewBy(models.TextChoices):
    """Which tiles a reviewer looks at where it is not all of them."""

    CHANCE = "chance", "by chance"
    DISAGREEMENT = "disagreement", "those where reader and model differ most"


class Batch(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="batches")
    name = models.CharField(max_length=60)
    purpose = models.CharField(max_length=8, choices=Purpose.choices, default=Purpose.TRAINING)
    state = models.CharField(max_length=6, choices=BatchState.choices, default=BatchState.DRAFT)
    expected = models.JSONField(
        default=dict, help_text="Expected boxes per class number, when a detector chose the tiles."
    )
    policy = models.CharField(max_length=11, choices=Policy.choices, default=Policy.SINGLE)
    readers = models.PositiveSmallIntegerField(default=1, help_text="Of each tile, blind to each other.")
    review_share = models.FloatField(default=1.0, help_text="0 to 1: of the tiles, those that a reviewer sees.")
    review_by = models.CharField(max_length=12, choices=ReviewBy.choices, default=ReviewBy.CHANCE)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "batches"
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="one_batch_per_name"),
            models.CheckConstraint(
                condition=Q(policy="independent", readers__gte=2) | (~Q(policy="independent") & Q(readers=1)),
                name="independent_readers_are_two_or_more",
            ),
            models.CheckConstraint(condition=Q(review_share__gte=0, review_share__lte=1), name="review_share_in_0_1"),
        ]

    def __str__(self) -> str:
        return self.name


class TaskState(models.TextChoices):
    OPEN = "open", "open"
    LEASED = "leased", "being read"
    SUBMITTED = "submitted", "submitted"
    SKIPPED = "skipped", "skipped"


class TaskKind(models.TextChoices):
    """A review looks over what the readers of the tile have drawn, and has the last word."""

    READING = "reading", "reading"
    REVIEW = "review", "review"


class Task(models.Model):
    """One tile of a batch for one reader."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="tasks")
    tile = models.ForeignKey(Tile, on_delete=models.PROTECT, related_name="tasks")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=7, choices=TaskKind.choices, default=TaskKind.READING)
    replica = models.PositiveSmallIntegerField(default=0, help_text="0 for the first reader of a tile, then 1 ...")
    audit = models.BooleanField(default=False, help_text="Chosen at random, to see what selection does not expect.")
    blind = models.BooleanField(default=False, help_text="Shown without pre-labels.")
    reason = models.CharField(max_length=200, blank=True, help_text="Why this tile was chosen.")
    state = models.CharField(max_length=9, choices=TaskState.choices, default=TaskState.OPEN)
    reader = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.SET_NULL, related_name="tasks", db_index=False
    )
    leased_until = models.DateTimeField(null=True, blank=True)
    revision = models.PositiveIntegerField(default=0, help_text="How many annotations this task has.")
    skip_reason = models.CharField(max_length=200, blank=True)
    pre_label = models.ForeignKey(
        "annotation.Annotation",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="What the reader starts from: a model's boxes; in a review, what the readers have drawn.",
    )

    class Meta:
        ordering = ["position"]
        indexes = [
            models.Index(fields=["batch", "kind", "state", "position"], name="task_next"),
            models.Index(fields=["reader", "batch", "kind", "state", "position"], name="task_reader"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["batch", "tile", "kind", "replica"], name="one_task_per_reading"),
            models.UniqueConstraint(
                fields=["batch", "tile", "reader"],
                condition=Q(reader__isnull=False),
                name="nobody_reads_a_tile_of_a_batch_twice",
            ),
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
