"""Every page in a real browser: axe-core finds nothing to put right, no script complains, nothing is from elsewhere."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.template.loader import render_to_string
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, Request, expect

from tests.browser.editing import Box, Editing, PreLabel
from tests.browser.site import ROOT, Site
from tests.browser.steps import close_round, start_round, upload, wait_for_round

JOB_MILLISECONDS = 120_000
SHORT = {
    "kind": "one-stage",
    "mode": "manual",
    "strategy": "random",
    "size": "9",
    "image_size": "96",
    "batch_size": "4",
    "epochs": "1",
}
# Links of a picture (SVG) have no plain address of their own.
LINKS = "links => links.map(link => new URL(link.getAttribute('href'), document.baseURI).href)"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": RULES}}


def violations(page: Page) -> list[str]:
    """What axe-core has against the page as it is now: rule, element and reason."""
    found = Axe().run(page, options=OPTIONS).response["violations"]
    return [
        f"{page.url}: {one['id']} ({one['impact']}): {node['html'][:200]}: {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    ]


@pytest.fixture
def quiet(page: Page, site: Site) -> Iterator[Page]:
    """The lead's page; the test fails if a page complains on the console or asks another host for anything."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{page.url}: {message.type}: {message.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith((f"{site.url}/", "data:", "blob:")):
            complaints.append(f"{page.url}: asks for {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.on("request", asked)
    yield page
    assert complaints == []


def test_axe_core_sees_what_is_wrong(page: Page):
    page.goto("about:blank")  # no policy against inline style there
    page.set_content("<html><body><h2>A page</h2><input><p style='color: #888'>Too light</p></body></html>")
    rules = {one.split(": ")[1].split()[0] for one in violations(page)}
    assert {"html-has-lang", "label", "color-contrast", "region"} <= rules


def test_every_page_of_a_project_that_is_under_way(
    quiet: Page, sign_in, site: Site, project, project_name, smears: Path
):
    start_round(quiet, project, SHORT)
    wait_for_round(quiet, "annotating")
    files = map(str, smears.glob("T0[12].json"))
    site.manage("import_truth", *files, "--project", project_name, "--batch", "Round 1", "--tiles", "6")
    close_round(quiet)
    wait_for_round(quiet, "done")
    start_round(quiet, project, SHORT | {"mode": "assisted", "size": "4"})
    wait_for_round(quiet, "annotating")
    quiet.goto(f"/projects/{project}/exports/")
    quiet.get_by_role("button", name="Export", exact=True).click()
    expect(quiet.get_by_role("link", name="Download")).to_be_visible(timeout=JOB_MILLISECONDS)

    kinds, found = _visit_all(quiet, site, "/", "/projects/new/", f"/projects/{project}/")
    pages = {
        *(
            "/",
            "/tokens/",
            "/projects/new/",
            "/projects/#/",
            "/projects/#/slides/",
            "/projects/#/rounds/",
            "/projects/#/simulations/",
            "/projects/#/models/",
        ),
        *("/projects/#/jobs/", "/projects/#/exports/", "/projects/#/members/", "/projects/#/taxonomy/", "/slides/#/"),
        *("/tiles/#/", "/rounds/#/", "/batches/#/", "/batches/#/annotate/", "/models/#/", "/jobs/#/"),
    }
    assert pages <= kinds
    assert found == []

    _join(quiet, project, "reader")
    kinds, found = _visit_all(sign_in("reader"), site, "/", f"/projects/{project}/", of_a_kind=1)
    assert pages - {"/projects/new/", "/projects/#/exports/"} <= kinds
    assert found == []


def _visit_all(page: Page, site: Site, *starts: str, of_a_kind: int = 3) -> tuple[set[str], list[str]]:
    """Follow every link of the project, a few of each kind; returns the kinds, which are paths with # for numbers, and
    everything that axe-core has against the first page of each kind and against the last one visited.
    """
    waiting = list(starts)
    seen = set(waiting)
    visits: dict[str, int] = {}
    found: list[str] = []
    while waiting:
        path = waiting.pop(0)
        kind = re.sub(r"\d+", "#", path)
        visits[kind] = visits.get(kind, 0) + 1
        if visits[kind] > of_a_kind:
            continue
        reply = page.goto(path)
        assert reply is not None
        assert reply.status == 200, f"{path}: {reply.status}"
        if kind.endswith("/annotate/"):
            page.locator("html[data-ready=true]").wait_for(state="attached")
        if visits[kind] in (1, of_a_kind):
            found += violations(page)
        if path == "/":  # it leads to the other tests' projects
            continue
        for link in page.locator("a[href]:not([download])").evaluate_all(LINKS):
            target = link.removeprefix(site.url).split("#")[0].split("?")[0]
            assert target.startswith("/"), f"{path} links to {link}"
            if target not in seen and not re.search(r"/(admin|api|weights|download)/", target):
                seen.add(target)
                waiting.append(target)
    return set(visits), found


def _join(lead: Page, project: int, name: str) -> None:
    """On the members' page, as an annotator."""
    lead.goto(f"/projects/{project}/members/")
    lead.get_by_label("User name").fill(name)
    lead.get_by_label("Role").last.select_option("annotator")
    lead.get_by_role("button", name="Add").click()
    expect(lead.get_by_role("row", name=name)).to_be_visible()


def test_the_pages_of_a_project_in_which_nothing_has_happened_yet(quiet: Page, site: Site, empty_project):
    kinds, found = _visit_all(quiet, site, f"/projects/{empty_project}/")
    tabs = ("slides", "rounds", "models", "taxonomy", "jobs", "imports", "exports", "members")
    assert {f"/projects/#/{tab}/" for tab in tabs} <= kinds
    assert found == []


SIMULATED = """
from tests import factories
project = factories.make_project(lead=User.objects.get(username="lead"))
for locked in (False, True):
    slide = factories.make_slide(project, patient=factories.make_patient(project, locked=locked))
    for tile in slide.tiles.all():
        factories.make_truth(tile, (1, 10, 20, 30, 40))
done = factories.make_simulation(project)
stopped = factories.make_simulation(project, state="failed", message="round 2 failed")
answer = [project.pk, done.pk, stopped.pk]
"""


def test_the_pages_of_simulated_rounds(quiet: Page, site: Site):
    project, done, stopped = site.read(SIMULATED)
    found = []
    for path in (f"/projects/{project}/simulations/", f"/simulations/{stopped}/", f"/simulations/{done}/"):
        quiet.goto(path)
        found += violations(quiet)
    figure = quiet.get_by_role("img", name="mAP@0.5 of each arm")
    expect(figure).to_be_visible()
    assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    with quiet.expect_download() as started:
        quiet.get_by_role("link", name="CSV").click()
    assert started.value.suggested_filename == f"marrowloop-{project}-simulation-{done}-points.csv"
    quiet.goto(f"/projects/{project}/simulations/new/")
    found += violations(quiet)
    assert found == []


def _labels(lines: str) -> dict[str, str | bytes]:
    """A zip archive of one image and its labels, as Playwright uploads it."""
    picture, content = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (90, 60), "white").save(picture, "PNG")
    files = {"classes.txt": "blast\nred cell\n", "labels/a.txt": lines, "images/a.png": picture.getvalue()}
    with zipfile.ZipFile(content, "w") as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return {"name": "cells.zip", "mimeType": "application/zip", "buffer": content.getvalue()}


