"""A folder of the server: browsed, registered and looked into, in a real browser with a real worker."""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.site import Site
from tests.browser.steps import answer
from tests.browser.test_accessibility import violations

JOB_MILLISECONDS = 120_000


def look_until(page: Page, name: str, state: str) -> None:
    """Press "Look now" until the file stands so: a look that finds it unchanged imports it, the next one says so."""
    for _ in range(10):
        page.get_by_role("button", name="Look now").click()
        expect(page.locator(".job")).not_to_have_attribute("data-job-state", "running", timeout=JOB_MILLISECONDS)
        expect(page.locator(".job")).to_have_attribute("data-job-state", "succeeded", timeout=JOB_MILLISECONDS)
        page.reload()
        if page.get_by_role("row", name=name).get_by_text(state, exact=True).count():
            return
    expect(page.get_by_role("row", name=name)).to_contain_text(state)


def test_slides_of_a_registered_folder_are_read_in_place(page: Page, site: Site, empty_project, smears: Path):
    root = site.folder / "scanner"
    (root / "2026" / "P7").mkdir(parents=True)
    shutil.copy2(smears / "T01.tif", root / "2026" / "P7" / "T01.tif")
    (root / "2026" / "letter.tif").write_bytes(b"Dear colleague, " * 100)
    page.goto(f"/projects/{empty_project}/slides/")
    page.get_by_role("link", name="Registered folders").click()
    expect(page.get_by_text("No folder yet")).to_be_visible()
    found = violations(page)
    page.get_by_role("link", name="Register a folder").click()
    found += violations(page)
    page.get_by_role("link", name=str(root)).click()
    page.get_by_role("link", name="2026", exact=True).click()
    expect(page.get_by_role("row", name="P7/T01.tif")).to_contain_text("P7")
    found += violations(page)
    page.get_by_label("The patient's pseudonym is").select_option("folder")
    page.get_by_role("button", name="Register this folder").click()
    # The page follows the first look by itself.
    expect(page.get_by_role("row", name="P7/T01.tif")).to_contain_text("seen once", timeout=JOB_MILLISECONDS)
    found += violations(page)
    look_until(page, "P7/T01.tif", "imported")
    look_until(page, "letter.tif", "refused")
    expect(page.get_by_role("row", name="letter.tif")).to_contain_text("is not a whole-slide image")
    found += violations(page)
    page.get_by_role("link", name="T01.tif", exact=True).click()
    expect(page.get_by_role("heading", name="T01.tif")).to_be_visible()
    asked = f"slide = Slide.objects.get(project={empty_project}); answer = [slide.files, slide.patient.code]"
    files, patient = site.read(asked)
    assert files[0].endswith(f":{root / '2026' / 'P7' / 'T01.tif'}")
    assert patient == "P7"

    page.goto(f"/projects/{empty_project}/folders/")
    expect(page.get_by_role("row", name=str(root / "2026"))).to_contain_text("refused")
    found += violations(page)
    page.get_by_role("link", name=str(root / "2026")).click()
    os.truncate(root / "2026" / "P7" / "T01.tif", 1000)
    look_until(page, "P7/T01.tif", "changed")
    found += violations(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("The schedule is paused.")).to_be_visible()
    page.get_by_role("button", name="Unregister…").click()
    answer(page, "Unregister")
    expect(page.get_by_text("The slides that were imported stay.")).to_be_visible()
    assert found == []
    assert sorted(path.name for path in (root / "2026").rglob("*.tif")) == ["T01.tif", "letter.tif"]
