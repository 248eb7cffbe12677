"""Every page for every role, without data and with."""

import re

import pytest
from django.urls import reverse

from annotation.models import JobState, Role
from annotation.services.annotations import skip
from tests import factories
from training.models import Mode, RoundState

pytestmark = pytest.mark.django_db

PROJECT_PAGES = (
    "project",
    "project_slides",
    "project_rounds",
    "project_models",
    "project_taxonomy",
    "project_jobs",
    "project_exports",
    "project_members",
)
INLINE = re.compile(r"""\sstyle=|\son[a-z]+=["']|<style|<script(?![^>]*(?:\bsrc=|application/json))|javascript:""")


def member(client, project, role):
    user = factories.make_member(project, role, f"the_{role}")
    client.force_login(user)
    return user


def html(client, name, *arguments, **query):
    response = client.get(reverse(name, args=arguments), query)
    assert response.status_code == 200, response.content
    page = response.content.decode()
    assert not INLINE.search(page)
    assert "{{" not in page
    assert "{%" not in page
    return page


def full_project(smear):
    """Rounds, models, jobs, slides and readers in every state that a page shows."""
    project = factories.make_project()
    slide = factories.make_slide(
        project, patient=factories.make_patient(project, "P-17"), file=smear, name="marrow.tif"
    )
    factories.make_slide(project, patient=factories.make_patient(project, "T-9", locked=True), file=smear)
    batch = factories.make_batch(project, slide.tiles.all()[:6], name="Round 3", expected={"0": 3.5, "1": 0.2})
    reader = factories.make_member(project, Role.ANNOTATOR, "reader_one")
    first, second, third, *_ = batch.tasks.all()
    factories.submit_task(first, reader, (0, 10, 20, 30, 40), (1, 50, 20, 30, 40), seconds=1800)
    factories.submit_task(second, reader, seconds=1800)
    skip(task=third, user=reader, reason="out of focus")
    older, version = factories.make_version(project), factories.make_version(project, current=True)
    factories.make_evaluation(older, 0.4)
    factories.make_evaluation(version, 0.625)
    factories.make_round(project, number=1, state=RoundState.DONE, model_version=older)
    factories.make_round(project, number=2, state=RoundState.DONE, model_version=version)
    factories.make_round(project, number=3, mode=Mode.ASSISTED, batch=batch)
    for state in JobState:
        factories.make_job(project, state=state, message=f"it {state}", result={"bytes": 1234})
    factories.make_job(
        project, kind="import_slide", state=JobState.FAILED, error_code="mpp-missing", subject="unstated.svs"
    )
    factories.make_job(project, kind="import_slide", state=JobState.RUNNING, subject="coming.svs", seconds_left=40)
    return project


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", PROJECT_PAGES)
def test_a_project_without_data_has_its_pages(client, name, role):
    project = factories.make_project()
    member(client, project, role)
    if name == "project_exports" and role == Role.ANNOTATOR:
        assert client.get(reverse(name, args=[project.pk])).status_code == 403
        return
    page = html(client, name, project.pk)
    assert project.name in page


