"""The pages of simulated rounds."""

import csv
import io
import json

import pytest
from django.urls import reverse
from django.utils.html import escape

from annotation.models import Job, JobKind, JobState, Role
from tests import factories
from training.simulation.settings import Settings

pytestmark = pytest.mark.django_db
FORM = {"arms": ["c", "b"], "seeds": 2, "rounds": 2, "batch": 3, "image_size": 320, "kind": "two-stage"}


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


@pytest.fixture
def truth(project):
    for code, locked in (("P1", False), ("P2", True)):
        slide = factories.make_slide(project, patient=factories.make_patient(project, code, locked=locked))
        for tile in slide.tiles.all():
            factories.make_truth(tile, (1, 10, 20, 30, 40))


def begin(client, project, **data):
    return client.post(reverse("simulation_new", args=[project.pk]), FORM | data)


def listed(client, project):
    return client.get(reverse("project_simulations", args=[project.pk])).content.decode()


def page(client, job):
    return client.get(reverse("simulation", args=[job.pk]))


class TestTheList:
    def test_it_says_what_the_project_lacks(self, client, project):
        content = listed(client, project)
        assert "Not enough truth yet" in content
        assert "No tile of a locked patient is confirmed" in content
        assert reverse("simulation_new", args=[project.pk]) not in content

    def test_it_is_empty_at_first_and_says_what_to_do(self, client, project, truth):
        content = listed(client, project)
        assert "Nothing simulated yet" in content
        assert reverse("simulation_new", args=[project.pk]) in content

    def test_a_reader_is_not_asked_to_start_one(self, client, project, truth):
        client.force_login(factories.make_member(project))
        assert reverse("simulation_new", args=[project.pk]) not in listed(client, project)

    @pytest.mark.parametrize("name", ["project_rounds", "project_curve"])
    def test_pages_of_the_loop_lead_there(self, client, project, name):
        content = client.get(reverse(name, args=[project.pk])).content.decode()
        assert reverse("project_simulations", args=[project.pk]) in content

    def test_earlier_ones_are_listed_with_what_they_found(self, client, project, truth):
        done = factories.make_simulation(project)
        running = factories.make_simulation(project, state=JobState.RUNNING)
        factories.make_simulation(factories.make_project())
        content = listed(client, project)
        rows = content.split("<tbody>")[1].split("</tbody>")[0]
        assert [f"/simulations/{job.pk}/" in rows for job in (done, running)] == [True, True]
        assert rows.count("<tr>") == 2
        assert f"c {done.result['shares']['c']['mean']:.2f}" in rows


