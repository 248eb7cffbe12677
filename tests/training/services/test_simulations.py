"""Simulations asked for in the app; one small one is really run."""

import json
from pathlib import Path

import pytest
from django.core.files.storage import default_storage

from annotation.models import Event, Job, JobKind, JobState, Slide
from annotation.services.jobs import JobError, RunningJob, cancel_job, retry_job, run_job
from annotation.services.projects import NotAllowed
from annotation.services.truth import countable_tiles, enter_truth, read_truth
from tests import factories
from training.services.simulation_job import run_simulation
from training.services.simulations import (
    KnownTiles,
    delete_simulation,
    known_tiles,
    simulations_of,
    start_simulation,
    work_name,
)
from training.simulation.settings import Settings

pytestmark = pytest.mark.django_db
TINY = Settings(
    arms=("a", "c"),
    seeds=1,
    rounds=2,
    batch=3,
    kind="one-stage",
    image_size=64,
    finder_passes=8,
    classifier_passes=8,
)


@pytest.fixture
def project(smear):
    """Two patients with the same drawn smear and all its cells, one of them locked."""
    project = factories.make_hct_project()
    truth = read_truth(smear.with_suffix(".json"))
    for code, locked in (("T01", False), ("T09", True)):
        slide = factories.make_slide(project, patient=factories.make_patient(project, code, locked=locked), file=smear)
        enter_truth(truth=truth, tiles=countable_tiles(truth, slide), source="known", user=None)
    return project


def work_folder(settings, job) -> Path:
    return Path(settings.DATA_DIR) / "work" / work_name(job)


class TestWhatAProjectHas:
    def test_tiles_and_boxes_are_counted_by_side(self):
        project = factories.make_project()
        for code, locked in (("P1", False), ("P2", True)):
            slide = factories.make_slide(project, patient=factories.make_patient(project, code, locked=locked))
            first, second = slide.tiles.all()[:2]
            factories.make_truth(first, (1, 10, 20, 30, 40), (0, 90, 20, 30, 40))
            if not locked:
                factories.make_truth(second)
        assert known_tiles(project) == KnownTiles(test_tiles=1, test_boxes=2, tiles=2, boxes=2)
        assert known_tiles(factories.make_project()) == KnownTiles(0, 0, 0, 0)

    @pytest.mark.parametrize(
        ("known", "words"),
        [
            (KnownTiles(0, 0, 9, 9), ["No tile of a locked patient is confirmed"]),
            (KnownTiles(1, 0, 9, 9), ["locked test set hold no cell"]),
            (KnownTiles(1, 1, 0, 0), ["At least 4 tiles", "none is"]),
            (KnownTiles(1, 1, 1, 9), ["only one is"]),
            (KnownTiles(1, 1, 3, 9), ["only 3 are"]),
            (KnownTiles(1, 1, 4, 0), ["no cell to learn from"]),
            (KnownTiles(0, 0, 0, 0), ["No tile of a locked patient", "none is"]),
            (KnownTiles(1, 1, 4, 1), []),
        ],
    )
    def test_what_is_missing_is_said_in_words(self, known, words):
        said = " ".join(known.missing)
        assert bool(said) == bool(words)
        for one in words:
            assert one in said


class TestStart:
    def test_it_is_a_job_with_its_settings(self, project):
        lead = factories.make_user()
        job = start_simulation(project=project, settings=TINY, user=lead)
        assert (job.kind, job.state) == (JobKind.SIMULATE, JobState.QUEUED)
        assert str(job) == "Simulate rounds 2 arms, 1 seed, 2 rounds of 3"
        assert Settings.of_json(job.arguments["settings"]) == TINY
        assert list(simulations_of(project)) == [job]
        assert Event.objects.get(verb="started").user_name == lead.username

    @pytest.mark.parametrize(("rounds", "advice"), [(3, "at most 2 in each"), (20, "choose fewer rounds")])
    def test_more_tiles_than_there_are_is_refused(self, project, rounds, advice):
        with pytest.raises(NotAllowed, match=rf"there are 8: .*{advice}"):
            start_simulation(project=project, settings=Settings(rounds=rounds, batch=4), user=None)
        assert not Job.objects.exists()

    def test_without_enough_truth_it_is_refused(self):
        with pytest.raises(NotAllowed, match="No tile of a locked patient"):
            start_simulation(project=factories.make_project(), settings=TINY, user=None)


