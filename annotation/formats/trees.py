"""Labels in any folder layout: which format a folder holds, and all of it read.

The readers of the single formats insist on the layout that their writers make; people's data sets do not keep to it.
Here a label file belongs to the image of the same name wherever the two lie below the folder, and a folder named
train, val or test is a split.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from annotation.formats.archive import MANIFEST
from annotation.formats.classes import CLASS_LIST
from annotation.formats.coco import CocoFile
from annotation.formats.crops import CROP_TABLE, class_folder
from annotation.formats.csv_table import has_boxes, read_csv_file
from annotation.formats.cvat import read_cvat_file
from annotation.formats.files import FileTree, TreeFile
from annotation.formats.json_stream import find_value
from annotation.formats.label_studio import read_label_studio_file
from annotation.formats.reading import BadBoxes, ImageTree, Keep, Reading, opened, read_class_list
from annotation.formats.records import SPLITS, Dataset, FormatError, Problem
from annotation.formats.tile_table import TILE_TABLE, TileSizes
from annotation.formats.voc import MASK_FOLDERS, SPLIT_LIST, FirstPixel, read_voc_file, voc_splits
from annotation.formats.yolo import DATA_FILE, names_of_data_file, read_yolo_file

TREE_FORMATS = {
    "yolo": "YOLO",
    "voc": "Pascal VOC",
    "coco": "COCO",
    "csv": "CSV",
    "label-studio": "Label Studio JSON",
    "cvat": "CVAT XML 1.1 (images)",
}
_HEAD_BYTES = 64 * 1024
_HEADS = 1000
_MANIFEST_BYTES = 512 * 1024 * 1024
_OWN = re.compile(rb'^\{\s*"made_by": "Marrowloop"')
_OWN_FORMAT = re.compile(rb'"made_by": "Marrowloop"(?s:.*)"choice": \{\s*"format": "((?:labelimg-)?voc)"')
_SPLIT_FOLDERS = [[split] for split in SPLITS]
_ROOT_TAG = re.compile(rb"<(annotations?)[\s>]")
_CORNER = re.compile(rb"<[xy]min>\s*([-+]?[0-9.]+)")
_NOT_LABELS = re.compile(r"(classes|predefined_classes|readme.*|license.*|copying|notes?)\.txt", re.IGNORECASE)

KnownSize = Callable[[str], tuple[int, int] | None]


@dataclass(frozen=True)
class FirstPixelProposal:
    """What VOC corners seem to be counted from, and why."""

    first_pixel: FirstPixel
    reason: str


def _head(file: TreeFile) -> bytes:
    with opened(file, file.path) as handle:
        return handle.read(_HEAD_BYTES)


def _json_files(tree: FileTree) -> list[TreeFile]:
    """The JSON files, but for the manifest of an export of ours."""
    return [file for file in tree.with_suffix(".json") if file.name != MANIFEST]


def _label_texts(tree: FileTree) -> list[TreeFile]:
    """The text files that are YOLO labels: not class lists, not split lists, not notes."""
    has_labels_folder = any("labels" in name.split("/")[:-1] for name in tree.names)
    return [
        file
        for file in tree.with_suffix(".txt")
        if not _NOT_LABELS.fullmatch(file.name)
        and "ImageSets" not in file.folders
        and not (has_labels_folder and not file.folders and file.stem in SPLITS)
    ]


def _tables(tree: FileTree) -> list[TreeFile]:
    """The CSV files with boxes: not the tiles' sizes; the list of single-cell crops where there is no other."""
    tables = [file for file in tree.with_suffix(".csv") if file.name != TILE_TABLE and has_boxes(file, file.path)]
    return [file for file in tables if file.name != CROP_TABLE] or tables


def images_of(tree: FileTree, file_format: str) -> ImageTree:
    """The tiles' images among files that are in `file_format`: no single-cell crops, no masks of the same names.

    Raises FormatError when two have the same stem.
    """
    without: Collection[str] = MASK_FOLDERS if file_format == "voc" else ()
    if file_format == "csv" and {CROP_TABLE, CLASS_LIST} <= set(tree.names):
        names = read_class_list(tree.file(CLASS_LIST), CLASS_LIST)
        without = {class_folder(class_id, name) for class_id, name in enumerate(names)}
    return ImageTree(tree.folder, without)


