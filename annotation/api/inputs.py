"""What clients send. Boxes are described here, and checked by annotation.services.annotations as the editor's are."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from annotation.services.annotations import MAX_BOXES, MIN_SIDE


class PlaceIn(serializers.Serializer):
    x = serializers.FloatField()
    y = serializers.FloatField()
    width = serializers.FloatField()
    height = serializers.FloatField()

    def get_fields(self) -> dict[str, Any]:
        return {"class": serializers.IntegerField(), **super().get_fields()}


PLACE: dict[str, Any] = {
    "type": "object",
    "required": ["class", "x", "y", "width", "height"],
    "properties": {
        "class": {"type": "integer", "minimum": 0, "description": "The class's number in the project's taxonomy."},
        "x": {"type": "number", "minimum": 0, "description": "Tile px, from the left."},
        "y": {"type": "number", "minimum": 0, "description": "Tile px, from the top."},
        "width": {"type": "number", "minimum": MIN_SIDE},
        "height": {"type": "number", "minimum": MIN_SIDE},
        "origin": {"type": "integer", "nullable": True, "description": "The pre-label box that it comes from."},
    },
}
SCORED = {"type": "number", "minimum": 0, "maximum": 1, "nullable": True, "description": "A model's certainty."}


@extend_schema_field({"type": "array", "maxItems": MAX_BOXES, "items": PLACE})
class Boxes(serializers.Field):
    """Taken as it is: the service that stores the boxes says what is wrong with which of them."""

    def to_internal_value(self, data: Any) -> Any:
        return data


@extend_schema_field(
    {
        "type": "array",
        "maxItems": MAX_BOXES,
        "items": {**PLACE, "properties": {**PLACE["properties"], "score": SCORED}},
    }
)
class ScoredBoxes(Boxes):
    pass


@extend_schema_field({"type": "object", "additionalProperties": {}})
class AnyObject(serializers.Field):
    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("This must be an object.")
        return data
