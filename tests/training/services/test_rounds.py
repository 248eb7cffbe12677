"""The round as a machine, with its real steps; only the training itself is stepped over."""

import threading

import pytest
from django.core.files.storage import default_storage
from django.db import connection

from annotation.models import BatchState, Job, JobKind, JobState, Role, Slide, Task, Tile
from annotation.services import batches, jobs
from annotation.services.batches import reopen_batch
from annotation.services.jobs import JobCancelled, JobError, run_job
from annotation.services.projects import NotAllowed
from inference.engine.detector import MODEL_FILES
from inference.models import DetectorKind
from inference.services import choosing, pre_labels
from inference.services.model_exports import ModelExport
from inference.services.registry import current_version
from tests import factories
from tests.factories.detector import ToldDetector
from training.models import Mode, Round, RoundState
from training.services import evaluations, rounds, runs
from training.services.rounds import (
    RoundSettings,
    cancel_round,
    close_round,
    next_mode,
    release_round,
    retry_round,
    settings_of,
    start_round,
    swap_task,
)
from training.services.snapshots import take_snapshot

pytestmark = pytest.mark.django_db

WORK = {
    JobKind.SELECT: (RoundState.SELECTING, rounds.select),
    JobKind.PRE_LABEL: (RoundState.PRE_LABELLING, rounds.pre_label),
    JobKind.SNAPSHOT: (RoundState.CLOSING, rounds.snapshot),
    JobKind.TRAIN: (RoundState.TRAINING, rounds.train),
    JobKind.EVALUATE: (RoundState.EVALUATING, rounds.evaluate),
}
SETTINGS = RoundSettings(size=4, strategy="random", kind=DetectorKind.ONE_STAGE, epochs=1)


@pytest.fixture(autouse=True)
def _detector(monkeypatch):
    told = ToldDetector((0, 10, 20, 30, 40, 0.9), (1, 200, 200, 40, 40, 0.6))
    for module in (pre_labels, evaluations):
        monkeypatch.setattr(module, "detector_of", lambda version: told)


@pytest.fixture(autouse=True)
def _trainer(monkeypatch):
    """The training is stepped over: it registers weights that nobody could load, as a real one would its own."""

    def train_snapshot(running, snapshot, settings, *, key, on_version):
        version = factories.make_version(snapshot.project, snapshot_hash=snapshot.content_hash)
        on_version(version)
        return version, "mAP@0.5 0.50 on the validation part"

    monkeypatch.setattr(rounds, "train_snapshot", train_snapshot)


@pytest.fixture
def project(smear):
    project = factories.make_project()
    for number in range(2):
        patient = factories.make_patient(project, f"P{number}")
        factories.make_slide(project, patient=patient, file=smear)
    locked = factories.make_slide(project, patient=factories.make_patient(project, "T9", locked=True), file=smear)
    factories.make_truth(locked.tiles.first(), (0, 10, 20, 30, 40))
    return project


def start(project, mode=Mode.MANUAL, **settings):
    return start_round(project=project, mode=mode, settings=RoundSettings(**(vars(SETTINGS) | settings)), user=None)


def run_step(round_):
    """Run the round's queued job as a worker would; returns the job after it."""
    round_.refresh_from_db()
    state, work = WORK[round_.job.kind]
    run_job(job_pk=round_.job.pk, function=rounds.step(state, work))
    job = Job.objects.get(pk=round_.job_id)
    round_.refresh_from_db()
    return job


def annotate(round_):
    reader = factories.make_member(round_.project)
    for task in round_.batch.tasks.all():
        factories.submit_task(task, reader, (0, 10, 20, 30, 40), (1, 100, 20, 30, 40))


def finish(round_):
    """From annotating to done."""
    annotate(round_)
    close_round(round_=round_, user=None)
    return [run_step(round_) for _ in range(3)]


