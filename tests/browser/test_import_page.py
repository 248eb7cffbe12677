"""Annotations go in through the pages: each step follows its job by itself, whole and once."""

import io
import zipfile

from PIL import Image
from playwright.sync_api import Page, expect


def archive() -> bytes:
    picture, content = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (90, 60), (120, 90, 90)).save(picture, "PNG")
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("classes.txt", "neutrophil\nred cell\n")
        zipped.writestr("labels/a.txt", "0 .5 .5 .5 .5\n1 .2 .2 .2 .2\n0 1 .5 .5 .5\n")
        zipped.writestr("images/a.png", picture.getvalue())
    return content.getvalue()


def ended(page: Page, title: str) -> None:
    """The page of this step shows what its job has found, without having been loaded again."""
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    expect(page.locator(".job")).to_have_attribute("data-job-state", "succeeded")
    expect(page.get_by_role("button", name="Discard this import…")).to_have_count(0 if title == "Import" else 1)
    expect(page.locator("#import-step")).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.locator(".job")).to_have_count(1)
    expect(page.get_by_role("navigation", name="Project")).to_have_count(1)


def test_labels_are_read_mapped_tried_out_and_written(page: Page, site, empty_project: int):
    page.goto(f"/projects/{empty_project}/imports/")
    page.get_by_label("Zip archive or files").set_input_files(
        {"name": "labels.zip", "mimeType": "application/zip", "buffer": archive()}
    )
    page.get_by_role("button", name="Read the files").click()
    ended(page, "Found in the files")

    expect(page.get_by_label("Class of neutrophil")).to_have_value("0")
    page.get_by_label("Class of red cell").select_option(label="leave its boxes out")
    expect(page.get_by_label("Reader")).to_be_hidden()
    page.get_by_label("They become").select_option(label="a reader's annotations")
    expect(page.get_by_label("Reader")).to_be_visible()
    page.get_by_label("They become").select_option(label="the tiles' truth")
    expect(page.get_by_label("Patient of new images")).to_be_visible()
    page.get_by_role("button", name="Dry run").click()
    ended(page, "Dry run")
    expect(page.get_by_text("the box reaches 22.50 px outside the tile")).to_be_visible()
    expect(page.get_by_role("heading", name="What would happen")).to_have_count(0)

    page.get_by_role("link", name="Choose differently").click()
    page.get_by_label("Class of red cell").select_option(label="leave its boxes out")
    page.get_by_label("Boxes outside their tile").select_option(value="clip")
    page.get_by_role("button", name="Dry run").click()
    ended(page, "Dry run")
    expect(page.get_by_role("heading", name="Boxes cut at the tile's edge (1)")).to_be_visible()
    page.get_by_role("button", name="Import", exact=True).click()
    ended(page, "Import")
    boxes = site.read(
        f"""
from annotation.models import Box
kept = Box.objects.filter(annotation__tile__slide__project={empty_project}).order_by("pk")
answer = [[box.cell_class.name, box.x, box.y, box.width, box.height] for box in kept]
"""
    )
    assert boxes == [["neutrophil", 22.5, 15, 45, 30], ["neutrophil", 67.5, 15, 22.5, 30]]
    page.get_by_role("link", name="The slides of this project").click()
    expect(page.get_by_role("link", name="a.png").first).to_be_visible()


def test_a_step_under_way_is_followed_until_it_has_ended(page: Page, site, empty_project: int):
    """Its job's fragment is fetched again and again inside of the step, which is fetched as a whole at the end."""
    job = site.read(
        f"""
from tests.factories import make_label_import
answer = make_label_import(Project.objects.get(pk={empty_project}), state="running").pk
"""
    )
    page.goto(f"/imports/{job}/")
    for progress in (0.25, 0.5):  # what came by one fetch asks once more
        site.read(f"answer = Job.objects.filter(pk={job}).update(progress={progress})")
        expect(page.locator("#import-step .job progress")).to_have_js_property("value", progress)
        expect(page.locator(".job")).to_have_count(1)
    site.read(
        f"""
from tests.factories import make_label_import
found = make_label_import(Project.objects.get(pk={empty_project})).result
answer = Job.objects.filter(pk={job}).update(state="succeeded", result=found)
"""
    )
    ended(page, "Found in the files")
    expect(page.get_by_label("Class of Blast")).to_be_visible()
