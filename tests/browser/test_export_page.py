"""The Exports page with a real worker: a part is chosen, made, downloaded and deleted."""

import json
import zipfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.test_accessibility import JOB_MILLISECONDS, violations


def test_an_export_is_chosen_made_downloaded_and_deleted(page: Page, empty_project: int, tmp_path: Path):
    page.goto(f"/projects/{empty_project}/exports/")
    page.get_by_label("Format").select_option("coco")
    page.get_by_text("Choose a part").click()
    page.get_by_label("Annotations").select_option("readers")
    page.get_by_label("Coordinates").select_option("slide")
    page.get_by_label("Classes").select_option(["blast", "promyelocyte"])
    assert violations(page) == []
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_text("annotations of all readers, classes blast, promyelocyte, in slide px")).to_be_visible()
    link = page.get_by_role("link", name="Download COCO")
    expect(link).to_be_visible(timeout=JOB_MILLISECONDS)
    expect(page.get_by_text("SHA-256")).to_be_visible()
    assert violations(page) == []

    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "export.zip")
    manifest = json.loads(zipfile.ZipFile(tmp_path / "export.zip").read("manifest.json"))
    assert manifest["choice"]["classes"] == ["blast", "promyelocyte"]
    assert [entry["path"] for entry in manifest["files"]] == ["annotations/instances_train.json"]

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("is deleted.")).to_be_visible()
    expect(link).to_have_count(0)