def test_a_manual_round_runs_through_its_states(project):
    round_ = start(project)
    assert (round_.state, round_.job.kind, round_.number) == (RoundState.SELECTING, JobKind.SELECT, 1)
    job = run_step(round_)
    assert (job.state, job.message, round_.state) == (JobState.SUCCEEDED, "4 tiles", RoundState.ANNOTATING)
    assert (round_.batch.state, round_.batch.tasks.count()) == (BatchState.OPEN, 4)
    assert not round_.batch.tasks.filter(tile__slide__patient__locked=True).exists()
    annotate(round_)
    close_round(round_=round_, user=None)
    assert (round_.state, round_.job.kind) == (RoundState.CLOSING, JobKind.SNAPSHOT)
    assert run_step(round_).state == JobState.SUCCEEDED
    assert (round_.state, round_.snapshot.tiles.count()) == (RoundState.TRAINING, 4)
    assert run_step(round_).state == JobState.SUCCEEDED
    assert (round_.state, round_.model_version.number) == (RoundState.EVALUATING, 1)
    job = run_step(round_)
    assert (job.state, round_.state) == (JobState.SUCCEEDED, RoundState.DONE)
    assert "now the current model" in job.message
    assert current_version(project) == round_.model_version
    evaluation = round_.model_version.evaluations.get()
    assert (evaluation.part, evaluation.tiles, evaluation.boxes, evaluation.patients) == ("test", 1, 1, 1)
    assert evaluation.metrics["map50"] == pytest.approx(1.0)
    assert round_.done_at is not None


@pytest.mark.parametrize("accepted", [True, False])
def test_the_training_says_if_torch_has_to_compute(project, monkeypatch, tmp_path, accepted):
    for name in MODEL_FILES:
        (tmp_path / name).write_text("a model")
    export = ModelExport(tmp_path, accepted, "sides of boxes differ by at most 3.00 px")

    def train_snapshot(running, snapshot, settings, *, key, on_version):
        version = factories.make_version(snapshot.project, export=export)
        on_version(version)
        return version, "mAP@0.5 0.50 on the validation part"

    monkeypatch.setattr(rounds, "train_snapshot", train_snapshot)
    round_ = start(project)
    run_step(round_)
    job = finish(round_)[1]
    said = "; torch computes, not OpenVINO: sides of boxes differ by at most 3.00 px"
    assert job.message == "model 1, mAP@0.5 0.50 on the validation part" + ("" if accepted else said)


def test_an_assisted_round_pre_labels_before_it_opens(project):
    factories.make_version(project, current=True)
    round_ = start(project, Mode.ASSISTED, strategy="rare")
    run_step(round_)
    assert (round_.state, round_.batch.state) == (RoundState.PRE_LABELLING, BatchState.DRAFT)
    assert round_.batch.expected["0"] == pytest.approx(4 * (0.9 * 100 + 0.6) / 102, abs=0.01)
    job = run_step(round_)
    assert (job.message, round_.state, round_.batch.state) == ("4 tiles by model 1", "annotating", BatchState.OPEN)
    assert all(task.pre_label.boxes.count() == 2 for task in round_.batch.tasks.all())


def test_a_manual_round_is_chosen_by_the_model_where_there_is_one(project):
    factories.make_version(project, current=True)
    round_ = start(project, strategy="rare")
    run_step(round_)
    assert (round_.state, round_.batch.state) == (RoundState.ANNOTATING, BatchState.OPEN)
    assert {one.strategy for one in round_.batch.candidates.filter(audit=False)} == {"rare"}
    assert round_.batch.tasks.first().reason.startswith("expects 0.9")
    assert round_.batch.expected["0"] == pytest.approx(4 * (0.9 * 100 + 0.6) / 102, abs=0.01)
    assert not round_.batch.tasks.exclude(pre_label=None).exists()


@pytest.mark.parametrize("strategy", ["random", "rare"])
def test_a_manual_round_is_left_to_chance_without_a_model_or_if_the_lead_wants_that(project, strategy):
    if strategy == "random":
        factories.make_version(project, current=True)
    round_ = start(project, strategy=strategy)
    run_step(round_)
    assert {one.strategy for one in round_.batch.candidates.all()} == {"random"}
    assert round_.batch.expected == {}


