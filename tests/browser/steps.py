"""What a lead does on the pages, step by step."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

TRAINING_MILLISECONDS = 300_000


def upload(lead: Page, project: int, files: Any) -> None:
    """Send files (paths, or Playwright's payloads) by the form of the slides page."""
    lead.goto(f"/projects/{project}/slides/")
    lead.get_by_label("Slide files").set_input_files(files)
    lead.get_by_role("button", name="Import", exact=True).click()


def upload_slide(lead: Page, project: int, files: Path | dict[str, Any]) -> None:
    """Send one slide that is a good one, and wait until it is in."""
    upload(lead, project, files)
    expect(lead.get_by_text("Importing 1 slide.")).to_be_visible()
    expect(lead.locator(".job")).to_have_attribute("data-job-state", "succeeded")


def start_round(lead: Page, project: int, settings: dict[str, str]) -> None:
    """From the overview's next step to the new round's page; `settings` by the names of the form's fields."""
    lead.goto(f"/projects/{project}/")
    lead.get_by_role("link", name="Start round").click()
    for name, value in settings.items():
        field = lead.locator(f"form.form [name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        elif field.get_attribute("type") == "checkbox":
            field.set_checked(value == "on")
        else:
            field.fill(value)
    lead.get_by_role("button", name="Start round").click()
    expect(round_state(lead)).to_be_visible()


def round_state(lead: Page) -> Locator:
    return lead.locator(".page-head .badge")


def wait_for_round(lead: Page, state: str) -> None:
    """The round's page follows by itself; a failed step ends the wait at once."""
    shown = lead.wait_for_function(
        """state => { const shown = document.querySelector(".page-head .badge")?.textContent.trim();
                      return shown && (shown === state || /failed|cancelled/.test(shown)) ? shown : false; }""",
        arg=state,
        timeout=TRAINING_MILLISECONDS,
    )
    assert shown.json_value() == state, lead.locator(".job").all_inner_texts()


def release_round(lead: Page) -> None:
    """On the page of a round whose batch waits: swap the first tile out, in place, and release the batch."""
    first = lead.locator(".thumbnails li").first
    seen = first.locator("[name=tile]").input_value()
    first.get_by_role("button", name="Swap out").click()
    expect(first.locator("[name=tile]")).not_to_have_value(seen)
    lead.get_by_role("button", name="Release the batch").click()
    expect(round_state(lead)).not_to_have_text("ready to release")


def close_round(lead: Page) -> None:
    """On the round's page, with tiles left that nobody has read."""
    lead.reload()
    lead.get_by_role("button", name="Close the batch and train").click()
    answer(lead, "Close and train")
    expect(round_state(lead)).not_to_have_text("annotating")


def answer(lead: Page, label: str) -> None:
    """Say yes in the dialog that asks before an act."""
    lead.get_by_role("dialog").get_by_role("button", name=label).click()


def project_key(lead: Page) -> int:
    """Of the project whose page this is."""
    return int(lead.url.split("/projects/")[1].split("/")[0])
