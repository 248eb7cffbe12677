"""The schedule of a project: when its round is closed and trained without anybody's doing.

`fire_due` looks at all schedules once a minute, on the clock of django-celery-beat. A set time is kept as a moment in
the schedule's own row (`next_run_at`): once it has passed it stays due until it has fired, and firing replaces it by
the first set time in the future. So a machine that was off for three nights runs once when it is back. Whoever fires
counts up the row's revision by a conditional UPDATE, in one transaction with what is done: of two workers one fires.
"""

import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, time, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef
from django.urls import reverse
from django.utils import timezone

from annotation.models import NoticeKind, Project, Role, TaskKind, TaskState, Tile, User
from annotation.services.batches import progress_of
from annotation.services.events import record
from annotation.services.notices import notify
from annotation.services.projects import NotAllowed
from training.models import Mode, Round, RoundState, Schedule, ScheduleMode, SnapshotTile
from training.services.rounds import RoundSettings, close_round, next_mode, settings_of, start_round

logger = logging.getLogger(__name__)

LONGEST_OUTCOME = 300


@dataclass(frozen=True)
class ScheduleSettings:
    """What the lead sets. weekdays: ISO digits, "1" is Monday; at: in the server's time zone."""

    mode: ScheduleMode = ScheduleMode.BY_HAND
    new_tiles: int = 50
    at: time = time(2, 0)
    weekdays: str = "1234567"
    start_next: bool = False


@dataclass(frozen=True)
class Standing:
    """Where a project's round stands. done, total: of its batch's tasks, reviews too. obstacle: why the round cannot be
    closed now, in words; empty if it can.
    """

    round: Round | None
    done: int
    total: int
    new_tiles: int
    obstacle: str

    @property
    def is_complete(self) -> bool:
        return not self.obstacle and self.done == self.total


def schedule_of(project: Project) -> Schedule:
    """The project's schedule; one that is not stored, by hand, where nobody has set any."""
    return Schedule.objects.filter(project=project).first() or Schedule(project=project)


@transaction.atomic
def change_schedule(
    *, project: Project, settings: ScheduleSettings, user: User | None, now: datetime | None = None
) -> Schedule:
    """Set when the project's rounds are closed and trained. A paused schedule stays paused."""
    schedule, _ = Schedule.objects.select_for_update().get_or_create(project=project)
    for name, value in asdict(settings).items():
        setattr(schedule, name, value)
    if settings.mode == ScheduleMode.BY_HAND or not settings.start_next:
        schedule.closed_round = None
    _store(schedule, now)
    said = asdict(settings) | {"at": f"{settings.at:%H:%M}"}
    record(project=project, user=user, verb="changed schedule", subject=schedule, **said)
    return schedule


@transaction.atomic
def pause_schedule(*, project: Project, paused: bool, user: User | None, now: datetime | None = None) -> None:
    """Stop firing, or go on. Times that pass during a pause are not made up for."""
    schedule, _ = Schedule.objects.select_for_update().get_or_create(project=project)
    if schedule.paused == paused:
        return
    schedule.paused = paused
    _store(schedule, now)
    record(project=project, user=user, verb="paused" if paused else "resumed", subject=schedule)


def _store(schedule: Schedule, now: datetime | None) -> None:
    schedule.next_run_at = _next_run(schedule, now or timezone.now())
    schedule.revision += 1
    schedule.save()


def _next_run(schedule: Schedule, now: datetime) -> datetime | None:
    if schedule.mode != ScheduleMode.TIMES or schedule.paused:
        return None
    return next_time(schedule.at, schedule.weekdays, now)


def next_time(at: time, weekdays: str, after: datetime) -> datetime:
    """The first set time after a moment, in UTC. On the day when the clock is put forward, a time that does not exist
    is as long after midnight as it would have been; of a time that comes twice, the first counts.
    """
    zone = timezone.get_default_timezone()
    today = after.astimezone(zone).date()
    days = (today + timedelta(days=ahead) for ahead in range(8))
    moments = (datetime.combine(day, at, zone).astimezone(UTC) for day in days if str(day.isoweekday()) in weekdays)
    return next(moment for moment in moments if moment > after)


def standing_of(project: Project) -> Standing:
    """The round that is under way, how far its batch is, and how many tiles are newly confirmed."""
    round_ = project.rounds.exclude(state__in=[RoundState.DONE, RoundState.CANCELLED]).select_related("batch", "job")
    found = round_.first()
    counts = [progress_of(found.batch, kind) for kind in TaskKind] if found and found.batch else []
    done, total = (sum(count[place] for count in counts) for place in (0, 1))
    new = new_tiles(project)
    return Standing(found, done, total, new, _obstacle(found, new))


def new_tiles(project: Project) -> int:
    """Tiles outside the locked test set whose truth the newest finished round was not trained on."""
    tiles = Tile.objects.filter(slide__project=project, slide__patient__locked=False, truth__isnull=False)
    trained = project.rounds.filter(state=RoundState.DONE, snapshot__isnull=False).order_by("-number").first()
    if trained is not None:
        known = SnapshotTile.objects.filter(snapshot=trained.snapshot_id, annotation=OuterRef("truth"))
        tiles = tiles.exclude(Exists(known))
    return tiles.count()