class TestRelease:
    """A batch that a lead looks at before it goes on."""

    @pytest.fixture
    def waiting(self, project):
        factories.make_version(project, current=True)
        round_ = start(project, Mode.ASSISTED, strategy="rare", hold=True)
        assert run_step(round_).state == JobState.SUCCEEDED
        return round_

    def test_the_batch_waits_as_a_draft(self, waiting):
        assert (waiting.state, waiting.batch.state) == (RoundState.REVIEWING, BatchState.DRAFT)
        assert waiting.job.kind == JobKind.SELECT
        assert waiting.batch.candidates.filter(state="chosen").count() == 4
        assert waiting.batch.candidates.filter(state="reserve").count() == 4
        assert waiting.batch.tasks.filter(audit=True).count() == 1

    def test_released_it_is_pre_labelled(self, waiting):
        user = factories.make_user()
        release_round(round_=waiting, user=user)
        assert (waiting.state, waiting.job.kind) == (RoundState.PRE_LABELLING, JobKind.PRE_LABEL)
        assert waiting.job.created_by == user
        run_step(waiting)
        assert (waiting.state, waiting.batch.state) == (RoundState.ANNOTATING, BatchState.OPEN)

    def test_it_is_released_once(self, waiting):
        again = Round.objects.get(pk=waiting.pk)
        release_round(round_=waiting, user=None)
        with pytest.raises(NotAllowed, match="does not wait to be released"):
            release_round(round_=again, user=None)
        assert Job.objects.filter(kind=JobKind.PRE_LABEL).count() == 1

    def test_a_manual_batch_opens_with_its_release(self, project):
        round_ = start(project, hold=True)
        run_step(round_)
        assert (round_.state, round_.batch.state) == (RoundState.REVIEWING, BatchState.DRAFT)
        release_round(round_=round_, user=None)
        round_.batch.refresh_from_db()
        assert (round_.state, round_.batch.state) == (RoundState.ANNOTATING, BatchState.OPEN)

    def test_a_tile_is_swapped_out_until_then(self, waiting):
        task = waiting.batch.tasks.select_related("batch__project", "tile__slide").first()
        swap_task(round_=waiting, task=task, user=None)
        assert waiting.batch.tasks.get(pk=task.pk).tile != task.tile
        waiting.batch.refresh_from_db()
        assert waiting.batch.expected["0"] == pytest.approx(4 * (0.9 * 100 + 0.6) / 102, abs=0.01)
        release_round(round_=waiting, user=None)
        with pytest.raises(NotAllowed, match="does not wait to be released"):
            swap_task(round_=waiting, task=waiting.batch.tasks.select_related("tile__slide").get(pk=task.pk), user=None)

    def test_a_tile_of_another_batch_is_not_swapped(self, project, waiting):
        other = factories.make_batch(project, [], state=BatchState.DRAFT)
        task = factories.make_task(factories.make_project())
        with pytest.raises(NotAllowed):
            swap_task(round_=waiting, task=task, user=None)
        assert not other.tasks.exists()

    def test_it_can_be_given_up(self, waiting):
        cancel_round(round_=waiting, user=None)
        waiting.refresh_from_db()
        waiting.batch.refresh_from_db()
        assert (waiting.state, waiting.batch.state) == (RoundState.CANCELLED, BatchState.CLOSED)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("swapping", [False, True])
