"""Tiles of a batch that is still being prepared, exchanged for others."""

from django.db import transaction

from annotation.models import Batch, BatchState, Task, TaskState, User
from annotation.selectors import pool_of
from annotation.services.events import record
from annotation.services.projects import NotAllowed


@transaction.atomic
def swap_tile(*, task: Task, tile_id: int, reason: str, user: User | None) -> None:
    """Give a task of a draft batch, and the other readings of its tile, another tile of the pool.

    `task.tile` is the tile that the caller has seen: of two who exchange it at once, the first does. Whether the place
    belongs to the random audit stays as it is. Raises NotAllowed, with nothing changed, if the batch is no draft any
    more, the task has another tile by now, or the new tile is not, or no longer, in the pool.
    """
    batch = Batch.objects.select_for_update().select_related("project").get(pk=task.batch_id)
    if batch.state != BatchState.DRAFT:
        raise NotAllowed(f"{batch} is no longer being prepared: its tiles stay as they are.")
    if not pool_of(batch.project).filter(pk=tile_id).exists():
        raise NotAllowed("The new tile is no longer in the pool.")
    old = task.tile
    tasks = Task.objects.filter(batch=batch, tile=old)
    # Truth that was imported while the batch is prepared has answered them; of the new tile nothing is known.
    tasks.filter(state=TaskState.SUBMITTED).update(state=TaskState.OPEN, reader=None)
    if not tasks.update(tile=tile_id, reason=reason[:200]):
        raise NotAllowed(f"{old} has already been swapped out.")
    record(project=batch.project, user=user, verb="swapped out", subject=task, tile=old.pk, by=tile_id, reason=reason)
