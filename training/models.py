"""Rounds, snapshots, evaluations and the schedule."""

from datetime import time
from typing import Any

from django.db import models
from django.db.models import Q

from annotation.models import Annotation, Batch, Job, JobState, Project, Taxonomy, Tile
from annotation.models.annotation import ImmutableModel
from inference.models import ModelVersion


class Part(models.TextChoices):
    TRAIN = "train", "training"
    VALIDATION = "val", "validation"
    TEST = "test", "locked test"


class Snapshot(ImmutableModel):
    """The exact tiles, boxes and split that a training run used. Annotations never change, so naming them is enough."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="snapshots")
    taxonomy = models.ForeignKey(Taxonomy, on_delete=models.PROTECT, related_name="+")
    content_hash = models.CharField(max_length=64)
    split_note = models.CharField(max_length=200, blank=True, help_text="How the validation part was chosen.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "content_hash"], name="one_snapshot_per_content")]

    def __str__(self) -> str:
        return f"snapshot {self.content_hash[:12]}"


class SnapshotTile(ImmutableModel):
    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="tiles")
    tile = models.ForeignKey(Tile, on_delete=models.PROTECT, related_name="+")
    annotation = models.ForeignKey(Annotation, on_delete=models.PROTECT, related_name="+")
    part = models.CharField(max_length=5, choices=Part.choices)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["snapshot", "tile"], name="a_tile_is_in_one_part")]

    def __str__(self) -> str:
        return f"{self.tile} in {self.snapshot}"


class RoundState(models.TextChoices):
    SELECTING = "selecting", "selecting"
    REVIEWING = "reviewing", "ready to release"
    PRE_LABELLING = "pre-labelling", "pre-labelling"
    ANNOTATING = "annotating", "annotating"
    CLOSING = "closing", "closing"
    TRAINING = "training", "training"
    EVALUATING = "evaluating", "evaluating"
    DONE = "done", "done"
    CANCELLED = "cancelled", "cancelled"


class Mode(models.TextChoices):
    MANUAL = "manual", "manual"
    ASSISTED = "assisted", "assisted"


class Round(models.Model):
    """One turn of the loop. `state` is the step that it is at, `job` that step's job: if it failed, so did the step."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    mode = models.CharField(max_length=8, choices=Mode.choices)
    state = models.CharField(max_length=13, choices=RoundState.choices, default=RoundState.SELECTING)
    settings = models.JSONField(help_text="Batch size, strategy, model, epochs, image size, seed.")
    batch = models.OneToOneField(Batch, null=True, blank=True, on_delete=models.PROTECT, related_name="round")
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="rounds")
    model_version = models.OneToOneField(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="round"
    )
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_round_per_number"),
            models.UniqueConstraint(
                fields=["project"], condition=~Q(state__in=["done", "cancelled"]), name="one_round_at_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"Round {self.number}"

    @property
    def is_over(self) -> bool:
        return self.state in (RoundState.DONE, RoundState.CANCELLED)

    @property
    def failed(self) -> bool:
        """Whether the round stands still because its step failed or was cancelled."""
        return not self.is_over and self.job is not None and self.job.state in (JobState.FAILED, JobState.CANCELLED)


class Evaluation(ImmutableModel):
    """What a model version scored, and on which tiles."""

    model_version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="evaluations")
    part = models.CharField(max_length=5, choices=Part.choices)
    tiles = models.PositiveIntegerField()
    boxes = models.PositiveIntegerField()
    patients = models.PositiveIntegerField()
    truth_hash = models.CharField(
        max_length=64, help_text="Of the tiles and boxes tested on: equal hashes can be compared."
    )
    metrics = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["model_version", "part", "truth_hash"], name="one_evaluation_per_truth")
        ]

    def __str__(self) -> str:
        return f"{self.model_version} on {self.tiles} tiles"


class CrossValidation(models.Model):
    """As many trainings as folds, each measured on the patients that it has not seen.

    `folds` is empty until the job has split the patients, then one object for each: patients, validation (patients),
    tiles, boxes (held out), trained_tiles, and when it is done: metrics, best_epoch, note. A fold once done stays.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="cross_validations")
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    fold_count = models.PositiveSmallIntegerField()
    settings = models.JSONField(help_text="How each detector is trained.")
    folds = models.JSONField(default=list)
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(condition=Q(fold_count__gte=2), name="a_cross_validation_has_two_folds"),
        ]

    def __str__(self) -> str:
        return f"{self.fold_count}-fold cross-validation"

    @property
    def done(self) -> list[dict[str, Any]]:
        """The folds that have been measured."""
        return [fold for fold in self.folds if fold.get("metrics")]


class ScheduleMode(models.TextChoices):
    BY_HAND = "hand", "by hand"
    COMPLETE = "complete", "when the batch is complete"
    NEW_TILES = "tiles", "after so many new confirmed tiles"
    TIMES = "times", "at set times"


class Schedule(models.Model):
    """When a project's round is closed and trained by itself. A project without one is trained by hand.

    `revision` is the fence: whoever fires or changes the schedule counts it up by a conditional UPDATE.
    """

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="schedule")
    mode = models.CharField(max_length=8, choices=ScheduleMode.choices, default=ScheduleMode.BY_HAND)
    new_tiles = models.PositiveIntegerField(default=50)
    at = models.TimeField(default=time(2, 0))
    weekdays = models.CharField(max_length=7, default="1234567", help_text="ISO: 1 is Monday.")
    start_next = models.BooleanField(default=False)
    paused = models.BooleanField(default=False)
    next_run_at = models.DateTimeField(null=True, blank=True, help_text="The next set time; a missed one stays due.")
    closed_round = models.ForeignKey(
        Round,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The round after whose end the next one is to be started.",
    )
    last_run_at = models.DateTimeField(null=True, blank=True)
    last_outcome = models.CharField(max_length=300, blank=True)
    revision = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(new_tiles__gte=1), name="a_schedule_waits_for_a_tile"),
            models.CheckConstraint(condition=~Q(weekdays=""), name="a_schedule_has_a_weekday"),
            models.CheckConstraint(
                condition=~Q(mode="times", paused=False) | Q(next_run_at__isnull=False), name="a_set_time_comes_next"
            ),
        ]

    def __str__(self) -> str:
        return f"schedule of {self.project}"
