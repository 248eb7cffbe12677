"""What benchmarks.accuracy measures. Imported once Django is set up."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from annotation.models import Project, Tile
from annotation.services.exports import tile_name
from annotation.services.projects import create_project, create_taxonomy
from annotation.services.tiles import read_tile
from annotation.services.truth import countable_tiles, read_truth
from annotation.taxonomies import BLOOD_AND_MARROW
from benchmarks.smears import LOCKED, figures, import_smear, say, truth_on
from inference.engine.detector import load_detector
from inference.engine.two_stage import FINDER_CLASSES
from inference.services.model_exports import choose_tiles
from training.engine.classifier_trainer import ClassifierConfig, train_classifier
from training.engine.dataset import TrainingTile, write_dataset
from training.engine.metrics import Evaluation as Figures
from training.engine.splits import validation_split
from training.engine.stages import as_cells
from training.engine.trainer import TrainingConfig, train
from training.evaluation_table import as_csv, evaluation_table

FINDER_SHARE = 0.35  # of the time of a two-stage training; the classifier takes the rest
TRIAL_EPOCHS = 3  # the first prepares, the others tell how long an epoch takes
FEWEST_EPOCHS = 5
BOOTSTRAP = 200  # samples over patients, for the interval

Number = int | float
Note = Callable[[object], None]  # what is told after every epoch


@dataclass(frozen=True)
class Known:
    """A tile, and every cell on it: float64 (n, 5), class number, x, y, width, height in tile px."""

    tile: Tile
    boxes: np.ndarray

    @property
    def patient(self) -> str:
        return self.tile.slide.patient.code

    def to_train(self) -> TrainingTile:
        return TrainingTile(tile_name(self.tile), partial(read_tile, self.tile), self.boxes)


@dataclass(frozen=True)
class Part:
    """Tiles to train on and to validate with, in a folder for all that comes of them; `seconds` for each training."""

    folder: Path
    train: list[TrainingTile]
    validation: list[TrainingTile]
    classes: list[str]
    seconds: float
    image_size: int


def measure(
    folder: Path,
    slides: Sequence[Path],
    *,
    kinds: Sequence[str],
    seconds: float,
    few: int,
    image_size: int,
    tables: Path | None,
) -> dict[str, Number]:
    """mAP@0.5 on the locked patients' tiles for each kind, with few tiles (if any are asked for) and with all."""
    load = os.getloadavg()[0]
    known, classes = _import(slides)
    pool = [one for one in known if one.patient not in LOCKED]
    tests = [one for one in known if one.patient in LOCKED]
    chosen = {one.pk for one in choose_tiles([one.tile for one in pool], few)}
    sets = ({str(few): [one for one in pool if one.tile.pk in chosen]} if few else {}) | {"all": pool}
    numbers: dict[str, Number] = {"pool_tiles": len(pool), "test_tiles": len(tests)}
    for name, tiles in sets.items():
        for kind in kinds:
            work = folder / f"{kind}-{name}"
            train, validation = _split(tiles, len(classes))
            part = Part(work, train, validation, classes, seconds, image_size)
            say(f"{kind}, {len(train)} tiles to train on and {len(validation)} to validate with")
            start = time.perf_counter()
            weights, classifier, spent = TRAININGS[kind](part)
            say(f"  {spent:.0f} s of training, {time.perf_counter() - start:.0f} s with the trial before it")
            detector = load_detector(weights, classifier=classifier, image_size=image_size)
            found = figures(detector, [one.tile for one in tests], [one.boxes for one in tests], bootstrap=BOOTSTRAP)
            numbers[f"map50_{kind}_{name}"] = found.map50 or 0.0
            numbers[f"seconds_{kind}_{name}"] = spent
            say(f"  mAP@0.5 {found.map50} ({found.map50_interval})")
            if tables is not None:
                _write_table(tables / f"{kind}-{name}.csv", tests[0].tile.project, found)
            shutil.rmtree(work)
    return numbers | {"load_average": load}


