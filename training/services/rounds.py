"""The round as a machine: each step is a job; a step that ended starts the next in the same transaction.

    selecting -> reviewing (if the lead wants) -> pre-labelling (assisted rounds) -> annotating -> closing -> training
    -> evaluating -> done

A step's job may run twice: it looks whether the round is still at its step and otherwise does nothing.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from annotation.models import Job, JobKind, JobState, Project, Slide, Task, User
from annotation.services.batches import close_batch, create_batch, hold_pool, open_batch
from annotation.services.events import record
from annotation.services.jobs import JobError, JobLost, RunningJob, cancel_job, create_job, retry_job
from annotation.services.policies import ReadingPolicy
from annotation.services.projects import NotAllowed
from annotation.services.slide_files import is_there
from annotation.services.storage import drop_work
from inference.models import ModelVersion
from inference.services.choosing import Selection, choose_tiles, still_free, summed
from inference.services.pre_labels import pre_label_batch, put_aside_gone
from inference.services.registry import current_version
from inference.services.swapping import keep_candidates, swap_out
from training.models import Mode, Round, RoundState, Snapshot
from training.services.evaluations import evaluate_to_compare, promote_if_better
from training.services.model_notices import tell_model_done
from training.services.runs import train_snapshot
from training.services.snapshots import take_snapshot
from training.services.training_settings import TrainingSettings

MANUAL_ROUNDS = 2  # the paper's first two rounds are manual
STEP_JOBS = {
    RoundState.SELECTING: JobKind.SELECT,
    RoundState.PRE_LABELLING: JobKind.PRE_LABEL,
    RoundState.CLOSING: JobKind.SNAPSHOT,
    RoundState.TRAINING: JobKind.TRAIN,
    RoundState.EVALUATING: JobKind.EVALUATE,
}


@dataclass(frozen=True)
class RoundSettings(ReadingPolicy, Selection, TrainingSettings):
    """What the lead sets for a round: how its batch is chosen and read, and how its detector is trained.

    hold: whether the batch waits until a lead has looked at it and released it.
    """

    hold: bool = False


# Where there is a GPU. A web process never imports torch, so it looks for the device's file.
GPU_DEVICE = Path("/dev/nvidia0")
GPU_SETTINGS = RoundSettings(model="yolo11m", epochs=150, image_size=640, batch_size=32)


def default_settings() -> RoundSettings:
    """What the form of a project's first round proposes: small on a processor, larger on a GPU."""
    return GPU_SETTINGS if GPU_DEVICE.exists() else RoundSettings()


def settings_of(round_: Round) -> RoundSettings:
    return RoundSettings(**round_.settings)


def chooser_of(round_: Round) -> ModelVersion | None:
    """The version that looks at the pool before the round's batch is chosen; None leaves it to chance.

    That of a manual round too, whose readers only see no pre-labels, unless its selection is random anyway.
    """
    by_chance = round_.mode == Mode.MANUAL and settings_of(round_).strategy == "random"
    return None if by_chance else current_version(round_.project)


def next_mode(project: Project) -> Mode:
    """Manual for two rounds, as in the paper, and for as long as there is no model; then assisted."""
    done = project.rounds.filter(state=RoundState.DONE).count()
    return Mode.ASSISTED if done >= MANUAL_ROUNDS and current_version(project) else Mode.MANUAL


@transaction.atomic
def start_round(*, project: Project, mode: Mode, settings: RoundSettings, user: User | None) -> Round:
    """Begin the next round. Raises NotAllowed if one is under way, or if an assisted one has no model."""
    if mode == Mode.ASSISTED and current_version(project) is None:
        raise NotAllowed("An assisted round needs a model: finish a manual round first.")
    number = (project.rounds.aggregate(highest=Max("number"))["highest"] or 0) + 1
    try:
        with transaction.atomic():
            round_ = Round.objects.create(project=project, number=number, mode=mode, settings=asdict(settings))
    except IntegrityError as error:
        raise NotAllowed("A round is under way: finish or cancel it first.") from error
    record(project=project, user=user, verb="started", subject=round_, mode=mode, **asdict(settings))
    _queue_step(round_, user)
    return round_


@transaction.atomic
def swap_task(*, round_: Round, task: Task, user: User | None) -> None:
    """Exchange the tile of a task of the batch that waits for its release; see `swap_out`. Raises NotAllowed."""
    # The row is locked, so that the batch is not released half-way.
    here = Round.objects.select_for_update().get(pk=round_.pk)
    if here.state != RoundState.REVIEWING or here.batch_id != task.batch_id:
        raise NotAllowed(f"The batch of {round_} does not wait to be released: its tiles stay as they are.")
    hold_pool(project=here.project)
    swap_out(task=task, user=user)


