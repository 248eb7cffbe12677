"""Simulations asked for in the app: what a project needs for one, starting it, deleting it.

A simulation is its job: `arguments` hold its settings, `result` what was found (training.services.simulation_job).
"""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, QuerySet

from annotation.models import Job, JobKind, Project, User
from annotation.services.events import record
from annotation.services.exports import truth_tiles
from annotation.services.jobs import JobError, create_job
from annotation.services.projects import NotAllowed
from annotation.services.storage import discard, drop_work
from training.simulation.settings import Settings

LEAST_TILES = 4  # two rounds of two


@dataclass(frozen=True)
class KnownTiles:
    """Confirmed tiles and their boxes: of the locked test set, and of other patients, for simulated experts to read."""

    test_tiles: int
    test_boxes: int
    tiles: int
    boxes: int

    @property
    def missing(self) -> list[str]:
        """What a simulation lacks, a sentence each."""
        found = []
        if not self.test_tiles:
            found.append("No tile of a locked patient is confirmed: every arm is measured on the locked test set.")
        elif not self.test_boxes:
            found.append("The confirmed tiles of the locked test set hold no cell.")
        if self.tiles < LEAST_TILES:
            there = {0: "none is", 1: "only one is"}.get(self.tiles, f"only {self.tiles} are")
            found.append(
                f"At least {LEAST_TILES} tiles of patients outside the locked test set must be confirmed, for the "
                f"simulated experts to answer from; {there}."
            )
        elif not self.boxes:
            found.append("The confirmed tiles outside the locked test set hold no cell to learn from.")
        return found


def known_tiles(project: Project) -> KnownTiles:
    counts = {
        locked: (tiles, boxes)
        for locked, tiles, boxes in truth_tiles(project)
        .order_by()
        .values_list("slide__patient__locked")
        .annotate(Count("pk", distinct=True), Count("truth__boxes"))
    }
    return KnownTiles(*counts.get(True, (0, 0)), *counts.get(False, (0, 0)))


def simulations_of(project: Project) -> QuerySet[Job]:
    """The newest first."""
    return project.jobs.filter(kind=JobKind.SIMULATE)


def settings_of(job: Job) -> Settings:
    return Settings.of_json(job.arguments["settings"])


@transaction.atomic
def start_simulation(*, project: Project, settings: Settings, user: User | None) -> Job:
    """Queue a simulation of rounds on today's truth. Raises NotAllowed if that does not hold enough tiles."""
    known = known_tiles(project)
    if known.missing:
        raise NotAllowed(" ".join(known.missing))
    needed = settings.rounds * settings.batch
    if needed > known.tiles:
        most = known.tiles // settings.rounds
        fewer = f"choose at most {most} in each" if most >= 2 else "choose fewer rounds"
        raise NotAllowed(
            f"{settings.rounds} rounds of {settings.batch} tiles need {needed} confirmed tiles outside the locked test "
            f"set; there are {known.tiles}: {fewer}."
        )
    arms, seeds = len(settings.arms), settings.seeds
    job = create_job(
        project=project,
        kind=JobKind.SIMULATE,
        subject=f"{arms} arms, {seeds} seed{'' if seeds == 1 else 's'}, {settings.rounds} rounds of {settings.batch}",
        created_by=user,
        settings=settings.to_json(),
    )
    record(project=project, user=user, verb="started", subject=job)
    return job


def work_name(job: Job) -> str:
    """The work folder of its rounds."""
    return f"simulation-{job.pk}"


def delete_simulation(*, job: Job, user: User | None) -> None:
    """Delete a simulation, its report, and the rounds of one that has not succeeded, if they are on this machine.

    The event log remembers it. Raises JobError while it is under way.
    """
    with transaction.atomic():
        found = Job.objects.select_for_update().filter(pk=job.pk, kind=JobKind.SIMULATE).first()
        if found is None:
            return
        if found.is_active:
            raise JobError("This simulation is under way: cancel it first.")
        record(project=found.project, user=user, verb="deleted", subject=found, simulation=found.pk)
        found.delete()
    discard(list(job.result.get("files", {}).values()))
    drop_work(work_name(job))
