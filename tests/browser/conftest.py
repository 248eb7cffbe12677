"""A real site and a real Chromium for the tests of this folder. Django's test database is not used here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

from annotation.slides.smear import draw_smear
from tests.browser.chromium import launch
from tests.browser.editing import Editing
from tests.browser.site import PASSWORD, Site
from tests.browser.steps import project_key

WINDOW = {"width": 1440, "height": 900}
PAGE_MILLISECONDS = 60_000
# Another process of tests may hold both cores for a while; what is there at once is not waited for.
expect.set_options(timeout=30_000)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A failure shows what the site said."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and site is not None:
        report.sections.append(("the site's log", site.log_tail()))
    return report


# Lives as long as one file of tests: while Playwright runs in a thread, Django refuses its database there.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Iterator[Site]:
    """A site with the users lead (staff), reader and stranger, and a folder where slides may be registered."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "scanner").mkdir()
    variables = {"MARROWLOOP_JOB_LOST_SECONDS": "25", "MARROWLOOP_WEBHOOK_HOSTS": "127.0.0.1:9"}  # where nobody listens
    made = Site(folder, **variables, MARROWLOOP_SLIDE_ROOTS=str(folder / "scanner"))
    try:
        made.start()
        for name in ("lead", "reader", "stranger"):
            made.make_user(name, staff=name == "lead")
        yield made
    finally:
        left = made.stop()
    assert left == [], f"still running after Ctrl-C: {left}"


@pytest.fixture(scope="session")
def sessions(site: Site) -> dict[str, StorageState]:
    """Of the users who have signed in on this site."""
    return {}


@pytest.fixture
def sign_in(site: Site, chromium: Browser, sessions: dict[str, StorageState]) -> Iterator[Callable[[str], Page]]:
    """`sign_in(name)`: that user's page in a browser of their own, on the home page."""
    contexts: list[BrowserContext] = []

    def enter(name: str) -> Page:
        context = chromium.new_context(
            base_url=site.url, viewport=WINDOW, accept_downloads=True, storage_state=sessions.get(name)
        )
        context.set_default_timeout(PAGE_MILLISECONDS)
        contexts.append(context)
        page = context.new_page()
        page.goto("/")
        if "/sign-in/" in page.url:  # the first time, or a test has ended the session
            page.get_by_label("Username").fill(name)
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Projects", exact=True).wait_for()
        sessions[name] = context.storage_state()
        return page

    yield enter
    for context in contexts:
        context.close()


@pytest.fixture
def page(sign_in: Callable[[str], Page]) -> Page:
    """The lead's page, signed in."""
    return sign_in("lead")


@pytest.fixture(scope="module")
def smears(tmp_path_factory) -> Path:
    """Small slides of three patients, each with its truth beside it."""
    folder = tmp_path_factory.mktemp("drawn")
    for number in (1, 2, 3):
        draw_smear(folder, patient=f"T0{number}", seed=number, width=1536, height=1536)
    return folder


@pytest.fixture
def project_name(request) -> str:
    """The test's own name, as much of it as a project's name holds."""
    return request.node.name[-90:]


@pytest.fixture
def empty_project(page: Page, project_name: str) -> int:
    """A project of the lead's without slides."""
    page.goto("/projects/new/")
    page.get_by_label("Name").fill(project_name)
    page.get_by_role("button", name="Make the project").click()
    expect(page.get_by_text("No slide yet")).to_be_visible()
    return project_key(page)


@pytest.fixture
def project(site: Site, empty_project: int, project_name: str, smears: Path) -> int:
    """The same with three slides, the third of a locked patient whose truth is known."""
    site.manage("import_slides", str(smears), "--project", project_name, "--lock", "T03")
    site.manage("import_truth", str(smears / "T03.json"), "--project", project_name)
    return empty_project


@pytest.fixture(scope="module")
def editing_site(site: Site, chromium: Browser, tmp_path_factory) -> Editing:
    """The site with one drawn smear of 5 x 4 tiles, which lead and reader may label."""
    smear = draw_smear(tmp_path_factory.mktemp("drawn"), patient="T01", seed=1, width=2560, height=2048)
    return Editing(site, chromium, [smear], taxonomy="hct", tiling="edge")


@pytest.fixture
def editing(editing_site: Editing) -> Iterator[Editing]:
    """The same, with no browser open before and after; no script of a page may have failed."""
    yield editing_site
    assert editing_site.close() == []