FACTS = {
    "project": ["0.625", "1.0", "Rounds", "neutrophil", "coming.svs"],
    "project_slides": ["marrow.tif", "P-17", "locked test", "coming.svs", "unstated.svs"],
    "project_rounds": ["Round 3", "assisted", "0.625", "+0.225", "3 of 6"],
    "project_models": ["Model 2", "0.625", "current"],
    "project_taxonomy": ["Three classes v1", "erythroblast", "denominator", "#cc3311"],
    "project_jobs": ["it failed", "it running", "coming.svs"],
    "project_exports": ["COCO", "1.2"],
    "project_members": ["reader_one"],
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", PROJECT_PAGES)
def test_a_project_with_data_shows_it(client, smear, name, role):
    project = full_project(smear)
    member(client, project, role)
    if name == "project_exports" and role == Role.ANNOTATOR:
        assert client.get(reverse(name, args=[project.pk])).status_code == 403
        return
    page = html(client, name, project.pk)
    assert [fact for fact in FACTS[name] if fact not in page] == []


@pytest.mark.parametrize("role", Role)
def test_each_things_own_page_shows_it(client, smear, role):
    project = full_project(smear)
    member(client, project, role)
    slide = project.slides.get(name="marrow.tif")
    batch = project.batches.get()
    job = project.jobs.filter(kind="import_slide").first()
    assert "µm per px" in html(client, "slide", slide.pk)
    tile_page = html(client, "tile", slide.tiles.first().pk)
    assert "reader_one" in tile_page
    assert "erythroblast" in tile_page
    batch_page = html(client, "batch", batch.pk)
    assert "3 of 6 tiles read, 1 of them skipped" in " ".join(batch_page.split())
    assert "reader_one" in batch_page
    round_page = html(client, "round", project.rounds.get(number=3).pk)
    assert "3 of 6 tiles" in round_page
    model_page = html(client, "model", project.model_versions.get(number=2).pk)
    assert "7 locked test tiles with 31 boxes of 2 patients" in model_page
    assert "coming.svs" in html(client, "job", job.pk)
    assert "Confirm tile" in html(client, "batch_annotate", batch.pk)


@pytest.mark.parametrize(("role", "seen"), [(Role.ANNOTATOR, False), (Role.REVIEWER, False), (Role.LEAD, True)])
def test_only_a_lead_sees_what_only_a_lead_may_do(client, smear, role, seen):
    project = full_project(smear)
    member(client, project, role)
    round_ = project.rounds.get(number=3)
    assert ('enctype="multipart/form-data"' in html(client, "project_slides", project.pk)) is seen
    assert (reverse("round_close", args=[round_.pk]) in html(client, "round", round_.pk)) is seen
    assert (reverse("round_cancel", args=[round_.pk]) in html(client, "round", round_.pk)) is seen
    assert ("/cancel/" in html(client, "project_jobs", project.pk)) is seen
    assert ("/remove/" in html(client, "project_members", project.pk)) is seen
    assert ("/current/" in html(client, "project_models", project.pk)) is seen


@pytest.mark.parametrize("state", [RoundState.DONE, RoundState.CANCELLED])
def test_a_round_that_is_over_offers_nothing(client, state):
    project = factories.make_project()
    member(client, project, Role.LEAD)
    round_ = factories.make_round(project, state=state)
    page = html(client, "round", round_.pk)
    assert "/close/" not in page
    assert "/cancel/" not in page


def test_home_lists_the_users_projects_and_what_to_go_on_with(client, smear):
    project = full_project(smear)
    other = factories.make_project()
    user = member(client, project, Role.ANNOTATOR)
    page = html(client, "home")
    assert "Go on where you stopped: Round 3, 3 of 6" in page
    assert reverse("batch_annotate", args=[project.batches.get().pk]) in page
    assert "0.625" in page
    assert other.name not in page
    assert user.username in page


def test_home_of_somebody_without_a_project_says_what_to_do(client):
    client.force_login(factories.make_user())
    assert "Ask a lab lead to add you" in html(client, "home")


def test_a_name_with_markup_is_shown_as_text(client):
    project = factories.make_project()
    project.name = '<b onclick="x()">bold</b>'
    project.save()
    member(client, project, Role.LEAD)
    factories.make_job(project, subject="<script>go()</script>", message='" autofocus onfocus="go()')
    page = client.get(reverse("project_jobs", args=[project.pk])).content.decode()
    assert "<script>go()" not in page
    assert "<b onclick" not in page
    assert '" autofocus' not in page


def test_pictures_of_a_slide_and_a_tile_open(client, smear):
    project = full_project(smear)
    member(client, project, Role.ANNOTATOR)
    slide = project.slides.get(name="marrow.tif")
    urls = [reverse(name, args=[slide.pk]) for name in ("slide_thumbnail", "slide_overview")]
    for url in [*urls, reverse("tile_image", args=[slide.tiles.first().pk])]:
        response = client.get(url)
        assert (response.status_code, response["Content-Type"]) == (200, "image/jpeg")
        assert "private" in response["Cache-Control"]
        assert response.content[:3] == b"\xff\xd8\xff"


def test_a_browser_that_has_the_tile_is_sent_nothing(client, smear):
    project = full_project(smear)
    member(client, project, Role.ANNOTATOR)
    url = reverse("tile_image", args=[project.slides.first().tiles.first().pk])
    assert client.get(url, headers={"If-None-Match": client.get(url)["ETag"]}).status_code == 304


def test_a_picture_whose_slide_is_gone_says_so(client):
    project = factories.make_project()
    slide = factories.lose_files(factories.make_slide(project))
    member(client, project, Role.ANNOTATOR)
    for url in (reverse("slide_thumbnail", args=[slide.pk]), reverse("tile_image", args=[slide.tiles.first().pk])):
        response = client.get(url)
        assert response.status_code == 404
        assert "missing from storage" in response.content.decode()


# What follows asks again by itself, and stops by itself.


@pytest.mark.parametrize("state", JobState)
def test_a_job_asks_again_only_while_it_is_active(client, state):
    project = factories.make_project()
    member(client, project, Role.ANNOTATOR)
    job = factories.make_job(project, state=state, result={"bytes": 1})
    fragment = client.get(reverse("job", args=[job.pk]), headers={"HX-Request": "true"}).content.decode()
    assert ("hx-trigger" in fragment) is job.is_active
    assert "<html" not in fragment


def live(client, name, pk, stamp):
    return client.get(reverse(name, args=[pk]), {"live": stamp}, headers={"HX-Request": "true"})


@pytest.mark.parametrize("name", ["project", "round"])
def test_a_live_page_is_loaded_anew_when_a_step_has_ended(client, name):
    project = factories.make_project()
    member(client, project, Role.LEAD)
    job = factories.make_job(project, state=JobState.RUNNING, progress=0.25, message="epoch 3 of 12")
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job)
    pk = project.pk if name == "project" else round_.pk
    page = html(client, name, pk)
    (stamp,) = set(re.findall(r'hx-get="\?live=(\w+)"', page))
    fragment = live(client, name, pk, stamp)
    assert "HX-Refresh" not in fragment
    assert "epoch 3 of 12" in fragment.content.decode()
    assert "<html" not in fragment.content.decode()
    job.progress = 0.5
    job.save()
    assert "HX-Refresh" not in live(client, name, pk, stamp)
    job.state = JobState.SUCCEEDED
    job.save()
    assert live(client, name, pk, stamp)["HX-Refresh"] == "true"


@pytest.mark.parametrize("name", ["project", "round"])
def test_a_page_without_a_running_job_does_not_ask_again(client, name):
    project = factories.make_project()
    member(client, project, Role.LEAD)
    job = factories.make_job(project, state=JobState.FAILED, message="it broke")
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job)
    assert "hx-trigger" not in html(client, name, project.pk if name == "project" else round_.pk)


def test_a_failed_step_is_shown_with_its_message_and_a_way_on(client):
    project = factories.make_project()
    member(client, project, Role.LEAD)
    job = factories.make_job(project, state=JobState.FAILED, message="it broke")
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job)
    page = html(client, "round", round_.pk)
    assert "it broke" in page
    assert reverse("round_retry", args=[round_.pk]) in page


def test_long_lists_come_in_pages(client):
    project = factories.make_project()
    member(client, project, Role.LEAD)
    for number in range(51):
        factories.make_job(project, subject=f"job number {number}")
    assert "job number 0<" not in html(client, "project_jobs", project.pk)
    assert "job number 0<" in html(client, "project_jobs", project.pk, page=2)
    assert "job number" not in html(client, "project_jobs", project.pk, state="failed")
