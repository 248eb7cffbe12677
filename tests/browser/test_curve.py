"""The curve in a real browser: a point's values stand above it while it is pointed at or has the focus."""

from playwright.sync_api import Page, expect

from tests.browser.site import Site

THREE_ROUNDS = """
from tests import factories
project = factories.make_project(lead=User.objects.get(username="lead"))
for number, map50 in enumerate((0.3, 0.5, 0.6), start=1):
    version = factories.make_version(project)
    factories.make_evaluation(version, map50)
    factories.make_round(project, number=number, state="done", model_version=version)
answer = project.pk
"""


def test_the_values_of_a_point_are_shown_by_pointer_and_by_keyboard(site: Site, page: Page):
    project = site.read(THREE_ROUNDS)
    page.goto(f"/projects/{project}/curve/")
    points, readouts = page.locator(".point-group"), page.locator(".readout")
    for number in range(3):
        expect(readouts.nth(number)).to_be_hidden()
    # Anywhere in a point's strip of the plot, far above the point itself.
    page.locator(".band").nth(0).hover(position={"x": 5, "y": 5})
    expect(readouts.nth(0)).to_be_visible()
    expect(readouts.nth(0)).to_contain_text("Round 1: mAP@0.5 0.300 (0.200 to 0.400)")
    # Of a point that has the focus and another that is pointed at, the latter's values are shown.
    points.nth(1).focus()
    expect(readouts.nth(1)).to_be_hidden()
    page.get_by_role("heading", level=1).hover()
    expect(readouts.nth(0)).to_be_hidden()
    expect(readouts.nth(1)).to_be_visible()
    page.keyboard.press("Tab")
    expect(readouts.nth(1)).to_be_hidden()
    expect(readouts.nth(2)).to_contain_text("Round 3")
    expect(readouts.nth(2)).to_be_visible()


def test_the_axis_is_chosen_and_the_figure_downloaded_over_it(site: Site, page: Page):
    project = site.read(THREE_ROUNDS)
    page.goto(f"/projects/{project}/")
    page.get_by_role("link", name="By expert-days, class and reader").click()
    page.get_by_role("link", name="Expert-days").click()
    expect(page).to_have_url(f"{site.url}/projects/{project}/curve/?x=days")
    page.get_by_label("Active hours of an expert-day").fill("4")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_label("Active hours of an expert-day")).to_have_value("4.0")
    with page.expect_download() as started:
        page.get_by_role("link", name="SVG").click()
    assert started.value.suggested_filename == f"marrowloop-{project}-curve-days.svg"