def _formats_of(tree: FileTree) -> dict[str, TreeFile]:
    """Every format that the files are in, each with the first such file. Of very many XML files not all are opened."""
    found: dict[str, TreeFile] = {}
    for file in tree.with_suffix(".xml")[:_HEADS]:
        match = _ROOT_TAG.search(_head(file))
        if match is None or match[1] == b"annotation":
            found.setdefault("voc", file)  # XML of no known kind too: its reader says what is wrong with it
        else:
            found.setdefault("cvat", file)
    for file in _json_files(tree):
        found.setdefault("label-studio" if _head(file).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" else "coco", file)
    for name, files in (("yolo", _label_texts(tree)), ("csv", _tables(tree))):
        if files:
            found[name] = files[0]
    return found


def find_format(tree: FileTree) -> str:
    """The one of TREE_FORMATS that the label files are in, by what they hold.

    Raises FormatError when there are none, or those of several formats.
    """
    found = _formats_of(tree)
    if not found:
        raise FormatError([Problem("(all files)", "there is no label file among them: " + ", ".join(TREE_FORMATS))])
    if len(found) > 1:
        held = ", ".join(f"{TREE_FORMATS[name]} ({file.path})" for name, file in found.items())
        raise FormatError([Problem("(all files)", f"labels of several formats, choose one: {held}")])
    return next(iter(found))


def propose_first_pixel(tree: FileTree) -> FirstPixelProposal:
    """What the corners in the VOC files seem to be counted from.

    LabelImg counts from 0 and writes a <path>, and its files lie beside the images; the VOC development kit counts
    from 1, and a corner at 0 is impossible in it. An export of ours says itself what it is.
    """
    for manifest in tree.named(MANIFEST):
        match = _OWN_FORMAT.search(_head(manifest))
        if match is not None:
            name = match[1].decode()
            return FirstPixelProposal(1 if name == "voc" else 0, f"{manifest.path} says that it is an export as {name}")
    beside, path_seen, names = None, None, set(tree.names)
    for file in tree.with_suffix(".xml"):
        text, stem = _head(file), file.path[: -len(file.suffix)]
        if any(float(value) < 1 for value in _CORNER.findall(text) if value.count(b".") < 2 and value.strip(b"+-.")):
            return FirstPixelProposal(0, f"{file.path} has a corner below 1")
        if b"<path>" in text:
            path_seen = path_seen or file.path
        if file.folders[-1:] in _SPLIT_FOLDERS or any(stem + suffix in names for suffix in (".jpg", ".png")):
            beside = beside or file.path
    if path_seen:
        return FirstPixelProposal(0, f"{path_seen} states a <path>, as LabelImg does")
    if beside:
        return FirstPixelProposal(0, f"{beside} lies where LabelImg puts it")
    return FirstPixelProposal(1, "nothing speaks for LabelImg, so they are taken as the VOC development kit's")


def slides_of_exports(tree: FileTree) -> dict[str, str]:
    """The sha256 of each slide by its number, as our exports among the files tell them; empty when none does.

    A number is a server's own. Where exports of two servers differ on it, its sha256 is empty, which no slide has.
    Raises FormatError.
    """
    found: dict[str, str] = {}
    for manifest in tree.named(MANIFEST):
        told = find_value(manifest, manifest.path, "slides", _MANIFEST_BYTES) if _OWN.search(_head(manifest)) else None
        for number, sha256 in told.items() if isinstance(told, dict) else ():
            found[number] = str(sha256) if found.get(number, sha256) == sha256 else ""
    return found


def _split_of(file: TreeFile) -> str:
    return next((folder for folder in reversed(file.folders) if folder in SPLITS), "train")


def _read_voc(reading: Reading, tree: FileTree, images: ImageTree, first_pixel: FirstPixel) -> set[str]:
    lists = {split: [name for name in tree.names if name.endswith(SPLIT_LIST.format(split))] for split in SPLITS}
    splits = voc_splits((split, tree.file(names[0]), names[0]) for split, names in lists.items() if names)
    files = tree.with_suffix(".xml")
    for file in files:
        split = splits.get(file.stem) or _split_of(file)
        read_voc_file(reading, file, file.path, images, split, first_pixel)
    return {file.stem for file in files}


def _read_yolo(
    reading: Reading, tree: FileTree, images: ImageTree, names: Sequence[str], known_size: KnownSize
) -> set[str]:
    table = tree.file(TILE_TABLE) if TILE_TABLE in tree.names else None
    sizes = TileSizes(table, None, known_size)
    files = _label_texts(tree)
    for file in files:
        read_yolo_file(reading, file, file.path, images, _split_of(file), names, sizes)
    return {file.stem for file in files}


def _read_coco(reading: Reading, tree: FileTree) -> set[str]:
    stems = set()
    for file in _json_files(tree):
        coco = CocoFile(reading, file, file.path, words=("slide",))
        for name in coco.names.values():
            reading.index.find(name, file.path)  # in this order, and those without a box too
        split = next((split for split in SPLITS if file.stem.endswith(f"_{split}")), "train")
        stems |= coco.add_tiles(split)
    return stems


def _read_files(
    reading: Reading, tree: FileTree, images: ImageTree, file_format: str, known_size: KnownSize
) -> set[str]:
    stems: set[str] = set()
    if file_format == "cvat":
        for file in tree.with_suffix(".xml"):
            stems |= read_cvat_file(reading, file, file.path)
    elif file_format == "csv":
        for file in _tables(tree):
            stems |= read_csv_file(reading, file, file.path)
    else:
        for file in _json_files(tree):
            size = lambda name: images.size(name) or known_size(name)  # noqa: E731
            stems |= read_label_studio_file(reading, file, file.path, size)
    return stems


def _class_list(tree: FileTree, file_format: str) -> tuple[str, ...] | None:
    """The class list that the files name, None without one. Raises FormatError when two lists differ."""
    found: tuple[tuple[str, ...], str] | None = None
    for file in tree.named(CLASS_LIST, *([DATA_FILE] if file_format == "yolo" else [])):
        read = read_class_list if file.name == CLASS_LIST else names_of_data_file
        classes = read(file, file.path)
        if found is not None and found[0] != classes:
            raise FormatError([Problem(file.path, f"the classes are not those of {found[1]}")])
        found = found or (classes, file.path)
    return found[0] if found else None


def read_tree(
    tree: FileTree,
    file_format: str,
    *,
    first_pixel: FirstPixel = 1,
    bad_boxes: BadBoxes | None = None,
    known_size: KnownSize = lambda name: None,
    keep: Keep | None = None,
) -> Dataset:
    """Read all label files that are in `file_format`, one of TREE_FORMATS.

    `first_pixel` is what VOC corners are counted from; `known_size` gives width and height in px of a tile by its
    name, where neither the labels nor an image do. With `keep`, tiles go there, one by one, and are not in the result;
    those of files that turn out to be wrong too. Raises FormatError with everything found.
    """
    images = images_of(tree, file_format)
    names = _class_list(tree, file_format) if file_format in ("yolo", "voc", "csv") else None
    if file_format == "yolo" and names is None:
        raise FormatError([Problem("(all files)", "there is no class list (data.yaml or classes.txt)")])
    reading = Reading(frozen=names, bad_boxes=bad_boxes, keep=keep)
    if file_format == "yolo":
        stems = _read_yolo(reading, tree, images, names or (), known_size)
    elif file_format == "voc":
        stems = _read_voc(reading, tree, images, first_pixel)
    elif file_format == "coco":
        stems = _read_coco(reading, tree)
    else:
        stems = _read_files(reading, tree, images, file_format, known_size)
    reading.add_unlabelled(images, stems)
    return reading.dataset()
