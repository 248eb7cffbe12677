"""Restoring an older annotation of a tile: a new one with the old boxes takes the truth's place, nothing is deleted."""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.db.models import F

from annotation.models import Annotation, AuthorKind, Box, Change, Policy, Task, TaskKind, TaskState, Tile, User
from annotation.services.annotations import author_of
from annotation.services.events import record
from annotation.services.projects import NotAllowed


class TruthChanged(Exception):
    """The tile has another truth than the one that was looked at."""


def decides(task: Task) -> bool:
    """Whether what is newest on the task is meant to be the tile's truth: it is the only reading, or a review.

    The others are readings that stay their readers' own, to be compared.
    """
    return task.kind == TaskKind.REVIEW or task.batch.policy == Policy.SINGLE


def restoring_problem(*, annotation: Annotation, tile: Tile) -> str:
    """Why the annotation of this tile cannot be restored; empty if it can."""
    if tile.truth_id is None:
        return "The tile has no truth yet: it gets one when it is read or when truth is imported."
    if tile.truth_id == annotation.pk:
        return "This is the truth already."
    if tile.slide.patient.locked and annotation.author.kind == AuthorKind.MODEL:
        return "A model's boxes cannot be the truth of the locked test set: it would be measured against itself."
    return ""


@transaction.atomic
def restore(*, annotation: Annotation, seen: int, user: User) -> Annotation:
    """Make the boxes of an older annotation the tile's truth again, in a new one by `user`; returns that.

    `seen` is the key of the truth that the user looked at. Raises TruthChanged if it is no longer that one: of two who
    restore at once, the first succeeds and the second is told. Raises NotAllowed: see `restoring_problem`.

    Where the truth came from a task that decides it, the new annotation is that task's next revision, so that a
    reader's work based on the one before is answered with 409 and both versions, as if a person had corrected it.
    """
    tile = Tile.objects.select_related("slide__project", "slide__patient", "truth").get(pk=annotation.tile_id)
    if tile.truth_id not in (None, seen):
        raise TruthChanged("Somebody has changed this tile's truth since you opened the page: look again.")
    problem = restoring_problem(annotation=annotation, tile=tile)
    if problem:
        raise NotAllowed(problem)
    task = _task_to_go_on(tile)
    made = _copy(annotation, tile, task, user)
    # What was looked at is still the truth, or nothing of this is stored.
    if not Tile.objects.filter(pk=tile.pk, truth=seen).update(truth=made):
        raise TruthChanged("Somebody has changed this tile's truth meanwhile: look again.")
    record(
        project=tile.slide.project,
        user=user,
        verb="restored",
        subject=tile,
        annotation=made.pk,
        restored=annotation.pk,
        replaced=seen,
        boxes=made.boxes.count(),
    )
    return made


def _task_to_go_on(tile: Tile) -> Task | None:
    """The task that the truth comes from; where it was imported, the newest one that it answered. One that decides."""
    done = tile.tasks.filter(state=TaskState.SUBMITTED).select_related("batch", "pre_label")
    key = tile.truth.task_id if tile.truth else None
    task = (done.filter(pk=key) if key else done.order_by("-pk")).first()
    return task if task is not None and decides(task) else None


def _copy(annotation: Annotation, tile: Tile, task: Task | None, user: User) -> Annotation:
    fields: dict[str, Any] = {}
    if task is not None:
        # The update also holds back whoever submits this task, or restores this tile, at the same moment.
        Task.objects.filter(pk=task.pk).update(revision=F("revision") + 1)
        task.refresh_from_db(fields=["revision"])
        fields = {"task": task, "revision": task.revision, "pre_label": task.pre_label}
    old = list(annotation.boxes.select_related("origin"))
    boxes = [_box(one, drawn=annotation.author.kind == AuthorKind.MODEL, task=task) for one in old]
    made = Annotation.objects.create(
        uuid=uuid4(),
        tile=tile,
        author=author_of(user=user),
        supersedes=tile.truth,
        effort=_summary(boxes, task) | {"restored_from": annotation.pk},
        **fields,
    )
    for box in boxes:
        box.annotation = made
    Box.objects.bulk_create(boxes)
    return made


def _box(old: Box, *, drawn: bool, task: Task | None) -> Box:
    """The same box for a new annotation. `drawn`: by a model, so that it comes from itself."""
    origin = old if drawn else old.origin
    if task is not None and origin is not None and origin.annotation_id != task.pre_label_id:
        origin = None  # of another pre-label than the one that the task's readers start from
    change = Change.ADDED if origin is None else Change.KEPT if drawn else Change(old.change or Change.KEPT)
    return Box(
        cell_class_id=old.cell_class_id,
        x=old.x,
        y=old.y,
        width=old.width,
        height=old.height,
        origin=origin,
        change=change,
    )


def _summary(boxes: Sequence[Box], task: Task | None) -> dict[str, int]:
    """How many boxes were kept, moved, reclassified, added and deleted, as of any annotation."""
    counts = Counter(str(Change(box.change).value) for box in boxes)
    origins = task.pre_label.boxes.count() if task is not None and task.pre_label is not None else 0
    used = len({box.origin_id for box in boxes if box.origin_id is not None}) if origins else 0
    return {name: counts.get(name, 0) for name in Change.values} | {"deleted": origins - used}
