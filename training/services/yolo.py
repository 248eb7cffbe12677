"""A YOLO trained on tiles: the whole of a one-stage detector, or the finder of a two-stage one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from annotation.services.jobs import JobCancelled, JobError, RunningJob
from training.services.training_settings import Start, TrainingSettings, config_of

if TYPE_CHECKING:
    from training.engine.dataset import TrainingTile
    from training.engine.trainer import Outcome, Progress

Report = Callable[[float, str, float | None], None]  # the share done, what is done, seconds left


@dataclass(frozen=True)
class Data:
    """Tiles to train on and to choose the best epoch with, the class names, and the class ids that are left out."""

    train: "list[TrainingTile]"
    validation: "list[TrainingTile]"
    classes: list[str]
    ignored: list[int]


def train_yolo(
    running: RunningJob, data: Data, settings: TrainingSettings, start: Start, *, folder: Path, report: Report
) -> "tuple[Path, Outcome]":
    """The weights, in the folder, and how their training ended.

    Called again with the same arguments it goes on from the last whole epoch. Raises JobError, JobCancelled.
    """
    from training.engine.dataset import write_dataset
    from training.engine.trainer import outcome, train

    config = config_of(settings, start)
    report(0.0, "writing the tiles", None)
    with told(running):
        written = write_dataset(
            folder / "dataset",
            data.train,
            data.validation,
            data.classes,
            on_progress=lambda done, total: report(0.0, f"writing the tiles: {done} of {total}", None),
            should_stop=lambda: running.should_stop,
            ignored=data.ignored,
        )
        run = folder / "run"
        weights = train(written, config, run, on_progress=_shown(report), should_stop=lambda: running.should_stop)
        return weights, outcome(written, config, run)


@contextmanager
def told(running: RunningJob) -> Iterator[None]:
    """What a training raises, as what a job raises: JobError with a text for the user, JobCancelled, JobLost."""
    from training.engine.progress import Cancelled, TrainingError

    try:
        yield
    except Cancelled:
        running.check()  # says whether it was cancelled or lost
        raise JobCancelled from None
    except (TrainingError, ValueError) as error:
        raise JobError(str(error)) from error


def _shown(report: Report) -> "Callable[[Progress], None]":
    """What passes an epoch's progress on, with the mAP of the last validation."""

    def show(progress: "Progress") -> None:
        found = "" if progress.map50 is None else f", validation mAP@0.5 {progress.map50:.3f}"
        loss = sum(progress.losses.values())
        text = f"epoch {progress.epoch} of {progress.epochs}, loss {loss:.2f}{found}"
        report(progress.epoch / progress.epochs, text, progress.seconds_left)

    return show
