"""Every address of the API, walked with every role and every scope: who is let through, who is refused, and how."""

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from annotation.models import Annotation, Batch, Job, Role, Scope, Slide, Task, Tile, Webhook
from config.api import urlpatterns
from inference.models import ModelVersion
from tests import factories
from tests.annotation.api.asking import Program
from training.models import Round

pytestmark = pytest.mark.django_db

IMPORT = "import"  # the job of one
# Name: (method, the least role, the least scope, the model whose key is in the address).
EXPECTED = {
    "api_projects": ("GET", None, Scope.READ, None),
    "api_project": ("GET", Role.ANNOTATOR, Scope.READ, "project"),
    "api_slides": ("GET", Role.ANNOTATOR, Scope.READ, "project"),
    "api_tiles": ("GET", Role.ANNOTATOR, Scope.READ, "project"),
    "api_batches": ("GET", Role.ANNOTATOR, Scope.READ, "project"),
    "api_annotations": ("GET", Role.ANNOTATOR, Scope.READ, "project"),
    "api_rounds": ("GET", Role.ANNOTATOR, Scope.READ, "project"),
    "api_models": ("GET", Role.ANNOTATOR, Scope.READ, "project"),
    "api_events": ("GET", Role.LEAD, Scope.READ, "project"),
    "api_exports": ("GET", Role.REVIEWER, Scope.READ, "project"),
    "api_imports": ("GET", Role.LEAD, Scope.LEAD, "project"),
    "api_webhooks": ("GET", Role.LEAD, Scope.LEAD, "project"),
    "api_slide": ("GET", Role.ANNOTATOR, Scope.READ, Slide),
    "api_tile": ("GET", Role.ANNOTATOR, Scope.READ, Tile),
    "api_tile_image": ("GET", Role.ANNOTATOR, Scope.READ, Tile),
    "api_annotation_add": ("POST", Role.LEAD, Scope.LEAD, Tile),
    "api_annotation": ("GET", Role.ANNOTATOR, Scope.READ, Annotation),
    "api_batch": ("GET", Role.ANNOTATOR, Scope.READ, Batch),
    "api_tasks": ("GET", Role.ANNOTATOR, Scope.READ, Batch),
    "api_task_next": ("POST", Role.ANNOTATOR, Scope.ANNOTATE, Batch),
    "api_task": ("GET", Role.ANNOTATOR, Scope.READ, Task),
    "api_task_draft": ("PUT", Role.ANNOTATOR, Scope.ANNOTATE, Task),
    "api_task_submit": ("POST", Role.ANNOTATOR, Scope.ANNOTATE, Task),
    "api_task_skip": ("POST", Role.ANNOTATOR, Scope.ANNOTATE, Task),
    "api_round": ("GET", Role.ANNOTATOR, Scope.READ, Round),
    "api_round_release": ("POST", Role.LEAD, Scope.LEAD, Round),
    "api_batch_close": ("POST", Role.LEAD, Scope.LEAD, Batch),
    "api_round_close": ("POST", Role.LEAD, Scope.LEAD, Round),
    "api_round_retry": ("POST", Role.LEAD, Scope.LEAD, Round),
    "api_round_cancel": ("POST", Role.LEAD, Scope.LEAD, Round),
    "api_job": ("GET", Role.ANNOTATOR, Scope.READ, Job),
    "api_job_cancel": ("POST", Role.LEAD, Scope.LEAD, Job),
    "api_export": ("GET", Role.REVIEWER, Scope.READ, Job),
    "api_export_file": ("GET", Role.REVIEWER, Scope.READ, Job),
    "api_import": ("GET", Role.LEAD, Scope.LEAD, IMPORT),
    "api_import_try": ("POST", Role.LEAD, Scope.LEAD, IMPORT),
    "api_import_write": ("POST", Role.LEAD, Scope.LEAD, IMPORT),
    "api_webhook": ("GET", Role.LEAD, Scope.LEAD, Webhook),
    "api_webhook_test": ("POST", Role.LEAD, Scope.LEAD, Webhook),
    "api_deliveries": ("GET", Role.LEAD, Scope.LEAD, Webhook),
    "api_model": ("GET", Role.ANNOTATOR, Scope.READ, ModelVersion),
    "api_weights": ("GET", Role.REVIEWER, Scope.LEAD, ModelVersion),
}
# What else an address takes.
STARTS = [
    ("api_rounds", ("POST", Role.LEAD, Scope.LEAD, "project")),
    ("api_exports", ("POST", Role.REVIEWER, Scope.READ, "project")),
    ("api_imports", ("POST", Role.LEAD, Scope.LEAD, "project")),
    ("api_webhooks", ("POST", Role.LEAD, Scope.LEAD, "project")),
    ("api_webhook", ("DELETE", Role.LEAD, Scope.LEAD, Webhook)),
]
PAGES = {"api_page", "api_schema"}  # for whoever is signed in


