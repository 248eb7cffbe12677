"""Label Studio's JSON export ("JSON", not "JSON-MIN"): a list of tasks with their annotations.

A region of the type `rectanglelabels` has x, y, width and height in percent of the image, whose size in px stands
beside them. A task that nobody has annotated says nothing of its image and is no tile, whatever a model has predicted
on it (the classes of predictions would have to be mapped before anybody has said that they are wanted): it is counted,
and predictions that are passed over are listed. An annotation without regions says that there is none. Of several
annotations of a task the one that is marked as ground truth counts; without one the file is refused, because which
reader is meant cannot be known.

Images are named by an address: its last part is the tile's name, without the eight digits that Label Studio puts
before the name of an uploaded file.

Format: https://labelstud.io/guide/export.html
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from annotation.formats.json_stream import stream_list
from annotation.formats.reading import BadBoxes, LabelFile, Reading, finite, relative_name, whole
from annotation.formats.records import Dataset, LabelledBox, Problem

LABEL_STUDIO_FILE_BYTES = 128 * 1024 * 1024
_SIDES = ("x", "y", "width", "height")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")

Object = Mapping[str, object]
KnownSize = Callable[[str], tuple[int, int] | None]


def _file_name(task: Object) -> PurePosixPath | None:
    """The name of the task's image, without folders."""
    data = task.get("data")
    if not isinstance(data, dict):
        return None
    texts = [data["image"]] if "image" in data else list(data.values())
    if len(texts) != 1 or not isinstance(texts[0], str):
        return None
    try:
        address = urlsplit(texts[0])
    except ValueError:
        return None
    local = parse_qs(address.query).get("d")  # files of a folder that Label Studio serves
    name = PurePosixPath((local[0] if local else unquote(address.path)).replace("\\", "/")).name
    return PurePosixPath(_UPLOADED.sub("", name, count=1)) if name else None


def _annotation(task: Object) -> Object | str | None:
    """The annotation that counts, None when there is none, or why it cannot be told."""
    annotations = task.get("annotations")
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        return "`annotations` must be a list; export as JSON, not as JSON-MIN"
    done = [one for one in annotations if not one.get("was_cancelled")]
    marked = [one for one in done if one.get("ground_truth")] or done
    if len(marked) > 1:
        return f"{len(marked)} annotations: mark the one to take as ground truth, or export one"
    return marked[0] if marked else None


def _is_region(result: Object) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and str(result.get("type")) not in ("choices", "textarea", "rating", "number")


def _read_region(reading: Reading, result: Object, size: tuple[int, int], file: str, what: str) -> LabelledBox | None:
    value = result["value"]
    if result.get("type") != "rectanglelabels" or not isinstance(value, dict):
        reading.bad_box(Problem(file, f"{what}{str(result.get('type'))[:40]!r} is not a labelled rectangle"))
        return None
    names, sides = value.get("rectanglelabels"), [finite(value.get(side)) for side in _SIDES]
    known = [side for side in sides if side is not None]
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str) or not names[0].strip():
        reading.problems.add(Problem(file, f"{what}a rectangle needs one label"))
        return None
    score = result.get("score")
    if len(known) != len(_SIDES) or (score is not None and finite(score) is None):
        reading.problems.add(Problem(file, f"{what}x, y, width, height and a score must be finite numbers"))
        return None
    class_id = reading.index.find(names[0].strip(), file)
    if value.get("rotation") and finite(value["rotation"]) != 0:
        reading.bad_box(Problem(file, f"{what}a turned rectangle is not upright"))
        return None
    x, y, width, height = (side * size[axis % 2] / 100 for axis, side in enumerate(known))
    return reading.fit(LabelledBox(class_id or 0, x, y, width, height, finite(score)), size, file, what=what)


def _size(results: list[Object], known: tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height in px: what all the results say, else what is known; None without, or when they differ."""
    said = {
        (whole(one["original_width"]), whole(one.get("original_height")))
        for one in results
        if one.get("original_width") is not None
    }
    if not said:
        return known
    width, height = next(iter(said))
    return (width, height) if len(said) == 1 and width and height and min(width, height) > 0 else None


def read_label_studio_file(reading: Reading, path: LabelFile, file: str, known_size: KnownSize) -> set[str]:
    """Read one file into `reading`; returns the stems of the images that it names."""
    stems = set()
    for position, task in enumerate(stream_list(path, file, LABEL_STUDIO_FILE_BYTES, "tasks"), start=1):
        what, name = f"task {repr(task.get('id', position))[:40]}: ", _file_name(task)
        annotation = _annotation(task)
        if name is None or isinstance(annotation, str):
            reason = annotation if isinstance(annotation, str) else "`data` must name one image"
            reading.problems.add(Problem(file, f"{what}{reason}"))
            continue
        if annotation is None:
            stems.add(name.stem)  # counted here, and not again as an image without labels
            predicted = Problem(file, f"{what}predictions are not read, and nobody has annotated it")
            reading.add_unread(name.name, predicted if task.get("predictions") else None)
            continue
        results = annotation.get("result")
        if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
            reading.problems.add(Problem(file, f"{what}`result` must be a list of objects"))
            continue
        size = _size(results, known_size(name.stem))
        if size is None:
            reading.problems.add(Problem(file, f"{what}missing image size, or more than one"))
            continue
        regions = [one for one in results if _is_region(one)]
        found = [
            _read_region(reading, one, size, file, f"{what}region {number}: ")
            for number, one in enumerate(regions, start=1)
        ]
        boxes = [box for box in found if box is not None]
        stems.add(name.stem)
        reading.add_tile(file, name.stem, size, boxes, split="train", suffix=name.suffix or ".jpg", drawn=bool(found))
    return stems


def read_label_studio(
    path: Path, *, known_size: KnownSize = lambda name: None, bad_boxes: BadBoxes | None = None
) -> Dataset:
    """Read one JSON file; class names get ids in the order in which they appear.

    `known_size` gives width and height in px of an image whose annotation has no region, and so does not state it.
    Raises FormatError with everything found: bad JSON, missing image sizes, boxes that cannot be kept, and so on.
    """
    reading = Reading(frozen=None, bad_boxes=bad_boxes)
    read_label_studio_file(reading, path, relative_name(path, path.parent), known_size)
    return reading.dataset()
