"""Jobs: followed, and cancelled."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import get_for
from annotation.api.base import View
from annotation.api.errors import Refused
from annotation.api.rows import JobRow
from annotation.api.schema import Error, reads, writes
from annotation.models import Job, Role, Scope
from annotation.services.jobs import cancel_job

JOB: dict[str, Any] = {
    "id": 71,
    "kind": "train",
    "state": "running",
    "progress": 0.4,
    "seconds_left": 310.5,
    "message": "epoch 20 of 50",
}


class OneJob(View):
    api_tag = "jobs"

    @reads(JobRow, about="A job: how far it is, and what it says", name="job", example=JOB)
    def get(self, request: Request, pk: int) -> Response:
        return Response(JobRow(get_for(request.user, Job.objects.select_related("project"), pk, Role.ANNOTATOR)).data)


class CancelJob(View):
    api_tag = "jobs"
    scopes = {"POST": Scope.LEAD}

    @writes(
        None,
        {200: JobRow, 409: Error},
        about="Cancel a job: at once if it waits, else it is asked to stop; for leads",
        name="cancel_job",
        example=JOB,
    )
    def post(self, request: Request, pk: int) -> Response:
        found = get_for(request.user, Job.objects.select_related("project"), pk, Role.LEAD)
        if not found.is_active:
            raise Refused(f"{found} is over: {found.get_state_display()}.")
        cancel_job(job=found, user=request.user)
        found.refresh_from_db()
        return Response(JobRow(found).data)
