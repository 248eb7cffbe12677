"""Writing to the event log."""

from typing import Any

from annotation.models import Event, Project, User


def record(*, project: Project | None, user: User | None, verb: str, subject: object, **data: Any) -> Event:
    """Write one line of the log, inside the caller's transaction."""
    return Event.objects.create(
        project=project,
        user=user,
        user_name=user.get_username() if user else "",
        verb=verb,
        subject=str(subject)[:200],
        data=data,
    )
