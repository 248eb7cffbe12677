"""What benchmarks.train_round measures. Imported once Django is set up."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from annotation.models import Job, JobKind, Patient, Project, Tile
from annotation.services.jobs import RunningJob, claim_job
from annotation.services.projects import create_project, create_taxonomy, set_locked
from annotation.services.truth import Truth, countable_tiles, enter_truth, read_truth
from annotation.taxonomies import BLOOD_AND_MARROW
from benchmarks.smears import LOCKED, ROOT, import_smear, map50, say, truth_on
from inference.engine.detector import load_detector
from inference.models import DetectorKind
from inference.services.model_exports import choose_tiles
from training.engine.training_run import overrides
from training.models import Part, Snapshot
from training.services.runs import rows_of, train_tiles
from training.services.snapshots import take_snapshot
from training.services.training_settings import Start, TrainingSettings, config_of

# Where ultralytics is to work, and with what, is its own affair.
OURS = ("model", "save_dir", "exist_ok", "device", "workers", "amp", "verbose")


@dataclass(frozen=True)
class Numbers:
    """What is printed. Seconds and mAP are means over the seeds, spreads the greatest value minus the least."""

    tiles: int
    test_tiles: int
    epochs: int
    image_size: int
    seeds: int
    seconds: float
    plain_ultralytics_seconds: float
    ratio: float
    map50: float
    map50_spread: float
    plain_map50: float
    plain_map50_spread: float
    load_average: float


@dataclass(frozen=True)
class Site:
    """A project with its snapshot, and what is true of the test patients' tiles: float64 (n, 5) each."""

    project: Project
    snapshot: Snapshot
    tests: list[Tile]
    truths: list[np.ndarray]


def measure(folder: Path, slides: Sequence[Path], *, tiles: int, epochs: int, image_size: int, seeds: int) -> Numbers:
    """Train each seed twice, with ours and with ultralytics' own, on the very same files."""
    load = os.getloadavg()[0]
    site = _site(slides, tiles)
    ours, plain = [], []
    for seed in range(seeds):
        settings = TrainingSettings(kind=DetectorKind.ONE_STAGE, epochs=epochs, image_size=image_size, seed=seed)
        work = folder / f"seed-{seed}"
        ours.append(_round(site, settings, work))
        plain.append(_plain(site, settings, work))
    seconds, plain_seconds = (mean(one for one, _ in runs) for runs in (ours, plain))
    maps, plain_maps = ([one for _, one in runs] for runs in (ours, plain))
    return Numbers(
        tiles=site.snapshot.tiles.count(),
        test_tiles=len(site.tests),
        epochs=epochs,
        image_size=image_size,
        seeds=seeds,
        seconds=seconds,
        plain_ultralytics_seconds=plain_seconds,
        ratio=seconds / plain_seconds,
        map50=mean(maps),
        map50_spread=max(maps) - min(maps),
        plain_map50=mean(plain_maps),
        plain_map50_spread=max(plain_maps) - min(plain_maps),
        load_average=load,
    )


def _site(slides: Sequence[Path], tiles: int) -> Site:
    """All smears imported, the test patients locked, and a snapshot of so many tiles of the others."""
    project = create_project(name="Benchmark", taxonomy=create_taxonomy(spec=BLOOD_AND_MARROW), lead=None)
    truths = {path.name: read_truth(path.with_suffix(".json")) for path in slides}
    say(f"importing {len(slides)} slides")
    imported = [import_smear(project, path) for path in slides]
    known = [(slide, tile) for slide in imported for tile in countable_tiles(truths[slide.name], slide)]
    tests = [tile for slide, tile in known if slide.patient.code in LOCKED]
    pool = [tile for slide, tile in known if slide.patient.code not in LOCKED]
    if len(pool) < tiles or not tests:
        sys.exit(f"the smears have {len(pool)} tiles to train on and {len(tests)} to test on whose cells are known")
    for patient in Patient.objects.filter(project=project, code__in=LOCKED):
        set_locked(patient=patient, locked=True, user=None)
    for tile in choose_tiles(pool, tiles):
        enter_truth(truth=truths[tile.slide.name], tiles=[tile], source="truth")
    snapshot = take_snapshot(project=project, seed=0)
    return Site(project, snapshot, tests, _truths(project, truths, tests))


def _truths(project: Project, truths: dict[str, Truth], tiles: Sequence[Tile]) -> list[np.ndarray]:
    numbers = dict(project.taxonomy.classes.values_list("name", "number"))
    return [truth_on(truths[tile.slide.name], tile, numbers) for tile in tiles]


def _round(site: Site, settings: TrainingSettings, work: Path) -> tuple[float, float]:
    """Seconds from the slides' files to the best weights, as a round trains them, and their mAP@0.5."""
    say(f"seed {settings.seed}: a round's training")
    job = claim_job(job_pk=Job.objects.create(project=site.project, kind=JobKind.TRAIN).pk)
    if job is None:
        raise RuntimeError("somebody else has the training")
    parts = {part: list(rows_of(site.snapshot).filter(part=part)) for part in (Part.TRAIN, Part.VALIDATION)}
    with RunningJob(job) as running:
        start = time.perf_counter()
        trained = train_tiles(
            running,
            site.project,
            settings,
            train=parts[Part.TRAIN],
            validation=parts[Part.VALIDATION],
            folder=work,
            report=lambda share, text, left: running.report(share, text, seconds_left=left),
        )
        seconds = time.perf_counter() - start
    return _told(seconds, _map50(site, trained.weights, settings.image_size))


def _plain(site: Site, settings: TrainingSettings, work: Path) -> tuple[float, float]:
    """Seconds of ultralytics' own training with the same hyper-parameters on the files that ours has left, and mAP."""
    say(f"seed {settings.seed}: ultralytics' own training")
    data = work / "dataset/data.yaml"
    for path in data.parent.rglob("*.cache"):  # what ours knows of the labels
        path.unlink()
    wanted = overrides(data, config_of(settings, Start()), work / "plain")
    file = work / "plain.json"
    chosen = {name: value for name, value in wanted.items() if name not in OURS}
    file.write_text(json.dumps(chosen | {"project": str(work), "name": "plain"}), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.plain_train", settings.model, str(file)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "OMP_"))}
    done = subprocess.run(command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return _told(answer["seconds"], _map50(site, Path(answer["weights"]), settings.image_size))


def _told(seconds: float, map50: float) -> tuple[float, float]:
    say(f"  {seconds:.1f} s, mAP@0.5 {map50:.4f}")
    return seconds, map50


def _map50(site: Site, weights: Path, image_size: int) -> float:
    """On the tiles of the locked patients whose every cell is known, by torch for both."""
    return map50(load_detector(weights, image_size=image_size, runtime="torch"), site.tests, site.truths)
