"""`make screenshots`: the demo, photographed for the docs. Takes as long as the demo does."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.chromium import launch
from tests.browser.site import PASSWORD, ROOT, Site

DEMO_MILLISECONDS = 1_200_000
# The README's picture first; the others are for looking at, in both window sizes that the design promises.
SIZES = {"1440": {"width": 1440, "height": 900}, "1024": {"width": 1024, "height": 768}}
READY = "html[data-ready=true]"


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        site = Site(Path(data))
        try:
            site.start()
            site.manage("prepare_demo")
            site.read(f"u = User.objects.get(username='lead'); u.set_password({PASSWORD!r}); u.save(); answer = 1")
            take(site, folder)
        finally:
            site.stop()


def take(site: Site, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name, size in SIZES.items():
            page = browser.new_context(base_url=site.url, viewport=size).new_page()  # type: ignore[arg-type]
            sign_in(page)
            page.goto("/projects/1/")
            expect(page.get_by_text("Annotate Round 3")).to_be_visible(timeout=DEMO_MILLISECONDS)
            page.screenshot(path=folder / f"project-{name}.png")
            page.get_by_role("link", name="Annotate Round 3").click()
            page.locator(READY).wait_for(state="attached")
            for _ in range(3):
                page.keyboard.press("Tab")
            page.locator("#atlas img").last.wait_for()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / ("screenshot.png" if name == "1440" else f"editor-{name}.png"))
        browser.close()


def sign_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Username").fill("lead")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Projects", exact=True).wait_for()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
