"""What the rounds bought: figures for the pages."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.urls import reverse

from annotation.models import Annotation, AuthorKind, Job, JobKind, Project, TaskKind, TaskState, Tile
from inference.models import ModelVersion
from inference.services.model_exports import choose_tiles
from training.models import Evaluation, Part, Round, RoundState, Snapshot


@dataclass(frozen=True)
class Score:
    """A model version's mAP@0.5 with its 95 % interval, and where it was measured."""

    map50: float | None
    interval: tuple[float, float] | None
    evaluation: Evaluation


def score_of(version: ModelVersion | None, like: Evaluation | None = None) -> Score | None:
    """The version's evaluation on the tiles and boxes of `like`; without one, see `newest_evaluation`."""
    if version is None:
        return None
    same = version.evaluations.filter(part=like.part, truth_hash=like.truth_hash).first() if like else None
    evaluation = same or newest_evaluation(version)
    if evaluation is None:
        return None
    interval = evaluation.metrics.get("map50_interval")
    return Score(evaluation.metrics["map50"], (interval[0], interval[1]) if interval else None, evaluation)


def newest_evaluation(version: ModelVersion) -> Evaluation | None:
    """The version's newest evaluation on the locked test set, else on its validation part."""
    # "test" sorts before "val": the locked test set counts wherever there is one.
    return version.evaluations.order_by("part", "-pk").first()


def is_alike(evaluation: Evaluation, other: Evaluation) -> bool:
    """Whether both are of the very same tiles and boxes, so that their figures can be compared."""
    return (evaluation.part, evaluation.truth_hash) == (other.part, other.truth_hash)


def snapshot_of(version: ModelVersion) -> Snapshot | None:
    """What the version was trained on; None of one that was imported."""
    return Snapshot.objects.filter(project=version.project_id, content_hash=version.snapshot_hash).first()


def check_tiles(version: ModelVersion) -> list[Tile]:
    """Tiles to measure an export of the version on: those it was trained on, else some of its project."""
    snapshot = snapshot_of(version)
    if snapshot is None:
        return project_check_tiles(version.project)
    keys = snapshot.tiles.values("tile")
    return list(_in_order(Tile.objects.filter(pk__in=keys)))


def project_check_tiles(project: Project) -> list[Tile]:
    """Some tiles of a project, evenly over its slides: tiles with truth where there are any."""
    tiles = _in_order(Tile.objects.filter(slide__project=project))
    known = tiles.filter(truth__isnull=False)
    keys = list((known if known.exists() else tiles).values_list("pk", flat=True))
    return list(_in_order(Tile.objects.filter(pk__in=choose_tiles(keys))))


def _in_order(tiles: QuerySet[Tile]) -> QuerySet[Tile]:
    return tiles.select_related("slide").order_by("slide_id", "row", "column")


def tiles_trained_on(version: ModelVersion) -> int | None:
    """The size of the training part of its snapshot; None where it has none here."""
    snapshot = snapshot_of(version)
    return snapshot.tiles.filter(part=Part.TRAIN).count() if snapshot else None


def evaluation_job(version: ModelVersion) -> Job | None:
    """The newest job that measures, or measured, this version by itself, outside its round."""
    jobs = Job.objects.filter(project=version.project_id, kind=JobKind.EVALUATE, arguments__version=version.pk)
    return jobs.order_by("-pk").first()


def has_test_set(project: Project) -> bool:
    """Whether a patient of the locked test set has a tile with truth."""
    return Tile.objects.filter(slide__project=project, slide__patient__locked=True, truth__isnull=False).exists()


@dataclass(frozen=True)
class Comparison:
    """The evaluations of two versions on the very same tiles and boxes, or why there are none."""

    mine: Evaluation | None
    theirs: Evaluation | None
    reason: str = ""


def comparison_of(version: ModelVersion, other: ModelVersion) -> Comparison:
    """The newest pair that can be compared, on the locked test set before the validation part."""
    of_other = {(one.part, one.truth_hash): one for one in other.evaluations.all()}
    for mine in version.evaluations.order_by("part", "-pk"):
        theirs = of_other.get((mine.part, mine.truth_hash))
        if theirs is not None:
            return Comparison(mine, theirs)
    return Comparison(None, None, _why_not_compared(version, other))


