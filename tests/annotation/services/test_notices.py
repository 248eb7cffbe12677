"""Notices: who is told what, once; and mails, which never break anything."""

import logging
import smtplib
import socketserver
import threading
from datetime import timedelta

import pytest
from django.core import mail
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from annotation.access import notices_of
from annotation.models import BatchState, Job, JobKind, JobState, Membership, Notice, NoticeKind, Role
from annotation.services import jobs, notices
from annotation.services.batches import open_batch
from annotation.services.jobs import LOST_AFTER, MAX_LOSSES, JobError, retry_job, run_job, sweep_jobs
from annotation.services.notices import MAIL_PAUSES, gets_mail, mark_read, notify, send_mails, set_mail
from tests import factories
from training.models import RoundState
from training.services.model_notices import tell_model_done

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def lead(project):
    return factories.make_member(project, Role.LEAD, "lead")


@pytest.fixture
def reader(project):
    return factories.make_member(project, Role.ANNOTATOR, "reader")


def tell(project, *, role=Role.ANNOTATOR, subject="batch 1", text="Round 1 is ready."):
    notify(project=project, role=role, kind=NoticeKind.BATCH_READY, subject=subject, text=text, path="/")


def told():
    return sorted(Notice.objects.values_list("user__username", "text"))


# ---- who is told ----


@pytest.mark.parametrize(
    ("role", "names"), [(Role.ANNOTATOR, ["lead", "reader"]), (Role.REVIEWER, ["lead"]), (Role.LEAD, ["lead"])]
)
def test_members_of_the_role_and_above_are_told(project, lead, reader, role, names):
    factories.make_member(project, Role.LEAD, "gone", is_active=False)
    factories.make_user("stranger")
    factories.make_member(factories.make_project(), Role.LEAD, "elsewhere")
    tell(project, role=role)
    assert [name for name, _ in told()] == names


def test_nobody_is_told_twice(project, reader):
    tell(project)
    tell(project, text="Again.")
    tell(project, subject="batch 2")
    assert [text for _, text in told()] == ["Round 1 is ready."] * 2


def test_a_long_text_is_cut(project, reader):
    tell(project, text="x" * 400)
    assert Notice.objects.get().text == "x" * 299 + "…"


def test_of_a_project_that_was_left_nothing_is_shown(project, lead, reader):
    tell(project)
    assert notices_of(reader).count() == 1
    Membership.objects.filter(user=reader).delete()
    assert notices_of(reader).count() == 0
    assert notices_of(lead).count() == 1


# ---- what they are told ----


def test_an_opened_batch_is_told_to_all_members(project, lead, reader):
    batch = factories.make_batch(project, name="Round 7", state=BatchState.DRAFT)
    assert not Notice.objects.exists()
    open_batch(batch=batch)
    open_batch(batch=batch)
    assert told() == [(name, "Round 7 is ready: 9 tiles to read.") for name in ("lead", "reader")]
    assert {notice.path for notice in Notice.objects.all()} == {reverse("batch", args=[batch.pk])}


def fail(running):
    raise JobError("Nothing to train on.")


def test_a_failed_step_is_told_to_the_leads_with_a_link_to_its_round(project, lead, reader):
    round_ = factories.make_round(project, state=RoundState.TRAINING)
    job = factories.make_job(project, kind=JobKind.TRAIN, subject="Round 1", arguments={"round": round_.pk})
    run_job(job_pk=job.pk, function=fail)
    assert told() == [("lead", "Train Round 1 failed: Nothing to train on.")]
    assert Notice.objects.get().path == reverse("round", args=[round_.pk])
    retry_job(job=job, user=None)
    run_job(job_pk=job.pk, function=fail)
    assert len(told()) == 2  # failed again, told again


def test_a_failed_cross_validation_leads_to_its_job(project, lead):
    job = factories.make_job(project, kind=JobKind.CROSS_VALIDATE, subject="5 folds")
    run_job(job_pk=job.pk, function=lambda running: 1 / 0)
    assert told() == [("lead", "Cross-validate 5 folds failed: ZeroDivisionError: division by zero")]
    assert Notice.objects.get().path == reverse("job", args=[job.pk])


