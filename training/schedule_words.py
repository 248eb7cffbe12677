"""The schedule in words: when the next training comes, and what it waits for."""

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from training.models import Schedule, ScheduleMode
from training.services.schedule import Standing


def next_run_in_words(schedule: Schedule, standing: Standing, now: datetime | None = None) -> str:
    """One sentence, such as "Tomorrow 02:00 (UTC), if at least 1 tile is new: 37 are." """
    if schedule.mode == ScheduleMode.BY_HAND:
        return "By hand: a lead closes the round on its page."
    if schedule.paused:
        return "Paused: nothing is closed or started by itself."
    if schedule.closed_round is not None:
        return f"The next round is started when {schedule.closed_round} is done."
    if schedule.mode == ScheduleMode.TIMES and schedule.next_run_at is not None:
        return _time_in_words(schedule.next_run_at, standing, now or timezone.now())
    where = f" Now {standing.obstacle}." if standing.obstacle else ""
    if schedule.mode == ScheduleMode.COMPLETE:
        so_far = f": {standing.done} of {standing.total} are" if standing.total else ""
        return f"When every tile of the batch is read{so_far}.{where}"
    return f"When {_tiles(schedule.new_tiles)} new: {_are(standing.new_tiles)}.{where}"


def _time_in_words(moment: datetime, standing: Standing, now: datetime) -> str:
    when = f"{day_in_words(moment, now)} {timezone.localtime(moment):%H:%M} ({settings.TIME_ZONE})"
    if moment <= now:
        return f"Due since {when}: as soon as the worker runs."
    where = f" Now {standing.obstacle}." if standing.obstacle and standing.new_tiles else ""
    return f"{when[0].upper()}{when[1:]}, if at least 1 tile is new: {_are(standing.new_tiles)}.{where}"


def day_in_words(moment: datetime, now: datetime) -> str:
    """today, tomorrow, or the weekday and date, in the server's time zone."""
    day, today = timezone.localdate(moment), timezone.localdate(now)
    if day == today:
        return "today"
    return "tomorrow" if day == today + timedelta(days=1) else f"{day:%A %-d %b}"


def _tiles(count: int) -> str:
    return "1 tile is" if count == 1 else f"{count} tiles are"


def _are(count: int) -> str:
    return "1 is" if count == 1 else f"{count or 'none'} are"
