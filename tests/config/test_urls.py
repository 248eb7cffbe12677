"""Every address, walked as everybody: who is let through, who is refused, and how."""

import re

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse

from annotation.models import (
    Annotation,
    ApiToken,
    Author,
    Batch,
    Box,
    Delivery,
    Job,
    JobKind,
    JobState,
    Membership,
    Notice,
    Patient,
    Project,
    Role,
    Slide,
    SlideFolder,
    Task,
    Tile,
    Upload,
    User,
    Webhook,
)
from inference.models import ModelVersion
from tests import factories
from training.models import CrossValidation, Round

SIGN_IN, NO_SUCH_PAGE, FORBIDDEN, OK = "redirect to sign-in", "404", "403", "let through"
WHO = ("nobody", "stranger", "annotator", "reviewer", "lead")

ANYBODY = (OK, OK, OK, OK, OK)
SIGNED_IN = (SIGN_IN, OK, OK, OK, OK)
MEMBER = (SIGN_IN, NO_SUCH_PAGE, OK, OK, OK)
REVIEWER = (SIGN_IN, NO_SUCH_PAGE, FORBIDDEN, OK, OK)
LEAD = (SIGN_IN, NO_SUCH_PAGE, FORBIDDEN, FORBIDDEN, OK)
ANNOTATORS_OWN = (SIGN_IN, NO_SUCH_PAGE, OK, NO_SUCH_PAGE, NO_SUCH_PAGE)
STAFF = (SIGN_IN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN)
NO_IMPORT = (SIGN_IN, *[NO_SUCH_PAGE] * 4)  # the first job is another's: tests/annotation/views/test_imports.py
ADMIN = (SIGN_IN, SIGN_IN, SIGN_IN, SIGN_IN, SIGN_IN)

