"""What benchmarks/server.py puts into a site's database, and what it finds there. Runs inside the application."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.db.models import Count

from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    Batch,
    Box,
    Membership,
    Patient,
    Project,
    Role,
    Slide,
    Task,
    TaskState,
    Tile,
    User,
)
from annotation.services.batches import create_batch, open_batch
from annotation.services.projects import create_project, create_taxonomy
from annotation.taxonomies import PRESETS

PATIENTS = 40
TAXONOMY = "hct"
SIDE = 512  # px
BOX = 40.0  # px
AT_ONCE = 5000  # rows in one INSERT


@transaction.atomic
def make_project(*, tiles: int, boxes: int, users: Sequence[str]) -> int:
    """A project of so many tiles, each with a model's annotation of so many boxes; returns its key.

    The slides have no file: nobody looks at a picture here.
    """
    project = create_project(name="Benchmark", taxonomy=create_taxonomy(spec=PRESETS[TAXONOMY]), lead=None)
    for name in users:
        user = User.objects.create_user(name)
        Membership.objects.create(project=project, user=user, role=Role.ANNOTATOR)
    per_slide = -(-tiles // PATIENTS)
    columns = 1 + int(per_slide**0.5)
    made: list[Tile] = []
    for number in range(PATIENTS):
        slide = _make_slide(project, number, columns * SIDE)
        here = range(min(per_slide, tiles - len(made)))
        places = [divmod(index, columns) for index in here]
        made += [
            Tile(slide=slide, row=row, column=column, x=column * SIDE, y=row * SIDE, extent=SIDE)
            for row, column in places
        ]
    Tile.objects.bulk_create(made, AT_ONCE)
    author = Author.objects.create(project=project, kind=AuthorKind.MODEL, name="model 1")
    labels = [Annotation(uuid=uuid4(), tile=tile, author=author) for tile in made]
    Annotation.objects.bulk_create(labels, AT_ONCE)
    _draw_boxes(project, labels, boxes)
    return project.pk


def _make_slide(project: Project, number: int, side: int) -> Slide:
    patient = Patient.objects.create(project=project, code=f"P{number:02d}")
    return Slide.objects.create(
        project=project,
        patient=patient,
        name=f"P{number:02d}.svs",
        files=[],
        sha256=f"{number:064x}",
        bytes=1,
        vendor="aperio",
        width=side,
        height=side,
        mpp=0.25,
        tiling="edge",
    )


def _draw_boxes(project: Project, labels: Sequence[Annotation], boxes: int) -> None:
    """Boxes by chance, always the same ones, each with a score for every class as a detector gives them."""
    classes = [one.pk for one in project.taxonomy.classes.all()]
    chance = random.Random(0)
    rest = round(0.2 / (len(classes) - 1), 4)
    scores = [[0.8 if one == place else rest for one in range(len(classes))] for place in range(len(classes))]
    rows = []
    for label in labels:
        for _ in range(boxes):
            place = chance.randrange(len(classes))
            x, y = chance.uniform(0, SIDE - BOX), chance.uniform(0, SIDE - BOX)
            rows.append(
                Box(
                    annotation=label,
                    cell_class_id=classes[place],
                    x=x,
                    y=y,
                    width=BOX,
                    height=BOX,
                    score=0.8,
                    class_scores=scores[place],
                )
            )
        if len(rows) >= AT_ONCE:
            Box.objects.bulk_create(rows, AT_ONCE)
            rows = []
    Box.objects.bulk_create(rows, AT_ONCE)


def sessions() -> dict[str, str]:
    """The key of a session for each user, as signing in makes it: nobody signs in while a batch is read."""
    keys = {}
    for user in User.objects.all():
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "annotation.signed_in.UserBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.create()
        keys[user.get_username()] = str(session.session_key)
    return keys


@transaction.atomic
def make_batch(*, project: int, name: str) -> int:
    """An open batch of all tiles of the project, each with its pre-label; returns its key."""
    found = Project.objects.get(pk=project)
    keys = list(Tile.objects.filter(slide__project=found).order_by("pk").values_list("pk", flat=True))
    random.Random(0).shuffle(keys)
    batch = create_batch(project=found, name=name, choices=[(key, "by chance") for key in keys])
    labels = dict(Annotation.objects.filter(author__kind=AuthorKind.MODEL).values_list("tile", "pk"))
    tasks = list(batch.tasks.all())
    for task in tasks:
        task.pre_label_id = labels[task.tile_id]
    Task.objects.bulk_update(tasks, ["pre_label"], 500)
    open_batch(batch=batch)
    return batch.pk


def lost(*, batch: int, taken: Path) -> int:
    """How many of the submissions that the server took are not stored as they were sent.

    taken: a JSON file of (reader, task, UUID, boxes). A task that holds more than one annotation counts too.
    """
    found: Batch = Batch.objects.get(pk=batch)
    rows: list[tuple[str, int, str, int]] = json.loads(taken.read_text(encoding="utf-8"))
    stored: Any = Annotation.objects.filter(task__batch=found).annotate(count=Count("boxes"))
    values = stored.values_list(
        "uuid", "task", "author__user__username", "task__reader__username", "task__state", "count"
    )
    known: dict[str, list[Any]] = {str(uuid): facts for uuid, *facts in values}
    tasks = [facts[0] for facts in known.values()]
    wrong = sum(
        known.get(uuid) != [task, reader, reader, TaskState.SUBMITTED, boxes] for reader, task, uuid, boxes in rows
    )
    return wrong + len(tasks) - len(set(tasks))