def test_of_two_leads_at_once_each_has_a_defined_end(smear, monkeypatch, swapping):
    """Both release; or one releases while the other swaps: then the swap comes before the release, or is refused."""
    monkeypatch.setattr(jobs, "send_job", lambda job: None)
    project = factories.make_project()
    factories.make_version(project, current=True)
    factories.make_slide(project, file=smear)
    tiles = list(project.slides.get().tiles.all())
    batch = factories.make_batch(project, tiles[:4], state=BatchState.DRAFT)
    round_ = factories.make_round(project, state=RoundState.REVIEWING, batch=batch, mode=Mode.ASSISTED)
    task = batch.tasks.select_related("batch__project", "tile__slide").first()
    barrier, outcomes = threading.Barrier(2), {}

    def act(name, write):
        barrier.wait()
        try:
            write(round_=Round.objects.select_related("project", "batch").get(pk=round_.pk), user=None)
            outcomes[name] = True
        except NotAllowed:
            outcomes[name] = False
        finally:
            connection.close()

    def swap(*, round_, user):
        swap_task(round_=round_, task=task, user=user)

    writes = {"first": release_round, "second": swap if swapping else release_round}
    threads = [threading.Thread(target=act, args=item) for item in writes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    round_.refresh_from_db()
    assert round_.state == RoundState.PRE_LABELLING
    assert Job.objects.filter(kind=JobKind.PRE_LABEL).count() == 1
    if swapping:
        assert outcomes["first"]
        assert (batch.tasks.get(pk=task.pk).tile != task.tile) == outcomes["second"]
    else:
        assert sorted(outcomes.values()) == [False, True]


def test_settings_of_before_there_were_more_strategies_can_still_be_read(project):
    for strategy in ("rare", "random"):
        old = {"size": 5, "strategy": strategy, "model": "yolo11n", "epochs": 3, "seed": 7}
        settings = settings_of(factories.make_round(project, state=RoundState.DONE, number=len(strategy), settings=old))
        assert (settings.shares, settings.audit, settings.hold) == ({strategy: 100}, 10, False)


def test_an_assisted_round_needs_a_model(project):
    with pytest.raises(NotAllowed, match="needs a model"):
        start(project, Mode.ASSISTED)


def test_the_first_two_rounds_are_manual_and_later_ones_assisted(project):
    factories.make_version(project, current=True)
    for number in (1, 2):
        assert next_mode(project) == Mode.MANUAL
        factories.make_round(project, number=number, state=RoundState.DONE)
    assert next_mode(project) == Mode.ASSISTED


def test_without_a_model_every_round_is_manual(project):
    for number in (1, 2, 3):
        factories.make_round(project, number=number, state=RoundState.DONE)
    assert next_mode(project) == Mode.MANUAL


def test_a_second_round_waits_for_the_first(project):
    start(project)
    with pytest.raises(NotAllowed, match="under way"):
        start(project)
    assert project.rounds.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_starts_at_once_one_begins(smear, monkeypatch):
    monkeypatch.setattr(jobs, "send_job", lambda job: None)
    project = factories.make_project()
    barrier, outcomes = threading.Barrier(4), []

    def begin():
        barrier.wait()
        try:
            start(project)
            outcomes.append("started")
        except NotAllowed:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 3 + ["started"]
    assert (Round.objects.count(), Job.objects.count()) == (1, 1)


def test_a_pool_without_tiles_stops_the_round_with_a_text():
    round_ = start(factories.make_project())
    job = run_step(round_)
    assert (job.state, job.error_code) == (JobState.FAILED, "no-tiles")
    assert "import more slides" in job.message
    assert (round_.state, round_.failed) == (RoundState.SELECTING, True)


def test_a_failed_step_can_be_tried_again(project, monkeypatch):
    round_ = start(project)
    with monkeypatch.context() as broken:
        broken.setattr(rounds, "choose_tiles", lambda **options: 1 / 0)
        assert run_step(round_).message == "ZeroDivisionError: division by zero"
    assert (round_.state, round_.failed) == (RoundState.SELECTING, True)
    retry_round(round_=round_, user=None)
    assert run_step(round_).state == JobState.SUCCEEDED
    assert round_.state == RoundState.ANNOTATING


def test_a_round_given_up_after_a_failed_step_is_over_and_not_failed():
    round_ = start(factories.make_project())
    run_step(round_)
    cancel_round(round_=round_, user=None)
    round_.refresh_from_db()
    assert (round_.state, round_.failed) == (RoundState.CANCELLED, False)


def test_a_step_that_has_not_failed_cannot_be_tried_again(project):
    round_ = start(project)
    with pytest.raises(NotAllowed):
        retry_round(round_=round_, user=None)
    run_step(round_)
    with pytest.raises(NotAllowed):
        retry_round(round_=round_, user=None)


def test_a_step_run_again_after_it_ended_does_nothing(project):
    round_ = start(project)
    job = run_step(round_)
    Job.objects.filter(pk=job.pk).update(state=JobState.QUEUED)
    state, work = WORK[JobKind.SELECT]
    run_job(job_pk=job.pk, function=rounds.step(state, work))
    job.refresh_from_db()
    assert (job.state, job.message) == (JobState.SUCCEEDED, "done by an earlier attempt")
    assert project.batches.count() == 1


def test_a_round_that_moved_on_meanwhile_takes_no_second_batch(project):
    round_ = start(project)
    stale = Round.objects.get(pk=round_.pk)
    run_step(round_)
    batch = round_.batch
    job = factories.make_job(project, kind=JobKind.SELECT, arguments={"round": round_.pk})
    Round.objects.filter(pk=round_.pk).update(state=RoundState.SELECTING)
    project.batches.update(name="renamed")

    def late(running):
        Round.objects.filter(pk=round_.pk).update(state=RoundState.ANNOTATING)
        return rounds.select(running, stale)

    run_job(job_pk=job.pk, function=late)
    round_.refresh_from_db()
    assert (round_.batch, project.batches.count()) == (batch, 1)


def test_a_round_without_work_cannot_be_closed(project):
    round_ = start(project)
    run_step(round_)
    with pytest.raises(NotAllowed, match="No tile"):
        close_round(round_=round_, user=None)


def test_a_round_is_closed_once(project):
    round_ = start(project)
    run_step(round_)
    annotate(round_)
    again = Round.objects.get(pk=round_.pk)
    close_round(round_=round_, user=None)
    with pytest.raises(NotAllowed, match="not being annotated"):
        close_round(round_=again, user=None)
    assert Job.objects.filter(kind=JobKind.SNAPSHOT).count() == 1
    assert round_.batch.tasks.count() == 4
    round_.batch.refresh_from_db()
    assert round_.batch.state == BatchState.CLOSED


def test_a_cancelled_round_keeps_what_was_confirmed(project):
    round_ = start(project)
    run_step(round_)
    annotate(round_)
    cancel_round(round_=round_, user=None)
    round_.refresh_from_db()
    round_.batch.refresh_from_db()
    assert (round_.state, round_.batch.state) == (RoundState.CANCELLED, BatchState.CLOSED)
    assert round_.batch.tasks.filter(tile__truth__isnull=False).count() == 4
    assert start(project).number == 2


@pytest.mark.parametrize("hold", [False, True])
def test_a_round_is_cancelled_as_it_is_and_not_as_it_was_seen(project, hold):
    round_ = start(project, hold=hold)
    seen = Round.objects.select_related("project", "batch", "job").get(pk=round_.pk)
    run_step(round_)
    cancel_round(round_=seen, user=None)
    round_.batch.refresh_from_db()
    assert round_.batch.state == BatchState.CLOSED


def test_the_job_of_a_step_that_has_begun_meanwhile_is_cancelled(project):
    factories.make_version(project, current=True)
    round_ = start(project, Mode.ASSISTED)
    seen = Round.objects.select_related("project", "batch", "job").get(pk=round_.pk)
    run_step(round_)
    cancel_round(round_=seen, user=None)
    assert Job.objects.get(kind=JobKind.PRE_LABEL).state == JobState.CANCELLED


@pytest.mark.django_db(transaction=True)
def test_a_round_is_cancelled_at_the_moment_when_its_batch_opens(smear, monkeypatch):
    """Neither waits for what the other has locked: who comes second waits, and closes what was opened."""
    monkeypatch.setattr(jobs, "send_job", lambda job: None)
    project = factories.make_project()
    factories.make_version(project, current=True)
    factories.make_slide(project, file=smear)
    round_ = start(project, Mode.ASSISTED)
    run_step(round_)

    def cancel():
        try:
            cancel_round(round_=Round.objects.get(pk=round_.pk), user=None)
        finally:
            connection.close()

    thread = threading.Thread(target=cancel)

    def open_batch(**given):
        batches.open_batch(**given)
        thread.start()
        thread.join(0.5)

    monkeypatch.setattr(rounds, "open_batch", open_batch)
    assert run_step(round_).state == JobState.SUCCEEDED
    thread.join()
    round_.refresh_from_db()
    assert (round_.state, round_.batch.state) == (RoundState.CANCELLED, BatchState.CLOSED)


def test_cancelling_stops_the_steps_job(project):
    round_ = start(project)
    cancel_round(round_=round_, user=None)
    assert Job.objects.get(pk=round_.job_id).state == JobState.CANCELLED


def test_a_step_that_runs_when_its_round_is_cancelled_does_not_bring_it_back(project):
    round_ = start(project)
    state, work = WORK[JobKind.SELECT]

    def cancelled_meanwhile(running, row):
        Round.objects.filter(pk=row.pk).update(state=RoundState.CANCELLED)
        return work(running, row)

    run_job(job_pk=round_.job.pk, function=rounds.step(state, cancelled_meanwhile))
    round_.refresh_from_db()
    assert (round_.state, round_.batch, project.batches.count()) == (RoundState.CANCELLED, None, 0)


@pytest.mark.parametrize("state", [RoundState.DONE, RoundState.CANCELLED])
def test_a_round_that_is_over_cannot_be_cancelled(project, state):
    with pytest.raises(NotAllowed, match="is over"):
        cancel_round(round_=factories.make_round(project, state=state), user=None)


def test_a_tile_is_selected_once_over_all_rounds(project):
    seen = []
    for _ in range(2):
        round_ = start(project)
        run_step(round_)
        seen += round_.batch.tasks.values_list("tile", flat=True)
        assert [job.state for job in finish(round_)] == [JobState.SUCCEEDED] * 3
    assert len(seen) == len(set(seen)) == 8


def test_a_locked_patient_in_the_snapshot_stops_the_training(project, monkeypatch):
    monkeypatch.setattr(rounds, "train_snapshot", runs.train_snapshot)
    round_ = start(project)
    run_step(round_)
    annotate(round_)
    close_round(round_=round_, user=None)
    run_step(round_)
    project.patients.update(locked=True)
    job = run_step(round_)
    assert job.state == JobState.FAILED
    assert "Refused to train" in job.message
    assert not project.model_versions.exists()


def test_without_a_locked_set_the_validation_part_measures(project):
    project.patients.filter(code="T9").update(locked=False)
    round_ = start(project, size=18)
    run_step(round_)
    finish(round_)
    assert round_.model_version.evaluations.get().part == "val"


class TestPromotion:
    """A round at its last step, with a model that is worse than the current one."""

    @pytest.fixture
    def worse(self, project, monkeypatch):
        good, bad = ToldDetector((0, 10, 20, 30, 40, 0.9)), ToldDetector((0, 300, 300, 30, 40, 0.9))
        current = factories.make_version(project, current=True)
        monkeypatch.setattr(evaluations, "detector_of", lambda version: good if version == current else bad)
        version = factories.make_version(project)
        round_ = factories.make_round(project, state=RoundState.EVALUATING, model_version=version)
        round_.job = factories.make_job(project, kind=JobKind.EVALUATE, arguments={"round": round_.pk})
        round_.save()
        return round_

    def test_the_current_model_is_measured_on_todays_test_set_and_stays(self, project, worse):
        current = current_version(project)
        factories.make_evaluation(current, 0.2)  # before a box of the test set was corrected
        lead = factories.make_member(project, Role.LEAD)
        assert "which stays" in run_step(worse).message
        assert (worse.state, current_version(project)) == (RoundState.DONE, current)
        assert current.evaluations.latest("pk").truth_hash == worse.model_version.evaluations.get().truth_hash
        assert lead.notices.get().text.endswith("The current model is better and stays.")

    def test_a_validation_part_measures_the_new_model_only(self, project, worse):
        project.patients.update(locked=False)
        factories.make_truth(project.slides.first().tiles.first(), (0, 10, 20, 30, 40))
        worse.snapshot = take_snapshot(project=project, seed=0)
        worse.save()
        current = current_version(project)
        run_step(worse)
        assert not current.evaluations.exists()
        assert current_version(project) == worse.model_version

    def test_the_leads_are_told_of_a_better_one_that_it_is_current(self, project, worse, monkeypatch):
        monkeypatch.setattr(evaluations, "detector_of", lambda version: ToldDetector((0, 10, 20, 30, 40, 0.9)))
        lead = factories.make_member(project, Role.LEAD)
        run_step(worse)
        assert current_version(project) == worse.model_version
        assert lead.notices.get().text.endswith("It is the current model.")

    def test_the_model_of_a_round_that_is_cancelled_at_the_last_moment_does_not_become_current(
        self, project, worse, monkeypatch
    ):
        project.model_versions.update(is_current=False)

        def measure(*given):
            evaluation = evaluations.evaluate_to_compare(*given)
            cancel_round(round_=Round.objects.get(pk=worse.pk), user=None)
            return evaluation

        monkeypatch.setattr(rounds, "evaluate_to_compare", measure)
        run_step(worse)
        assert (worse.state, current_version(project)) == (RoundState.CANCELLED, None)


def test_nothing_to_measure_on_fails_with_a_text(project):
    version = factories.make_version(project)
    project.patients.update(locked=False)
    with pytest.raises(JobError, match="no confirmed tile to test on"):
        evaluations.evaluate_version(None, version, None)


@pytest.fixture
def meanwhile(project, monkeypatch):
    """Let this happen to the chosen tiles once the choice is made, before the batch is."""

    def let(happen):
        def choose(**options):
            chosen = choosing.choose_tiles(**options)
            happen([Tile.objects.get(pk=choice.tile_id) for choice in chosen.choices])
            return chosen

        monkeypatch.setattr(rounds, "choose_tiles", choose)

    return let


def test_a_tile_that_is_taken_while_the_batch_is_chosen_is_replaced_from_the_reserve(project, meanwhile):
    gone = []

    def happen(tiles):
        older = factories.make_batch(project, tiles[:1], state=BatchState.CLOSED)
        assert reopen_batch(batch=older, user=None) == 1
        factories.make_truth(tiles[1], (0, 10, 20, 30, 40))
        gone.extend(tiles[:2])

    meanwhile(happen)
    round_ = start(project, hold=True)
    assert run_step(round_).message == "4 tiles"
    tiles = {task.tile for task in round_.batch.tasks.all()}
    assert (len(tiles), tiles.intersection(gone)) == (4, set())
    candidates = round_.batch.candidates
    assert {one.tile for one in candidates.filter(state="chosen")} == tiles
    assert candidates.filter(state="reserve").count() == 2


def test_where_all_tiles_are_taken_while_the_batch_is_chosen_it_says_so(project, meanwhile):
    def happen(tiles):
        factories.make_batch(project, Tile.objects.filter(slide__project=project, slide__patient__locked=False))

    meanwhile(happen)
    round_ = start(project)
    assert run_step(round_).error_code == "no-tiles"
    assert round_.batch is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["batch", "reopened"])