def test_the_pages_of_an_import(quiet: Page, empty_project):
    quiet.goto(f"/projects/{empty_project}/imports/")
    quiet.get_by_label("Zip archive or files").set_input_files(_labels("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0 0.2"))
    quiet.get_by_role("button", name="Read the files").click()
    dry_run = quiet.get_by_role("button", name="Dry run")
    expect(dry_run).to_be_visible(timeout=JOB_MILLISECONDS)
    expect(quiet.get_by_text("labels/a.txt, line 2: degenerate box")).to_be_visible()
    assert violations(quiet) == []

    found = quiet.url
    dry_run.click()
    expect(quiet.get_by_text("labels/a.txt, line 2: degenerate box")).to_be_visible(timeout=JOB_MILLISECONDS)
    expect(quiet.get_by_role("heading", name="Problems: nothing can be imported (1)")).to_be_visible()
    expect(quiet.get_by_role("button", name="Import", exact=True)).to_have_count(0)
    assert violations(quiet) == []

    quiet.goto(found)
    expect(quiet.get_by_label("Class of blast")).not_to_have_value("")
    quiet.get_by_label("Boxes outside their tile").select_option("skip")
    dry_run.click()
    quiet.get_by_role("button", name="Import", exact=True).click(timeout=JOB_MILLISECONDS)
    expect(quiet.get_by_role("heading", name="What was imported")).to_be_visible(timeout=JOB_MILLISECONDS)
    expect(quiet.get_by_text("1 box on 1 tile")).to_be_visible()
    assert violations(quiet) == []
    quiet.goto(f"/projects/{empty_project}/imports/")
    expect(quiet.locator(".job[data-job-state=succeeded]")).to_have_count(4)
    assert violations(quiet) == []


