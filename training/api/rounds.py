"""Rounds: followed, started, released, closed, tried again and given up."""

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for, get_project_for
from annotation.api.base import Filters, View, checked
from annotation.api.errors import Refused
from annotation.api.inputs import AnyObject
from annotation.api.pages import Pages
from annotation.api.rows import JobRow
from annotation.api.schema import Error, reads, writes
from annotation.models import Role, Scope
from annotation.services.projects import NotAllowed
from training.models import Mode, Round, RoundState
from training.round_form import RoundForm, proposed_round
from training.services.rounds import cancel_round, close_round, release_round, retry_round, start_round


class RoundRow(serializers.Serializer):
    id = serializers.IntegerField()
    number = serializers.IntegerField()
    mode = serializers.ChoiceField(Mode.choices)
    state = serializers.ChoiceField(RoundState.choices)
    failed = serializers.BooleanField(help_text="It stands still because its step failed or was cancelled.")
    step = JobRow(source="job", allow_null=True, help_text="The job of the step that it is at.")
    batch = serializers.IntegerField(source="batch_id", allow_null=True)
    snapshot = serializers.CharField(source="snapshot.content_hash", default=None, allow_null=True)
    model = serializers.IntegerField(source="model_version_id", allow_null=True)
    settings = serializers.DictField()
    created_at = serializers.DateTimeField()
    done_at = serializers.DateTimeField(allow_null=True)


class RoundFilters(Filters):
    state = serializers.ChoiceField(RoundState.choices, required=False)
    mode = serializers.ChoiceField(Mode.choices, required=False)


class NewRound(serializers.Serializer):
    """What is left out is as the page's form proposes it."""

    mode = serializers.ChoiceField(Mode.choices, required=False)
    settings = AnyObject(
        required=False,
        help_text="Fields of the form on the page Start a round by their names, such as size, strategy, hold, policy, "
        "kind, model, epochs, image_size, batch_size, seed.",
    )


def _rounds() -> QuerySet[Round]:
    return Round.objects.select_related("project", "job", "snapshot", "batch__project")


class Rounds(View):
    api_tag = "rounds and models"
    scopes = {"POST": Scope.LEAD}

    @reads(RoundRow, about="A project's rounds", name="rounds", filters=RoundFilters, pages=Pages)
    def get(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.ANNOTATOR)
        chosen = checked(RoundFilters, request.query_params)
        return self.paged(request, _rounds().filter(project=project, **chosen), RoundRow)

    @writes(NewRound, {201: RoundRow, 409: Error}, about="Start the next round; for leads", name="start_round")
    def post(self, request: Request, pk: int) -> Response:
        project = get_project_for(request.user, pk, Role.LEAD)
        body = checked(NewRound, request.data)
        values = proposed_round(project) | body.get("settings", {})
        values |= {"mode": body["mode"]} if "mode" in body else {}
        form = RoundForm(values, project=project)
        _refuse_unknown(form, body.get("settings", {}))
        if not form.is_valid():
            raise serializers.ValidationError({name: list(map(str, texts)) for name, texts in form.errors.items()})
        try:
            started = start_round(
                project=project, mode=Mode(form.cleaned_data["mode"]), settings=form.settings(), user=request.user
            )
        except NotAllowed as error:
            raise Refused(str(error)) from error
        return Response(RoundRow(_rounds().get(pk=started.pk)).data, status=201)


def _refuse_unknown(form: RoundForm, given: dict[str, Any]) -> None:
    """A setting that is misspelt must not be passed over. Raises a ValidationError."""
    unknown = sorted(str(name)[:40] for name in given if name not in form.fields)
    if unknown:
        raise serializers.ValidationError({"settings": f"There is no {', '.join(unknown[:5])}."})


class OneRound(View):
    api_tag = "rounds and models"

    @reads(RoundRow, about="A round, with how far its step is", name="round")
    def get(self, request: Request, pk: int) -> Response:
        return Response(RoundRow(get_for(request.user, _rounds(), pk, Role.ANNOTATOR)).data)


ROUND: dict[str, Any] = {
    "id": 3,
    "number": 3,
    "mode": "assisted",
    "state": "training",
    "failed": False,
    "step": {
        "id": 71,
        "kind": "train",
        "state": "running",
        "progress": 0.4,
        "seconds_left": 310.5,
        "message": "epoch 20 of 50",
    },
    "batch": 3,
    "snapshot": None,
    "model": None,
    "settings": {"size": 250},
    "created_at": "2026-03-02T08:00:00Z",
    "done_at": None,
}


class _RoundAct(View):
    """What a lead does to a round, by the service that the page's button calls."""

    api_tag = "rounds and models"
    scopes = {"POST": Scope.LEAD}

    def done(self, request: Request, pk: int, write: Callable[..., object]) -> Response:
        found = get_for(request.user, _rounds(), pk, Role.LEAD)
        try:
            write(round_=found, user=request.user)
        except NotAllowed as error:
            raise Refused(str(error)) from error
        return Response(RoundRow(_rounds().get(pk=pk)).data)


def _acts(about: str, name: str) -> Any:
    return writes(None, {200: RoundRow, 409: Error}, about=f"{about}; for leads", name=name, example=ROUND)


class ReleaseRound(_RoundAct):
    @_acts("Release the batch of a round that waits for it (hold)", "release_round")
    def post(self, request: Request, pk: int) -> Response:
        return self.done(request, pk, release_round)


class CloseRound(_RoundAct):
    @_acts("End the annotating of a round: its batch is closed, snapshot and training follow", "close_round")
    def post(self, request: Request, pk: int) -> Response:
        return self.done(request, pk, close_round)


class RetryRound(_RoundAct):
    @_acts("Run the failed or cancelled step of a round again", "retry_round")
    def post(self, request: Request, pk: int) -> Response:
        return self.done(request, pk, retry_round)


class CancelRound(_RoundAct):
    @_acts("Give a round up, with the step that runs; what was confirmed in it stays", "cancel_round")
    def post(self, request: Request, pk: int) -> Response:
        return self.done(request, pk, cancel_round)