@pytest.fixture
def project(smear):
    project = factories.make_project()
    for role in Role:
        factories.make_member(project, role, role.value)
    slide = factories.make_slide(project, file=smear)
    batch = factories.make_batch(project, slide.tiles.all())
    factories.make_round(project, batch=batch)
    factories.make_truth(slide.tiles.last(), (0, 10, 20, 30, 40))
    factories.make_evaluation(factories.make_version(project))
    factories.make_export(project)
    factories.make_label_import(project)
    factories.make_webhook(project)
    return project


def address(name, model, project):
    if model is None:
        return reverse(name)
    if model == IMPORT:
        return reverse(name, args=[Job.objects.get(kind="import_labels").pk])
    return reverse(name, args=[project.pk if model == "project" else model.objects.order_by("pk").first().pk])


def walk(name, row, project, user, scope):
    """Whether it lets through, else the status. What it writes does not stay."""
    method, _, _, model = row
    with transaction.atomic():
        headers = Program(user, scope).client
        response = headers.generic(method, address(name, model, project), b"{}", content_type="application/json")
        transaction.set_rollback(True)
    if response.status_code in (401, 403, 404):
        assert set(response.json()) == {"error"}
        return response.status_code
    assert response.status_code < 500
    return "through"


def test_every_address_is_in_the_table():
    assert sorted(pattern.name for pattern in urlpatterns) == sorted(EXPECTED.keys() | PAGES)


@pytest.mark.parametrize(("name", "row"), [*EXPECTED.items(), *STARTS])
def test_it_asks_for_the_role_and_for_the_scope(name, row, project):
    _, least_role, least_scope, _ = row
    found, wanted = {}, {}
    for member in project.memberships.select_related("user"):
        for scope in Scope:
            enough = scope.covers(least_scope) and (least_role is None or Role(member.role).covers(least_role))
            wanted[member.role, scope] = "through" if enough else 403
            found[member.role, scope] = walk(name, row, project, member.user, scope)
    assert found == wanted


@pytest.mark.parametrize(("name", "row"), [one for one in EXPECTED.items() if one[1][0] == "GET"])
def test_who_asks_for_the_head_alone_needs_the_scope_too(name, row, project):
    _, _, least_scope, model = row
    lead = project.memberships.get(role=Role.LEAD).user
    for scope in Scope:
        response = Program(lead, scope).client.head(address(name, model, project))
        assert (response.status_code == 403) == (not scope.covers(least_scope))


@pytest.mark.parametrize(("name", "row"), [*EXPECTED.items(), *STARTS])
def test_a_stranger_finds_nothing_and_nobody_needs_a_token(name, row, project):
    method, _, _, model = row
    stranger = walk(name, row, project, factories.make_user(), Scope.LEAD)
    assert stranger == (404 if model else "through")
    session = Client()
    session.force_login(project.memberships.get(role=Role.LEAD).user)
    for client in (Client(), session):
        response = client.generic(method, address(name, model, project))
        assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")
        assert "token" in response.json()["error"]


@pytest.mark.parametrize("name", sorted(name for name, row in EXPECTED.items() if row[3]))
def test_a_key_that_nothing_has_is_404(name):
    client = Program(factories.make_user(is_superuser=True)).client
    response = client.generic(EXPECTED[name][0], reverse(name, args=[10**9]), b"{}", content_type="application/json")
    assert (response.status_code, list(response.json())) == (404, ["error"])


def test_a_superuser_is_lead_everywhere(project):
    asking = Program(factories.make_user(is_superuser=True))
    assert asking.read("project", project.pk)["role"] == "lead"


def test_a_wrong_method_is_answered_in_json(project):
    response = Program(factories.make_user()).client.delete(reverse("api_projects"))
    assert (response.status_code, list(response.json())) == (405, ["error"])


def test_the_description_is_for_whoever_is_signed_in_or_has_a_token(client):
    assert client.get(reverse("api_schema")).status_code == 401
    user = factories.make_user()
    assert Program(user, Scope.READ).get("schema").status_code == 200
    client.force_login(user)
    assert client.get(reverse("api_schema")).status_code == 200
    page = client.get(reverse("api_page")).content.decode()
    assert reverse("api_schema") in page
    assert "swagger-ui-bundle.js" in page