def test_a_failed_export_and_a_success_are_told_to_nobody(project, lead):
    run_job(job_pk=factories.make_job(project, kind=JobKind.EXPORT).pk, function=fail)
    run_job(job_pk=factories.make_job(project, kind=JobKind.TRAIN).pk, function=lambda running: {})
    assert told() == []


def test_a_training_that_killed_its_worker_too_often_is_told_once(project, lead, monkeypatch):
    monkeypatch.setattr(jobs, "send_job", lambda job: None)
    job = factories.make_job(project, state=JobState.RUNNING, kind=JobKind.TRAIN, losses=MAX_LOSSES - 1)
    Job.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * LOST_AFTER)
    sweep_jobs()
    sweep_jobs()
    [(name, text)] = told()
    assert name == "lead"
    assert "may have run out of memory" in text


@pytest.mark.parametrize(
    ("current", "verdict"), [(True, "It is the current model."), (False, "The current model is better and stays.")]
)
def test_a_model_that_is_done_is_told_to_the_leads_with_its_map(project, lead, reader, current, verdict):
    version = factories.make_version(project, current=current)
    factories.make_evaluation(version, 0.625)
    round_ = factories.make_round(project, state=RoundState.DONE, model_version=version)
    tell_model_done(round_)
    tell_model_done(round_)  # once, whoever tells it again
    words = f"Round 1 is done: model 1, mAP@0.5 0.625 on 7 locked test tiles. {verdict}"
    assert told() == [("lead", words)]
    assert Notice.objects.get().path == reverse("model", args=[version.pk])


# ---- read ----


def test_one_or_all_are_marked_as_read(project, lead, reader):
    for number in range(3):
        tell(project, subject=f"batch {number}")
    mark_read(user=reader, notice=reader.notices.first())
    assert reader.notices.filter(read_at__isnull=True).count() == 2
    mark_read(user=reader)
    assert reader.notices.filter(read_at__isnull=True).count() == 0
    assert lead.notices.filter(read_at__isnull=True).count() == 3


# ---- mail ----


@pytest.fixture
def mailing(settings, reader):
    settings.MAIL_ON = True
    settings.DEFAULT_FROM_EMAIL = "marrowloop@lab.example"
    reader.email = "reader@lab.example"
    reader.save()


def test_without_the_labs_mail_server_nothing_is_mailed(project, reader):
    reader.email = "reader@lab.example"
    reader.save()
    tell(project)
    assert Notice.objects.get().mail_after is None
    assert (send_mails(), mail.outbox) == (0, [])