def test_a_question_before_an_act(page: Page, empty_project):
    _join(page, empty_project, "reader")
    page.get_by_role("row", name="reader").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []


def test_forms_with_errors_and_a_job_that_has_failed(page: Page, empty_project):
    page.goto("/projects/new/")
    page.locator("form.form").evaluate("form => { form.noValidate = true; }")
    page.get_by_role("button", name="Make the project").click()
    expect(page.locator(".errorlist")).to_be_visible()
    found = violations(page)
    for content, complaint in ((b"", ".errorlist"), (b"no slide", ".job-message-failed")):
        upload(page, empty_project, {"name": "bad.svs", "mimeType": "application/octet-stream", "buffer": content})
        expect(page.locator(complaint)).to_be_visible(timeout=JOB_MILLISECONDS)
        found += violations(page)
    assert found == []


def test_every_state_that_the_stylesheet_knows(page: Page):
    """On the home page, as if it showed them all at once."""
    css = (ROOT / "static/css/marrowloop.css").read_text(encoding="utf-8")
    states = {"badge": ["badge"], "message": ["message"], "step": ["step"], "button": ["button"], "shade": ["shade"]}
    for kind, names in states.items():
        names += sorted(set(re.findall(rf"\.({kind}-[\w-]+)", css)))
    specimens = "".join(f'<p class="{kind} {name}">{name}</p>' for kind, names in states.items() for name in names)
    page.locator("#page").evaluate("(page, html) => { page.innerHTML = html; }", f"<h1>States</h1>{specimens}")
    expect(page.get_by_text("badge-failed")).to_be_visible()
    assert violations(page) == []


# A notice is filled before it is shown.
SHOW = """element => {
    element.hidden = false;
    for (const one of element.querySelectorAll(":is(h1, h2, p, a):empty")) one.textContent = "Words";
}"""


def test_the_editor_with_each_of_its_dialogs_and_notices(editing: Editing):
    page = editing.open(editing.batch([PreLabel(Box(0, 60, 60, 80, 80), 0.91)])).page
    page.keyboard.press("Tab")
    found = violations(page)
    for dialog in page.query_selector_all("dialog"):
        dialog.evaluate("dialog => dialog.showModal()")
        found += violations(page)
        dialog.evaluate("dialog => dialog.close()")
    for hidden in page.query_selector_all("body [id][hidden]"):
        hidden.evaluate(SHOW)
        found += violations(page)
        hidden.evaluate("element => { element.hidden = true; }")
    assert found == []


def test_the_page_of_somebody_without_a_project(sign_in):
    page = sign_in("stranger")
    expect(page.get_by_text("No project yet")).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize(
    ("path", "status", "heading"),
    [("/projects/999999/", 404, "Nothing here"), ("/projects/new/", 403, "Not allowed")],
)
def test_the_pages_of_refusal(sign_in, path, status, heading):
    page = sign_in("stranger")
    reply = page.goto(path)
    assert reply.status == status
    expect(page.get_by_role("heading", name=heading)).to_be_visible()
    assert violations(page) == []


def test_the_page_of_an_error_of_the_server(page: Page):
    broken = render_to_string("500.html")
    page.route("**/broken/", lambda route: route.fulfill(status=500, body=broken, content_type="text/html"))
    page.goto("/broken/")
    expect(page.get_by_role("heading", name="Something broke")).to_be_visible()
    assert violations(page) == []


def test_signing_in_wrongly_until_it_is_locked(site: Site, chromium):
    with chromium.new_context(base_url=site.url) as context:
        page = context.new_page()
        page.goto("/")
        found = violations(page)
        while page.get_by_label("Password").count():
            page.get_by_label("Username").fill("nobody")
            page.get_by_label("Password").fill("not the password")
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_load_state()
            found += violations(page)
        expect(page.get_by_role("heading", name="Too many")).to_be_visible()
    assert found == []
