"""Every long job is a row."""

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

from annotation.models.project import Project, User


class JobState(models.TextChoices):
    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    SUCCEEDED = "succeeded", "done"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


ACTIVE = (JobState.QUEUED, JobState.RUNNING)
IMPORT_STEPS = {"read": "reading", "try": "dry run", "write": "import"}  # of annotations


class JobKind(models.TextChoices):
    """Each kind is the name of a Celery task: `jobs.<kind>`."""

    IMPORT_SLIDE = "import_slide", "Import slide"
    LOOK = "look", "Look into folder"
    IMPORT_LABELS = "import_labels", "Import annotations"
    EXPORT = "export", "Export"
    SELECT = "select", "Select tiles"
    PRE_LABEL = "pre_label", "Pre-label"
    SNAPSHOT = "snapshot", "Take snapshot"
    TRAIN = "train", "Train"
    EVALUATE = "evaluate", "Evaluate"
    CROSS_VALIDATE = "cross_validate", "Cross-validate"
    SIMULATE = "simulate", "Simulate rounds"
    REFRESH = "refresh", "Retrain the classifier"
    IMPORT_MODEL = "import_model", "Import model"
    EXPORT_MODEL = "export_model", "Export model"
    DEMO = "demo", "Prepare the demo"


KEPT = (JobKind.SELECT, JobKind.PRE_LABEL, JobKind.TRAIN, JobKind.CROSS_VALIDATE, JobKind.SIMULATE)


class Job(models.Model):
    """A long job. Only the attempt that holds the row may write to it (`attempt` is the fence)."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=20, choices=JobKind.choices)
    subject = models.CharField(max_length=255, blank=True, help_text="What it works on, for people.")
    arguments = models.JSONField(default=dict)
    state = models.CharField(max_length=9, choices=JobState.choices, default=JobState.QUEUED)
    progress = models.FloatField(default=0.0, help_text="0 to 1.")
    seconds_left = models.FloatField(null=True, blank=True)
    message = models.TextField(blank=True)
    error_code = models.CharField(max_length=30, blank=True)
    result = models.JSONField(default=dict)
    attempt = models.PositiveSmallIntegerField(default=0, help_text="Grows with every start, never goes back.")
    losses = models.PositiveSmallIntegerField(default=0, help_text="How often its worker died.")
    cancel_requested = models.BooleanField(default=False)
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["project", "state"], name="job_by_project")]
        constraints = [
            models.CheckConstraint(condition=models.Q(progress__gte=0, progress__lte=1), name="progress_in_0_1"),
            models.CheckConstraint(
                condition=~models.Q(state="running") | models.Q(heartbeat_at__isnull=False),
                name="a_running_job_has_a_heartbeat",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.subject}".strip()

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def keeps_what_is_done(self) -> bool:
        """Whether it goes on where it was when it is tried again after a cancel."""
        return self.kind in KEPT

    @property
    def step_words(self) -> str:
        """Which step of an import of annotations it is; empty for other jobs."""
        return IMPORT_STEPS.get(self.arguments.get("step", ""), "")

    @property
    def needs_mpp(self) -> bool:
        """Whether the import would go on if somebody stated the pixel size."""
        return self.state == JobState.FAILED and self.error_code.startswith("mpp-")

    @property
    def duration(self) -> timedelta | None:
        """Time from start to end, or until now."""
        end: datetime = self.ended_at or timezone.now()
        return end - self.started_at if self.started_at else None
