"""What benchmarks.selection measures. Imported once Django is set up."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from annotation.models import Project, Tile
from annotation.services.projects import create_project, create_taxonomy
from annotation.services.truth import countable_tiles, enter_truth, read_truth
from annotation.taxonomies import BLOOD_AND_MARROW
from benchmarks.smears import LOCKED, import_smear, map50, say, truth_on
from benchmarks.timed_training import TRAININGS, Known, Part
from inference.models import ModelVersion, TileScore
from inference.selection.batch import STRATEGIES
from inference.services.choosing import Selection, choose_tiles
from inference.services.model_exports import choose_tiles as spread_over
from inference.services.model_exports import make_export
from inference.services.registry import detector_of, make_current, register_version
from training.engine.splits import validation_split

RARE = ("basophil", "promyelocyte", "eosinophil")

Number = int | float


@dataclass(frozen=True)
class Site:
    """A project whose pool holds only tiles whose every cell is known; `rare`: the rare ones, by tile key."""

    project: Project
    classes: list[str]
    confirmed: list[Known]
    pool: list[Known]
    rare: dict[int, int]


def measure(
    folder: Path, slides: Sequence[Path], *, seconds: float, tiles: int, batch: int, seeds: int, image_size: int
) -> dict[str, Number]:
    """Boxes of the rare classes on the batches of each strategy, as means over the seeds."""
    load = os.getloadavg()[0]
    site = _site(slides, tiles)
    version = _trained(site, folder, seconds, image_size)
    quality = map50(detector_of(version), [one.tile for one in site.pool], [one.boxes for one in site.pool])
    say(f"mAP@0.5 on the pool {quality:.4f}")
    found = {name: _yield(site, version, name, batch, seeds) for name in STRATEGIES}
    oracle = _yield(site, _all_knowing(site, version), "rare", batch, seeds)
    counts = sorted(site.rare.values(), reverse=True)
    by_chance = batch * mean(counts)
    return {
        "rare_over_random": found["rare"] / by_chance,
        "rare_over_oracle": found["rare"] / oracle,
        **{f"boxes_{name}": value for name, value in found.items()},
        "boxes_oracle": oracle,
        "boxes_by_chance": by_chance,
        "boxes_most": sum(counts[:batch]),
        "map50": quality,
        "pool_tiles": len(site.pool),
        "trained_tiles": len(site.confirmed),
        "load_average": load,
    }


def _site(slides: Sequence[Path], tiles: int) -> Site:
    project = create_project(name="Benchmark", taxonomy=create_taxonomy(spec=BLOOD_AND_MARROW), lead=None)
    classes = [one.name for one in project.taxonomy.classes.all()]
    numbers = {name: number for number, name in enumerate(classes)}
    truths, known = {}, []
    open_slides = [path for path in slides if path.stem not in LOCKED]
    say(f"importing {len(open_slides)} slides")
    for path in open_slides:
        slide = import_smear(project, path)
        truths[slide.pk] = truth = read_truth(path.with_suffix(".json"))
        known += [Known(tile, truth_on(truth, tile, numbers)) for tile in countable_tiles(truth, slide)]
    Tile.objects.filter(slide__project=project).exclude(pk__in=[one.tile.pk for one in known]).delete()
    chosen = {tile.pk for tile in spread_over([one.tile for one in known], tiles)}
    confirmed = [one for one in known if one.tile.pk in chosen]
    for one in confirmed:
        enter_truth(truth=truths[one.tile.slide_id], tiles=[one.tile], source="truth")
    pool = [one for one in known if one.tile.pk not in chosen]
    rare = [numbers[name] for name in RARE]
    return Site(
        project, classes, confirmed, pool, {one.tile.pk: int(np.isin(one.boxes[:, 0], rare).sum()) for one in pool}
    )


def _trained(site: Site, folder: Path, seconds: float, image_size: int) -> ModelVersion:
    """A two-stage detector trained for about so long on the confirmed tiles, as the project's current model."""
    counts = np.array([_counts(one, len(site.classes)) for one in site.confirmed])
    train, validation = validation_split([one.patient for one in site.confirmed], counts)
    part = Part(
        folder / "training",
        [site.confirmed[index].to_train() for index in train],
        [site.confirmed[index].to_train() for index in validation],
        site.classes,
        seconds,
        image_size,
    )
    say(f"{len(part.train)} tiles to train on and {len(part.validation)} to validate with")
    weights, classifier, _ = TRAININGS["two_stage"](part)
    export = make_export(
        weights=weights,
        folder=folder / "openvino",
        image_size=image_size,
        tiles=[one.tile for one in site.confirmed],
        classifier=classifier,
    )
    version = register_version(
        project=site.project,
        weights=weights,
        classifier=classifier,
        snapshot_hash="",
        config={"image_size": image_size},
        export=export,
    )
    make_current(version=version)
    return version


def _counts(one: Known, classes: int) -> np.ndarray:
    return np.bincount(one.boxes[:, 0].astype(int), minlength=classes)


def _all_knowing(site: Site, version: ModelVersion) -> ModelVersion:
    """A version that expects of each tile just what is on it; its cells look as they do to the other one."""
    # It is asked for scores only, so any file does for its weights.
    knowing = register_version(project=site.project, weights=Path(__file__), snapshot_hash="", config={})
    seen = {score.tile_id: score for score in version.tile_scores.all()}
    TileScore.objects.bulk_create(
        TileScore(
            model_version=knowing,
            tile=one.tile,
            expected=_counts(one, len(site.classes)).tolist(),
            embedding=seen[one.tile.pk].embedding,
            cell_embeddings=seen[one.tile.pk].cell_embeddings,
        )
        for one in site.pool
    )
    return knowing


def _yield(site: Site, version: ModelVersion, strategy: str, batch: int, seeds: int) -> float:
    """Boxes of the rare classes on a batch of the strategy, with its audit slice; the mean over the seeds.

    Examples to look for the like of are the confirmed cells of the rare classes.
    """
    like = [site.classes.index(name) for name in RARE]
    found = []
    for seed in range(seeds):
        chosen = choose_tiles(
            project=site.project,
            selection=Selection(size=batch, strategy=strategy, like=like),
            seed=seed,
            version=version,
            on_progress=lambda done, total: None,
        )
        found.append(sum(site.rare[choice.tile_id] for choice in chosen.choices))
    say(f"{strategy} by {version}: {found}")
    return mean(found)