def _obstacle(round_: Round | None, new: int) -> str:
    if round_ is None:
        return "no round is under way"
    if round_.failed:
        return f"{round_} stopped while {round_.get_state_display()}"
    if round_.state != RoundState.ANNOTATING:
        return f"{round_} is {round_.get_state_display()}"
    if round_.batch is None or not round_.batch.tasks.filter(state=TaskState.SUBMITTED).exists():
        return f"no tile of {round_} is confirmed yet"
    return "" if new else "no tile has been confirmed since the last training"


def fire_due(*, now: datetime | None = None) -> int:
    """Close, and start, the rounds whose time has come; returns how many schedules did something or said why not.

    Safe to call at any time, any number of times, by several workers at once.
    """
    now = now or timezone.now()
    waiting = Schedule.objects.filter(paused=False).exclude(mode=ScheduleMode.BY_HAND)
    fired = 0
    for schedule in waiting.select_related("project", "closed_round"):
        try:
            fired += _start_next(schedule, now) or (_is_due(schedule, now) and _close(schedule, now))
        except Exception as error:
            logger.exception("%s", schedule)
            _tell_error(schedule, now, error)
    return fired


def _is_due(schedule: Schedule, now: datetime) -> bool:
    if schedule.mode == ScheduleMode.TIMES:
        return schedule.next_run_at is not None and schedule.next_run_at <= now
    standing = standing_of(schedule.project)
    if schedule.mode == ScheduleMode.COMPLETE:
        return standing.is_complete
    return not standing.obstacle and standing.new_tiles >= schedule.new_tiles


@transaction.atomic
def _close(schedule: Schedule, now: datetime) -> bool:
    """Close the round that is being annotated; False if another worker was first."""
    if not _claim(schedule, now):
        return False
    standing = standing_of(schedule.project)
    round_ = standing.round
    try:
        if round_ is None or standing.obstacle:
            raise NotAllowed(standing.obstacle)
        close_round(round_=round_, user=None)
    except NotAllowed as error:
        _note(schedule, f"Nothing was done: {str(error).rstrip('.')}.")
        return True
    _note(
        schedule,
        f"{round_} was closed, with {standing.done} of {standing.total} tiles read and {standing.new_tiles} new ones "
        "to train on.",
        closed_round=round_ if schedule.start_next else None,
    )
    return True


@transaction.atomic
def _start_next(schedule: Schedule, now: datetime) -> bool:
    """Start the round after the one that the schedule has closed, once that is over; False if there is none yet."""
    before = schedule.closed_round
    if before is None or not before.is_over or not _claim(schedule, now, next_run_at=schedule.next_run_at):
        return False
    if before.state == RoundState.CANCELLED:
        _note(schedule, f"{before} was cancelled, so the next round was not started.", closed_round=None)
        return True
    mode = next_mode(schedule.project)
    try:
        started = start_round(project=schedule.project, mode=mode, settings=next_settings(before, mode), user=None)
    except NotAllowed as error:
        _note(schedule, f"The next round was not started: {error}", closed_round=None)
    else:
        _note(schedule, f"{started} was started after {before} was done.", closed_round=None)
    return True


def next_settings(before: Round, mode: Mode) -> RoundSettings:
    """As the round before; where the mode changes, with the selection that the new mode usually has.

    The batch does not wait for a lead to look at it: nobody may be there.
    """
    settings = replace(settings_of(before), hold=False)
    if before.mode == mode:
        return settings
    return replace(settings, strategy="rare" if mode == Mode.ASSISTED else "random")


def _claim(schedule: Schedule, now: datetime, **fields: object) -> bool:
    """Whether this is the one that fires: nobody has fired or changed the schedule since it was read."""
    values = {"last_run_at": now, "next_run_at": _next_run(schedule, now)} | fields
    mine = Schedule.objects.filter(pk=schedule.pk, revision=schedule.revision)
    return bool(mine.update(revision=F("revision") + 1, **values))


def _note(schedule: Schedule, outcome: str, **fields: object) -> None:
    Schedule.objects.filter(pk=schedule.pk).update(last_outcome=outcome[:LONGEST_OUTCOME], **fields)
    if outcome != schedule.last_outcome:  # the log says it once
        record(project=schedule.project, user=None, verb="schedule fired", subject=schedule, outcome=outcome)


@transaction.atomic
def _tell_error(schedule: Schedule, now: datetime, error: Exception) -> None:
    """What went wrong was rolled back. A set time is not tried again; the leads are told, once a day."""
    if not _claim(schedule, now):
        return
    outcome = f"Stopped by an error: {type(error).__name__}: {error}"
    _note(schedule, outcome)
    notify(
        project=schedule.project,
        role=Role.LEAD,
        kind=NoticeKind.RUN_FAILED,
        subject=f"schedule {schedule.pk} on {now:%Y-%m-%d}",
        text=f"The schedule failed. {outcome}",
        path=reverse("project_schedule", args=[schedule.project_id]),
    )