def test_a_tile_is_never_in_two_open_batches(smear, monkeypatch, first):
    """An older batch is reopened at the moment when a new one is made of its tiles: the second one waits, and looks."""
    monkeypatch.setattr(jobs, "send_job", lambda job: None)
    project = factories.make_project()
    tiles = list(factories.make_slide(project, file=smear).tiles.all())
    older = factories.make_batch(project, tiles, state=BatchState.CLOSED)
    round_ = start(project, size=9)
    made, waits = threading.Event(), threading.Event()

    def reopen():
        try:
            assert made.wait(10)
            waits.set()
            reopen_batch(batch=older, user=None)
        finally:
            connection.close()

    def hold_back(**given):
        """Between the making of the batch and its commit, or before it looks for its tiles."""
        made.set()
        assert waits.wait(10)
        if first == "reopened":
            thread.join()
        else:
            thread.join(0.5)

    def create(**given):
        batch = batches.create_batch(**given)
        hold_back()
        return batch

    def choose(**options):
        chosen = choosing.choose_tiles(**options)
        hold_back()
        return chosen

    name, stand_in = ("create_batch", create) if first == "batch" else ("choose_tiles", choose)
    monkeypatch.setattr(rounds, name, stand_in)
    thread = threading.Thread(target=reopen)
    thread.start()
    run_step(round_)
    thread.join()
    held = Task.objects.filter(state__in=["open", "leased"], batch__state=BatchState.OPEN)
    assert sorted(held.values_list("tile", flat=True)) == sorted(tile.pk for tile in tiles)


