"""What an export holds: a format, and the part of a project that somebody has chosen."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from annotation.models import Author, AuthorKind, Project
from annotation.services.policies import CONSENSUS

FORMATS = {
    "yolo": "YOLO (ultralytics)",
    "voc": "Pascal VOC",
    "labelimg-voc": "LabelImg, Pascal VOC flavour",
    "labelimg-yolo": "LabelImg, YOLO flavour",
    "coco": "COCO",
    "csv": "CSV",
    "crops": "Single-cell crops",
}
PARTS = {"all": "all tiles", "train": "training", "val": "validation", "test": "locked test"}
ANNOTATIONS = {"truth": "truth", "readers": "all readers"}
COORDINATES = {"tile": "tile px", "slide": "slide px"}
LISTED = 4  # of a choice, in words


@dataclass(frozen=True)
class ExportChoice:
    """A format and a part of a project; an empty list chooses all.

    part: a key of PARTS. rounds: their numbers. patients: codes. classes: names; boxes of others are left out, tiles
    never. readers: names of authors. annotations: a key of ANNOTATIONS. coordinates: a key of COORDINATES.
    Raises ValueError when one of them is unknown or the format cannot say it.
    """

    format: str
    images: bool = False
    part: str = "all"
    rounds: tuple[int, ...] = ()
    patients: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    annotations: str = "truth"
    coordinates: str = "tile"

    def __post_init__(self) -> None:
        known = {"format": FORMATS, "part": PARTS, "annotations": ANNOTATIONS, "coordinates": COORDINATES}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{getattr(self, name)} is not a choice of {name}: {', '.join(values)}.")
        if self.coordinates == "slide" and self.format not in ("coco", "csv"):
            raise ValueError(f"{FORMATS[self.format]} holds tiles: slide px can be had as COCO and CSV.")
        # The order of what was ticked is no part of the choice: it would change the manifest.
        for name in ("rounds", "patients", "classes", "readers"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        if self.format == "csv":  # always holds both, in columns of their own
            object.__setattr__(self, "coordinates", "tile")
        if self.format in ("csv", "crops") or self.coordinates == "slide":
            object.__setattr__(self, "images", False)

    def arguments(self) -> dict[str, Any]:
        """As a job's row and the manifest keep it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def words(self) -> list[str]:
        """What was chosen, for people: one short text for each choice that is not just "all"."""
        said = [PARTS[self.part]]
        if self.annotations != "truth":
            said.append(f"annotations of {ANNOTATIONS[self.annotations]}")
        said += _listed("round", "rounds", self.rounds)
        said += _listed("patient", "patients", self.patients)
        said += _listed("class", "classes", self.classes)
        said += _listed("reader", "readers", self.readers)
        if self.coordinates == "slide":
            said.append("in slide px")
        if self.format not in ("csv", "crops"):
            said.append("with the images" if self.images else "labels only")
        return said


def _listed(one: str, several: str, values: tuple[Any, ...]) -> list[str]:
    if not values:
        return []
    more = f" and {len(values) - LISTED} more" if len(values) > LISTED else ""
    return [f"{one if len(values) == 1 else several} {', '.join(map(str, values[:LISTED]))}{more}"]


def choice_of(arguments: Mapping[str, Any]) -> ExportChoice:
    """The choice that a job's row keeps, or a client sends. Jobs of older versions know fewer choices."""
    names = {field.name for field in fields(ExportChoice)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items() if name in names
    }
    return ExportChoice(**values)


def round_numbers(project: Project) -> dict[int, int]:
    """The number of the round of each batch that has one."""
    return dict(project.batches.filter(round__isnull=False).order_by("pk").values_list("pk", "round__number"))


def reader_names(project: Project) -> list[str]:
    """Everybody who has drawn an annotation of the project, imports included, models and consensuses not."""
    drawn = Author.objects.filter(annotations__tile__slide__project=project).exclude(kind=AuthorKind.MODEL)
    return sorted(set(drawn.exclude(kind=AuthorKind.IMPORT, name=CONSENSUS).values_list("name", flat=True)))


def check_choice(project: Project, choice: ExportChoice) -> None:
    """Raises ValueError that lists what the project does not have."""
    unknown = [
        *_unknown("round", choice.rounds, round_numbers(project).values() if choice.rounds else ()),
        *_unknown("patient", choice.patients, project.patients.values_list("code", flat=True)),
        *_unknown("class", choice.classes, project.taxonomy.classes.values_list("name", flat=True)),
        *_unknown("reader", choice.readers, reader_names(project) if choice.readers else ()),
    ]
    if unknown:
        raise ValueError(f"{project} has no {', '.join(unknown)}.")


def _unknown(what: str, chosen: Iterable[Any], known: Iterable[Any]) -> list[str]:
    return [f"{what} {value}" for value in sorted(set(chosen) - set(known))]
