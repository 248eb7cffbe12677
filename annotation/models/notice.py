"""Notices: what a member is told in the app, and by e-mail where the lab has set that up."""

from django.db import models
from django.db.models import Q

from annotation.models.project import Project, User


class NoticeKind(models.TextChoices):
    BATCH_READY = "batch-ready", "batch ready"
    MODEL_DONE = "model-done", "model done"
    RUN_FAILED = "run-failed", "run failed"
    WEBHOOK_FAILED = "webhook-failed", "webhook failed"


class Notice(models.Model):
    """One line to one user. It is about a `subject`, such as "batch 12", of which nobody is told twice."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notices")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=20, choices=NoticeKind.choices)
    subject = models.CharField(max_length=60)
    text = models.CharField(max_length=300)
    path = models.CharField(max_length=200, help_text="Of the page that it leads to, on this site.")
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True, blank=True)
    mail_after = models.DateTimeField(
        null=True, blank=True, help_text="When to try to mail it; empty when it is not to be mailed, or no longer."
    )
    mail_tries = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["user"], condition=Q(read_at__isnull=True), name="notice_unread"),
            models.Index(fields=["mail_after"], condition=Q(mail_after__isnull=False), name="notice_to_mail"),
        ]
        constraints = [models.UniqueConstraint(fields=["user", "kind", "subject"], name="one_notice_per_subject")]

    def __str__(self) -> str:
        return self.text
