"""The model registry, what a model version sees on each tile, and the tiles put up for a batch."""

from typing import Any

from django.db import models
from django.db.models import Q

from annotation.models import Author, Batch, Project, Taxonomy, Tile


class DetectorKind(models.TextChoices):
    ONE_STAGE = "one-stage", "one-stage"
    TWO_STAGE = "two-stage", "two-stage"


class ModelVersion(models.Model):
    """Weights, the taxonomy and the snapshot that they come from. Immutable, but for which one is current."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="model_versions")
    number = models.PositiveIntegerField()
    author = models.OneToOneField(Author, on_delete=models.PROTECT, related_name="model_version")
    taxonomy = models.ForeignKey(Taxonomy, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=9, choices=DetectorKind.choices, default=DetectorKind.ONE_STAGE)
    weights = models.CharField(max_length=255, help_text="Name in storage.")
    weights_sha256 = models.CharField(max_length=64)
    classifier = models.CharField(
        max_length=255, blank=True, help_text="Name in storage; two-stage only: the weights then are the finder's."
    )
    classifier_sha256 = models.CharField(max_length=64, blank=True)
    snapshot_hash = models.CharField(max_length=64)
    config = models.JSONField(default=dict, help_text="What it was trained with.")
    exports = models.JSONField(
        default=dict, help_text="The same weights for other runtimes: whether they may be used, why, and their SHA-256."
    )
    is_current = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    FROZEN_FIELDS = (
        "project_id",
        "number",
        "author_id",
        "taxonomy_id",
        "kind",
        "weights",
        "weights_sha256",
        "classifier",
        "classifier_sha256",
        "snapshot_hash",
        "exports",
    )

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_version_per_number"),
            models.UniqueConstraint(fields=["project"], condition=Q(is_current=True), name="one_current_model"),
        ]

    def __str__(self) -> str:
        return f"model {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        before = None if self._state.adding else ModelVersion.objects.filter(pk=self.pk).first()
        if before and any(getattr(before, field) != getattr(self, field) for field in self.FROZEN_FIELDS):
            raise ValueError(f"{self} of {self.project} never changes; register a new version.")
        super().save(*args, **kwargs)

    @property
    def refused_export(self) -> str:
        """Why the version's OpenVINO export may not be used, so that torch computes; empty if it may, or has none."""
        export = self.exports.get("openvino", {})
        return "" if export.get("accepted", True) else str(export["text"])


class TileScore(models.Model):
    """What a model version sees on a tile, in the few numbers that selection works with.

    The embeddings are of `inference.engine.embeddings` (float16, little-endian, 64 numbers a cell): enough to find
    near-duplicates and similar cells at 128 bytes a cell, which for 100,000 tiles is some 200 MB. Only the version
    that chose last keeps them. A score without them is of before there were any, or of another version: it is made
    again when that version chooses.
    """

    model_version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="tile_scores")
    tile = models.ForeignKey(Tile, on_delete=models.CASCADE, related_name="+")
    expected = models.JSONField(help_text="The expected boxes of each class, in the taxonomy's order.")
    class_doubt = models.FloatField(default=0.0, help_text="How many cells are of doubtful class.")
    cell_doubt = models.FloatField(default=0.0, help_text="How many cells are hardly certain to be cells.")
    embedding = models.BinaryField(
        null=True, help_text="Of the tile: the mean of its cells', weighted by their scores."
    )
    cell_embeddings = models.BinaryField(null=True, help_text="Of its cells, the best 24 first.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model_version", "tile"], name="one_score_per_tile")]

    def __str__(self) -> str:
        return f"{self.tile} by {self.model_version}"


class CandidateState(models.TextChoices):
    CHOSEN = "chosen", "in the batch"
    RESERVE = "reserve", "in reserve"
    OUT = "out", "swapped out"


class Candidate(models.Model):
    """A tile that a selection has put up for a batch: it is in it, or in reserve for one that is swapped out.

    `place` is its place in the batch, or in the reserve of its strategy, best first. One that was swapped out stays
    out of this batch.
    """

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="candidates")
    tile = models.ForeignKey(Tile, on_delete=models.CASCADE, related_name="+")
    state = models.CharField(max_length=7, choices=CandidateState.choices)
    place = models.PositiveIntegerField()
    strategy = models.CharField(max_length=9)
    audit = models.BooleanField(default=False)
    reason = models.CharField(max_length=200)
    expected = models.JSONField(default=list, help_text="The expected boxes of each class, in the taxonomy's order.")

    class Meta:
        ordering = ["place"]
        constraints = [models.UniqueConstraint(fields=["batch", "tile"], name="a_tile_is_put_up_once")]

    def __str__(self) -> str:
        return f"{self.tile} for {self.batch}"
