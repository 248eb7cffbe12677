"""The pages of registered folders."""

import shutil

import pytest
from django.urls import reverse

from annotation.models import Job, JobKind, Role, Slide, SlideFolder
from annotation.services.folders import run_look
from annotation.services.jobs import run_job
from annotation.services.slides import import_staged
from tests import factories

pytestmark = pytest.mark.django_db

FORM = {"patient_rule": "top", "every_minutes": "15", "tiling": "edge", "site": "", "preparation": "", "mpp": ""}


@pytest.fixture
def root(settings, tmp_path):
    folder = tmp_path / "scanner"
    folder.mkdir()
    settings.SLIDE_ROOTS = [folder]
    return folder


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def text_of(response):
    return " ".join(response.content.decode().split())


def browse(client, project, path=""):
    return client.get(reverse("folder_new", args=[project.pk]), {"path": str(path)} if path else {})


def register(client, project, path, **changes):
    return client.post(reverse("folder_new", args=[project.pk]), FORM | {"path": str(path)} | changes)


def test_where_no_root_is_set_the_page_says_how(client, project, settings):
    settings.SLIDE_ROOTS = []
    page = text_of(client.get(reverse("project_folders", args=[project.pk])))
    assert "MARROWLOOP_SLIDE_ROOTS=" in page
    assert "Register a folder" not in page
    assert "MARROWLOOP_SLIDE_ROOTS" in text_of(browse(client, project))


def test_the_lead_browses_and_registers(client, project, root, smear):
    (root / "2024" / "P1").mkdir(parents=True)
    shutil.copy2(smear, root / "2024" / "P1" / "T01.tif")
    assert "No folder yet" in text_of(client.get(reverse("project_folders", args=[project.pk])))
    assert str(root) in text_of(browse(client, project))
    page = text_of(browse(client, project, root))
    assert "2024" in page
    assert "P1/T01.tif" in page  # the preview, with the patient by each rule
    page = text_of(browse(client, project, root / "2024"))
    for code in ("<td>T01</td>", "<td>P1</td>"):
        assert code in page
    response = register(client, project, root / "2024")
    folder = SlideFolder.objects.get()
    assert response["Location"] == reverse("folder", args=[folder.pk])
    assert (folder.path, folder.patient_rule, folder.every_minutes) == (str(root / "2024"), "top", 15)
    for _ in range(2):
        client.post(reverse("folder_look", args=[folder.pk]))
        run_job(job_pk=Job.objects.filter(kind=JobKind.LOOK).first().pk, function=run_look)
    run_job(job_pk=Job.objects.get(kind=JobKind.IMPORT_SLIDE).pk, function=import_staged)
    assert Slide.objects.get().patient.code == "P1"
    page = text_of(client.get(reverse("folder", args=[folder.pk])))
    assert "P1/T01.tif" in page
    assert "imported (1)" in page
    assert "refused (0)" in page
    assert str(root / "2024") in text_of(client.get(reverse("project_folders", args=[project.pk])))


@pytest.mark.parametrize("given", ["/etc", "{root}/../..", "etc", "{root}/none", "{root}/a.png"])
def test_a_path_that_is_not_allowed_is_refused(client, project, root, given):
    (root / "a.png").write_bytes(b"x")
    path = given.format(root=root)
    response = register(client, project, path)
    assert response.status_code == 422
    assert path in text_of(response)
    assert not SlideFolder.objects.exists()


def test_a_path_that_is_not_allowed_is_not_shown(client, project, root):
    response = browse(client, project, "/etc")
    assert response.status_code == 404
    assert "/etc does not lie under a folder of slides that the settings allow" in text_of(response)
    assert "passwd" not in text_of(response)


@pytest.mark.parametrize("change", [{"patient_rule": "x"}, {"every_minutes": "7"}, {"mpp": "99"}, {"tiling": ""}])
def test_an_impossible_choice_is_refused(client, project, root, change):
    assert register(client, project, root, **change).status_code == 422
    assert not SlideFolder.objects.exists()


def test_a_folder_that_is_registered_already_is_refused(client, project, root):
    register(client, project, root)
    response = register(client, project, root)
    assert response.status_code == 422
    assert "registered already" in text_of(response)


def test_files_are_filtered_by_how_they_stand(client, project, root):
    for name in ("good.png", "bad.png"):
        (root / name).write_bytes(b"x")
    folder = factories.make_folder(project, root)
    folder.files.create(name="good.png", size=1, modified=1, state="settled")
    folder.files.create(name="bad.png", size=1, modified=1, state="refused", problem="It cannot be read.")
    page = text_of(client.get(reverse("folder", args=[folder.pk]), {"state": "refused"}))
    assert "bad.png" in page
    assert "It cannot be read." in page
    assert "good.png" not in page
    assert "No such file" in text_of(client.get(reverse("folder", args=[folder.pk]), {"state": "vanished"}))
    part = text_of(client.get(reverse("folder", args=[folder.pk]), headers={"HX-Request": "true"}))
    assert "good.png" in part
    assert "Unregister" not in part


def test_it_pauses_resumes_and_unregisters(client, project, root):
    folder = factories.make_folder(project, root)
    for paused in ("1", "0"):
        client.post(reverse("folder_pause", args=[folder.pk]), {"paused": paused})
        folder.refresh_from_db()
        assert folder.paused is (paused == "1")
    answer = text_of(client.post(reverse("folder_remove", args=[folder.pk]), follow=True))
    assert "is looked into no more" in answer
    assert not SlideFolder.objects.exists()
    assert client.post(reverse("folder_look", args=[folder.pk])).status_code == 404
