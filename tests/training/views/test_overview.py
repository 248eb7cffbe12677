"""The one thing to do next."""

import pytest

from annotation.models import JobState
from tests import factories
from training.models import RoundState
from training.views.overview import next_step

pytestmark = pytest.mark.django_db


def label(project, *, lead=True):
    step = next_step(project, lead=lead)
    return step and step["label"]


def test_a_new_project_needs_slides():
    assert label(factories.make_project()) == "Import slides"


def test_with_slides_a_round_can_start_and_the_test_set_should_be_locked():
    project = factories.make_project()
    factories.make_slide(project)
    step = next_step(project, lead=True)
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
