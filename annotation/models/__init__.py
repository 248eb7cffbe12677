from annotation.models.annotation import Annotation, Author, AuthorKind, Box, Change, Draft
from annotation.models.batch import Batch, BatchState, Purpose, Task, TaskState
from annotation.models.event import Event
from annotation.models.job import Job, JobKind, JobState
from annotation.models.project import Membership, Project, Role, User
from annotation.models.slide import Patient, Preparation, Slide, Tile, Tiling
from annotation.models.taxonomy import CellClass, Taxonomy

__all__ = [
    "Annotation",
    "Author",
    "AuthorKind",
    "Batch",
    "BatchState",
    "Box",
    "CellClass",
    "Change",
    "Draft",
    "Event",
    "Job",
    "JobKind",
    "JobState",
    "Membership",
    "Patient",
    "Preparation",
    "Project",
    "Purpose",
    "Role",
    "Slide",
    "Task",
    "TaskState",
    "Taxonomy",
    "Tile",
    "Tiling",
    "User",
]
