"""Pages in a real browser: signing in, files that are no slides, and jobs that end badly."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import PASSWORD, ROOT, Site
from tests.browser.steps import (
    answer,
    close_round,
    round_state,
    start_round,
    upload,
    upload_slide,
    wait_for_round,
)

WSI = ROOT / "../shared/data/wsi"
JOB_MILLISECONDS = 120_000
SHORT = {
    "kind": "one-stage",
    "mode": "manual",
    "strategy": "random",
    "size": "9",
    "image_size": "96",
    "batch_size": "4",
}

needs_shared_slides = pytest.mark.skipif(not WSI.is_dir(), reason="the shared slides are not on this machine")


def test_signing_in_leads_to_the_page_that_was_asked_for(site: Site, chromium, empty_project):
    with chromium.new_context(base_url=site.url) as context:
        page = context.new_page()
        page.goto(f"/projects/{empty_project}/slides/")
        page.get_by_label("Username").fill("lead")
        page.get_by_label("Password").fill("not the password")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("Please enter a correct username and password")).to_be_visible()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{site.url}/projects/{empty_project}/slides/")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_stranger_finds_nothing(site: Site, sign_in, project):
    stranger = sign_in("stranger")
    expect(stranger.get_by_text("No project yet")).to_be_visible()
    slide, tile = site.read(
        f"slide = Slide.objects.filter(project={project})[0]; answer = [slide.pk, slide.tiles.first().pk]"
    )
    tabs = [
        f"/projects/{project}/{tab}" for tab in ("", "slides/", "rounds/", "models/", "jobs/", "exports/", "members/")
    ]
    files = [f"/slides/{slide}/", f"/slides/{slide}/overview/", f"/tiles/{tile}/", f"/tiles/{tile}/image/"]
    answers = {path: stranger.goto(path).status for path in tabs + files}
    assert set(answers.values()) == {404}, answers


@needs_shared_slides
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["unreadable/plain.tif"], "plain.tif holds 2 pictures (pages, or an animation)"),
        (["unreadable/colonoscopy.dcm"], "colonoscopy.dcm is not a DICOM whole-slide image"),
        (["small.svs"], "small.svs is 16 x 16 px at 0.499 µm/px; a tile needs"),
        (["dapi.ndpi"], "dapi.ndpi is nearly black"),
        (["dicom/boxes_0.dcm", "dicom/boxes_1.dcm"], "boxes_0.dcm is 16 x 16 px"),
    ],
    ids=lambda value: value[0].split("/")[-1] if isinstance(value, list) else "",
)
def test_a_file_that_is_no_smear_is_refused_with_its_name_and_the_reason(page: Page, empty_project, files, reason):
    upload(page, empty_project, [WSI / name for name in files])
    expect(page.get_by_text("Importing 1 slide.")).to_be_visible()
    expect(page.locator(".job-message-failed")).to_contain_text(reason, timeout=JOB_MILLISECONDS)
    page.reload()
    expect(page.locator(".job-message-failed")).to_contain_text(reason)
    expect(page.get_by_text("No slide yet")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nothing.svs", b"", "nothing.svs: the file is empty (0 bytes). Nothing was imported."),
        ("report.pdf", b"%PDF-1.7", "report.pdf: not a slide or image format that Marrowloop reads"),
    ],
)
def test_a_file_that_cannot_be_a_slide_is_refused_at_once(page: Page, empty_project, name, content, reason):
    upload(page, empty_project, {"name": name, "mimeType": "application/octet-stream", "buffer": content})
    expect(page.locator(".errorlist")).to_contain_text(reason)
    page.goto(f"/projects/{empty_project}/slides/")
    expect(page.get_by_text("No slide yet")).to_be_visible()


@needs_shared_slides
def test_a_slide_without_a_pixel_size_is_imported_once_the_lead_gives_it(page: Page, empty_project):
    upload(page, empty_project, WSI / "boxes.tiff")
    expect(page.locator(".job-message-failed")).to_contain_text("boxes.tiff", timeout=JOB_MILLISECONDS)
    page.get_by_label("Pixel size (µm per pixel, level 0)").fill("1")
    page.get_by_role("button", name="Import with this size").click()
    job = page.locator(".job")
    expect(job.or_(page.get_by_role("link", name="boxes.tiff"))).to_be_visible()
    if job.count():
        expect(job).to_have_attribute("data-job-state", "succeeded", timeout=JOB_MILLISECONDS)
        page.reload()
    expect(page.get_by_role("row", name="boxes.tiff 300 × 250 1 generic-tiff")).to_be_visible()


def test_the_same_slide_is_not_imported_twice(page: Page, empty_project, smears: Path):
    upload_slide(page, empty_project, smears / "T01.tif")
    content = (smears / "T01.tif").read_bytes()
    upload(page, empty_project, {"name": "copy.tif", "mimeType": "image/tiff", "buffer": content})
    expect(page.locator(".job-message-failed")).to_contain_text(
        "copy.tif: already in this project as T01.tif (patient T01)", timeout=JOB_MILLISECONDS
    )
    page.reload()
    expect(page.locator("table.grouped tbody tr")).to_have_count(1)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Ünïcode №7 骨髄 2nd smear.tif", "Ünïcode №7 骨髄 2nd smear.tif"),
        ("../../outside.tif", "outside.tif"),
    ],
    ids=["spaces and Unicode", "a path"],
)
def test_an_odd_file_name_is_shown_and_never_used_as_a_path(
    page: Page, site: Site, empty_project, smears, given, shown
):
    content = (smears / "T01.tif").read_bytes()
    upload_slide(page, empty_project, {"name": given, "mimeType": "image/tiff", "buffer": content})
    page.reload()
    expect(page.get_by_role("link", name=shown, exact=True)).to_be_visible()
    assert [path for path in site.folder.rglob("*") if Path(shown).stem in path.name] == []


def test_a_running_job_can_be_cancelled_on_the_page(page: Page, site: Site, project, project_name, smears):
    _start_training(page, site, project, smears, project_name, epochs=500)
    page.locator(".job").get_by_role("button", name="Cancel").click()
    answer(page, "Cancel the job")
    expect(page.locator(".job")).to_have_attribute("data-job-state", "cancelled", timeout=JOB_MILLISECONDS)
    page.reload()
    page.get_by_role("button", name="Cancel the round").click()
    answer(page, "Cancel the round")
    expect(round_state(page)).to_have_text("cancelled")
    page.goto(f"/projects/{project}/")
    expect(page.get_by_role("link", name="Start round 2")).to_be_visible()


def test_a_training_whose_worker_is_killed_goes_on_and_the_round_ends_well(
    page: Page, site: Site, project, project_name, smears
):
    _start_training(page, site, project, smears, project_name, epochs=40)
    site.kill_worker()
    wait_for_round(page, "done")
    trainings = f"Job.objects.filter(project={project}, kind='train')"
    assert site.read(f"answer = list({trainings}.values_list('losses', 'attempt', 'state'))") == [[1, 2, "succeeded"]]


def _start_training(page: Page, site: Site, project: int, smears: Path, name: str, *, epochs: int) -> None:
    """A round of the project up to the middle of its training, with the round's page on screen."""
    start_round(page, project, SHORT | {"epochs": str(epochs)})
    wait_for_round(page, "annotating")
    files = [str(smears / f"{patient}.json") for patient in ("T01", "T02")]
    site.manage("import_truth", *files, "--project", name, "--batch", "Round 1", "--tiles", "6")
    close_round(page)
    expect(page.locator(".job-message")).to_contain_text(f"of {epochs}, loss", timeout=JOB_MILLISECONDS)
