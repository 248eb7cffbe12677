"""Pascal VOC: one XML file per tile in `Annotations/`, images in `JPEGImages/`, splits in `ImageSets/Main/`.

Convention. The VOC development kit counts pixels from 1 and includes both corners: the box that covers the leftmost
pixel column only has xmin = xmax = 1. Here a box from x to x + width (px, origin 0) is written as xmin = x + 1 and
xmax = x + width, and read back as x = xmin - 1, width = xmax - xmin + 1. Corners are written with up to four decimals,
so nothing is rounded to whole pixels; readers that take whole numbers cut at most one pixel off. Because xmax <= xmin
means a slip of the mouse in practice, such a box is degenerate when read, and a box with a side of one pixel or less
is refused when written. Files of tools that count from 0 (LabelImg among them) are read with `first_pixel=0`.

VOC has no list of classes: `classes.txt` (ours, ignored by others) keeps the frozen order. Scores and extra fields
are not written.

Format: Everingham and Winn, The PASCAL Visual Object Classes Challenge 2012 Development Kit, section 8.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from html import escape
from pathlib import Path, PurePosixPath
from typing import Literal, TextIO
from xml.etree.ElementTree import Element, ParseError
from xml.etree.ElementTree import fromstring as fromstring_without_dtd  # see parse_xml

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from annotation.formats.boxes import MINIMUM_SIDE
from annotation.formats.classes import CLASS_LIST, class_list_text
from annotation.formats.reading import (
    LABEL_FILE_BYTES,
    SPLIT_LIST_BYTES,
    ImageFolder,
    LabelFile,
    Reading,
    check_folder,
    find_class_list,
    finite_all,
    read_bounded,
    read_text,
    relative_name,
    whole,
)
from annotation.formats.records import SPLITS, Dataset, FormatError, LabelledBox, LabelledTile, Problem
from annotation.formats.writing import FolderWriter, ImageSource, Output, checked_tiles, number

FirstPixel = Literal[0, 1]
SPLIT_LIST = "ImageSets/Main/{}.txt"
# Pictures of the same names as the images, which say where their objects are.
MASK_FOLDERS = frozenset({"SegmentationClass", "SegmentationObject"})
# The shortest side that survives the convention: one pixel is xmax = xmin when both corners are included.
SMALLEST_VOC_SIDE = 1 + MINIMUM_SIDE
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# A DTD, an encoding that hides one, or the null bytes of UTF-16.
_MAY_DECLARE = (b"<!", b"encoding", b"\0")


@cache
def _escaped(text: str) -> str:
    return escape(text, quote=False)


def _object_text(box: LabelledBox, name: str, first_pixel: FirstPixel) -> str:
    left, top = number(box.x + first_pixel), number(box.y + first_pixel)
    right, bottom = number(box.x + box.width), number(box.y + box.height)
    return (
        f"\t<object>\n\t\t<name>{_escaped(name)}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{left}</xmin>\n\t\t\t<ymin>{top}</ymin>\n\t\t\t<xmax>{right}</xmax>\n\t\t\t<ymax>{bottom}</ymax>\n"
        "\t\t</bndbox>\n\t</object>\n"
    )


def voc_text(tile: LabelledTile, classes: Sequence[str], *, folder: str, first_pixel: FirstPixel) -> str:
    """The XML of one tile; `folder` is the name of the folder its image is in."""
    file_name = escape(f"{tile.name}{tile.suffix}", quote=False)
    return (
        f"<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{file_name}</filename>\n"
        "\t<source>\n\t\t<database>Marrowloop</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{tile.width}</width>\n\t\t<height>{tile.height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        "\t<segmented>0</segmented>\n"
        + "".join(_object_text(box, classes[box.class_id], first_pixel) for box in tile.boxes)
        + "</annotation>\n"
    )


def write_voc(
    folder: Path, tiles: Iterable[LabelledTile], classes: Sequence[str], *, image: ImageSource | None = None
) -> list[Path]:
    """Write the tiles, one at a time, as Pascal VOC into a new or empty folder; returns the files written.

    `image` returns a tile's encoded image; without it only annotations are written. The same tiles give the same bytes.
    Raises FormatError, and writes nothing, when a tile or box cannot be written (see `checked_tiles`), boxes with a
    side of one pixel or less included.
    """
    with FolderWriter(folder) as output:
        fill_voc(output, tiles, classes, image=image)
    return output.written


def fill_voc(
    output: Output, tiles: Iterable[LabelledTile], classes: Sequence[str], *, image: ImageSource | None = None
) -> None:
    """Put the files of `write_voc` into an open folder or archive."""
    lists: dict[str, TextIO] = {}
    with ExitStack() as open_files:
        output.make_folder("Annotations")
        output.write(CLASS_LIST, class_list_text(classes))
        for tile in checked_tiles(tiles, classes, minimum_side=SMALLEST_VOC_SIDE):
            if tile.split not in lists:
                handle = output.open_text(SPLIT_LIST.format(tile.split))
                lists[tile.split] = open_files.enter_context(handle)
            lists[tile.split].write(f"{tile.name}\n")
            content = voc_text(tile, classes, folder="JPEGImages", first_pixel=1)
            output.write(f"Annotations/{tile.name}.xml", content)
            if image is not None:
                output.write(f"JPEGImages/{tile.name}{tile.suffix}", image(tile))


def parse_xml(path: LabelFile, file: str, root_tag: str = "annotation", limit: int = LABEL_FILE_BYTES) -> Element:
    """The root of an XML file of at most `limit` bytes; raises FormatError when it is bad, or of another format.

    defusedxml refuses entities, but parses in Python, five times slower. Text that cannot declare any, as nearly all
    label files are, needs no guard.
    """
    content = read_bounded(path, file, limit)
    try:
        parse = fromstring if any(sign in content for sign in _MAY_DECLARE) else fromstring_without_dtd
        root: Element = parse(content)
    except ParseError as error:
        raise FormatError([Problem(file, "the file is not valid XML", error.position[0])]) from error
    except (DefusedXmlException, ValueError, LookupError) as error:
        raise FormatError([Problem(file, "the XML uses an entity or an encoding that is not allowed")]) from error
    if root.tag != root_tag:
        raise FormatError([Problem(file, f"expected <{root_tag}>, found <{root.tag[:80]}>")])
    return root


def _size(root: Element, file: str) -> tuple[int, int]:
    found = root.find("size")
    width, height = (None, None) if found is None else (whole(found.findtext("width")), whole(found.findtext("height")))
    if width is None or height is None or width < 1 or height < 1:
        raise FormatError([Problem(file, "missing image size: <size> needs a width and a height above 0")])
    return width, height


def _read_object(
    reading: Reading, element: Element, size: tuple[int, int], file: str, what: str, first_pixel: FirstPixel
) -> LabelledBox | None:
    name, rectangle = (element.findtext("name") or "").strip(), element.find("bndbox")
    known = finite_all([] if rectangle is None else [rectangle.findtext(corner) or "" for corner in _CORNERS])
    if not name or not known:
        reading.problems.add(Problem(file, f"{what}a <name> and finite <xmin>, <ymin>, <xmax>, <ymax> are needed"))
        return None
    class_id = reading.index.find(name, file)
    left, top, right, bottom = known
    if right <= left or bottom <= top:
        reading.bad_box(Problem(file, f"{what}degenerate box from {left:g}, {top:g} to {right:g}, {bottom:g}"))
        return None
    left, top = left - first_pixel, top - first_pixel
    return reading.fit(LabelledBox(class_id or 0, left, top, right - left, bottom - top), size, file, what=what)


def read_voc_file(
    reading: Reading, path: LabelFile, file: str, images: ImageFolder, split: str, first_pixel: FirstPixel
) -> None:
    """Read one XML file into `reading`; the tile takes its name from the file, its suffix from the image."""
    try:
        root = parse_xml(path, file)
        size = _size(root, file)
    except FormatError as error:
        reading.problems.add_all(error.problems)
        return
    boxes, position = [], 0
    for position, element in enumerate(root.findall("object"), start=1):
        box = _read_object(reading, element, size, file, f"object {position}: ", first_pixel)
        if box is not None:
            boxes.append(box)
    named = (root.findtext("filename") or "").strip()
    suffix = images.suffix(path.stem) or PurePosixPath(named).suffix or ".jpg"
    reading.add_tile(file, path.stem, size, boxes, split=split, suffix=suffix, drawn=position > 0)


def voc_splits(lists: Iterable[tuple[str, LabelFile, str]]) -> dict[str, str]:
    """Tile name -> split, from the given lists (split, file, its name). Raises FormatError when a tile is in two."""
    splits: dict[str, str] = {}
    problems = []
    for split, path, file in lists:
        for line, text in enumerate(read_text(path, file, SPLIT_LIST_BYTES).splitlines(), start=1):
            name = text.strip()
            if name and splits.setdefault(name, split) != split:
                problems.append(Problem(file, f"{name[:80]!r} is in the split {splits[name]} already", line))
    if problems:
        raise FormatError(problems)
    return splits


def read_voc(
    folder: Path,
    *,
    classes: Sequence[str] | None = None,
    annotations: str = "Annotations",
    images: str = "JPEGImages",
    first_pixel: FirstPixel = 1,
    leave_out_bad_boxes: bool = False,
) -> Dataset:
    """Read a Pascal VOC data set; `annotations` and `images` name its folders, `first_pixel` what it counts from.

    Class ids are those of `classes` (the project's frozen list), else of `classes.txt`, else in order of appearance.
    Tiles that no list in `ImageSets/Main` names are train.
    Degenerate and outside boxes are an error, or are left out and listed in the result with `leave_out_bad_boxes`.
    Raises FormatError with everything found: bad XML, unknown class names, missing image sizes, and so on.
    """
    check_folder(folder)
    if not (folder / annotations).is_dir():
        raise FormatError([Problem(folder.name, f"there is no folder `{annotations}` in it")])
    frozen = classes if classes is not None else find_class_list(folder)
    reading = Reading(frozen=frozen, leave_out_bad_boxes=leave_out_bad_boxes)
    lists = [(split, folder / SPLIT_LIST.format(split)) for split in SPLITS]
    splits = voc_splits((split, path, relative_name(path, folder)) for split, path in lists if path.is_file())
    image_files = ImageFolder(folder / images)
    paths = sorted((folder / annotations).glob("*.xml"))
    stems = {path.stem for path in paths}
    for name in sorted(splits.keys() - stems):
        file = SPLIT_LIST.format(splits[name])
        reading.problems.add(Problem(file, f"{name[:80]!r} has no file in {annotations}"))
    for path in paths:
        file = relative_name(path, folder)
        read_voc_file(reading, path, file, image_files, splits.get(path.stem, "train"), first_pixel)
    reading.add_unlabelled(image_files, stems)
    return reading.dataset()
