"""The one setting of the curve: how many active hours are an expert-day."""

import math

from django.db import transaction

from annotation.models import Project, User
from annotation.services.events import record
from annotation.services.projects import NotAllowed

MOST_HOURS = 24.0


@transaction.atomic
def set_hours_per_expert_day(*, project: Project, hours: float, user: User | None) -> None:
    """Raises NotAllowed unless `hours` is above 0 and at most 24."""
    if not (math.isfinite(hours) and 0 < hours <= MOST_HOURS):
        raise NotAllowed(f"An expert-day has more than 0 and at most {MOST_HOURS:g} active hours.")
    before = Project.objects.select_for_update().get(pk=project.pk).hours_per_expert_day
    if hours != before:
        Project.objects.filter(pk=project.pk).update(hours_per_expert_day=hours)
        record(
            project=project, user=user, verb="set hours of an expert-day", subject=project, before=before, after=hours
        )