def _write_table(path: Path, project: Project, found: Figures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = evaluation_table(list(project.taxonomy.classes.all()), found.to_json())
    path.write_text(as_csv(table), encoding="utf-8")


def _import(slides: Sequence[Path]) -> tuple[list[Known], list[str]]:
    project = create_project(name="Benchmark", taxonomy=create_taxonomy(spec=BLOOD_AND_MARROW), lead=None)
    classes = list(project.taxonomy.classes.all())
    numbers = {one.name: one.number for one in classes}
    known = []
    say(f"importing {len(slides)} slides")
    for path in slides:
        truth = read_truth(path.with_suffix(".json"))
        tiles = countable_tiles(truth, import_smear(project, path))
        known += [Known(tile, truth_on(truth, tile, numbers)) for tile in tiles]
    return known, [one.name for one in classes]


def _split(tiles: Sequence[Known], classes: int) -> tuple[list[TrainingTile], list[TrainingTile]]:
    counts = np.zeros((len(tiles), classes), np.int64)
    for row, one in zip(counts, tiles, strict=True):
        row += np.bincount(one.boxes[:, 0].astype(int), minlength=classes)
    train, validation = validation_split([one.patient for one in tiles], counts)
    return [tiles[index].to_train() for index in train], [tiles[index].to_train() for index in validation]


def _one_stage(part: Part) -> tuple[Path, None, float]:
    weights, spent = _yolo(part, part.train, part.validation, part.classes, part.seconds)
    return weights, None, spent


def _two_stage(part: Part) -> tuple[Path, Path, float]:
    cells, held_out = ([as_cells(tile) for tile in tiles] for tiles in (part.train, part.validation))
    finder, spent = _yolo(part, cells, held_out, list(FINDER_CLASSES), FINDER_SHARE * part.seconds)
    classifier, more = _classifier(part, part.seconds - spent)
    return finder, classifier, spent + more


TRAININGS: dict[str, Callable[[Part], tuple[Path, Path | None, float]]] = {
    "one_stage": _one_stage,
    "two_stage": _two_stage,
}


def _yolo(
    part: Part, train_on: Sequence[TrainingTile], validate: Sequence[TrainingTile], names: list[str], seconds: float
) -> tuple[Path, float]:
    """The weights, and the seconds that their training took, which are about as many as are given."""
    data = write_dataset(part.folder / "dataset", train_on, validate, names)

    def run(epochs: int, folder: Path, note: Note) -> Path:
        config = TrainingConfig(epochs=epochs, image_size=part.image_size)
        return train(data, config, folder, on_progress=note, should_stop=lambda: False)

    return _timed(run, part.folder / "yolo", seconds)


def _classifier(part: Part, seconds: float) -> tuple[Path, float]:
    """As `_yolo`, of the classifier."""

    def run(epochs: int, folder: Path, note: Note) -> Path:
        config = ClassifierConfig(epochs=epochs)
        return train_classifier(
            part.train, part.validation, part.classes, config, folder, on_progress=note, should_stop=lambda: False
        )

    return _timed(run, part.folder / "classifier", seconds)


def _timed(run: Callable[[int, Path, Note], Path], folder: Path, seconds: float) -> tuple[Path, float]:
    """Run as many epochs as take about so long, which a trial tells; the result, and the seconds that it took."""

    def once(epochs: int, name: str) -> tuple[Path, list[float]]:
        times = [time.perf_counter()]
        return run(epochs, folder / name, lambda progress: times.append(time.perf_counter())), times

    epochs = _epochs(once(TRIAL_EPOCHS, "trial")[1], seconds)
    say(f"  {folder.name}: {epochs} epochs")
    made, times = once(epochs, "run")
    return made, times[-1] - times[0]


def _epochs(times: list[float], seconds: float) -> int:
    """How many epochs take so long, by the times at which a trial started and its epochs ended."""
    each = (times[-1] - times[1]) / (len(times) - 2)
    before = max(0.0, times[1] - times[0] - each)
    return max(FEWEST_EPOCHS, round((seconds - before) / each))
