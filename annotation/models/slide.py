"""Patients, their slides and the tiles cut from them."""

from django.db import models

from annotation.models.project import Project, User


class Patient(models.Model):
    """A pseudonym; the unit of every split."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="patients")
    code = models.CharField(max_length=60)
    locked = models.BooleanField(default=False, help_text="In the locked test set: never selected, never trained on.")

    class Meta:
        ordering = ["code"]
        constraints = [models.UniqueConstraint(fields=["project", "code"], name="one_patient_per_code")]

    def __str__(self) -> str:
        return self.code


class Preparation(models.TextChoices):
    PUSH = "push", "push"
    CRUSH = "crush", "crush"
    UNKNOWN = "", "not stated"


class Tiling(models.TextChoices):
    PAPER = "paper", "15 x 20 grid"
    EDGE = "edge", "edge to edge"
    IMAGE = "image", "plain image, one tile"


class Slide(models.Model):
    """One whole-slide image of a patient, or a plain image. Width and height are level-0 px, mpp is um per level-0 px.

    A plain image seldom says how large its px are: its mpp may be null, which means unknown.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="slides")
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="slides")
    name = models.CharField(max_length=255, help_text="The file's name as it was given; never used as a path.")
    files = models.JSONField(help_text="Names in storage; the first is the one to open, the others belong to it.")
    sha256 = models.CharField(max_length=64)
    bytes = models.BigIntegerField()
    vendor = models.CharField(max_length=40)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    mpp = models.FloatField(null=True, blank=True)
    objective_power = models.FloatField(null=True, blank=True)
    site = models.CharField(max_length=60, blank=True)
    preparation = models.CharField(max_length=5, choices=Preparation.choices, blank=True)
    tiling = models.CharField(max_length=5, choices=Tiling.choices)
    imported_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    imported_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "sha256"], name="one_slide_per_content"),
            models.CheckConstraint(condition=models.Q(mpp__gt=0), name="mpp_is_positive"),
            models.CheckConstraint(
                condition=models.Q(mpp__isnull=False) | models.Q(tiling=Tiling.IMAGE),
                name="only_a_plain_image_lacks_mpp",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_image(self) -> bool:
        """Whether it is a plain image, which is its own single tile."""
        return self.tiling == Tiling.IMAGE


class Tile(models.Model):
    """A 512 x 512 px square at 0.25 um/px of a slide, or a plain image of any size.

    x and y are level-0 px, extent its width in level-0 px.
    """

    slide = models.ForeignKey(Slide, on_delete=models.PROTECT, related_name="tiles")
    row = models.PositiveSmallIntegerField()
    column = models.PositiveSmallIntegerField()
    x = models.PositiveIntegerField()
    y = models.PositiveIntegerField()
    extent = models.FloatField()
    width = models.PositiveSmallIntegerField(default=512)
    height = models.PositiveSmallIntegerField(default=512)
    truth = models.ForeignKey(
        "annotation.Annotation",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The current accepted annotation.",
    )

    class Meta:
        ordering = ["slide", "row", "column"]
        constraints = [models.UniqueConstraint(fields=["slide", "x", "y"], name="one_tile_per_place")]

    def __str__(self) -> str:
        if self.slide.is_image:
            return self.slide.name
        return f"{self.slide.name} row {self.row + 1}, column {self.column + 1}"

    @property
    def extents(self) -> tuple[float, float]:
        """Width and height in level-0 px; both are tile px times the same factor."""
        return self.extent, self.extent * self.height / self.width

    @property
    def project(self) -> Project:
        return self.slide.project
