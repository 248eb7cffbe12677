"""A folder of plain images, sent by a real browser, and one of them on its pages."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.site import Site
from tests.browser.steps import project_key, upload

IMAGES = 105  # more than the browser sends at once
IMPORT_MILLISECONDS = 240_000


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"field {number:03}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def project(page: Page, request) -> int:
    page.goto("/projects/new/")
    page.get_by_label("Name").fill(request.node.name[-90:])
    page.get_by_role("button", name="Make the project").click()
    expect(page.get_by_text("No slide yet")).to_be_visible()
    return project_key(page)


# First, while nothing else waits to be imported.
def test_an_image_and_its_tile_are_shown_in_their_shape(page: Page, project, tmp_path):
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 1200, 3), dtype=np.uint8)).save(path)
    upload(page, project, path)
    expect(page.get_by_role("link", name="wide.png")).to_be_visible(timeout=IMPORT_MILLISECONDS)
    page.get_by_role("link", name="wide.png").click()
    picture = page.get_by_role("img", name="wide.png; opens its tile").bounding_box()
    assert picture["width"] / picture["height"] == pytest.approx(4, rel=0.02)
    expect(page.get_by_text("not stated").first).to_be_visible()
    page.get_by_role("link", name="Open the tile").click()
    expect(page.get_by_role("heading", name="wide.png")).to_be_visible()
    shown = page.get_by_role("img", name=re.compile("The tile with 0 boxes")).bounding_box()
    assert shown["width"] / shown["height"] == pytest.approx(4, rel=0.02)


def test_a_folder_of_images_is_imported_in_parts(site: Site, page: Page, project, images):
    failures: list[str] = []
    posts: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    page.goto(f"/projects/{project}/slides/")
    page.get_by_label("Patient (pseudonym)").fill("P-7")
    upload_here(page, images)
    expect(page.get_by_text("Importing 100 slides.")).to_be_visible()
    expect(page.get_by_text("Importing 5 slides.")).to_be_visible()
    assert [url.rsplit("/", 3)[1:] for url in posts] == [["slides", "import", ""]] * 2
    # The page follows by itself until nothing is left to do.
    expect(page.locator("#imports [data-job-state=queued], #imports [data-job-state=running]")).to_have_count(
        0, timeout=IMPORT_MILLISECONDS
    )
    expect(page.get_by_text(f"1–50 of {IMAGES} slides")).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text(f"51–100 of {IMAGES} slides")).to_be_visible()
    expect(page.locator("table.grouped tbody tr")).to_have_count(50)
    assert (
        site.read(f"answer = [Slide.objects.filter(project={project}).count(), Patient.objects.count()]")[0] == IMAGES
    )
    assert failures == []


def test_a_file_that_is_no_image_is_refused_before_any_other_is_imported(page: Page, project, images):
    page.goto(f"/projects/{project}/slides/")
    letter = {"name": "letter.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"}
    payloads = [{"name": path.name, "mimeType": "image/png", "buffer": path.read_bytes()} for path in images]
    upload_here(page, [*payloads, letter])
    expect(page.locator(".errorlist")).to_contain_text("letter.pdf: not a slide or image format")
    expect(page.locator(".errorlist")).to_contain_text("Nothing was imported.")
    page.goto(f"/projects/{project}/slides/")
    expect(page.get_by_text("No slide yet")).to_be_visible()
    expect(page.locator(".job")).to_have_count(0)


def test_the_server_that_goes_away_between_two_parts_is_told_of(page: Page, project, images):
    sent: list[str] = []

    def answer(route):
        sent.append(route.request.url)
        route.abort() if len(sent) > 1 else route.continue_()

    page.route("**/slides/import/", answer)
    page.goto(f"/projects/{project}/slides/")
    upload_here(page, images)
    problem = page.locator("[data-upload-problem]")
    expect(problem).to_contain_text("the server could not be reached")
    expect(problem).to_contain_text("The first 100 files were taken, the others not.")
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_enabled()


def upload_here(page: Page, files) -> None:
    """Send files by the form of the slides page that is open."""
    page.get_by_label("Slide files").set_input_files(files)
    page.get_by_role("button", name="Import", exact=True).click()
