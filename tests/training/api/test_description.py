"""What the API's description allows is asked of the application: no defect, and only answers that it promises."""

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import FailureGroup, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from annotation.models import Annotation, Batch, Job, Role, Slide, Task, Tile, Webhook
from inference.models import ModelVersion
from tests import factories
from training.models import Round

pytestmark = pytest.mark.django_db

EXAMPLES = 3  # of each operation, always the same ones
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ALWAYS_THE_SAME = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
OF_PATH = {
    "slides": Slide,
    "tiles": Tile,
    "annotations": Annotation,
    "batches": Batch,
    "tasks": Task,
    "rounds": Round,
    "models": ModelVersion,
    "jobs": Job,
    "exports": Job,
    "imports": Job,
    "webhooks": Webhook,
}
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in SchemaGenerator().get_schema(request=None, public=True)["paths"].items()
    for method in methods
]


@pytest.fixture
def application():
    """The real WSGI application, in the test's transaction: as with Django's client, it leaves the connection open."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield get_wsgi_application()
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def lead(smear):
    """The header of a lead whose project has something at every address."""
    project = factories.make_project()
    lead = factories.make_member(project, Role.LEAD)
    batch = factories.make_batch(project, factories.make_slide(project, file=smear).tiles.all())
    factories.make_round(project, batch=batch)
    version = factories.make_version(project)
    factories.make_evaluation(version)
    task = batch.tasks.first()
    pre_label = factories.make_pre_label(task, version, (0, 1, 2, 30, 40))
    factories.submit_task(task, lead, (0, 1, 2, 30, 40, pre_label.boxes.get().pk))
    factories.make_export(project)
    factories.make_label_import(project)
    factories.make_delivery(factories.make_webhook(project))
    lead.project = project
    return lead


def key_of(kind, project):
    if kind not in OF_PATH:
        return project.pk
    rows = OF_PATH[kind].objects.order_by("pk")
    return (rows.filter(kind="import_labels") if kind == "imports" else rows).first().pk


def test_there_is_something_to_ask():
    assert len(OPERATIONS) > 25


def test_every_operation_says_what_it_does_and_how_it_fails():
    described = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    for path, methods in described.items():
        for method, one in methods.items():
            assert one["summary"], f"{method} {path}"
            assert {"401", "403"} | ({"404"} if "{" in path else set()) <= one["responses"].keys(), f"{method} {path}"


@pytest.mark.parametrize("kind", ["exports", "imports", "webhooks", "jobs", "close", "retry", "cancel"])
def test_what_is_asked_and_answered_has_an_example(kind):
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    described = [one for path, methods in paths.items() if f"/{kind}/" in path for one in methods.values()]
    assert described
    for one in described:
        asked = one.get("requestBody", {}).get("content", {}).get("application/json")
        assert asked is None or asked.get("examples"), one["operationId"]
        for status, answer in one["responses"].items():
            content = answer.get("content", {}).get("application/json")
            assert content is None or not status.startswith("2") or content.get("examples"), one["operationId"]


@pytest.mark.parametrize("label", OPERATIONS)
def test_it_keeps_what_its_description_promises(label, lead, application):
    headers = {"Authorization": f"Bearer {factories.make_token(lead)}"}
    schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", application, headers=headers)
    method, path = label.split()
    operation = schema[path][method]
    key = {"id": key_of(path.split("/")[2], lead.project)} if "{" in path else None
    asked = 0

    @ALWAYS_THE_SAME
    @given(case=operation.as_strategy(path_parameters=key))
    def ask(case):
        nonlocal asked
        asked += 1
        with transaction.atomic():
            case.call_and_validate(headers=headers, checks=CHECKS)
            transaction.set_rollback(True)

    ask()
    assert asked


def test_a_server_error_would_be_noticed(lead, application, monkeypatch):
    def fall(*arguments, **fields):
        raise RuntimeError("a defect")

    monkeypatch.setattr("annotation.api.projects.projects_of", fall)
    label = next(one for one in OPERATIONS if one == "GET /api/projects/")
    with pytest.raises(FailureGroup):
        test_it_keeps_what_its_description_promises(label, lead, application)