class TestTheJob:
    def test_cancelled_and_tried_again_it_goes_on_and_keeps_only_the_report(self, project, settings, monkeypatch):
        job = start_simulation(project=project, settings=TINY, user=None)
        told = []
        report = RunningJob.report

        def note(self, progress, message="", **options):
            told.append((round(progress, 2), message))
            if message.startswith("seed 1, round 2") and len(told) == 3:
                cancel_job(job=self.job, user=None)
            report(self, progress, message, **options)

        monkeypatch.setattr(RunningJob, "report", note)
        run_job(job_pk=job.pk, function=run_simulation)
        job.refresh_from_db()
        assert (job.state, job.result) == (JobState.CANCELLED, {})
        assert [one for _, one in told] == [
            "preparing the slides",
            "seed 1, round 1: manual, random",
            "seed 1, round 2: assisted, rare",
        ]
        folder = work_folder(settings, job)
        first = folder / "seed-0" / "manual-random" / "round.json"
        before = first.stat().st_mtime_ns

        told.clear()
        assert retry_job(job=job, user=None)
        shared = folder.parent / "seen"  # the rounds' files are gone when the job is done
        shared.hardlink_to(first)
        run_job(job_pk=job.pk, function=run_simulation)
        job.refresh_from_db()
        assert (job.state, job.message[:14]) == (JobState.SUCCEEDED, "mAP@0.5 up to ")
        assert told[0] == (0.33, "seed 1, round 2: assisted, rare")
        assert (shared.stat().st_mtime_ns, shared.stat().st_nlink) == (before, 1)
        assert not folder.exists()

        files = job.result["files"]
        assert set(files) == {f"figure.{one}" for one in ("svg", "pdf", "png")} | {
            *("points.csv", "points.json", "result.json", "tables.md", "manifest.json")
        }
        with default_storage.open(files["result.json"]) as file:
            assert json.load(file) == job.result["result"]
        assert job.result["result"]["rounds"] == {"a": 2, "c": 2}
        assert set(job.result["shares"]) == {"c"}
        assert "Round by round, means over the seeds" in [title for title, _ in job.result["tables"]]

    def test_killed_when_all_was_stored_it_does_not_run_again(self, project, settings):
        job = factories.make_simulation(project, state=JobState.QUEUED, result={"message": "kept"})
        left = work_folder(settings, job)
        left.mkdir(parents=True)
        run_job(job_pk=job.pk, function=run_simulation)
        job.refresh_from_db()
        assert (job.state, job.message, left.exists()) == (JobState.SUCCEEDED, "kept", False)

    def test_a_slide_that_is_gone_is_named(self, project):
        factories.lose_files(Slide.objects.get(project=project, patient__code="T01"))
        job = start_simulation(project=project, settings=TINY, user=None)
        run_job(job_pk=job.pk, function=run_simulation)
        job.refresh_from_db()
        assert job.state == JobState.FAILED
        assert "T01.tif: the slide's file is missing" in job.message

    def test_one_that_cannot_begin_says_why(self, project):
        job = start_simulation(project=project, settings=TINY, user=None)
        project.patients.update(locked=False)
        run_job(job_pk=job.pk, function=run_simulation)
        job.refresh_from_db()
        assert job.state == JobState.FAILED
        assert "locked test set" in job.message


class TestDelete:
    def test_report_and_rounds_go_with_the_row(self, project, settings):
        job = factories.make_simulation(project)
        names = list(job.result["files"].values())
        work_folder(settings, job).mkdir(parents=True)
        assert all(default_storage.exists(name) for name in names)
        delete_simulation(job=job, user=factories.make_user())
        assert not Job.objects.exists()
        assert not any(default_storage.exists(name) for name in names)
        assert not work_folder(settings, job).exists()
        assert Event.objects.filter(verb="deleted").count() == 1
        delete_simulation(job=job, user=None)  # pressed twice

    def test_one_that_was_cancelled_leaves_nothing(self, project, settings):
        job = factories.make_simulation(project, state=JobState.CANCELLED)
        (work_folder(settings, job) / "seed-0").mkdir(parents=True)
        delete_simulation(job=job, user=None)
        assert not work_folder(settings, job).exists()

    def test_one_under_way_is_kept(self, project):
        job = factories.make_simulation(project, state=JobState.RUNNING)
        with pytest.raises(JobError, match="cancel it first"):
            delete_simulation(job=job, user=None)
        assert Job.objects.filter(pk=job.pk).exists()
