"""Snapshots: what a training run used, exactly."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from django.db import transaction

from annotation.models import Box, Project, Tile
from annotation.services.batches import LockedPatient
from annotation.services.exports import TrainingFacts, truth_tiles
from annotation.services.jobs import JobError
from training.engine.splits import TooFewPatients, validation_split
from training.models import Part, Snapshot, SnapshotTile

TILES_OF_ONE_PATIENT = 5  # with a single patient every fifth tile validates


def truth_boxes(tile: Tile) -> list[Box]:
    return list(tile.truth.boxes.all()) if tile.truth else []


def truth_hash(tiles: Sequence[Tile], parts: Sequence[str]) -> str:
    """SHA-256 over the places, splits and boxes of tiles with truth; independent of the database's keys."""
    digest = hashlib.sha256()
    for tile, part in sorted(
        zip(tiles, parts, strict=True), key=lambda pair: (pair[0].slide.sha256, pair[0].x, pair[0].y)
    ):
        boxes = sorted((b.cell_class.number, b.x, b.y, b.width, b.height) for b in truth_boxes(tile))
        place = (tile.slide.sha256, tile.slide.patient.code, tile.x, tile.y, tile.extent, part)
        digest.update(json.dumps([place, boxes]).encode())
    return digest.hexdigest()


@transaction.atomic
def take_snapshot(*, project: Project, seed: int) -> Snapshot:
    """Freeze the training truth and its split; the same truth and split give the snapshot that is already there.

    Raises JobError when there is nothing to train on, LockedPatient if a locked patient would be in it.
    """
    tiles = [tile for tile in truth_tiles(project) if not tile.slide.patient.locked]
    if len(tiles) < 2:
        raise JobError("Training needs at least two confirmed tiles outside the locked test set.")
    parts, note = split_tiles(tiles, seed=seed)
    content_hash = truth_hash(tiles, parts)
    known = project.snapshots.filter(content_hash=content_hash).first()
    if known is not None:
        return known
    snapshot = Snapshot.objects.create(
        project=project, taxonomy=project.taxonomy, content_hash=content_hash, split_note=note
    )
    SnapshotTile.objects.bulk_create(
        SnapshotTile(snapshot=snapshot, tile=tile, annotation=tile.truth, part=part)
        for tile, part in zip(tiles, parts, strict=True)
    )
    check_no_locked_patient(snapshot)
    return snapshot


def check_no_locked_patient(snapshot: Snapshot) -> None:
    """Raises LockedPatient if the snapshot holds a tile of a patient of the locked test set."""
    locked = snapshot.tiles.filter(tile__slide__patient__locked=True)
    codes = sorted(set(locked.values_list("tile__slide__patient__code", flat=True)))
    if codes:
        raise LockedPatient(f"Refused to train: patients {', '.join(codes)} are in the locked test set.")


def split_tiles(tiles: Sequence[Tile], *, seed: int) -> tuple[list[str], str]:
    """Each tile's part, and in words how the validation part was chosen: by patient wherever there are enough."""
    patients = [tile.slide.patient.code for tile in tiles]
    counts = np.zeros((len(tiles), max(1, tiles[0].slide.project.taxonomy.classes.count())), dtype=np.int64)
    for index, tile in enumerate(tiles):
        for box in truth_boxes(tile):
            counts[index, box.cell_class.number] += 1
    try:
        _, validation = validation_split(patients, counts, seed=seed)
        held_out = {int(index) for index in validation}
        codes = sorted({patients[index] for index in held_out})
        note = f"validation: all tiles of patients {', '.join(codes)}"
    except TooFewPatients:
        held_out = set(range(TILES_OF_ONE_PATIENT - 1, len(tiles), TILES_OF_ONE_PATIENT)) or {len(tiles) - 1}
        note = "validation: every fifth tile, because all tiles are of one patient; its figures flatter the model"
    return [Part.VALIDATION if index in held_out else Part.TRAIN for index in range(len(tiles))], note[:200]


def facts_of_newest(project: Project) -> TrainingFacts:
    """What an export says of the project's newest snapshot."""
    newest = project.snapshots.order_by("-pk").first()
    if newest is None:
        return TrainingFacts({})
    return TrainingFacts(dict(newest.tiles.values_list("tile_id", "part")), newest.content_hash)
