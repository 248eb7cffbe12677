"""The Chromium that this machine has."""

import shutil

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def launch(playwright: Playwright) -> Browser:
    """The one on PATH, else Playwright's own; see find_chromium.sh."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    return playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-background-networking"])