def test_a_mail_says_what_where_and_how_to_stop(project, reader, mailing, settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://marrow.lab"]
    project.name = "Marrow\nproject"
    project.save()
    notify(
        project=project,
        role=Role.ANNOTATOR,
        kind=NoticeKind.BATCH_READY,
        subject="batch 1",
        text="Round 1 is ready.",
        path="/batches/1/",
    )
    assert send_mails() == 1
    [message] = mail.outbox
    assert (message.to, message.from_email) == (["reader@lab.example"], "marrowloop@lab.example")
    assert message.subject == "Marrowloop, Marrow project: batch ready"
    assert "Round 1 is ready.\n\nhttps://marrow.lab/batches/1/\n" in message.body
    assert "https://marrow.lab/notices/" in message.body
    assert send_mails() == 0
    assert len(mail.outbox) == 1


def test_why_something_failed_stays_on_the_site(project, lead, mailing):
    lead.email = "lead@lab.example"
    lead.save()
    job = factories.make_job(project, kind=JobKind.TRAIN, subject="Round 1")

    def names_a_patient(running):
        raise JobError("Refused to train: patients P07 are in the locked test set.")

    run_job(job_pk=job.pk, function=names_a_patient)
    assert send_mails() == 1
    assert "P07" not in str(mail.outbox[0].message())
    assert "A run has failed. Its page says why." in mail.outbox[0].body


@pytest.mark.parametrize("without", ["address", "wish"])
def test_who_has_no_address_or_no_wish_gets_none(project, reader, mailing, without):
    if without == "address":
        reader.email = ""
        reader.save()
    else:
        set_mail(user=reader, wanted=False)
        reader.refresh_from_db()
    assert not gets_mail(reader)
    tell(project)
    assert send_mails(now=timezone.now() + timedelta(days=1)) == 0


def test_turning_mails_off_drops_what_waits_and_keeps_other_preferences(project, reader, mailing):
    reader.preferences = {"editor": {"gamma": 1.2}}
    reader.save()
    tell(project)
    set_mail(user=reader, wanted=False)
    assert send_mails() == 0
    reader.refresh_from_db()
    assert reader.preferences == {"editor": {"gamma": 1.2}, "mail": False}
    set_mail(user=reader, wanted=True)
    reader.refresh_from_db()
    assert gets_mail(reader)


def test_what_has_been_read_or_is_of_a_project_that_was_left_is_not_mailed(project, reader, mailing):
    tell(project)
    mark_read(user=reader)
    tell(project, subject="batch 2")
    Membership.objects.filter(user=reader).delete()
    assert (send_mails(), mail.outbox) == (0, [])


def test_a_mail_server_that_is_away_is_tried_again_and_given_up(project, reader, mailing, monkeypatch, caplog):
    def away(*args, **kwargs):
        raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")

    monkeypatch.setattr(notices, "send_mail", away)
    tell(project)
    now = timezone.now()
    for tries, pause in enumerate(MAIL_PAUSES, start=1):
        assert send_mails(now=now) == 0
        notice = Notice.objects.get()
        assert (notice.mail_tries, notice.mail_after) == (tries, now + pause)
        assert send_mails(now=now + pause - timedelta(seconds=1)) == 0
        assert Notice.objects.get().mail_tries == tries
        now += pause
    send_mails(now=now)
    assert (Notice.objects.get().mail_tries, Notice.objects.get().mail_after) == (len(MAIL_PAUSES) + 1, None)
    assert caplog.records[-1].levelno == logging.ERROR
    assert "given up" in caplog.text


def test_after_a_failure_the_others_wait_for_the_next_look(project, reader, mailing, monkeypatch):
    send_mail = notices.send_mail
    tried = []

    def first_fails(*args):
        tried.append(args)
        if len(tried) == 1:
            raise OSError("timed out")
        return send_mail(*args)

    monkeypatch.setattr(notices, "send_mail", first_fails)
    for number in range(3):
        tell(project, subject=f"batch {number}")
    assert (send_mails(), len(tried)) == (0, 1)
    assert (send_mails(), len(tried)) == (2, 3)


def test_a_server_that_is_away_breaks_no_batch(project, reader, mailing, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1  # nobody listens there
    batch = factories.make_batch(project, state=BatchState.DRAFT)
    open_batch(batch=batch)
    assert send_mails() == 0
    batch.refresh_from_db()
    assert (batch.state, Notice.objects.get().mail_tries) == (BatchState.OPEN, 1)


class Postbox(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as a client needs to leave a message."""

    def handle(self):
        self.say("220 postbox")
        for line in self.rfile:
            command = line.split(maxsplit=1)[0].upper()
            if command == b"DATA":
                self.say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.letters.append(b"".join(lines).decode())
                self.say("250 taken")
            else:
                self.say("221 bye" if command == b"QUIT" else "250 fine")

    def say(self, words):
        self.wfile.write(f"{words}\r\n".encode())


def test_a_mail_goes_to_the_labs_server(project, reader, mailing, settings):
    with socketserver.TCPServer(("127.0.0.1", 0), Postbox) as server:
        server.letters = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = server.server_address
        tell(project)
        try:
            assert send_mails() == 1
        finally:
            server.shutdown()
            thread.join()
    [letter] = server.letters
    assert "To: reader@lab.example" in letter
    assert "Round 1 is ready." in letter


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_one_sends_the_mail(project, reader, mailing, monkeypatch):
    tell(project)
    looked = threading.Barrier(3)
    update = Notice.objects.get_queryset().__class__.update
    sent, posted = [], []

    def together(rows, **values):
        if "mail_tries" in values:
            looked.wait(timeout=60)
        return update(rows, **values)

    monkeypatch.setattr(Notice.objects.get_queryset().__class__, "update", together)
    monkeypatch.setattr(notices, "send_mail", lambda *args: posted.append(args))

    def work():
        try:
            sent.append(send_mails())
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(sent), len(posted)) == ([0, 0, 1], 1)