# Name: (method, outcomes for WHO, the model, or kind of job, whose key is in the address).
EXPECTED = {
    "home": ("GET", SIGNED_IN, None),
    "preferences": ("POST", SIGNED_IN, None),
    "notices": ("GET", SIGNED_IN, None),
    "notices_read": ("POST", SIGNED_IN, None),
    "notices_mail": ("POST", SIGNED_IN, None),
    "notice": ("GET", ANNOTATORS_OWN, Notice),
    "notice_read": ("POST", ANNOTATORS_OWN, Notice),
    "tokens": ("GET", SIGNED_IN, None),
    "token_create": ("POST", SIGNED_IN, None),
    "token_revoke": ("POST", ANNOTATORS_OWN, ApiToken),
    "api": ("GET", SIGNED_IN, None),  # its page; what lies below asks for a token: tests/annotation/api/test_access.py
    "health": ("GET", ANYBODY, None),
    "login": ("GET", ANYBODY, None),
    "logout": ("POST", (SIGN_IN,) * 5, None),  # leads to the sign-in page whoever you were
    "admin": ("GET", ADMIN, None),
    "project_new": ("GET", STAFF, None),
    "project": ("GET", MEMBER, "project"),
    "project_curve": ("GET", MEMBER, "project"),
    "curve_hours": ("POST", LEAD, "project"),
    "curve_table": ("GET", MEMBER, "project"),
    "curve_figure": ("GET", (SIGN_IN, *[NO_SUCH_PAGE] * 4), "project"),  # no round has been evaluated
    "project_slides": ("GET", MEMBER, "project"),
    "slides_import": ("POST", LEAD, "project"),
    "uploads_start": ("POST", LEAD, "project"),
    "uploads_finish": ("POST", LEAD, "project"),
    "upload_chunk": ("POST", LEAD, Upload),
    "upload_discard": ("POST", LEAD, Upload),
    "project_folders": ("GET", LEAD, "project"),
    "folder_new": ("GET", LEAD, "project"),
    "folder": ("GET", LEAD, SlideFolder),
    "folder_look": ("POST", LEAD, SlideFolder),
    "folder_pause": ("POST", LEAD, SlideFolder),
    "folder_remove": ("POST", LEAD, SlideFolder),
    "project_rounds": ("GET", MEMBER, "project"),
    "round_new": ("GET", LEAD, "project"),
    "project_schedule": ("GET", LEAD, "project"),
    "schedule_pause": ("POST", LEAD, "project"),
    "schedule_resume": ("POST", LEAD, "project"),
    "project_cross_validations": ("GET", MEMBER, "project"),
    "cross_validation_new": ("GET", LEAD, "project"),
    "project_simulations": ("GET", MEMBER, "project"),
    "simulation_new": ("GET", LEAD, "project"),
    "project_models": ("GET", MEMBER, "project"),
    "model_import": ("POST", (*LEAD[:-1], FORBIDDEN), "project"),  # for leads who are administrators
    "project_jobs": ("GET", MEMBER, "project"),
    "project_imports": ("GET", LEAD, "project"),
    "import_create": ("POST", LEAD, "project"),
    "project_exports": ("GET", REVIEWER, "project"),
    "export_create": ("POST", REVIEWER, "project"),
    "project_events": ("GET", LEAD, "project"),
    "events_table": ("GET", LEAD, "project"),
    "project_webhooks": ("GET", LEAD, "project"),
    "webhook_create": ("POST", LEAD, "project"),
    "webhook": ("GET", LEAD, Webhook),
    "webhook_change": ("POST", LEAD, Webhook),
    "webhook_secret": ("POST", LEAD, Webhook),
    "webhook_test": ("POST", LEAD, Webhook),
    "webhook_delete": ("POST", LEAD, Webhook),
    "delivery_again": ("POST", LEAD, Delivery),
    "project_members": ("GET", MEMBER, "project"),
    "project_taxonomy": ("GET", MEMBER, "project"),
    "taxonomy_change": ("POST", LEAD, "project"),
    "class_examples": ("GET", MEMBER, "project"),
    "member_add": ("POST", LEAD, "project"),
    "member_change": ("POST", LEAD, Membership),
    "member_remove": ("POST", LEAD, Membership),
    "patient_lock": ("POST", LEAD, Patient),
    "slide": ("GET", MEMBER, Slide),
    "slide_overview": ("GET", MEMBER, Slide),
    "slide_thumbnail": ("GET", MEMBER, Slide),
    "tile": ("GET", MEMBER, Tile),
    "tile_history": ("GET", MEMBER, Tile),
    "annotation_restore": ("POST", REVIEWER, Annotation),
    "tile_image": ("GET", MEMBER, Tile),
    "tile_neighbourhood": ("GET", MEMBER, Tile),
    "tile_crop": ("GET", MEMBER, Tile),
    "box_crop": ("GET", MEMBER, Box),
    "batch": ("GET", MEMBER, Batch),
    "batch_close": ("POST", LEAD, Batch),
    "batch_reopen": ("POST", LEAD, Batch),
    "batch_assign": ("POST", LEAD, Batch),
    "batch_agreement": ("GET", REVIEWER, Batch),
    "batch_agreement_csv": ("GET", REVIEWER, Batch),
    "batch_annotate": ("GET", MEMBER, Batch),
    "batch_next": ("POST", MEMBER, Batch),
    "batch_previous": ("POST", MEMBER, Batch),
    "task": ("GET", MEMBER, Task),
    "task_draft": ("POST", MEMBER, Task),
    "task_submit": ("POST", MEMBER, Task),
    "task_skip": ("POST", MEMBER, Task),
    "round": ("GET", MEMBER, Round),
    "round_release": ("POST", LEAD, Round),
    "round_swap": ("POST", (*LEAD[:-1], NO_SUCH_PAGE), Round),  # no such task
    "round_close": ("POST", LEAD, Round),
    "round_retry": ("POST", LEAD, Round),
    "round_refresh": ("POST", LEAD, Round),
    "round_cancel": ("POST", LEAD, Round),
    "cross_validation": ("GET", MEMBER, CrossValidation),
    "cross_validation_retry": ("POST", LEAD, CrossValidation),
    "cross_validation_table": ("GET", MEMBER, CrossValidation),
    "simulation": ("GET", MEMBER, JobKind.SIMULATE),
    "simulation_retry": ("POST", LEAD, JobKind.SIMULATE),
    "simulation_delete": ("POST", LEAD, JobKind.SIMULATE),
    "simulation_file": ("GET", MEMBER, JobKind.SIMULATE),
    "model": ("GET", MEMBER, ModelVersion),
    "model_make_current": ("POST", LEAD, ModelVersion),
    "model_evaluate": ("POST", LEAD, ModelVersion),
    "model_weights": ("GET", REVIEWER, ModelVersion),
    "model_openvino": (
        "GET",
        (SIGN_IN, NO_SUCH_PAGE, FORBIDDEN, NO_SUCH_PAGE, NO_SUCH_PAGE),
        ModelVersion,
    ),  # no export
    "model_onnx": ("GET", (SIGN_IN, NO_SUCH_PAGE, FORBIDDEN, NO_SUCH_PAGE, NO_SUCH_PAGE), ModelVersion),  # not made
    "model_export": ("POST", LEAD, ModelVersion),
    "model_table": ("GET", MEMBER, ModelVersion),
    "model_figure": ("GET", MEMBER, ModelVersion),
    "job": ("GET", MEMBER, Job),
    "job_cancel": ("POST", LEAD, Job),
    "job_retry": ("POST", LEAD, Job),
    "label_import": ("GET", NO_IMPORT, Job),
    "import_try": ("POST", NO_IMPORT, Job),
    "import_write": ("POST", NO_IMPORT, Job),
    "import_discard": ("POST", NO_IMPORT, Job),
    "export_download": ("GET", REVIEWER, Job),
    "export_delete": ("POST", LEAD, Job),
}
# What follows the key in an address.
FURTHER = {
    "round_swap": [0],
    "class_examples": [0],
    "model_figure": ["confusion", "svg"],
    "curve_table": ["rounds"],
    "curve_figure": ["svg"],
    "simulation_file": ["figure.svg"],
}
# A page that shows a form and takes it.
BOTH_METHODS = {
    *("login", "folder_new", "project_new", "round_new", "project_schedule", "cross_validation_new"),
    "simulation_new",
}


