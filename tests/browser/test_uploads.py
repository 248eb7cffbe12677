"""Slides that go up in chunks, from a real browser to a real server that dies in between."""

import hashlib
import re
import zlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.site import Site
from tests.browser.steps import answer
from tests.browser.test_accessibility import violations

CHUNK = 65536
IMPORT_MILLISECONDS = 120_000


def choose(page: Page, project: int, *files: Path) -> None:
    """Send files in small chunks by the form of the slides page."""
    page.goto(f"/projects/{project}/slides/")
    page.locator("form[data-upload]").evaluate("(form, size) => { form.dataset.uploadChunk = size; }", CHUNK)
    page.get_by_label("Slide files").set_input_files(files)
    page.get_by_role("button", name="Import", exact=True).click()


def row(page: Page, name: str) -> Locator:
    return page.locator(".upload-row", has_text=name)


def wait_for_slide(page: Page, name: str) -> None:
    expect(page.get_by_role("link", name=name)).to_be_visible(timeout=IMPORT_MILLISECONDS)


def digests(site: Site, project: int) -> dict[str, str]:
    return site.read(f"answer = dict(Slide.objects.filter(project={project}).values_list('name', 'sha256'))")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def offset_of(url: str) -> int:
    return int(parse_qs(urlsplit(url).query)["offset"][0])


@pytest.fixture
def offsets(page: Page) -> list[int]:
    """Where the chunks begin that the page sends, in order."""
    found: list[int] = []
    page.on("request", lambda request: found.append(offset_of(request.url)) if "/chunk/" in request.url else None)
    return found


def test_an_upload_goes_on_after_the_server_was_killed(page: Page, site: Site, empty_project, smears: Path, offsets):
    slide = smears / "T01.tif"

    def kill_at_the_fifth(route: Route) -> None:
        if len(offsets) == 5:
            site.kill_web()
        route.continue_()

    page.route("**/chunk/**", kill_at_the_fifth)
    choose(page, empty_project, slide)
    expect(row(page, "T01.tif")).to_contain_text("Trying again in")
    assert offsets[:5] == [CHUNK * index for index in range(5)]
    site.serve()
    wait_for_slide(page, "T01.tif")
    assert digests(site, empty_project) == {"T01.tif": sha256(slide)}
    assert [offsets.count(CHUNK * index) for index in range(4)] == [1] * 4  # what was there was not sent again
    # Nothing is left of it on the way.
    assert site.read(f"answer = Upload.objects.filter(project={empty_project}, job=None).count()") == 0


def test_a_file_chosen_again_after_a_reload_goes_on_where_it_stopped(
    page: Page, site: Site, empty_project, smears: Path, offsets
):
    page.on("dialog", lambda dialog: dialog.accept())  # the browser asks whether to leave
    page.route("**/chunk/**", lambda route: route.abort() if len(offsets) > 3 else route.continue_())
    choose(page, empty_project, smears / "T01.tif")
    expect(row(page, "T01.tif")).to_contain_text("The server could not be reached. Trying again in")
    page.goto(f"/projects/{empty_project}/slides/")
    page.unroute("**/chunk/**")
    expect(page.get_by_role("row", name=re.compile(r"T01\.tif .* lead"))).to_be_visible()
    assert violations(page) == []
    offsets.clear()
    choose(page, empty_project, smears / "T01.tif")
    wait_for_slide(page, "T01.tif")
    assert offsets[0] == 3 * CHUNK
    assert digests(site, empty_project) == {"T01.tif": sha256(smears / "T01.tif")}
    expect(page.get_by_role("heading", name="Uploads that are not finished")).to_have_count(0)


def test_a_chunk_that_is_damaged_on_its_way_is_sent_again(page: Page, site: Site, empty_project, smears: Path, offsets):
    def damage_the_second(route: Route) -> None:
        data = route.request.post_data_buffer
        route.continue_(post_data=bytes([data[0] ^ 1]) + data[1:] if len(offsets) == 2 else data)

    page.route("**/chunk/**", damage_the_second)
    choose(page, empty_project, smears / "T01.tif")
    wait_for_slide(page, "T01.tif")
    assert offsets[:4] == [0, CHUNK, CHUNK, 2 * CHUNK]
    assert digests(site, empty_project) == {"T01.tif": sha256(smears / "T01.tif")}