class TestTheForm:
    def test_start_works(self, client, project, truth):
        response = begin(client, project)
        job = Job.objects.get(kind=JobKind.SIMULATE)
        assert response["Location"] == reverse("simulation", args=[job.pk])
        settings = Settings.of_json(job.arguments["settings"])
        assert (settings.arms, settings.seeds, settings.rounds, settings.batch) == (("a", "b", "c"), 2, 2, 3)
        assert settings.finder_passes == Settings().finder_passes

    def test_it_proposes_batches_for_which_there_are_tiles(self, client, project, truth):
        form = client.get(reverse("simulation_new", args=[project.pk])).context["form"]
        assert form["rounds"].value() == Settings().rounds
        assert form["batch"].value() == max(2, min(Settings().batch, 9 // Settings().rounds))

    def test_too_few_tiles_are_told_at_the_field(self, client, project, truth):
        response = begin(client, project, batch=5)
        assert response.status_code == 422
        assert "there are 9: choose at most 4 in each" in response.context["form"].errors["batch"][0]
        assert not Job.objects.exists()

    def test_without_truth_there_is_no_form(self, client, project):
        content = client.get(reverse("simulation_new", args=[project.pk])).content.decode()
        assert "Not enough truth yet" in content
        assert "<form class" not in content
        assert begin(client, project).status_code == 422
        assert not Job.objects.exists()

    @pytest.mark.parametrize(
        "data", [{"arms": []}, {"arms": ["z"]}, {"seeds": 0}, {"rounds": 1}, {"batch": 1}, {"image_size": 100}]
    )
    def test_settings_that_cannot_be_are_refused(self, client, project, truth, data):
        response = begin(client, project, **data)
        assert response.status_code == 422
        assert list(response.context["form"].errors) == list(data)
        assert not Job.objects.exists()

    @pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
    def test_starting_needs_a_lead(self, client, project, truth, role):
        client.force_login(factories.make_member(project, role))
        assert begin(client, project).status_code == 403


class TestThePage:
    def test_one_that_is_done_shows_headline_figure_and_tables(self, client, project):
        job = factories.make_simulation(project)
        content = page(client, job).content.decode()
        assert "Arm c (assisted, rare cells first) took" in content
        assert "95% interval" in content
        assert f'src="{reverse("simulation_file", args=[job.pk, "figure.svg"])}"' in content
        for title, _ in job.result["tables"]:
            assert escape(title) in content
        assert "The same when one operator takes half or twice its time" in content
        assert "Rare classes: erythroblast" in content
        assert "R, to look at a cell and name it" in content
        assert "hx-get" not in content

    def test_one_seed_has_no_interval(self, client, project):
        content = page(client, factories.make_simulation(project, seeds=1)).content.decode()
        assert "With one seed there is no interval." in content

    def test_a_running_one_shows_its_job_and_asks_again(self, client, project):
        job = factories.make_simulation(project, state=JobState.RUNNING, message="seed 1, round 2", seconds_left=7200)
        response = page(client, job)
        content = response.content.decode()
        assert "seed 1, round 2" in content
        assert "figure.svg" not in content
        address = f"{reverse('simulation', args=[job.pk])}?live={response.context['stamp']}"
        assert "HX-Refresh" not in client.get(address, headers={"HX-Request": "true"}).headers
        Job.objects.filter(pk=job.pk).update(state=JobState.CANCELLED)
        assert client.get(address, headers={"HX-Request": "true"})["HX-Refresh"] == "true"

    def test_a_cancel_keeps_what_is_done(self, client, project):
        job = factories.make_simulation(project, state=JobState.RUNNING)
        assert "What it has done so far is kept: it can go on." in page(client, job).content.decode()

    @pytest.mark.parametrize(("state", "queued"), [("failed", True), ("cancelled", True), ("succeeded", False)])
    def test_one_that_stopped_can_go_on(self, client, project, state, queued):
        job = factories.make_simulation(project, state=state)
        assert ("Go on" in page(client, job).content.decode()) == queued
        client.post(reverse("simulation_retry", args=[job.pk]))
        job.refresh_from_db()
        assert (job.state == JobState.QUEUED) == queued

    def test_delete_works(self, client, project):
        job = factories.make_simulation(project)
        response = client.post(reverse("simulation_delete", args=[job.pk]), follow=True)
        assert "is deleted" in response.content.decode()
        assert not Job.objects.exists()

    def test_one_under_way_is_not_deleted(self, client, project):
        job = factories.make_simulation(project, state=JobState.RUNNING)
        response = client.post(reverse("simulation_delete", args=[job.pk]), follow=True)
        assert "cancel it first" in response.content.decode()
        assert Job.objects.exists()

    @pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
    def test_readers_look_and_change_nothing(self, client, project, role):
        job = factories.make_simulation(project, state=JobState.CANCELLED)
        client.force_login(factories.make_member(project, role))
        content = page(client, job).content.decode()
        assert "Go on" not in content
        assert "Delete" not in content
        for name in ("simulation_retry", "simulation_delete"):
            assert client.post(reverse(name, args=[job.pk])).status_code == 403

    def test_the_jobs_page_leads_to_it(self, client, project):
        job = factories.make_simulation(project)
        content = client.get(reverse("project_jobs", args=[project.pk])).content.decode()
        assert reverse("simulation", args=[job.pk]) in content

    def test_of_another_project_nothing_is_shown(self, client, project):
        job = factories.make_simulation(factories.make_project())
        assert page(client, job).status_code == 404
        assert client.get(reverse("simulation_file", args=[job.pk, "figure.svg"])).status_code == 404

    def test_a_job_of_another_kind_is_none(self, client, project):
        assert page(client, factories.make_export(project)).status_code == 404


class TestTheFiles:
    def download(self, client, job, name):
        response = client.get(reverse("simulation_file", args=[job.pk, name]))
        return response, b"".join(response) if response.status_code == 200 else b""

    def test_every_file_of_the_report_can_be_downloaded(self, client, project):
        job = factories.make_simulation(project)
        kinds = {"figure.svg": "image/svg+xml", "figure.pdf": "application/pdf", "result.json": "application/json"}
        for name in job.result["files"]:
            response, content = self.download(client, job, name)
            assert content
            assert f'-simulation-{job.pk}-{name}"' in response["Content-Disposition"]
            assert response["Content-Type"] == kinds.get(name, response["Content-Type"])

    def test_they_are_what_the_report_wrote(self, client, project):
        job = factories.make_simulation(project)
        assert json.loads(self.download(client, job, "result.json")[1]) == job.result["result"]
        rows = list(csv.DictReader(io.StringIO(self.download(client, job, "points.csv")[1].decode())))
        assert {row["arm"] for row in rows} == {"a", "c"}

    def test_from_remote_storage_too(self, client, remote, project):
        job = factories.make_simulation(project)
        assert set(job.result["files"].values()) <= set(remote.objects)
        assert self.download(client, job, "figure.svg")[1].startswith(b"<?xml")

    def test_other_names_are_not_found(self, client, project):
        job = factories.make_simulation(project)
        assert self.download(client, job, "known.json")[0].status_code == 404
        running = factories.make_simulation(project, state=JobState.RUNNING)
        assert self.download(client, running, "figure.svg")[0].status_code == 404
