import pytest
from django.urls import reverse

from annotation.models import JobState, Role
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def post(client, name, job, data=None, **headers):
    return client.post(reverse(name, args=[job.pk]), data or {}, headers=headers)


def test_cancel_works(client, project):
    job = factories.make_job(project)
    assert post(client, "job_cancel", job)["Location"] == reverse("job", args=[job.pk])
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_cancel_gives_htmx_the_jobs_fragment(client, project):
    page = post(client, "job_cancel", factories.make_job(project), **{"HX-Request": "true"}).content.decode()
    assert 'data-job-state="cancelled"' in page
    assert "<html" not in page


def test_a_running_job_is_asked_to_stop(client, project):
    job = factories.make_job(project, state=JobState.RUNNING)
    post(client, "job_cancel", job)
    job.refresh_from_db()
    assert (job.state, job.cancel_requested) == (JobState.RUNNING, True)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("train", "What it has done so far is kept: it can go on."),
        ("pre_label", "What it has done so far is kept: it can go on."),
        ("export", "What it has done so far is not kept."),
    ],
)
def test_before_a_cancel_it_is_said_what_becomes_of_the_work(client, project, kind, words):
    job = factories.make_job(project, kind=kind, state=JobState.RUNNING)
    assert f"Cancel this job? {words}" in client.get(reverse("job", args=[job.pk])).content.decode()


def test_cancelling_what_has_ended_changes_nothing(client, project):
    job = factories.make_job(project, state=JobState.SUCCEEDED)
    assert post(client, "job_cancel", job).status_code == 302
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED


def test_retry_works(client, project):
    job = factories.make_job(project, state=JobState.FAILED, message="it broke")
    assert post(client, "job_retry", job)["Location"] == reverse("project_jobs", args=[project.pk])
    job.refresh_from_db()
    assert (job.state, job.message) == (JobState.QUEUED, "")


def test_retrying_what_has_not_failed_says_so(client, project):
    job = factories.make_job(project, state=JobState.RUNNING)
    response = client.post(reverse("job_retry", args=[job.pk]), follow=True)
    assert "has not failed" in response.content.decode()
    job.refresh_from_db()
    assert job.state == JobState.RUNNING


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
@pytest.mark.parametrize("name", ["job_cancel", "job_retry"])
def test_it_needs_a_lead(client, project, name, role):
    job = factories.make_job(project, state=JobState.FAILED)
    client.force_login(factories.make_member(project, role))
    assert post(client, name, job).status_code == 403
    job.refresh_from_db()
    assert job.state == JobState.FAILED


def test_the_list_can_be_narrowed_to_a_state(client, project):
    factories.make_job(project, subject="a queued one")
    factories.make_job(project, state=JobState.FAILED, subject="a failed one")
    page = client.get(reverse("project_jobs", args=[project.pk]), {"state": "failed"}).content.decode()
    assert "a failed one" in page
    assert "a queued one" not in page
    assert "failed (1)" in page


def test_another_projects_jobs_are_not_listed(client, project):
    factories.make_job(factories.make_project(), subject="somebody elses")
    assert "somebody elses" not in client.get(reverse("project_jobs", args=[project.pk])).content.decode()
