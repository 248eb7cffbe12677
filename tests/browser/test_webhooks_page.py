"""The pages of webhooks with a real worker: one is made, tested, found unreachable, switched off and deleted."""

import re
import time

from playwright.sync_api import Page, expect

from tests.browser.test_accessibility import JOB_MILLISECONDS, violations


def test_a_webhook_is_made_tested_and_deleted(page: Page, empty_project: int):
    page.goto(f"/projects/{empty_project}/events/")
    page.get_by_role("link", name="Webhooks").click()
    expect(page.get_by_text("No webhook yet")).to_be_visible()
    assert violations(page) == []

    page.get_by_label("Address").fill("http://127.0.0.1:22/")
    page.get_by_role("button", name="Make the webhook").click()
    expect(page.get_by_text("127.0.0.1:22 is not among the hosts")).to_be_visible()
    assert violations(page) == []
    page.get_by_label("Address").fill("http://127.0.0.1:9/told/of/marrow")  # allowed, but nobody listens
    page.get_by_label("round done").uncheck()
    page.get_by_role("button", name="Make the webhook").click()
    expect(page.get_by_label("The secret that signs")).to_have_value(re.compile(r"^whsec_.{44}$"))
    assert violations(page) == []

    page.get_by_role("button", name="Send a test").click()
    refused = page.get_by_text("Connection refused")
    expect(page.get_by_text("A test is on its way")).to_be_visible()
    deadline = time.monotonic() + JOB_MILLISECONDS / 1000
    while not refused.count():
        assert time.monotonic() < deadline, "the worker has not tried"
        page.wait_for_timeout(200)
        page.reload()
    page.get_by_text(re.compile("^Message .{36}$")).click()
    assert violations(page) == []
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_text("It is sent again, under the same id.")).to_be_visible()

    page.get_by_label("switched on").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The webhook is changed.")).to_be_visible()
    expect(page.get_by_role("button", name="Send a test")).to_have_count(0)
    page.get_by_role("link", name="Webhooks", exact=True).click()
    expect(page.get_by_role("row", name="http://127.0.0.1:9/told/of/marrow")).to_contain_text("off")
    assert violations(page) == []

    page.get_by_role("link", name="http://127.0.0.1:9/told/of/marrow").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No webhook yet")).to_be_visible()