def test_without_sha_256_on_plain_http_a_crc_32_guards_the_chunks(page: Page, site: Site, empty_project, smears: Path):
    sums: list[str] = []
    page.on("request", lambda one: sums.append(one.headers.get("x-checksum", "")) if "/chunk/" in one.url else None)
    page.add_init_script("Object.defineProperty(crypto, 'subtle', { value: undefined })")
    choose(page, empty_project, smears / "T01.tif")
    wait_for_slide(page, "T01.tif")
    content = (smears / "T01.tif").read_bytes()
    chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    assert sums == [f"crc-32:{zlib.crc32(chunk):08x}" for chunk in chunks]
    assert digests(site, empty_project) == {"T01.tif": sha256(smears / "T01.tif")}


def test_several_files_one_paused_one_cancelled(page: Page, site: Site, empty_project, smears: Path, offsets):
    held: list[Route] = []

    def hold_the_third(route: Route) -> None:
        if len(offsets) == 3:
            held.append(route)
        else:
            route.continue_()

    page.route("**/chunk/**", hold_the_third)
    choose(page, empty_project, *(smears / f"T0{number}.tif" for number in (1, 2, 3)))
    first, second = row(page, "T01.tif"), row(page, "T02.tif")
    expect(first).to_have_attribute("data-state", "sending")
    expect(first).to_contain_text(" of ")
    second.get_by_role("button", name="Cancel…").click()
    answer(page, "Cancel the upload")
    expect(second).to_contain_text("Cancelled.")
    first.get_by_role("button", name="Pause").click()
    # The others go on meanwhile.
    expect(row(page, "T03.tif")).to_contain_text("Its import has begun.")
    expect(first).to_contain_text("paused")
    assert violations(page) == []
    assert held
    first.get_by_role("button", name="Resume").click()
    wait_for_slide(page, "T01.tif")
    wait_for_slide(page, "T03.tif")
    assert digests(site, empty_project) == {name: sha256(smears / name) for name in ("T01.tif", "T03.tif")}
    assert site.read(f"answer = Upload.objects.filter(project={empty_project}, job=None).count()") == 0


def test_what_the_server_refuses_is_said_before_anything_is_sent(
    page: Page, empty_project, smears: Path, offsets, tmp_path
):
    letter = tmp_path / "letter.pdf"
    letter.write_bytes(b"%PDF-1.7" * CHUNK)
    choose(page, empty_project, smears / "T01.tif", letter)
    expect(page.locator("[data-upload-problem]")).to_contain_text("letter.pdf: not a slide or image format")
    expect(page.locator("[data-upload-problem]")).to_contain_text("Nothing was imported.")
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_enabled()
    assert offsets == []


def test_an_upload_stops_when_the_session_has_ended_and_goes_on_after_signing_in(
    page: Page, site: Site, empty_project, smears: Path, offsets
):
    def forget_me_at_the_third(route: Route) -> None:
        if len(offsets) == 3:
            page.context.clear_cookies()
        route.continue_()

    cookies = page.context.cookies()
    page.route("**/chunk/**", forget_me_at_the_third)
    choose(page, empty_project, smears / "T01.tif")
    expect(row(page, "T01.tif")).to_contain_text(
        "You are no longer signed in: sign in in another tab, then go on here."
    )
    page.context.add_cookies(cookies)
    page.unroute("**/chunk/**")
    row(page, "T01.tif").get_by_role("button", name="Resume").click()
    wait_for_slide(page, "T01.tif")
    assert digests(site, empty_project) == {"T01.tif": sha256(smears / "T01.tif")}


def test_files_are_dropped_on_the_form(page: Page, empty_project):
    page.goto(f"/projects/{empty_project}/slides/")
    dropped = page.evaluate_handle(
        """() => { const given = new DataTransfer(); given.items.add(new File(["x"], "A.tif")); return given; }"""
    )
    page.get_by_label("Patient (pseudonym)").dispatch_event("drop", {"dataTransfer": dropped})
    assert page.get_by_label("Slide files").evaluate("input => input.files[0].name") == "A.tif"
