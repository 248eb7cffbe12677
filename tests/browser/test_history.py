"""A tile's history in a real browser: comparing two annotations, and restoring one after a question."""

from playwright.sync_api import Page, expect

from tests.browser.site import Site

TWO_READINGS = """
from tests import factories
project = factories.make_project(lead=User.objects.get(username="lead"))
task = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all()).tasks.get()
reader = factories.make_member(project)
factories.submit_task(task, reader, (0, 10, 20, 30, 40), (1, 200, 20, 30, 40))
factories.submit_task(task, reader, (1, 10, 20, 30, 40))
answer = task.tile_id
"""


def test_an_older_annotation_is_compared_and_restored(site: Site, page: Page):
    tile = site.read(TWO_READINGS)
    page.goto(f"/tiles/{tile}/")
    page.get_by_role("link", name="Compare or restore").click()
    page.get_by_role("link", name="Difference").click()
    expect(page.get_by_role("row", name="reclassified")).to_contain_text("NEU")
    expect(page.get_by_role("row", name="only left")).to_contain_text("ERY")
    page.get_by_label("No. 2 on the left").check()
    page.get_by_label("No. 1 on the right").check()
    page.get_by_role("button", name="Compare left and right").click()
    expect(page.get_by_role("heading", name="No. 2 and No. 1")).to_be_visible()
    expect(page.get_by_role("row", name="only right")).to_contain_text("ERY")

    page.get_by_role("button", name="Restore… No. 1").click()
    expect(page.get_by_role("dialog")).to_contain_text("Make the 2 boxes of No. 1")
    page.get_by_role("button", name="Go back").click()
    assert site.read(f"answer = Tile.objects.get(pk={tile}).annotations.count()") == 2
    page.get_by_role("button", name="Restore… No. 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Restore").click()
    expect(page.get_by_text("its boxes are the tile's truth again")).to_be_visible()
    expect(page.get_by_role("row", name="restored No. 1")).to_contain_text("truth")
    assert site.read(f"answer = Tile.objects.get(pk={tile}).truth.boxes.count()") == 2