def test_a_slide_that_is_gone_is_left_out_of_the_batch_and_named(project):
    gone = factories.lose_files(factories.make_slide(project, name="gone.svs"))
    round_ = start(project)
    job = run_step(round_)
    assert job.message.endswith("Left out, gone from storage: gone.svs.")
    round_.refresh_from_db()
    assert not round_.batch.tasks.filter(tile__slide=gone).exists()


class TestGoneSinceTheChoice:
    """A slide's file is deleted from the disk once its tiles are in a batch."""

    @pytest.fixture
    def chosen(self, project):
        factories.make_version(project, current=True)
        round_ = start(project, Mode.ASSISTED, size=12, policy="independent", readers=2)
        run_step(round_)
        return round_

    @pytest.fixture
    def slides(self, chosen):
        return Slide.objects.filter(tiles__tasks__batch=chosen.batch).distinct().order_by("pk")

    def test_its_tiles_are_put_aside_with_a_reason(self, chosen, slides):
        gone, there = slides
        lost = chosen.batch.tasks.filter(tile__slide=factories.lose_files(gone))
        job = run_step(chosen)
        new = chosen.batch.tasks.filter(tile__slide=there, replica=0).count()
        assert job.message == f"{new} tiles by model 1. Put aside, gone from storage: {gone.name}."
        assert {(task.state, task.skip_reason) for task in lost} == {
            ("skipped", f"{gone.name} is gone from storage, or has changed")
        }
        assert (chosen.state, chosen.batch.state) == (RoundState.ANNOTATING, BatchState.OPEN)
        rest = chosen.batch.tasks.filter(tile__slide=there)
        assert (rest.filter(state="open").exclude(pre_label=None).count(), rest.count()) == (2 * new, 2 * new)

    def test_where_no_slide_is_there_storage_may_be_away_and_nothing_is_put_aside(self, chosen, slides):
        for slide in slides:
            factories.lose_files(slide)
        job = run_step(chosen)
        assert (job.state, chosen.state) == (JobState.FAILED, RoundState.PRE_LABELLING)
        assert all(slide.name in job.message for slide in slides)
        assert "put the files back" in job.message
        assert not chosen.batch.tasks.exclude(state="open").exists()

    def test_a_training_names_it_and_goes_on_once_it_is_back(self, project, smear, monkeypatch):
        trained = []

        def train_snapshot(running, snapshot, settings, **options):
            trained.append(snapshot)
            raise JobCancelled

        monkeypatch.setattr(rounds, "train_snapshot", train_snapshot)
        slide = factories.make_slide(project, name="gone.svs", file=smear)
        for tile in slide.tiles.all()[:2]:
            factories.make_truth(tile, (0, 10, 20, 30, 40))
        taken = take_snapshot(project=project, seed=0)
        round_ = factories.make_round(project, state=RoundState.TRAINING, snapshot=taken)
        round_.job = factories.make_job(project, kind=JobKind.TRAIN, arguments={"round": round_.pk})
        round_.save()
        factories.lose_files(slide)
        job = run_step(round_)
        assert (job.state, job.error_code, trained) == (JobState.FAILED, "missing", [])
        assert "gone.svs. Put their files back where they were" in job.message
        default_storage.save(slide.files[0], smear.open("rb"))
        retry_round(round_=round_, user=None)
        run_step(round_)
        assert trained == [taken]


