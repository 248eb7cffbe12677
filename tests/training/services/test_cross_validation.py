"""Cross-validation as its job runs it; the trainings are real, of one tiny epoch."""

import pytest

from annotation.models import Job, JobKind, JobState
from annotation.services.jobs import JobLost, RunningJob, cancel_job, claim_job, retry_job, run_job
from annotation.services.projects import NotAllowed
from inference.models import DetectorKind
from tests import factories
from training.models import CrossValidation
from training.services import cross_validation
from training.services.cross_validation import run_cross_validation, start_cross_validation
from training.services.training_settings import TrainingSettings

pytestmark = pytest.mark.django_db
SETTINGS = TrainingSettings(kind=DetectorKind.ONE_STAGE, epochs=1, image_size=64, batch_size=4, threads=1)


@pytest.fixture
def project(smear):
    """Four patients with three confirmed tiles each, and a locked one."""
    project = factories.make_project()
    for number in range(4):
        add_patient(project, smear, f"P{number}")
    add_patient(project, smear, "T9", locked=True)
    return project


def add_patient(project, smear, code, **fields):
    slide = factories.make_slide(project, patient=factories.make_patient(project, code, **fields), file=smear)
    for tile in slide.tiles.all()[:3]:
        factories.make_truth(tile, (0, 10, 20, 60, 60), (1, 200, 200, 40, 40))


def start(project, folds=2, **changes) -> CrossValidation:
    settings = TrainingSettings(**(vars(SETTINGS) | changes))
    return start_cross_validation(project=project, folds=folds, settings=settings, user=None)


def run(found):
    run_job(job_pk=found.job_id, function=run_cross_validation)
    found.refresh_from_db()
    return Job.objects.get(pk=found.job_id)


def test_each_fold_is_measured_on_patients_that_it_has_not_seen(project):
    found = start(project)
    assert (found.job.kind, found.job.state, found.folds) == (JobKind.CROSS_VALIDATE, JobState.QUEUED, [])
    job = run(found)
    assert (job.state, job.message[:8], job.progress) == (JobState.SUCCEEDED, "2 folds;", 1.0)
    assert len(found.done) == len(found.folds) == 2
    held_out = [set(fold["patients"]) for fold in found.folds]
    assert held_out[0] | held_out[1] == {"P0", "P1", "P2", "P3"}  # and not T9, who is locked
    assert not held_out[0] & held_out[1]
    for fold in found.folds:
        assert not set(fold["patients"]) & set(fold["validation"])
        assert fold["trained_tiles"] + 3 * len(fold["validation"]) == 12 - len(fold["tiles"])
        assert fold["metrics"]["tiles"] == len(fold["tiles"])
        assert (fold["boxes"], fold["best_epoch"]) == (2 * len(fold["tiles"]), 1)
    assert not project.model_versions.exists()


def test_a_patient_locked_meanwhile_stops_it(project):
    found = start(project)
    found.snapshot = cross_validation.take_snapshot(project=project, seed=0)
    found.save()
    project.patients.update(locked=True)
    job = run(found)
    assert job.state == JobState.FAILED
    assert "Refused to train" in job.message
    assert not found.done


class Dies(BaseException):
    """Stands for kill -9 between two folds."""


def test_killed_it_goes_on_with_the_fold_that_it_was_in(project, monkeypatch):
    found = start(project)
    whole = cross_validation._run_fold

    def die_in_the_second(running, row, tiles, number):
        if number == 1:
            raise Dies
        return whole(running, row, tiles, number)

    with monkeypatch.context() as mortal:
        mortal.setattr(cross_validation, "_run_fold", die_in_the_second)
        with pytest.raises(Dies):
            run_job(job_pk=found.job_id, function=run_cross_validation)
    found.refresh_from_db()
    assert [bool(fold.get("metrics")) for fold in found.folds] == [True, False]
    before = found.folds
    Job.objects.filter(pk=found.job_id).update(state=JobState.QUEUED)  # as the sweep does
    numbers = []

    def note(running, row, tiles, number):
        numbers.append(number)
        return whole(running, row, tiles, number)

    monkeypatch.setattr(cross_validation, "_run_fold", note)
    assert run(found).state == JobState.SUCCEEDED
    assert numbers == [1]
    assert found.folds[0] == before[0]
    assert found.folds[1]["patients"] == before[1]["patients"]


