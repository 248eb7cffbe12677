"""The API's page in a real browser: Swagger UI under the site's policy, without another host."""

import re

from playwright.sync_api import Page, expect

from tests.browser.site import Site
from tests.browser.test_accessibility import violations


def test_the_api_is_browsed_and_tried_with_a_token(page: Page, site: Site):
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((site.url, "data:", "blob:")) else complaints.append(request.url)
        ),
    )
    page.goto("/")
    page.get_by_role("link", name="API tokens").click()
    page.get_by_label("Name").fill("browser")
    page.get_by_role("button", name="Make the token").click()
    token = page.get_by_label(re.compile("The new token")).input_value()
    assert violations(page) == []
    page.get_by_role("link", name="The API").click()
    expect(page.get_by_text("Lease the batch's next task to the token's user")).to_be_visible()
    page.get_by_role("button", name="Authorize", exact=True).first.click()
    page.locator(".auth-container input").fill(token)
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()
    page.get_by_text("The projects that the token's user may see").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    expect(page.locator(".live-responses-table tbody .response-col_description").first).to_contain_text('"results"')
    assert complaints == []