@transaction.atomic
def release_round(*, round_: Round, user: User | None) -> None:
    """Let the batch that a lead has looked at go on. Raises NotAllowed in any other state, so for who comes second."""
    assisted = round_.mode == Mode.ASSISTED
    there = RoundState.PRE_LABELLING if assisted else RoundState.ANNOTATING
    if not _move(round_, RoundState.REVIEWING, there, user=user):
        raise NotAllowed(f"The batch of {round_} does not wait to be released.")
    if not assisted and round_.batch is not None:
        open_batch(batch=round_.batch, user=user)


@transaction.atomic
def close_round(*, round_: Round, user: User | None) -> None:
    """End the annotating of a round and go on to training. Raises NotAllowed in any other state, or with no work."""
    if round_.batch is None or not round_.batch.tasks.filter(state="submitted").exists():
        raise NotAllowed("No tile of this round's batch is confirmed yet.")
    if not _move(round_, RoundState.ANNOTATING, RoundState.CLOSING, user=user):
        raise NotAllowed(f"{round_} is not being annotated.")
    close_batch(batch=round_.batch, user=user)


@transaction.atomic
def retry_round(*, round_: Round, user: User | None) -> None:
    """Run the failed step again. Raises NotAllowed if it has not failed."""
    if round_.job is None or round_.is_over or not retry_job(job=round_.job, user=user):
        raise NotAllowed(f"No step of {round_} has failed.")


@transaction.atomic
def cancel_round(*, round_: Round, user: User | None) -> None:
    """Give a round up; what was confirmed in it stays. Raises NotAllowed if it is over."""
    changed = Round.objects.filter(pk=round_.pk).exclude(state__in=[RoundState.DONE, RoundState.CANCELLED])
    if not changed.update(state=RoundState.CANCELLED, done_at=timezone.now()):
        raise NotAllowed(f"{round_} is over.")
    # The UPDATE may have waited for a step that ended: then the round has another job by now, or a batch.
    round_.refresh_from_db()
    if round_.job is not None:
        cancel_job(job=round_.job, user=user)
    if round_.batch is not None:
        close_batch(batch=round_.batch, user=user)
    record(project=round_.project, user=user, verb="cancelled", subject=round_)
    transaction.on_commit(partial(_forget_training, round_))


def _work_key(round_: Round) -> str:
    """What names the work folder of the round's training, after "train-"."""
    return f"round-{round_.pk}"


def _forget_training(round_: Round) -> None:
    """Throw away what the training of a cancelled round has left to be resumed, unless its job runs still."""
    trainings = Job.objects.filter(project=round_.project_id, kind=JobKind.TRAIN, arguments__round=round_.pk)
    if not trainings.filter(state=JobState.RUNNING).exists():
        drop_work(f"train-{_work_key(round_)}")


def _move(round_: Round, here: RoundState, there: RoundState, *, user: User | None = None, **fields: Any) -> bool:
    """From one state to another by a conditional UPDATE; the next step's job starts with the commit."""
    if not Round.objects.filter(pk=round_.pk, state=here).update(state=there, **fields):
        return False
    round_.refresh_from_db()
    record(project=round_.project, user=user, verb=f"{here} ended", subject=round_)
    _queue_step(round_, user)
    return True


def _queue_step(round_: Round, user: User | None) -> None:
    kind = STEP_JOBS.get(RoundState(round_.state))
    if kind is not None:
        round_.job = create_job(
            project=round_.project, kind=kind, subject=str(round_), created_by=user, round=round_.pk
        )
        round_.save(update_fields=["job"])


def step(
    state: RoundState, work: Callable[[RunningJob, Round], dict[str, Any]]
) -> Callable[[RunningJob], dict[str, Any]]:
    """A job's function that does `work` if the round is still at `state`."""

    def run(running: RunningJob) -> dict[str, Any]:
        round_ = Round.objects.select_related("project__taxonomy", "batch", "snapshot", "model_version").get(
            pk=running.job.arguments["round"]
        )
        if round_.state != state:
            return {"message": "done by an earlier attempt"}
        if state == RoundState.CLOSING:
            return work(running, round_)
        with running.alone("detector"):
            return work(running, round_)

    return run


