"""What the rounds bought: figures for the pages."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, Sum
from django.urls import reverse

from annotation.models import Annotation, AuthorKind, Project, TaskState
from inference.models import ModelVersion
from training.curve_chart import CurvePoint
from training.models import Evaluation, Round, RoundState


@dataclass(frozen=True)
class Score:
    """A model version's mAP@0.5 with its 95 % interval, and where it was measured."""

    map50: float | None
    interval: tuple[float, float] | None
    evaluation: Evaluation


def score_of(version: ModelVersion | None) -> Score | None:
    """The version's newest evaluation on the locked test set, else on its validation part."""
    if version is None:
        return None
    # "test" sorts before "val": the locked test set counts wherever there is one.
    evaluation = version.evaluations.order_by("part", "-pk").first()
    if evaluation is None:
        return None
    interval = evaluation.metrics.get("map50_interval")
    return Score(evaluation.metrics["map50"], (interval[0], interval[1]) if interval else None, evaluation)


def hours_of(round_: Round) -> float:
    """Active hours of people on the round's batch."""
    people = Annotation.objects.filter(task__batch=round_.batch_id, author__kind=AuthorKind.PERSON)
    return float(people.aggregate(seconds=Sum("active_seconds"))["seconds"] or 0.0) / 3600


def round_rows(project: Project) -> list[dict[str, Any]]:
    """One row per round: tiles done, hours, mAP@0.5 and what it gained over the round before."""
    rounds = (
        project.rounds.select_related("batch", "model_version", "job")
        .annotate(
            tiles=Count("batch__tasks"),
            tiles_done=Count(
                "batch__tasks", filter=Q(batch__tasks__state__in=[TaskState.SUBMITTED, TaskState.SKIPPED])
            ),
        )
        .order_by("number")
    )
    rows: list[dict[str, Any]] = []
    before: float | None = None
    for round_ in rounds:
        score = score_of(round_.model_version)
        map50 = score.map50 if score else None
        rows.append(
            {
                "round": round_,
                "number": round_.number,
                "state": round_.state,
                "mode": round_.get_mode_display(),
                "tiles_done": round_.tiles_done,
                "tiles": round_.tiles,
                "hours": hours_of(round_),
                "map50": map50,
                "interval": score.interval if score else None,
                "gain": map50 - before if map50 is not None and before is not None else None,
                "url": reverse("round", args=[round_.pk]),
            }
        )
        before = before if map50 is None else map50
    return rows


def curve_points(rows: list[dict[str, Any]]) -> list[CurvePoint]:
    """The curve's points from `round_rows`: evaluated rounds with the expert-hours spent until then."""
    points, hours = [], 0.0
    for row in rows:
        hours += row["hours"]
        if row["map50"] is None or row["state"] != RoundState.DONE:
            continue
        low, high = row["interval"] or (None, None)
        points.append(CurvePoint(row["number"], row["map50"], low, high, hours))
    return points


STEPS = {
    RoundState.SELECTING: "Select",
    RoundState.PRE_LABELLING: "Pre-label",
    RoundState.ANNOTATING: "Annotate",
    RoundState.CLOSING: "Snapshot",
    RoundState.TRAINING: "Train",
    RoundState.EVALUATING: "Evaluate",
}


def round_steps(round_: Round, done: int, total: int) -> list[dict[str, str]]:
    """The round's steps for its line: done, current, failed or waiting; a manual round has no pre-labelling."""
    states = [state for state in STEPS if state != RoundState.PRE_LABELLING or round_.mode == "assisted"]
    order = list(RoundState)
    here = order.index(RoundState(round_.state))
    steps = []
    for state in states:
        place = order.index(state)
        name = "done" if place < here else "waiting"
        if state == round_.state:
            name = "failed" if round_.failed else "current"
        if round_.state == RoundState.CANCELLED:
            name = "waiting"
        detail = f"{done} of {total} tiles" if state == RoundState.ANNOTATING and total else ""
        steps.append({"name": STEPS[state], "state": name, "detail": detail})
    return steps
