"""The one thing to do next."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import JobState, Role, TaskKind
from tests import factories
from training.models import RoundState
from training.views.overview import next_step

pytestmark = pytest.mark.django_db


def label(project, *, lead=True):
    step = step_of(project, Role.LEAD if lead else Role.ANNOTATOR)
    return step and step["label"]


def step_of(project, role):
    return next_step(project, factories.make_user(), role)


def test_a_new_project_needs_slides():
    assert label(factories.make_project()) == "Import slides"


def test_with_slides_a_round_can_start_and_the_test_set_should_be_locked():
    project = factories.make_project()
    factories.make_slide(project)
    step = step_of(project, Role.LEAD)
    assert step["label"] == "Start round 1"
    assert "Lock the test patients" in step["why"]


def test_a_round_at_work_is_watched():
    project = factories.make_project()
    factories.make_slide(project)
    job = factories.make_job(project, state=JobState.RUNNING)
    factories.make_round(project, state=RoundState.TRAINING, job=job)
    assert label(project) == "Watch Round 1"
    job.state = JobState.FAILED
    job.save()
    assert label(project) == "See why Round 1 stopped"


def test_a_batch_that_waits_for_its_release_is_looked_at_by_the_lead():
    project = factories.make_project()
    batch = factories.make_batch(project, state="draft")
    factories.make_round(project, state=RoundState.REVIEWING, batch=batch)
    assert label(project) == "Release Round 1"
    assert label(project, lead=False) is None


@pytest.mark.parametrize("lead", [True, False])
def test_a_waiting_batch_comes_first_for_everybody(lead):
    project = factories.make_project()
    batch = factories.make_batch(project, name="Round 1")
    factories.make_round(project, batch=batch)
    assert label(project, lead=lead) == "Annotate Round 1"


def test_a_batch_that_is_read_is_closed_by_the_lead():
    project = factories.make_project()
    batch = factories.make_batch(project)
    factories.make_round(project, batch=batch)
    batch.tasks.update(state="submitted")
    assert label(project) == "Close Round 1 and train"
    assert label(project, lead=False) is None


def test_after_a_cancelled_round_the_next_has_the_next_number():
    project = factories.make_project()
    factories.make_slide(project)
    factories.make_round(project, number=1, state=RoundState.CANCELLED)
    assert label(project) == "Start round 2"


def test_where_only_reviews_wait_a_reviewer_is_sent_to_them_and_an_annotator_nowhere():
    project = factories.make_project()
    batch = factories.make_batch(project, name="Round 1")
    factories.make_round(project, batch=batch)
    batch.tasks.update(kind=TaskKind.REVIEW)
    step = step_of(project, Role.REVIEWER)
    assert step["label"] == "Review Round 1"
    assert step["url"].endswith("?review=1")
    assert step_of(project, Role.ANNOTATOR) is None


def test_who_has_done_their_part_is_not_sent_to_a_batch_that_others_still_read():
    project = factories.make_project()
    reader, other = factories.make_user(), factories.make_user()
    batch = factories.make_batch(project, name="Round 1")
    factories.make_round(project, batch=batch)
    batch.tasks.update(state="leased", reader=other, leased_until=timezone.now() + timedelta(hours=1))
    assert next_step(project, reader, Role.ANNOTATOR) is None
    step = next_step(project, reader, Role.LEAD)
    assert step["label"] == "See Round 1"
    assert step["why"].endswith("still with the other readers.")
    assert next_step(project, other, Role.ANNOTATOR)["label"] == "Annotate Round 1"