def select(running: RunningJob, round_: Round) -> dict[str, Any]:
    settings, assisted = settings_of(round_), round_.mode == Mode.ASSISTED
    version = chooser_of(round_)
    chosen = choose_tiles(
        project=round_.project,
        selection=settings,
        seed=settings.seed + round_.number,
        version=version,
        on_progress=lambda done, total: running.report(0.9 * done / total, f"looked at {done} of {total} tiles"),
    )
    left_out = f" Left out, gone from storage: {', '.join(chosen.left_out)}." if chosen.left_out else ""
    with transaction.atomic():
        # Scoring took minutes, in which a batch may have been reopened, or truth imported.
        hold_pool(project=round_.project)
        chosen = still_free(chosen, round_.project)
        if not chosen.choices:
            text = "No unlabelled tile is left outside the locked test set: import more slides."
            raise JobError(text + left_out, code="no-tiles")
        batch = create_batch(
            project=round_.project,
            name=f"Round {round_.number}",
            choices=[(choice.tile_id, choice.reason) for choice in chosen.choices],
            audits=[choice.tile_id for choice in chosen.choices if choice.audit],
            policy=settings,
            expected=summed([chosen.expected[choice.tile_id] for choice in chosen.choices] if version else []),
            user=running.job.created_by,
        )
        keep_candidates(batch=batch, chosen=chosen)
        there = RoundState.PRE_LABELLING if assisted else RoundState.ANNOTATING
        if settings.hold:
            there = RoundState.REVIEWING
        if there == RoundState.ANNOTATING:
            open_batch(batch=batch)
        if not _move(round_, RoundState.SELECTING, there, user=running.job.created_by, batch=batch):
            transaction.set_rollback(True)
            return {"message": "done by an earlier attempt"}
    return {"batch": batch.pk, "message": f"{len(chosen.choices)} tiles{'.' + left_out if left_out else ''}"}


def pre_label(running: RunningJob, round_: Round) -> dict[str, Any]:
    version, batch = current_version(round_.project), round_.batch
    if version is None or batch is None:
        raise JobError("There is no current model to pre-label with.")
    gone = put_aside_gone(batch=batch)
    new = pre_label_batch(
        batch=batch,
        version=version,
        on_progress=lambda done, total: running.report(done / total, f"{done} of {total} tiles"),
    )
    with transaction.atomic():
        # The round before its batch, as whoever cancels it does: else each could wait for the other.
        if _move(round_, RoundState.PRE_LABELLING, RoundState.ANNOTATING, user=running.job.created_by):
            open_batch(batch=batch)
    aside = f". Put aside, gone from storage: {', '.join(gone)}." if gone else ""
    return {"message": f"{new} tiles by {version}{aside}"}


def snapshot(running: RunningJob, round_: Round) -> dict[str, Any]:
    with transaction.atomic():
        taken = take_snapshot(project=round_.project, seed=settings_of(round_).seed)
        _move(round_, RoundState.CLOSING, RoundState.TRAINING, user=running.job.created_by, snapshot=taken)
    return {"message": f"{taken}: {taken.tiles.count()} tiles; {taken.split_note}"}


def train(running: RunningJob, round_: Round) -> dict[str, Any]:
    if round_.snapshot is None:
        raise JobError("The round has no snapshot to train on.")
    _check_slides(round_.snapshot)

    def go_on(version: ModelVersion) -> None:
        _move(round_, RoundState.TRAINING, RoundState.EVALUATING, user=running.job.created_by, model_version=version)

    # What a worker that was stopped could not throw away. No other training runs on this machine now.
    for cancelled in round_.project.rounds.filter(state=RoundState.CANCELLED):
        drop_work(f"train-{_work_key(cancelled)}")
    try:
        version, result = train_snapshot(
            running, round_.snapshot, settings_of(round_), key=_work_key(round_), on_version=go_on
        )
    except JobLost:
        raise
    except Exception:
        if Round.objects.filter(pk=round_.pk, state=RoundState.CANCELLED).exists():
            drop_work(f"train-{_work_key(round_)}")
        raise
    slower = f"; torch computes, not OpenVINO: {version.refused_export}" if version.refused_export else ""
    return {"model_version": version.pk, "message": f"{version}, {result}{slower}"}


def _check_slides(snapshot: Snapshot) -> None:
    """Raise JobError if a slide's file is gone that the snapshot has tiles of: hours of training would end with it."""
    slides = Slide.objects.filter(pk__in=snapshot.tiles.order_by().values("tile__slide")).order_by("name")
    gone = [slide.name for slide in slides if not is_there(slide)]
    if gone:
        raise JobError(
            f"Slides with confirmed tiles are gone from storage, or have changed: {', '.join(gone)}. Put their files "
            "back where they were, then try this step again.",
            code="missing",
        )


def evaluate(running: RunningJob, round_: Round) -> dict[str, Any]:
    version = round_.model_version
    if version is None:
        raise JobError("The round has no model to evaluate.")
    evaluation = evaluate_to_compare(running, version, round_.snapshot)
    with transaction.atomic():
        # First, because a round that was cancelled at the last moment changes nothing any more.
        if not _move(
            round_, RoundState.EVALUATING, RoundState.DONE, user=running.job.created_by, done_at=timezone.now()
        ):
            return {"message": "done by an earlier attempt"}
        promoted = promote_if_better(version=version, evaluation=evaluation)
        tell_model_done(round_)
    map50 = evaluation.metrics["map50"]
    verdict = "now the current model" if promoted else "not better than the current model, which stays"
    shown = "no boxes to test on" if map50 is None else f"mAP@0.5 {map50:.3f}"
    return {"message": f"{shown} on {evaluation.tiles} {evaluation.get_part_display()} tiles; {verdict}"}