def test_cancelled_in_mid_training_it_keeps_the_folds_that_are_done(project, monkeypatch):
    found = start(project, epochs=2)
    told = []
    report = RunningJob.report

    def cancel_in_the_second(self, progress, message="", **options):
        told.append(message)
        if message.startswith("fold 2 of 2: epoch 1"):
            cancel_job(job=self.job, user=None)
        report(self, progress, message, **options)

    with monkeypatch.context() as impatient:
        impatient.setattr(RunningJob, "report", cancel_in_the_second)
        job = run(found)
    assert (job.state, len(found.done)) == (JobState.CANCELLED, 1)
    assert not [message for message in told if message.startswith("fold 2 of 2: epoch 2")]
    assert retry_job(job=job, user=None)
    assert run(found).state == JobState.SUCCEEDED
    assert len(found.done) == 2


def test_progress_only_grows_and_names_the_fold(project, monkeypatch):
    shares = []
    report = RunningJob.report
    monkeypatch.setattr(
        RunningJob,
        "report",
        lambda self, share, text="", **rest: (shares.append((share, text)), report(self, share, text, **rest))[1],
    )
    run(start(project))
    assert [share for share, _ in shares] == sorted(share for share, _ in shares)
    assert {text.split(":")[0] for _, text in shares} == {"fold 1 of 2", "fold 2 of 2"}


@pytest.mark.parametrize(("folds", "allowed"), [(4, True), (5, False)])
def test_too_few_patients_are_told_before_anything_starts(project, folds, allowed):
    if allowed:
        start(project, folds)
        return
    with pytest.raises(NotAllowed, match=r"5 folds need .* at least 5 patients .* tiles of 4: choose at most 4"):
        start(project, folds)
    assert not CrossValidation.objects.exists()
    assert not Job.objects.exists()


def test_without_a_second_patient_there_is_nothing_to_choose(smear):
    project = factories.make_project()
    add_patient(project, smear, "P0")
    with pytest.raises(NotAllowed, match="confirm tiles of more patients"):
        start(project)


def test_with_a_single_patient_to_train_on_every_fifth_tile_validates(smear):
    project = factories.make_project()
    for code in ("P0", "P1"):
        add_patient(project, smear, code)
    found = start(project)
    assert run(found).state == JobState.SUCCEEDED
    for fold in found.folds:
        assert (fold["trained_tiles"], len(fold["validation"])) == (2, 1)


def test_it_does_not_start_from_a_model_that_has_seen_the_patients(project):
    with pytest.raises(NotAllowed, match="has seen these patients"):
        start(project, from_previous=True)


def test_a_fold_that_cannot_be_trained_is_named(smear):
    project = factories.make_project()
    for code in ("P0", "P1"):
        slide = factories.make_slide(project, patient=factories.make_patient(project, code), file=smear)
        for tile in slide.tiles.all()[:2]:
            factories.make_truth(tile)
    job = run(start(project))
    assert job.state == JobState.FAILED
    assert job.message == "Fold 1: There is not a single box to train on: confirm some boxes first."


def test_a_fold_names_the_classes_that_it_could_not_learn(smear):
    project = factories.make_project()
    add_patient(project, smear, "P0")
    slide = factories.make_slide(project, patient=factories.make_patient(project, "P1"), file=smear)
    for tile in slide.tiles.all()[:3]:
        factories.make_truth(tile, (0, 10, 20, 60, 60))
    found = start(project)
    run(found)
    missing = {fold["patients"][0]: fold["without_box"] for fold in found.folds}
    assert missing == {"P0": ["erythroblast"], "P1": []}


def test_another_attempt_writes_nothing(project):
    found = start(project)
    running = RunningJob(claim_job(job_pk=found.job_id))
    Job.objects.filter(pk=found.job_id).update(attempt=7)
    found.folds = [{"patients": ["P0"], "tiles": []}]
    with pytest.raises(JobLost):
        cross_validation._keep(running, found)
    found.refresh_from_db()
    assert found.folds == []
