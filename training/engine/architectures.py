"""The detectors that can be trained, by name: those whose descriptions the installed ultralytics carries. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

# The last layer of a description says what the network is for. WorldDetect (YOLO-World) and YOLOEDetect (YOLOE) find
# what a text names: they need the weights of a language model, which ultralytics would download. All others of
# ultralytics' last layers segment, classify, estimate poses or turned boxes.
ANCHOR_HEADS = ("Detect", "v10Detect")
QUERY_HEADS = ("RTDETRDecoder",)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C takes a tenth of the time
UNSCALED_NAME = re.compile(r"(yolov?\d+)(-.*)?")  # yolo11, yolov8-p2: the size comes between


class UnknownModel(ValueError):
    """No detector has this name."""


@dataclass(frozen=True)
class Architecture:
    """name: as ultralytics knows it, yolo11n. family: yolo11. head: its last layer. stride: px of its coarsest map."""

    name: str
    family: str
    head: str
    stride: int

    @property
    def is_transformer(self) -> bool:
        """Whether it is an RT-DETR, which has a loss, a learning rate and a precision of its own."""
        return self.head in QUERY_HEADS


def architecture(name: str) -> Architecture:
    """The detector of this name. Raises UnknownModel with the nearest names."""
    known = architectures()
    if name not in known:
        near = get_close_matches(name.lower(), known, n=3, cutoff=0.5) or ["yolo11n", "yolo11s", "rtdetr-l"]
        raise UnknownModel(f"There is no model called {name!r}: did you mean {', '.join(near[:-1])} or {near[-1]}?")
    return known[name]


@cache
def architectures() -> Mapping[str, Architecture]:
    """All of them, newest family first, each family from small to large."""
    found = [one for path in _descriptions() for one in _described(path)]
    return {one.name: one for one in sorted(found, key=_order)}


def _descriptions() -> list[Path]:
    package = find_spec("ultralytics")  # looked up, not imported: that would load torch
    places = (package.submodule_search_locations if package else None) or []
    return [path for place in places for path in Path(place).glob("cfg/models/*/*.yaml")]


def _described(path: Path) -> list[Architecture]:
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506 (both are safe loaders)
    head = content["head"][-1][2]
    if head not in ANCHOR_HEADS + QUERY_HEADS:
        return []
    unscaled = UNSCALED_NAME.fullmatch(path.stem)
    names = [path.stem]
    if unscaled and "scales" in content:
        base, variant = unscaled[1], unscaled[2] or ""
        names = [f"{base}{size}{variant}" for size in content["scales"]]
    return [Architecture(name, _family(name), head, 64 if name.endswith("-p6") else 32) for name in names]


def _family(name: str) -> str:
    """yolov8 of yolov8n, yolov8-p2 of yolov8n-p2, rtdetr of rtdetr-l."""
    parts = re.fullmatch(r"(yolov?\d+)[a-z]?(-.*)?", name)
    return f"{parts[1]}{parts[2] or ''}" if parts else name.split("-")[0]


def _order(one: Architecture) -> tuple[bool, int, str, int, str]:
    generation = re.search(r"\d+", one.family)
    size = re.fullmatch(r"yolov?\d+([a-z])(-.*)?", one.name)
    place = "tnsmbclex".find(size[1]) if size else 0
    number = int(generation[0]) if generation else 0
    return not one.family.startswith("yolo"), -number, one.family, place, one.name
