"""A real site and a real Chromium for the tests of this folder. Django's test database is not used here."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.chromium import launch
from tests.browser.site import PASSWORD, Site

WINDOW = {"width": 1440, "height": 900}
PAGE_MILLISECONDS = 60_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A failure shows what the site said."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and site is not None:
        report.sections.append(("the site's log", site.log_tail()))
    return report


# Both live as long as one file of tests: while Playwright runs in a thread, Django refuses its database there.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    """A site with the users lead (staff), reader and stranger."""
    made = Site(tmp_path_factory.mktemp("site"), MARROWLOOP_JOB_LOST_SECONDS="25")
    try:
        made.start()
        for name in ("lead", "reader", "stranger"):
            made.make_user(name, staff=name == "lead")
        yield made
    finally:
        left = made.stop()
    assert left == [], f"still running after Ctrl-C: {left}"


@pytest.fixture
def sign_in(site: Site, chromium: Browser) -> Iterator[Callable[[str], Page]]:
    """`sign_in(name)`: that user's page in a browser of their own, on the home page."""
    contexts: list[BrowserContext] = []

    def enter(name: str) -> Page:
        context = chromium.new_context(base_url=site.url, viewport=WINDOW, accept_downloads=True)
        context.set_default_timeout(PAGE_MILLISECONDS)
        contexts.append(context)
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Projects", exact=True).wait_for()
        return page

    yield enter
    for context in contexts:
        context.close()


@pytest.fixture
def page(sign_in: Callable[[str], Page]) -> Page:
    """The lead's page, signed in."""
    return sign_in("lead")
