"""The Chromium that this machine has."""

import shutil

from playwright.sync_api import Browser, Playwright

# The first is the same Chromium without its own windows and menus: the tests take a fifth less processor time with it.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def launch(playwright: Playwright, *flags: str) -> Browser:
    """The one on PATH, else Playwright's own; see find_chromium.sh."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    switches = ["--no-sandbox", "--disable-background-networking", *flags]
    return playwright.chromium.launch(executable_path=found, args=switches)
