"""The event log as people read it: in sentences, filtered by person, act, subject and day."""

import csv
import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils import timezone

from annotation.csv_cells import safe_cell
from annotation.models import Annotation, Event, Project

NOBODY = "(itself)"  # who did what a worker did by itself; no user name has brackets
NOBODY_WORDS = "Marrowloop itself"
SHOWN_DETAILS = 4
LONGEST_VALUE = 80
HEX_SHOWN = 12
KEYS = frozenset({"annotation", "restored", "replaced", "tile", "by"})  # keys of rows say nothing to a reader
COUNTED = {
    "boxes": ("box", "boxes"),
    "readers": ("reader", "readers"),
    "tasks": ("task", "tasks"),
    "tiles": ("tile", "tiles"),
}
# A verb is followed by its subject. Those that read well already are not here.
WORDS = {
    "agreed": "agreed on",
    "annotating ended": "ended the annotating of",
    "assigned": "assigned tasks of",
    "asked for ONNX of": "asked for the ONNX file of",
    "asked for dry run": "asked for a dry run of",
    "asked for export": "asked for an export as",
    "asked to import": "asked to import the annotations of",
    "asked to import model": "asked to import the model",
    "asked to refresh": "asked to refresh the pre-labels of",
    "changed keys": "changed hotkeys or colours of",
    "changed schedule": "changed the",
    "changed webhook": "changed the webhook",
    "closed batch": "closed the batch",
    "closing ended": "took the snapshot of",
    "discarded import": "discarded the import of",
    "discarded upload": "discarded the upload of",
    "evaluating ended": "evaluated",
    "deleted webhook": "deleted the webhook",
    "imported annotations": "imported the annotations of",
    "imported slide": "imported the slide",
    "imported truth": "imported the truth of",
    "locked": "locked patient",
    "made batch": "made the batch",
    "made current": "made current:",
    "made project": "made the project",
    "made webhook": "made the webhook",
    "opened batch": "opened the batch",
    "paused": "paused the",
    "pre-labelling ended": "pre-labelled the batch of",
    "registered": "registered the",
    "removed member": "took out the member",
    "renewed secret": "made a new secret of the webhook",
    "reopened batch": "reopened the batch",
    "restored": "restored an annotation of",
    "resumed": "resumed the",
    "retried": "tried again:",
    "schedule fired": "acted by the",
    "selecting ended": "selected the tiles of",
    "set hours of an expert-day": "set the hours of an expert-day of",
    "set role": "gave a role to",
    "training ended": "trained",
    "unlocked": "unlocked patient",
    "unregistered": "unregistered the",
}


class EventFilter(forms.Form):
    """What of a project's log is shown. Everything may be empty."""

    person = forms.ChoiceField(required=False)
    verb = forms.ChoiceField(required=False, label="Act")
    text = forms.CharField(required=False, max_length=200, label="Subject")
    first = forms.DateField(required=False, label="From", widget=forms.DateInput({"type": "date"}, "%Y-%m-%d"))
    last = forms.DateField(required=False, label="To", widget=forms.DateInput({"type": "date"}, "%Y-%m-%d"))

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        every = Event.objects.filter(project=project).order_by()
        names = sorted(every.values_list("user_name", flat=True).distinct())
        verbs = every.values_list("verb", flat=True).distinct()
        people = [(name or NOBODY, name or NOBODY_WORDS) for name in names]
        acts = sorted(((verb, words_of(verb)) for verb in verbs), key=lambda pair: pair[1])
        self.fields["person"].choices = [("", "everybody"), *people]  # type: ignore[attr-defined]
        self.fields["verb"].choices = [("", "everything"), *acts]  # type: ignore[attr-defined]


def words_of(verb: str) -> str:
    return WORDS.get(verb, verb)


def events_of(project: Project, chosen: dict[str, Any]) -> QuerySet[Event]:
    """The project's events, the newest first, as an EventFilter's cleaned data choose them. Both days are whole."""
    events: QuerySet[Event] = Event.objects.filter(project=project)
    if chosen.get("person"):
        events = events.filter(user_name="" if chosen["person"] == NOBODY else chosen["person"])
    if chosen.get("verb"):
        events = events.filter(verb=chosen["verb"])
    if chosen.get("text"):
        events = events.filter(subject__icontains=chosen["text"])
    if chosen.get("first"):
        events = events.filter(at__gte=_midnight(_within_reach(chosen["first"])))
    if chosen.get("last"):
        events = events.filter(at__lt=_midnight(_within_reach(chosen["last"]) + timedelta(days=1)))
    return events


def _within_reach(day: date) -> date:
    """The day, but so far from the calendar's ends that neither the next day nor a time zone leaves it."""
    return min(max(day, date(1900, 1, 1)), date(9000, 1, 1))


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def log_rows(events: list[Event]) -> list[dict[str, Any]]:
    """Each event in words; `tile` is the key of the tile whose annotation it made, for a link."""
    made = {event.data["annotation"] for event in events if isinstance(event.data.get("annotation"), int)}
    tiles = dict(Annotation.objects.filter(pk__in=made).values_list("pk", "tile_id"))
    rows = []
    for event in events:
        details = details_of(event.data)
        rows.append(
            {
                "event": event,
                "who": event.user_name or NOBODY_WORDS,
                "words": words_of(event.verb),
                "details": details[:SHOWN_DETAILS],
                "more": details[SHOWN_DETAILS:],
                "tile": tiles.get(event.data.get("annotation")),
            }
        )
    return rows


def details_of(data: dict[str, Any]) -> list[str]:
    """What else was written down, in words: "3 boxes", "reason: out of focus"."""
    return [_detail(key, value) for key, value in data.items() if key not in KEYS and value not in (None, "", [], {})]


def _detail(key: str, value: Any) -> str:
    if key in COUNTED and isinstance(value, int):
        return f"{value} {COUNTED[key][value != 1]}"
    if isinstance(value, bool):
        shown = "yes" if value else "no"
    elif isinstance(value, dict | list):
        shown = ", ".join(map(str, value))
    else:
        shown = str(value)
    if key == "sha256":
        shown = shown[:HEX_SHOWN]
    if len(shown) > LONGEST_VALUE:
        shown = f"{shown[: LONGEST_VALUE - 1]}…"
    return f"{key.replace('_', ' ')}: {shown}"


def csv_lines(events: QuerySet[Event]) -> Iterator[str]:
    """The log as CSV, line by line: time (ISO 8601), person, act, subject, and the details as JSON."""
    writer = csv.writer(_Line())
    yield writer.writerow(["time", "person", "act", "subject", "details"])
    for event in events.iterator(chunk_size=2000):
        details = json.dumps(event.data, ensure_ascii=False, sort_keys=True)
        texts = [event.user_name, event.verb, event.subject, details]
        yield writer.writerow([event.at.isoformat(timespec="seconds"), *map(safe_cell, texts)])


class _Line:
    """Takes what csv writes and hands it back as the value of `writerow`."""

    def write(self, text: str) -> str:
        return text