def known_addresses():
    """The names in the URLconf; an included one (the admin) counts once, by the word that it begins with."""
    return [
        pattern.name if isinstance(pattern, URLPattern) else str(pattern.pattern).rstrip("/")
        for pattern in get_resolver().url_patterns
    ]


@pytest.fixture
def project(smear):
    """A project with something at every address."""
    project = factories.make_project()
    for name in WHO[2:]:
        factories.make_member(project, Role(name), name)
    factories.make_user("stranger")
    factories.make_upload(project, User.objects.get(username="lead"))
    factories.make_folder(project)
    factories.make_token(User.objects.get(username="annotator"))
    slide = factories.make_slide(project, file=smear)
    batch = factories.make_batch(project, slide.tiles.all())
    factories.make_round(project, batch=batch)
    factories.make_truth(slide.tiles.last(), (0, 10, 20, 30, 40))
    factories.make_evaluation(factories.make_version(project))
    factories.make_export(project)
    factories.make_delivery(factories.make_webhook(project))
    factories.make_cross_validation(project, 0.5)
    factories.make_simulation(project)
    return project


def address(name, model, project):
    if name == "admin":
        return reverse("admin:index")
    if name == "api":
        return reverse("api_page")
    if model is None:
        return reverse(name)
    if model == "project":
        rows = Project.objects.filter(pk=project.pk)
    else:
        rows = Job.objects.filter(kind=model) if isinstance(model, JobKind) else model.objects
    return reverse(name, args=[rows.order_by("pk").first().pk, *FURTHER.get(name, [])])


def visitor(who):
    client = Client()
    if who != "nobody":
        client.force_login(User.objects.get(username=who))
    return client


def outcome(response):
    if response.status_code == 302 and re.match(r"(/admin/login|/sign-in)/", response["Location"]):
        return SIGN_IN
    answers = {404: NO_SUCH_PAGE, 403: FORBIDDEN, 405: "405"}
    return answers.get(response.status_code, OK if response.status_code < 500 else str(response.status_code))


def walk(name, method, model, project, who):
    """The outcome of one visit, of which nothing stays."""
    with transaction.atomic():
        answer = outcome(visitor(who).generic(method, address(name, model, project)))
        transaction.set_rollback(True)
    return answer


def test_every_address_is_in_the_table():
    assert sorted(known_addresses()) == sorted(EXPECTED)


@pytest.mark.django_db
@pytest.mark.parametrize("name", EXPECTED)
def test_it_lets_through_whom_it_should(name, project):
    method, outcomes, model = EXPECTED[name]
    assert {who: walk(name, method, model, project, who) for who in WHO} == dict(zip(WHO, outcomes, strict=True))


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - BOTH_METHODS - {"admin", "health"}))
def test_it_rejects_the_wrong_method(name, project):
    method, _, model = EXPECTED[name]
    wrong = "GET" if method == "POST" else "POST"
    assert walk(name, wrong, model, project, "lead") == "405"


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(name for name, (_, _, model) in EXPECTED.items() if model))
def test_it_answers_a_key_that_nothing_has_with_404(name):
    user = factories.make_user(is_superuser=True)
    client = Client()
    client.force_login(user)
    assert client.generic(EXPECTED[name][0], reverse(name, args=[10**9, *FURTHER.get(name, [])])).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(name for name, (method, _, _) in EXPECTED.items() if method == "POST"))
def test_a_write_needs_the_csrf_token(name, project):
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="lead"))
    response = client.post(address(name, EXPECTED[name][2], project))
    assert response.status_code == 403


@pytest.mark.django_db
def test_staff_may_make_projects():
    client = Client()
    client.force_login(factories.make_user(is_staff=True))
    assert client.get(reverse("project_new")).status_code == 200


@pytest.mark.django_db
def test_a_superuser_reaches_every_list_of_the_admin(project):
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    factories.make_truth(Tile.objects.first(), (0, 1, 2, 30, 40))
    Job.objects.filter(state=JobState.SUCCEEDED).update(message="done")
    assert Author.objects.exists()
    lists = set(re.findall(r'href="(/admin/[a-z_]+/[a-z]+/)"', client.get(reverse("admin:index")).content.decode()))
    assert len(lists) > 10
    assert {url: client.get(url).status_code for url in lists} == dict.fromkeys(lists, 200)


@pytest.mark.django_db
def test_a_user_who_was_switched_off_is_nobody(project):
    client = visitor("annotator")
    User.objects.filter(username="annotator").update(is_active=False)
    assert outcome(client.get(reverse("project", args=[project.pk]))) == SIGN_IN
