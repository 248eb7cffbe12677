import pytest
from django.urls import reverse

from annotation.models import Event, Role
from inference.engine.detector import MODEL_FILES
from inference.services.model_exports import ModelExport
from inference.services.registry import current_version
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def test_another_version_becomes_current(client, project):
    older = factories.make_version(project)
    factories.make_version(project, current=True)
    client.post(reverse("model_make_current", args=[older.pk]))
    assert current_version(project) == older


def test_a_version_without_evaluation_says_so(client, project):
    page = client.get(reverse("model", args=[factories.make_version(project).pk])).content.decode()
    assert "Not evaluated" in page


def test_a_version_measured_on_tiles_without_boxes_shows_dashes(client, project):
    version = factories.make_version(project)
    factories.make_evaluation(version, None)
    assert client.get(reverse("model", args=[version.pk])).status_code == 200
    assert client.get(reverse("project_models", args=[project.pk])).status_code == 200


def test_a_class_that_training_ignores_has_no_row(client):
    project = factories.make_hct_project()
    client.force_login(factories.make_member(project))
    version = factories.make_version(project)
    factories.make_evaluation(version)
    response = client.get(reverse("model", args=[version.pk]))
    codes = list(project.taxonomy.classes.values_list("code", flat=True))
    assert [row["code"] for row in response.context["class_metrics"]] == [code for code in codes if code != "OTH"]


@pytest.mark.parametrize(
    ("accepted", "shown"),
    [
        (None, "it has no OpenVINO export"),
        (True, "OpenVINO on a processor, torch on a GPU"),
        (False, "torch: the OpenVINO export is not used"),
    ],
)
def test_the_page_says_what_a_version_runs_with(client, project, tmp_path, accepted, shown):
    for name in MODEL_FILES:
        (tmp_path / name).write_text("a model")
    export = None if accepted is None else ModelExport(tmp_path, accepted, "on 36 tiles <b>they differ</b>")
    page = client.get(reverse("model", args=[factories.make_version(project, export=export).pk])).content.decode()
    assert shown in page
    assert ("on 36 tiles &lt;b&gt;they differ&lt;/b&gt;" in page) == (accepted is not None)


def test_an_older_version_is_rolled_back_to_after_a_question(client, project):
    older, current = factories.make_version(project), factories.make_version(project, current=True)
    newer = factories.make_version(project)
    for url in (reverse("project_models", args=[project.pk]), reverse("model", args=[older.pk])):
        page = client.get(url).content.decode()
        assert "Roll back to this model…" in page
        assert f'data-confirm="Roll back to model {older.number}?' in page
    assert "Make current" in client.get(reverse("model", args=[newer.pk])).content.decode()
    answer = client.post(reverse("model_make_current", args=[older.pk]), follow=True)
    assert "Rolled back: model 1 is the current model again" in answer.content.decode()
    assert Event.objects.get(verb="rolled back to").subject == "model 1"
    assert current_version(project) == older
    assert "Make current" in client.get(reverse("model", args=[current.pk])).content.decode()
