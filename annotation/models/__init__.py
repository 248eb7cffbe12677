from annotation.models.annotation import Annotation, Author, AuthorKind, Box, Change, Draft
from annotation.models.api_token import ApiToken, Scope
from annotation.models.batch import Batch, BatchState, Policy, Purpose, ReviewBy, Task, TaskKind, TaskState
from annotation.models.event import Event
from annotation.models.folder import FileState, FolderFile, PatientRule, SlideFolder
from annotation.models.job import Job, JobKind, JobState
from annotation.models.notice import Notice, NoticeKind
from annotation.models.project import Membership, Project, Role, User
from annotation.models.slide import Patient, Preparation, Slide, Tile, Tiling
from annotation.models.taxonomy import CellClass, Taxonomy
from annotation.models.upload import Upload
from annotation.models.webhook import Delivery, DeliveryState, Webhook, WebhookEvent

__all__ = [
    "Annotation",
    "ApiToken",
    "Author",
    "AuthorKind",
    "Batch",
    "BatchState",
    "Box",
    "CellClass",
    "Change",
    "Delivery",
    "DeliveryState",
    "Draft",
    "Event",
    "FileState",
    "FolderFile",
    "Job",
    "JobKind",
    "JobState",
    "Membership",
    "Notice",
    "NoticeKind",
    "Patient",
    "PatientRule",
    "Policy",
    "Preparation",
    "Project",
    "Purpose",
    "ReviewBy",
    "Role",
    "Scope",
    "Slide",
    "SlideFolder",
    "Task",
    "TaskKind",
    "TaskState",
    "Taxonomy",
    "Tile",
    "Tiling",
    "Upload",
    "User",
    "Webhook",
    "WebhookEvent",
]
