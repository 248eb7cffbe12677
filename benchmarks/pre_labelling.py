"""What benchmarks.prelabel measures. Imported once Django is set up."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotation.models import Box, Job, JobKind, Project, Slide, Tile
from annotation.services.batches import create_batch
from annotation.services.jobs import RunningJob, claim_job
from annotation.services.projects import create_project, create_taxonomy
from annotation.services.storage import local_path
from annotation.services.tiles import read_tiles
from annotation.services.truth import Truth, countable_tiles, enter_truth, read_truth
from annotation.taxonomies import BLOOD_AND_MARROW
from benchmarks.smears import ROOT, import_smear, map50, say, truth_on
from inference.engine.detector import Detector, Runtime, export_folder, load_detector
from inference.models import DetectorKind, ModelVersion
from inference.services.model_exports import ModelExport, choose_tiles, make_export
from inference.services.pre_labels import pre_label_batch
from inference.services.registry import register_version
from training.services.rounds import RoundSettings
from training.services.runs import train_snapshot
from training.services.snapshots import take_snapshot

TRAINING_SLIDES = 6  # some 200 tiles whose every cell is known; the others' tiles are pre-labelled
EPOCHS = 8
REPEATS = 3  # the best counts
RUNTIMES: tuple[Runtime, Runtime] = ("auto", "torch")


@dataclass(frozen=True)
class Numbers:
    """What is printed."""

    image_size: int
    tiles: int
    boxes: int
    tiles_per_s: float
    torch_tiles_per_s: float
    ultralytics_tiles_per_s: float
    ultralytics_batch: int
    ratio: float
    map50: float
    map50_delta: float
    load_average: float
    check: str


def measure(folder: Path, slides: Sequence[Path], *, weights: Path | None, image_size: int, tiles: int) -> Numbers:
    started = os.getloadavg()[0]
    project = create_project(name="Benchmark", taxonomy=create_taxonomy(spec=BLOOD_AND_MARROW), lead=None)
    truths = {path.name: read_truth(path.with_suffix(".json")) for path in slides}
    say(f"importing {len(slides)} slides")
    imported = [import_smear(project, path) for path in slides]
    known = [tile for slide in imported[TRAINING_SLIDES:] for tile in countable_tiles(truths[slide.name], slide)]
    if len(known) < tiles:
        sys.exit(f"the smears have {len(known)} tiles whose every cell is known, not {tiles}")
    chosen = choose_tiles(known, tiles)
    version = (
        _registered(project, weights, folder, image_size, chosen)
        if weights
        else _trained(project, imported[:TRAINING_SLIDES], truths, image_size)
    )
    check = version.exports["openvino"]
    say(f"OpenVINO {'accepted' if check['accepted'] else 'refused'}: {check['text']}")
    say(f"pre-labelling {tiles} tiles {REPEATS} times, then with torch")
    fast, boxes = max(_timed(version, chosen, exported=True) for _ in range(REPEATS))
    slow, _ = _timed(version, chosen, exported=False)
    say("ultralytics' own predict on the same tiles")
    plain = _plain(folder, version, image_size, chosen)
    batch = max(plain, key=lambda size: plain[size])
    say("mAP of both")
    numbers = dict(version.taxonomy.classes.values_list("name", "number"))
    true = [truth_on(truths[tile.slide.name], tile, numbers) for tile in chosen]
    exported, reference = (map50(_loaded(version, runtime), chosen, true) for runtime in RUNTIMES)
    return Numbers(
        image_size=image_size,
        tiles=tiles,
        boxes=boxes,
        tiles_per_s=fast,
        torch_tiles_per_s=slow,
        ultralytics_tiles_per_s=plain[batch],
        ultralytics_batch=batch,
        ratio=fast / plain[batch],
        map50=exported,
        map50_delta=exported - reference,
        load_average=started,
        check=check["text"],
    )


def _trained(project: Project, slides: Sequence[Slide], truths: dict[str, Truth], image_size: int) -> ModelVersion:
    """A short training as a round would do it, with the export at its end."""
    for slide in slides:
        truth = truths[slide.name]
        enter_truth(truth=truth, tiles=countable_tiles(truth, slide), source="truth")
    snapshot = take_snapshot(project=project, seed=0)
    say(f"training {EPOCHS} epochs on {snapshot.tiles.count()} tiles at {image_size} px")
    settings = RoundSettings(kind=DetectorKind.ONE_STAGE, epochs=EPOCHS, image_size=image_size)
    job = claim_job(job_pk=Job.objects.create(project=project, kind=JobKind.TRAIN).pk)
    if job is None:
        raise RuntimeError("somebody else has the training")
    with RunningJob(job) as running:
        version, _ = train_snapshot(running, snapshot, settings, key="benchmark", on_version=lambda version: None)
    return version


def _registered(project: Project, weights: Path, folder: Path, image_size: int, tiles: Sequence[Tile]) -> ModelVersion:
    export = make_export(weights=weights, folder=folder / "openvino", image_size=image_size, tiles=tiles)
    config = {"image_size": image_size}
    return register_version(project=project, weights=weights, snapshot_hash="", config=config, export=export)


def _timed(version: ModelVersion, tiles: Sequence[Tile], *, exported: bool) -> tuple[float, int]:
    """Tiles per second from slide file to boxes in the database, loading the detector included; and the boxes.

    The same weights are registered once more, because a version labels no tile twice.
    """
    weights, kept = local_path(version.weights), version.exports["openvino"]
    export = ModelExport(export_folder(weights), kept["accepted"], kept["text"]) if exported else None
    copy = register_version(
        project=version.project, weights=weights, snapshot_hash="", config=version.config, export=export
    )
    batch = create_batch(project=version.project, name=str(copy), choices=[(tile.pk, "measured") for tile in tiles])
    start = time.perf_counter()
    pre_label_batch(batch=batch, version=copy, on_progress=lambda done, total: None)
    speed = len(tiles) / (time.perf_counter() - start)
    if batch.tasks.filter(pre_label__author=copy.author).count() != len(tiles):
        raise RuntimeError("not every tile has its pre-label")
    say(f"  {speed:.1f} tiles/s")
    return speed, Box.objects.filter(annotation__author=copy.author).count()


def _plain(folder: Path, version: ModelVersion, image_size: int, tiles: Sequence[Tile]) -> dict[int, float]:
    """Tiles per second of `YOLO.predict` for each batch size, in a process without any of our settings."""
    arrays = folder / "tiles.npy"
    np.save(arrays, np.stack([pixels[..., ::-1] for _, pixels in read_tiles(tiles)]))  # BGR, as ultralytics takes it
    command = [
        sys.executable,
        "-m",
        "benchmarks.plain_predict",
        str(local_path(version.weights)),
        str(arrays),
        str(image_size),
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    speeds = {int(size): float(speed) for size, speed in json.loads(done.stdout.splitlines()[-1]).items()}
    for size, speed in speeds.items():
        say(f"  batches of {size}: {speed:.1f} tiles/s")
    return speeds


def _loaded(version: ModelVersion, runtime: Runtime) -> Detector:
    return load_detector(local_path(version.weights), image_size=int(version.config["image_size"]), runtime=runtime)
