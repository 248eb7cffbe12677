"""What the leads, and webhooks, are told of a round's model."""

from django.urls import reverse

from annotation.models import NoticeKind, Role, WebhookEvent
from annotation.services.notices import notify
from annotation.services.webhooks import about, announce
from training.models import Round
from training.selectors import score_of


def tell_model_done(round_: Round) -> None:
    """The round's model is trained and measured; the leads are also told whether it is the current one now."""
    version = round_.model_version
    announce(
        project=round_.project,
        event=WebhookEvent.ROUND_DONE,
        subject=f"round {round_.pk}",
        round=about(round_, "api_round"),
        model=about(version, "api_model") if version else None,
    )
    score = score_of(version)
    if version is None or score is None:
        return
    shown = "no boxes to test on" if score.map50 is None else f"mAP@0.5 {score.map50:.3f}"
    verdict = "It is the current model." if version.is_current else "The current model is better and stays."
    where = f"{score.evaluation.tiles} {score.evaluation.get_part_display()} tiles"
    notify(
        project=round_.project,
        role=Role.LEAD,
        kind=NoticeKind.MODEL_DONE,
        subject=f"round {round_.pk}",
        text=f"{round_} is done: {version}, {shown} on {where}. {verdict}",
        path=reverse("model", args=[version.pk]),
    )
