"""Taxonomies: frozen, versioned, ordered lists of cell classes."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.functional import cached_property

from annotation.prepared import Prepared


class Taxonomy(models.Model):
    """One version of a list of classes. Once a project uses it, ids, codes and names never change."""

    name = models.CharField(max_length=100)
    version = models.PositiveIntegerField(default=1)
    frozen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "taxonomies"
        constraints = [models.UniqueConstraint(fields=["name", "version"], name="one_taxonomy_per_version")]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    @cached_property
    def class_keys(self) -> dict[int, int]:
        """The primary key of each class by its number."""
        return dict(CLASS_KEYS.rows(self.pk))

    @cached_property
    def class_numbers(self) -> dict[str, int]:
        """The number of each class by its name."""
        return dict(self.classes.values_list("name", "number"))


class CellClass(models.Model):
    """A class of cell. `number` is the stable integer id that exports and models use."""

    FROZEN_FIELDS = ("taxonomy_id", "number", "code", "name")

    taxonomy = models.ForeignKey(Taxonomy, on_delete=models.PROTECT, related_name="classes")
    number = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=8)
    name = models.CharField(max_length=60)
    colour = models.CharField(max_length=7, help_text="#rrggbb")
    hotkey = models.CharField(max_length=1)
    lineage = models.CharField(max_length=30, blank=True)
    maturation = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Order of maturation in its lineage."
    )
    in_ndc = models.BooleanField("counts in the NDC", default=True)
    in_me_numerator = models.BooleanField("counts in the M:E ratio's numerator", default=False)
    in_me_denominator = models.BooleanField("counts in the M:E ratio's denominator", default=False)
    ignored_in_training = models.BooleanField(default=False)

    class Meta:
        verbose_name_plural = "cell classes"
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["taxonomy", "number"], name="one_class_per_number"),
            models.UniqueConstraint(fields=["taxonomy", "code"], name="one_class_per_code"),
            models.UniqueConstraint(fields=["taxonomy", "name"], name="one_class_per_name"),
            models.UniqueConstraint(fields=["taxonomy", "hotkey"], name="one_class_per_hotkey"),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.taxonomy.frozen_at is not None:
            before = CellClass.objects.filter(pk=self.pk).first()
            changed = before is None or any(getattr(before, f) != getattr(self, f) for f in self.FROZEN_FIELDS)
            if changed:
                raise ValidationError(f"{self.taxonomy} is frozen: make a new version to add or rename classes.")
        super().save(*args, **kwargs)


CLASS_KEYS = Prepared(lambda taxonomy: CellClass.objects.filter(taxonomy=taxonomy).values_list("number", "pk"))