def _why_not_compared(version: ModelVersion, other: ModelVersion) -> str:
    first, second = score_of(version), score_of(other)
    if first is None or second is None:
        missing = [str(one) for one, score in ((version, first), (other, second)) if score is None]
        return f"{' and '.join(missing).capitalize()} {'has' if len(missing) == 1 else 'have'} not been evaluated."
    if first.evaluation.part == second.evaluation.part == Part.VALIDATION:
        return "Each was measured on the validation part of its own training, and these are not the same tiles."
    where = [
        f"{one} on {score.evaluation.tiles} {score.evaluation.get_part_display()} tiles "
        f"with {score.evaluation.boxes} boxes, on {score.evaluation.created_at:%-d %b %Y}"
        for one, score in ((version, first), (other, second))
    ]
    return f"They were measured on different tiles or boxes: {where[0]}; {where[1]}."


def hours_of(round_: Round) -> float:
    """Active hours of people on the round's batch."""
    people = Annotation.objects.filter(task__batch=round_.batch_id, author__kind=AuthorKind.PERSON)
    return float(people.aggregate(seconds=Sum("active_seconds"))["seconds"] or 0.0) / 3600


def round_rows(project: Project) -> list[dict[str, Any]]:
    """One row per round: tiles done, hours, mAP@0.5 and what it gained over the round before.

    Like is compared with like: each version counts with its evaluation on the tiles and boxes that the newest version
    was measured on, where there is one (`alike`); a gain is stated between evaluations of the same tiles and boxes.
    """
    first = Q(batch__tasks__kind=TaskKind.READING, batch__tasks__replica=0)  # where a tile has several readers
    rounds = list(
        project.rounds.select_related("batch", "model_version", "job", "snapshot")
        .annotate(
            tiles=Count("batch__tasks", filter=first),
            tiles_done=Count(
                "batch__tasks", filter=first & Q(batch__tasks__state__in=[TaskState.SUBMITTED, TaskState.SKIPPED])
            ),
        )
        .order_by("number")
    )
    newest = next(filter(None, (_evaluation_of(round_) for round_ in reversed(rounds))), None)
    rows: list[dict[str, Any]] = []
    before: Score | None = None
    for round_ in rounds:
        score = score_of(round_.model_version, newest)
        rows.append(
            {
                "round": round_,
                "number": round_.number,
                "state": round_.state,
                "mode": round_.get_mode_display(),
                "tiles_done": round_.tiles_done,
                "tiles": round_.tiles,
                "hours": hours_of(round_),
                "map50": score.map50 if score else None,
                "interval": score.interval if score else None,
                "evaluation": score.evaluation if score else None,
                "alike": score is not None and newest is not None and is_alike(score.evaluation, newest),
                "gain": _gain(before, score),
                "url": reverse("round", args=[round_.pk]),
            }
        )
        before = score if score and score.map50 is not None else before
    return rows


def _evaluation_of(round_: Round) -> Evaluation | None:
    return newest_evaluation(round_.model_version) if round_.model_version else None


def _gain(before: Score | None, score: Score | None) -> float | None:
    if before is None or score is None or before.map50 is None or score.map50 is None:
        return None
    return score.map50 - before.map50 if is_alike(before.evaluation, score.evaluation) else None


STEPS = {
    RoundState.SELECTING: "Select",
    RoundState.REVIEWING: "Release",
    RoundState.PRE_LABELLING: "Pre-label",
    RoundState.ANNOTATING: "Annotate",
    RoundState.CLOSING: "Snapshot",
    RoundState.TRAINING: "Train",
    RoundState.EVALUATING: "Evaluate",
}


def round_steps(round_: Round, done: int, total: int) -> list[dict[str, str]]:
    """The round's steps for its line: done, current, failed or waiting.

    A manual round has no pre-labelling, and the batch is released where somebody is to look at it first.
    """
    left_out = {
        RoundState.PRE_LABELLING: round_.mode != "assisted",
        RoundState.REVIEWING: not round_.settings.get("hold"),
    }
    states = [state for state in STEPS if not left_out.get(state)]
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
