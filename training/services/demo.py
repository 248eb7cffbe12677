"""The demo: slides drawn in code, two manual rounds answered from their own truth, a third one left to the visitor."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings

from annotation.models import Batch, JobState, Patient, Project, Slide, Task, TaskState, User
from annotation.services.annotations import skip
from annotation.services.jobs import JobError, RunningJob
from annotation.services.projects import set_locked
from annotation.services.slides import SlideFacts, import_slide
from annotation.services.truth import Truth, countable_tiles, enter_truth, read_truth
from annotation.slides.smear import draw_smear
from inference.models import DetectorKind
from training.models import Mode, Round, RoundState
from training.services.rounds import RoundSettings, close_round, start_round

PATIENTS = ("D01", "D02", "D03", "D04")
LOCKED = "D04"
SEED = 20220513
POLL_SECONDS = 1.0
NOT_COUNTABLE = "thick or debris in part: not countable"
# Small enough for six minutes on two cores; the cells drawn in code are easy to learn.
QUICK = RoundSettings(size=90, strategy="random", kind=DetectorKind.ONE_STAGE, epochs=24)
MANUAL = {1: QUICK, 2: replace(QUICK, epochs=16, from_previous=True)}
ASSISTED = replace(QUICK, size=30, strategy="rare", epochs=20, from_previous=True)


def slides_folder() -> Path:
    return Path(settings.DATA_DIR) / "demo-slides"


def run_demo(running: RunningJob) -> dict[str, Any]:
    """The demo job. Each part looks first whether it is done already, so it can be killed and run again."""
    project, user = running.job.project, running.job.created_by
    if user is None:
        raise JobError("The demo needs a lead.")
    paths = _draw(running)
    truths = {path.stem: read_truth(path.with_suffix(".json")) for path in paths}
    for index, path in enumerate(paths):
        running.report(0.25 + 0.05 * index, f"importing {path.name}", at_once=True)
        _import(project, path, user)
    locked = Patient.objects.get(project=project, code=LOCKED)
    if not locked.locked:
        set_locked(patient=locked, locked=True, user=user)
    test = countable_tiles(truths[LOCKED], Slide.objects.get(project=project, patient=locked))
    enter_truth(truth=truths[LOCKED], tiles=test, source="demo truth", user=user)
    for number in (1, 2):
        running.report(0.1 + 0.3 * number, f"round {number}: manual, answered from the slides' own truth", at_once=True)
        _manual_round(running, project, number, truths, user)
    running.report(0.95, "round 3: pre-labelling", at_once=True)
    round_ = project.rounds.filter(number=3).first() or start_round(
        project=project, mode=Mode.ASSISTED, settings=ASSISTED, user=user
    )
    _wait(running, round_, RoundState.ANNOTATING)
    return {"message": "ready: the first assisted batch is waiting for you"}


def _draw(running: RunningJob) -> list[Path]:
    folder = slides_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{patient}.tif" for patient in PATIENTS]
    missing = [path.stem for path in paths if not (path.exists() and path.with_suffix(".json").exists())]
    for done, patient in enumerate(missing):
        running.report(0.25 * done / len(missing), f"drawing slide {patient}", at_once=True)
        draw_smear(folder, patient=patient, seed=SEED + PATIENTS.index(patient))
    return paths


def _import(project: Project, path: Path, user: User) -> None:
    if not Slide.objects.filter(project=project, name=path.name).exists():
        facts = SlideFacts(patient=path.stem, site="demo", preparation="push")
        import_slide(project=project, paths=[path], name=path.name, facts=facts, user=user)


def _manual_round(running: RunningJob, project: Project, number: int, truths: dict[str, Truth], user: User) -> None:
    round_ = project.rounds.filter(number=number).first() or start_round(
        project=project, mode=Mode.MANUAL, settings=MANUAL[number], user=user
    )
    if round_.state == RoundState.DONE:
        return
    _wait(running, round_, RoundState.ANNOTATING)
    round_.refresh_from_db()
    if round_.state == RoundState.ANNOTATING and round_.batch is not None:
        answer_batch(batch=round_.batch, truths=truths, user=user)
        close_round(round_=round_, user=user)
    _wait(running, round_, RoundState.DONE)


def answer_batch(*, batch: Batch, truths: dict[str, Truth], user: User) -> None:
    """Answer every open task from the truth of its patient's slide.

    A tile with nothing to count is confirmed without a box, so that the detector learns to leave thick places alone;
    one that is thick or debris in part is skipped.
    """
    tasks: list[Task] = list(
        batch.tasks.filter(state=TaskState.OPEN).select_related(
            "tile__slide__patient", "tile__slide__project__taxonomy", "batch__project"
        )
    )
    for task in tasks:
        tile = task.tile
        truth = truths[tile.slide.patient.code]
        place = (tile.x, tile.y, tile.extents)
        if truth.is_countable(*place) or truth.has_nothing_to_count(*place):
            enter_truth(truth=truth, tiles=[tile], source="demo truth", user=user)
        else:
            skip(task=task, user=user, reason=NOT_COUNTABLE)


def _wait(running: RunningJob, round_: Round, goal: RoundState) -> None:
    """Until the round is at this state or past it. Raises JobError when a step failed, JobCancelled on cancel."""
    order = list(RoundState)
    while True:
        round_.refresh_from_db()
        if round_.state == RoundState.CANCELLED:
            raise JobError(f"{round_} was cancelled.")
        if order.index(RoundState(round_.state)) >= order.index(goal):
            return
        if round_.job is not None and round_.job.state in (JobState.FAILED, JobState.CANCELLED):
            raise JobError(f"{round_} stopped while {round_.state}: {round_.job.message}")
        running.check()
        time.sleep(POLL_SECONDS)
