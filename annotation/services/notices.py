"""Notices to members: written here, shown by the bell, mailed by the worker where the lab has set up e-mail.

What is told to members is told to the webhooks that want to know of it, too.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from annotation.models import Batch, Job, JobKind, Notice, NoticeKind, Project, Role, User, WebhookEvent
from annotation.services.addresses import address_of
from annotation.services.webhooks import about, announce

logger = logging.getLogger(__name__)

# Of jobs that nobody watches: the steps of a round, and what trains beside them.
RUNS = frozenset(
    {
        JobKind.SELECT,
        JobKind.PRE_LABEL,
        JobKind.SNAPSHOT,
        JobKind.TRAIN,
        JobKind.EVALUATE,
        JobKind.REFRESH,
        JobKind.CROSS_VALIDATE,
        JobKind.SIMULATE,
    }
)
# How long after a try the next one comes; a mail is given up after one more try than there are pauses.
MAIL_PAUSES = (timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2))
MAILS_AT_A_TIME = 50
LONGEST_TEXT = 300


@transaction.atomic
def notify(*, project: Project, role: Role, kind: NoticeKind, subject: str, text: str, path: str) -> None:
    """Tell every member who has the role, or a higher one. Called again about the same subject, it tells nobody twice.

    `path` is a page of this site. No mail is sent here: the worker sends them (`send_mails`).
    """
    covering = [one for one in Role if one.covers(role)]
    members = User.objects.filter(is_active=True, memberships__project=project, memberships__role__in=covering)
    now = timezone.now()
    Notice.objects.bulk_create(
        [
            Notice(
                user=user,
                project=project,
                kind=kind,
                subject=subject,
                text=_shortened(text),
                path=path,
                mail_after=now if gets_mail(user) else None,
            )
            for user in members
        ],
        ignore_conflicts=True,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def tell_batch_ready(batch: Batch) -> None:
    """All members, and webhooks: there is something to read."""
    tiles = batch.tasks.order_by().values("tile").distinct().count()
    notify(
        project=batch.project,
        role=Role.ANNOTATOR,
        kind=NoticeKind.BATCH_READY,
        subject=f"batch {batch.pk}",
        text=f"{batch} is ready: {tiles} tile{'' if tiles == 1 else 's'} to read.",
        path=reverse("batch", args=[batch.pk]),
    )
    announce(
        project=batch.project,
        event=WebhookEvent.BATCH_READY,
        subject=f"batch {batch.pk}",
        batch=about(batch, "api_batch"),
        tiles=tiles,
    )


def tell_job_failed(job: Job) -> None:
    """The leads, and webhooks, if the job is one of those that nobody watches."""
    if job.kind not in RUNS:
        return
    round_pk, subject = job.arguments.get("round"), f"job {job.pk}, attempt {job.attempt}"
    notify(
        project=job.project,
        role=Role.LEAD,
        kind=NoticeKind.RUN_FAILED,
        subject=subject,
        text=f"{job} failed: {job.message}",
        path=reverse("round", args=[round_pk]) if round_pk else reverse("job", args=[job.pk]),
    )
    announce(project=job.project, event=WebhookEvent.RUN_FAILED, subject=subject, job=about(job, "api_job"))


@transaction.atomic
def mark_read(*, user: User, notice: Notice | None = None) -> None:
    """One notice of the user, or all of them. What has been read is no longer mailed."""
    unread = user.notices.filter(read_at__isnull=True)
    if notice is not None:
        unread = unread.filter(pk=notice.pk)
    unread.update(read_at=timezone.now(), mail_after=None)


def gets_mail(user: User) -> bool:
    """Whether notices to the user are mailed: the lab sends mail, the user has an address and wants it."""
    return bool(settings.MAIL_ON and user.email and user.preferences.get("mail", True))


@transaction.atomic
def set_mail(*, user: User, wanted: bool) -> None:
    """Whether the user wants notices by e-mail. What waits to be mailed is dropped when it is no longer wanted."""
    preferences = User.objects.select_for_update().get(pk=user.pk).preferences | {"mail": wanted}
    User.objects.filter(pk=user.pk).update(preferences=preferences)
    if not wanted:
        user.notices.filter(mail_after__isnull=False).update(mail_after=None)


def send_mails(*, now: datetime | None = None) -> int:
    """Mail what is to be mailed, from the worker, once a minute; returns how many were sent.

    A notice is claimed by a conditional UPDATE that also sets the next try, so that two workers send it once and a
    worker that dies on it loses nothing. After a failure the rest waits for the next minute: a server that is away
    would cost each of them its time-out. What is of a project that the user has left is not sent.
    """
    if not settings.MAIL_ON:
        return 0
    now = now or timezone.now()
    due = Notice.objects.filter(mail_after__lte=now, user__is_active=True, user__memberships__project=F("project"))
    sent = 0
    for notice in due.select_related("user", "project").order_by("mail_after", "pk")[:MAILS_AT_A_TIME]:
        last = notice.mail_tries >= len(MAIL_PAUSES)
        claimed = Notice.objects.filter(pk=notice.pk, mail_after=notice.mail_after).update(
            mail_after=None if last else now + MAIL_PAUSES[notice.mail_tries], mail_tries=F("mail_tries") + 1
        )
        if not claimed:
            continue
        try:
            send_mail(_subject_of(notice), _body_of(notice), None, [notice.user.email])
        except Exception:
            level = logging.ERROR if last else logging.WARNING
            logger.log(level, "notice %s was not mailed%s", notice.pk, "; given up" if last else "", exc_info=True)
            return sent
        Notice.objects.filter(pk=notice.pk).update(mail_after=None)
        sent += 1
    return sent


def _subject_of(notice: Notice) -> str:
    # A header is one line.
    return " ".join(f"Marrowloop, {notice.project}: {notice.get_kind_display()}".split())


def _body_of(notice: Notice) -> str:
    # Why something failed may name a patient or a file: that stays on the site.
    failed = notice.kind == NoticeKind.RUN_FAILED
    said = "A run has failed. Its page says why." if failed else notice.text
    return (
        f"{notice.project}: {said}\n\n{address_of(notice.path)}\n\n"
        f"You get this as a member of the project. Mails can be switched off at {address_of(reverse('notices'))}\n"
    )