class TestWorkFolder:
    """What a training leaves to be resumed."""

    @pytest.fixture
    def training(self, project):
        for tile in project.slides.first().tiles.all()[:2]:
            factories.make_truth(tile, (0, 10, 20, 30, 40))
        taken = take_snapshot(project=project, seed=0)
        round_ = factories.make_round(project, state=RoundState.TRAINING, snapshot=taken)
        round_.job = factories.make_job(project, kind=JobKind.TRAIN, arguments={"round": round_.pk})
        round_.save()
        return round_

    @pytest.fixture
    def folder(self, training, settings):
        folder = settings.DATA_DIR / "work" / f"train-round-{training.pk}"
        folder.mkdir(parents=True)
        return folder

    @pytest.fixture
    def stopped(self, monkeypatch):
        """The training is asked to stop, after this has happened."""

        def stop(happen):
            def train_snapshot(running, snapshot, settings, *, key, on_version):
                happen()
                raise JobCancelled

            monkeypatch.setattr(rounds, "train_snapshot", train_snapshot)

        return stop

    def test_it_goes_when_the_round_is_cancelled(self, training, folder, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks(execute=True):
            cancel_round(round_=training, user=None)
        assert not folder.exists()

    def test_while_the_job_runs_it_stays_until_that_ends(
        self, training, folder, stopped, django_capture_on_commit_callbacks
    ):
        seen = []

        def cancel():
            with django_capture_on_commit_callbacks(execute=True):
                cancel_round(round_=training, user=None)
            seen.append(folder.exists())

        stopped(cancel)
        assert run_step(training).state == JobState.CANCELLED
        assert (seen, folder.exists()) == ([True], False)

    def test_it_stays_where_the_job_alone_is_cancelled(self, training, folder, stopped):
        stopped(lambda: None)
        assert run_step(training).state == JobState.CANCELLED
        assert folder.exists()

    def test_what_a_stopped_worker_has_left_goes_with_the_next_training(self, project, training, folder):
        Round.objects.filter(pk=training.pk).update(state=RoundState.CANCELLED)
        later = factories.make_round(project, number=2, state=RoundState.TRAINING, snapshot=training.snapshot)
        later.job = factories.make_job(project, kind=JobKind.TRAIN, arguments={"round": later.pk})
        later.save()
        assert run_step(later).state == JobState.SUCCEEDED
        assert not folder.exists()


def test_where_every_slide_is_gone_the_failure_names_them(project):
    for slide in project.slides.all():
        factories.lose_files(slide)
    job = run_step(start(project))
    assert job.state == JobState.FAILED
    assert all(slide.name in job.message for slide in project.slides.filter(patient__locked=False))
