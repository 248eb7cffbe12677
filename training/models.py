"""Rounds, snapshots and evaluations."""

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
