"""The smears that the benchmarks work on: slides with their truth beside them, in a project of an empty site."""

import argparse
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from annotation.models import Project, Slide, Tile
    from annotation.services.truth import Truth
    from inference.engine.detector import Detector
    from training.engine.metrics import Evaluation as Figures

ROOT = Path(__file__).resolve().parents[1]
SMEARS = ROOT / "../shared/data/smears"
LOCKED = ("P12", "P13", "P14", "P15", "P16")  # their cells occur on no other smear


def add_smears(parser: argparse.ArgumentParser) -> None:
    """The option that names their folder."""
    parser.add_argument("--smears", type=Path, default=SMEARS, help="slides with their truth beside them")


def slides_in(folder: Path) -> list[Path]:
    """The slides of a folder, by name. Ends the program if one has no truth, or if there is none."""
    slides = sorted(path for path in folder.glob("*.*") if path.suffix in (".svs", ".tif"))
    missing = [str(path.with_suffix(".json")) for path in slides if not path.with_suffix(".json").is_file()]
    if not slides or missing:
        sys.exit(f"{folder}: no smears with their truth beside them ({', '.join(missing) or 'empty'})")
    return slides


def start_django(folder: Path) -> None:
    """An empty database and storage in a folder of their own, with production settings."""
    for name in [name for name in os.environ if name.startswith(("MARROWLOOP_", "DATABASE_URL", "CELERY_BROKER_URL"))]:
        del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "MARROWLOOP_DATA": str(folder / "data"),
        "MARROWLOOP_SECRET_KEY": secrets.token_urlsafe(50),
        "OMP_WAIT_POLICY": "PASSIVE",  # as in the worker
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=ROOT, check=True)
    django.setup()


def import_smear(project: "Project", path: Path) -> "Slide":
    """A slide of a patient of its own, cut edge to edge."""
    from annotation.services.slides import SlideFacts, import_slide

    facts = SlideFacts(patient=path.stem, tiling="edge")
    return import_slide(project=project, paths=[path], name=path.name, facts=facts, user=None)


def truth_on(truth: "Truth", tile: "Tile", numbers: dict[str, int]) -> "np.ndarray":
    """float64 (n, 5): class number, x, y, width, height in tile px."""
    import numpy as np

    from annotation.geometry import boxes_of_tile

    indices, boxes = boxes_of_tile(truth.boxes, tile.x, tile.y, tile.extents, (tile.width, tile.height))
    classes = [numbers[truth.class_names[index]] for index in indices]
    return np.column_stack([np.array(classes, np.float64), boxes]).reshape(-1, 5)


def map50(detector: "Detector", tiles: "Sequence[Tile]", truths: "Sequence[np.ndarray]") -> float:
    """mAP@0.5 of a detector on tiles of a project with their truth; 0 if there is no box."""
    return figures(detector, tiles, truths).map50 or 0.0


def figures(
    detector: "Detector", tiles: "Sequence[Tile]", truths: "Sequence[np.ndarray]", *, bootstrap: int = 0
) -> "Figures":
    """All figures of an evaluation, with intervals over patients if `bootstrap` samples are drawn."""
    from inference.services.pre_labels import detect_tiles
    from training.services.evaluations import EVALUATION_SCORE, figures_of

    found = [one for _, some in detect_tiles(detector, tiles, min_score=EVALUATION_SCORE) for one in some]
    classes = list(tiles[0].slide.project.taxonomy.classes.all())
    return figures_of(classes, [tile.slide.patient.code for tile in tiles], truths, found, bootstrap=bootstrap)


def show(numbers: "Mapping[str, object]", *, as_json: bool) -> None:
    """The result: a table, and one JSON object on the last line if wanted."""
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in numbers.items()}
    for name, value in rounded.items():
        print(f"{name:28} {value}" if isinstance(value, str) else f"{name:28} {value:>10}")
    if as_json:
        print(json.dumps(rounded))


def say(text: str) -> None:
    """What goes on, beside the result."""
    print(text, file=sys.stderr, flush=True)
