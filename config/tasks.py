"""The only task decorators. A job task takes its row's primary key, claims the row, and may run twice without harm."""

from collections.abc import Callable

from celery import shared_task


def short_task(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Seconds of work on the database; never torch."""
    return shared_task(name=name, queue="short", ignore_result=True, acks_late=True)


def compute_task(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Minutes to hours of work: importing, drawing, pre-labelling, training."""
    return shared_task(name=name, queue="compute", ignore_result=True, acks_late=True)
