"""What the API says of each thing. The words are those of docs/architecture.md; boxes are in tile px."""

from typing import Any

from django.urls import reverse
from rest_framework import serializers

from annotation.models import (
    AuthorKind,
    BatchState,
    Change,
    JobState,
    Policy,
    Preparation,
    Purpose,
    ReviewBy,
    Role,
    TaskKind,
    TaskState,
    Tiling,
)


class JobRow(serializers.Serializer):
    id = serializers.IntegerField()
    kind = serializers.CharField()
    state = serializers.ChoiceField(JobState.choices)
    progress = serializers.FloatField(help_text="0 to 1.")
    seconds_left = serializers.FloatField(allow_null=True)
    message = serializers.CharField()


class ClassRow(serializers.Serializer):
    id = serializers.IntegerField(source="number", help_text="The stable number that boxes, exports and models use.")
    code = serializers.CharField()
    name = serializers.CharField()
    colour = serializers.CharField()
    lineage = serializers.CharField()
    maturation = serializers.IntegerField(allow_null=True)
    in_ndc = serializers.BooleanField()
    in_me_numerator = serializers.BooleanField()
    in_me_denominator = serializers.BooleanField()
    ignored_in_training = serializers.BooleanField()


class TaxonomyRow(serializers.Serializer):
    name = serializers.CharField()
    version = serializers.IntegerField()
    classes = ClassRow(many=True, source="classes.all")


class ProjectRow(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    role = serializers.SerializerMethodField(help_text="The token's user's role in it.")
    taxonomy = TaxonomyRow()
    created_at = serializers.DateTimeField()

    def get_role(self, project: Any) -> str:
        return str(self.context["roles"].get(project.pk, Role.LEAD))  # a superuser is lead everywhere


class SlideRow(serializers.Serializer):
    """Width and height in level-0 px, mpp in um per level-0 px."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    patient = serializers.CharField(source="patient.code", help_text="Pseudonym.")
    locked = serializers.BooleanField(source="patient.locked", help_text="In the locked test set.")
    sha256 = serializers.CharField()
    vendor = serializers.CharField()
    width = serializers.IntegerField()
    height = serializers.IntegerField()
    mpp = serializers.FloatField(allow_null=True)
    objective_power = serializers.FloatField(allow_null=True)
    site = serializers.CharField()
    preparation = serializers.ChoiceField(Preparation.choices, allow_blank=True)
    tiling = serializers.ChoiceField(Tiling.choices)
    imported_at = serializers.DateTimeField()


class TileRow(serializers.Serializer):
    """x and y in level-0 px of the slide, extent the tile's width in level-0 px; width and height in tile px."""

    id = serializers.IntegerField()
    slide = serializers.IntegerField(source="slide_id")
    patient = serializers.CharField(source="slide.patient.code")
    locked = serializers.BooleanField(source="slide.patient.locked")
    row = serializers.IntegerField()
    column = serializers.IntegerField()
    x = serializers.IntegerField()
    y = serializers.IntegerField()
    extent = serializers.FloatField()
    width = serializers.IntegerField()
    height = serializers.IntegerField()
    confirmed = serializers.SerializerMethodField()
    truth = serializers.IntegerField(
        source="shown_truth",
        allow_null=True,
        help_text="The accepted annotation, unless it is kept from a blind reader.",
    )
    image = serializers.SerializerMethodField(help_text="Where its picture is.")

    def get_confirmed(self, tile: Any) -> bool:
        return tile.truth_id is not None

    def get_image(self, tile: Any) -> str:
        return reverse("api_tile_image", args=[tile.pk])


class BatchRow(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    purpose = serializers.ChoiceField(Purpose.choices)
    state = serializers.ChoiceField(BatchState.choices)
    policy = serializers.ChoiceField(Policy.choices)
    readers = serializers.IntegerField(help_text="Of each tile.")
    review_share = serializers.FloatField()
    review_by = serializers.ChoiceField(ReviewBy.choices)
    expected = serializers.DictField(child=serializers.FloatField(), help_text="Expected boxes by class number.")
    tasks = serializers.IntegerField(source="task_count", help_text="Readings.")
    done = serializers.IntegerField(source="done_count", help_text="Of them submitted or skipped.")
    created_at = serializers.DateTimeField()


class TaskRow(serializers.Serializer):
    id = serializers.IntegerField()
    batch = serializers.IntegerField(source="batch_id")
    tile = serializers.IntegerField(source="tile_id")
    position = serializers.IntegerField()
    kind = serializers.ChoiceField(TaskKind.choices)
    replica = serializers.IntegerField()
    state = serializers.ChoiceField(TaskState.choices)
    reader = serializers.CharField(source="reader.username", default=None, allow_null=True)
    reason = serializers.CharField(help_text="Why the tile was chosen.")
    skip_reason = serializers.CharField()
    revision = serializers.IntegerField(help_text="How many annotations it has.")
    leased_until = serializers.DateTimeField(allow_null=True)


class Place(serializers.Serializer):
    """x and y of the top left corner, width and height, in tile px; `class` is a class's number."""

    x = serializers.FloatField()
    y = serializers.FloatField()
    width = serializers.FloatField()
    height = serializers.FloatField()

    def get_fields(self) -> dict[str, Any]:
        # `class` is no name that Python takes.
        return {"class": serializers.IntegerField(source="cell_class.number"), **super().get_fields()}


class BoxRow(Place):
    id = serializers.IntegerField()
    score = serializers.FloatField(allow_null=True, help_text="Models only.")
    origin = serializers.IntegerField(
        source="origin_id", allow_null=True, help_text="The pre-label box that it came from."
    )
    change = serializers.ChoiceField(Change.choices, allow_blank=True, help_text="What its reader did to that one.")


class AuthorRow(serializers.Serializer):
    kind = serializers.ChoiceField(AuthorKind.choices)
    name = serializers.CharField()


class AnnotationRow(serializers.Serializer):
    id = serializers.IntegerField()
    uuid = serializers.UUIDField()
    tile = serializers.IntegerField(source="tile_id")
    author = AuthorRow()
    is_truth = serializers.SerializerMethodField(help_text="Whether it is what counts for its tile now.")
    task = serializers.IntegerField(source="task_id", allow_null=True)
    revision = serializers.IntegerField(allow_null=True, help_text="Of its task.")
    supersedes = serializers.IntegerField(source="supersedes_id", allow_null=True)
    pre_label = serializers.IntegerField(
        source="pre_label_id", allow_null=True, help_text="The annotation that its reader started from."
    )
    submitted_at = serializers.DateTimeField()
    active_seconds = serializers.FloatField()
    wall_seconds = serializers.FloatField()
    effort = serializers.DictField(help_text="Keys, clicks, and boxes kept, moved, reclassified, deleted, added.")
    boxes = BoxRow(many=True, source="boxes.all")

    def get_is_truth(self, annotation: Any) -> bool:
        return bool(annotation.tile.truth_id == annotation.pk)


class EventRow(serializers.Serializer):
    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    person = serializers.CharField(source="user_name", help_text="Empty: Marrowloop itself.")
    verb = serializers.CharField()
    subject = serializers.CharField()
    data = serializers.DictField()
