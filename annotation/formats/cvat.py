"""CVAT XML 1.1 for images: one file with an <image> each and its <box> elements.

`xtl`, `ytl`, `xbr`, `ybr` are the edges of the box in px from the image's top-left corner, as here. An image without
boxes is a tile without boxes: CVAT does not say whether anybody has looked at it. Polygons, turned boxes and other
shapes are no boxes of cells.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element  # the type only: the parsing is defusedxml's

from annotation.formats.reading import BadBoxes, LabelFile, Reading, finite, relative_name, whole
from annotation.formats.records import Dataset, FormatError, LabelledBox, Problem
from annotation.formats.voc import parse_xml

CVAT_FILE_BYTES = 64 * 1024 * 1024
_EDGES = ("xtl", "ytl", "xbr", "ybr")
_SHAPES = frozenset({"polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton"})
_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}


def _read_box(reading: Reading, element: Element, size: tuple[int, int], file: str, what: str) -> LabelledBox | None:
    name = (element.get("label") or "").strip()
    edges = [finite((element.get(edge) or "").strip()) for edge in _EDGES]
    known = [value for value in edges if value is not None]
    if not name or len(known) != len(_EDGES):
        reading.problems.add(Problem(file, f"{what}a label and finite xtl, ytl, xbr, ybr are needed"))
        return None
    class_id = reading.index.find(name, file)
    if finite(element.get("rotation", "0")) != 0:
        reading.bad_box(Problem(file, f"{what}a turned box is not upright"))
        return None
    left, top, right, bottom = known
    return reading.fit(LabelledBox(class_id or 0, left, top, right - left, bottom - top), size, file, what=what)


def _read_image(reading: Reading, element: Element, file: str) -> str | None:
    """Read one <image> into `reading`; returns its stem, or None when it cannot be used."""
    path = PurePosixPath((element.get("name") or "").replace("\\", "/"))
    width, height = whole(element.get("width")), whole(element.get("height"))
    what = f"image {path.name[:80]!r}: "
    if width is None or height is None or width < 1 or height < 1:
        reading.problems.add(Problem(file, f"{what}missing image size (width and height above 0)"))
        return None
    boxes, drawn = [], False
    for position, child in enumerate(element, start=1):
        drawn |= child.tag == "box" or child.tag in _SHAPES
        if child.tag in _SHAPES:
            reading.bad_box(Problem(file, f"{what}shape {position}: a {child.tag} is not a box"))
        elif child.tag == "box":
            box = _read_box(reading, child, (width, height), file, f"{what}shape {position}: ")
            if box is not None:
                boxes.append(box)
    split = _SPLITS.get((element.get("subset") or "").lower(), "train")
    suffix = path.suffix or ".jpg"
    reading.add_tile(file, path.stem, (width, height), boxes, split=split, suffix=suffix, drawn=drawn)
    return path.stem


def read_cvat_file(reading: Reading, path: LabelFile, file: str) -> set[str]:
    """Read one file into `reading`; returns the stems of its images."""
    try:
        root = parse_xml(path, file, "annotations", CVAT_FILE_BYTES)
    except FormatError as error:
        reading.problems.add_all(error.problems)
        return set()
    if root.find("track") is not None:
        reading.problems.add(Problem(file, "it holds tracks of a video; export it as CVAT for images"))
    return {stem for element in root.findall("image") if (stem := _read_image(reading, element, file)) is not None}


def read_cvat(path: Path, *, bad_boxes: BadBoxes | None = None) -> Dataset:
    """Read one CVAT XML file; class names get ids in the order in which they appear.

    Raises FormatError with everything found: bad XML, missing image sizes, boxes that cannot be kept, and so on.
    """
    reading = Reading(frozen=None, bad_boxes=bad_boxes)
    read_cvat_file(reading, path, relative_name(path, path.parent))
    return reading.dataset()
