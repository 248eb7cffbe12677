"""When something breaks while somebody reads: the page says what holds, and the site has every box in the end."""

import json

import pytest
from playwright.sync_api import Error, Route, expect

from tests.browser import faults
from tests.browser.editing import Box, Editing, Editor
from tests.browser.faults import CELLS, LATER, MINE, NEXT, THEIRS, Wanted

PRE_LABELS = [label.box for label in CELLS]


def save_text(editor: Editor) -> str:
    return editor.page.locator("#save-text").inner_text()


def revisions(editing: Editing, wanted: Wanted) -> dict[str, list[tuple[str, int]]]:
    """Task -> author and revision of each of its annotations, for tasks that have any."""
    stored = editing.stored(wanted.batch)
    found = {task: [(one.author, one.revision) for one in told.annotations] for task, told in stored.items()}
    return {task: rows for task, rows in found.items() if rows}


def conflict(editor: Editor):
    return editor.page.get_by_role("dialog", name="Two versions of this tile")


# --- the server or the network is away -----------------------------------------------------------


def test_a_web_server_killed_in_mid_save_gets_everything_once_it_is_back(editing: Editing):
    wanted = faults.kill_in_mid_save(editing)
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {task: [("reader", 1)] for task in wanted.submitted}


def test_tiles_confirmed_offline_are_sent_when_the_network_is_back(editing: Editing):
    wanted = faults.offline_and_back(editing)
    assert len(wanted.submitted) >= 2
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {task: [("reader", 1)] for task in wanted.submitted}


def test_offline_the_page_says_so_and_what_it_waits_for(editing: Editing):
    wanted = Wanted(editing.batch(*[CELLS] * 4))
    editor = editing.open(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    editor.page.context.set_offline(True)
    faults.confirm_while_there_are_tiles(editor, wanted)
    editor.save_state("offline")
    count = len(wanted.submitted)
    assert editor.fact("unsent") == str(count)
    expect(editor.page.locator("#save-text")).to_have_text(f"Offline: {count} tiles kept here")
    expect(editor.page.locator("#waiting-text")).to_contain_text("This tile is sent as soon as the server can take it")
    expect(editor.page.locator("#progress-text")).to_have_text(f"{count} of 4")


@pytest.mark.parametrize("end", ["closed", "crashed"])
def test_work_of_a_page_that_ends_offline_is_restored_and_sent_at_the_next_visit(editing: Editing, end):
    wanted = Wanted(editing.batch(CELLS, CELLS, CELLS))
    context = editing.context()
    editor = editing.page(context).go(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    first = editor.task
    context.set_offline(True)
    editor.draw(MINE)
    wanted.submitted[first] = editor.boxes()
    editor.press("Space")
    second = editor.wait(after=first)
    editor.walk_to(0)
    editor.press("Delete")
    editor.draw(LATER)
    editor.save_state("offline")
    wanted.drafted[second] = editor.boxes()
    if end == "crashed":
        with editor.page.expect_event("crash"), pytest.raises(Error):
            editor.page.goto("chrome://crash")
    editor.page.close()

    context.set_offline(False)
    again = editing.page(context).go(wanted.batch)
    assert again.wait() == second
    assert sorted(again.boxes()) == sorted(wanted.drafted[second])
    # Chromium lets the last requests of a page that is closed pass, offline or not.
    assert end == "closed" or "restored" in again.notice
    again.saved()
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {first: [("reader", 1)]}


def test_a_submission_whose_answer_was_lost_counts_once(editing: Editing):
    wanted = faults.lost_answer(editing)
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {task: [("reader", 1)] for task in wanted.submitted}


def test_a_server_that_fails_is_asked_again(editing: Editing):
    wanted = Wanted(editing.batch(CELLS, CELLS))
    editor = editing.open(wanted.batch, intercepted=True)
    editor.page.wait_for_load_state("networkidle")
    editor.page.route("**/draft/", lambda route: route.fulfill(status=500, body="broken"), times=1)
    editor.page.route("**/submit/", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"), times=1)
    first = editor.task
    editor.draw(MINE)
    editor.save_state("error")
    assert save_text(editor) == "Server error: kept here"
    wanted.submitted[first] = editor.boxes()
    editor.press("Space")
    editor.save_state("error")
    editor.saved()
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {first: [("reader", 1)]}


def test_an_image_that_does_not_come_is_said_and_can_be_asked_for_again(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.page(editing.context())
    editor.page.route("**/image/", lambda route: route.abort(), times=1)
    editor.page.goto(f"/batches/{batch}/annotate/")
    problem = editor.page.locator("#image-error")
    expect(problem).to_contain_text("The image of this tile could not be fetched")
    editor.press("Space")  # a tile that nobody can see is not confirmed
    problem.get_by_role("button", name="Try again").click()
    editor.wait()
    expect(problem).to_be_hidden()
    assert all(told.annotations == [] for told in editing.stored(batch).values())


def test_a_browser_that_keeps_nothing_says_so(editing: Editing):
    """Storage full or switched off: while the server is away, the page itself is all there is."""
    wanted = Wanted(editing.batch(CELLS, CELLS))
    editor = editing.page(editing.context())
    editor.page.add_init_script("Storage.prototype.setItem = () => { throw new Error('full'); };")
    editor.go(wanted.batch)
    editor.page.context.set_offline(True)
    editor.draw(MINE)
    editor.save_state("offline")
    assert save_text(editor) == "Not stored: leave this page open"
    wanted.drafted[editor.task] = editor.boxes()
    editor.page.context.set_offline(False)
    editor.saved()
    assert wanted.lost(editing) == []


def test_a_skip_waits_for_the_server_like_a_submission(editing: Editing):
    wanted = Wanted(editing.batch(*[CELLS] * 4))
    editor = editing.open(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    first = editor.task
    editor.page.context.set_offline(True)
    editor.press("s")
    editor.page.get_by_role("button", name="Skip the tile").click()
    second = editor.wait(after=first)
    editor.draw(MINE)
    wanted.submitted[second] = editor.boxes()
    editor.press("Space")
    editor.save_state("offline")
    assert editor.fact("unsent") == "2"
    editor.page.context.set_offline(False)
    editor.saved()
    told = editing.stored(wanted.batch)[first]
    assert (told.state, told.skip_reason, told.annotations) == ("skipped", "out of focus", [])
    assert wanted.lost(editing) == []


# --- the session ends ----------------------------------------------------------------------------


def test_a_session_that_ends_in_mid_work_loses_nothing(editing: Editing):
    wanted = Wanted(editing.batch(CELLS, CELLS, CELLS))
    editor = editing.open(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    first = editor.task
    editing.sign_out_everywhere("reader")
    editor.draw(MINE)
    wanted.submitted[first] = editor.boxes()
    editor.press("Space")
    second = editor.wait(after=first)
    editor.draw(LATER)
    wanted.drafted[second] = editor.boxes()
    editor.save_state("signed-out")
    assert save_text(editor) == "Signed out: kept here"
    assert not revisions(editing, wanted)

    with editor.page.context.expect_page() as opened:
        editor.page.get_by_role("link", name="Sign in").click()
    tab = opened.value
    editing.sign_in(tab, "reader")
    editor.saved()
    assert editor.task == second
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {first: [("reader", 1)]}


def test_work_of_a_reader_is_never_sent_in_the_name_of_another(editing: Editing):
    """On a shared computer the next person signs in while the first one's page still waits for its session."""
    wanted = Wanted(editing.batch(CELLS, CELLS, CELLS))
    context = editing.context()
    editor = editing.page(context).go(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    first = editor.task
    editing.sign_out_everywhere("reader")
    editor.draw(MINE)
    wanted.submitted[first] = editor.boxes()
    editor.press("Space")
    editor.save_state("signed-out")
    lead = context.new_page()
    editing.sign_in(lead, "lead")
    with editor.page.expect_response(lambda response: response.url.endswith("/submit/")):
        editor.back_in_sight()
    editor.page.wait_for_function("() => (document.documentElement?.dataset ?? {}).saveState !== 'saving'")
    assert not revisions(editing, wanted)

    context.clear_cookies()
    editing.sign_in(lead, "reader")
    editor.back_in_sight()
    editor.saved()
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {first: [("reader", 1)]}


# --- one tile, two windows or two readers --------------------------------------------------------


def test_two_tabs_of_one_reader_get_a_tile_each(editing: Editing):
    wanted = Wanted(editing.batch(*[CELLS] * 6))
    context = editing.context()
    tabs = [editing.page(context).go(wanted.batch) for _ in range(2)]
    assert tabs[0].task != tabs[1].task
    for _ in range(2):
        for tab in tabs:
            tab.draw(MINE)
            wanted.submitted[tab.task] = tab.boxes()
            tab.confirm()
    assert len(wanted.submitted) == 4
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {task: [("reader", 1)] for task in wanted.submitted}


def test_one_reader_at_two_computers_never_reads_saved_where_nothing_was_stored(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    one, other = editing.open(batch), editing.open(batch)
    task = one.task
    assert other.task == task
    steps = [(one, MINE), (one, LATER), (other, THEIRS), (one, NEXT), (other, MINE), (one, THEIRS)]
    for editor, box in steps:
        editor.draw(box)
        editor.saved()
        assert sorted(editing.stored(batch)[task].drafts["reader"]) == sorted(editor.boxes())
    assert "another computer" in other.notice


def test_one_reader_at_two_computers_submits_twice_and_sees_both_versions(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    one, other = editing.open(batch), editing.open(batch)
    task = one.task
    assert other.task == task
    one.draw(MINE)
    mine = one.boxes()
    one.confirm()
    other.draw(LATER)
    expect(conflict(other)).to_be_visible()
    assert save_text(other) == "Conflict: kept here"
    other.page.get_by_role("button", name="Keep mine").click()
    other.wait(after=task)
    other.saved()
    told = editing.stored(batch)[task]
    assert [(one.author, one.revision) for one in told.annotations] == [("reader", 1), ("reader", 2)]
    assert sorted(told.annotations[0].boxes) == sorted(mine)
    assert sorted(told.newest) == sorted([*PRE_LABELS, LATER])


def test_two_readers_of_one_tile_see_both_versions_and_the_first_keeps_theirs(editing: Editing):
    wanted, reader = faults.two_readers(editing)
    dialog = conflict(reader)
    expect(dialog).to_contain_text("lead has submitted this tile since you opened it.")
    expect(dialog).to_contain_text("Theirs: lead, revision 1")
    expect(dialog.locator('[data-summary="mine"]')).to_have_text("4 boxes, NEU 1, MET 1, MYE 1, PRO 1")
    expect(dialog.locator('[data-summary="theirs"]')).to_have_text("4 boxes, NEU 1, MET 1, MYE 1, BLA 1")
    task = reader.task
    wanted.submitted[task] = reader.boxes()
    assert MINE in wanted.submitted[task]
    reader.page.get_by_role("button", name="Keep mine").click()
    reader.wait(after=task)
    reader.saved()
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {task: [("lead", 1), ("reader", 2)]}


def test_two_readers_of_one_tile_and_the_first_takes_the_other_version(editing: Editing):
    wanted, reader = faults.two_readers(editing)
    task, mine = reader.task, reader.boxes()
    reader.page.get_by_role("button", name="Take theirs").click()
    assert sorted(reader.boxes()) == sorted([*PRE_LABELS, THEIRS])
    reader.press("Control+z")
    assert sorted(reader.boxes()) == sorted(mine)
    reader.press("Control+y")
    wanted.submitted[task] = reader.boxes()
    assert sorted(wanted.submitted[task]) == sorted(wanted.superseded[task])
    reader.confirm()
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {task: [("lead", 1), ("reader", 2)]}


def test_a_conflict_put_aside_is_asked_about_again(editing: Editing):
    wanted, reader = faults.two_readers(editing)
    task, mine = reader.task, reader.boxes()
    reader.press("Escape")
    expect(conflict(reader)).to_be_hidden()
    assert (reader.task, reader.boxes()) == (task, mine)
    assert save_text(reader) == "Conflict: kept here"
    reader.press("Space")
    expect(conflict(reader)).to_be_visible()
    assert revisions(editing, wanted) == {task: [("lead", 1)]}


def test_a_tile_that_comes_back_leaves_the_one_on_screen_as_it_was(editing: Editing):
    wanted = Wanted(editing.batch(*[CELLS] * 3))
    reader = editing.open(wanted.batch, intercepted=True)
    reader.page.wait_for_load_state("networkidle")
    first = reader.task
    editing.end_leases(wanted.batch)
    other = editing.open(wanted.batch, "lead")
    other.confirm()
    held: list[Route] = []
    reader.page.route("**/submit/", lambda route: held.append(route), times=1)
    reader.press("Space")
    second = reader.wait(after=first)
    reader.draw(LATER)
    reader.page.wait_for_function("() => (document.documentElement?.dataset ?? {}).boxes === '4'")
    held[0].continue_()
    expect(conflict(reader)).to_be_visible()
    assert reader.task == first
    reader.page.get_by_role("button", name="Keep mine").click()
    assert reader.wait(after=first) == second
    assert LATER in reader.boxes()
    wanted.submitted[second] = reader.boxes()
    reader.press("Space")
    reader.wait(after=second)
    reader.saved()
    assert wanted.lost(editing) == []


def test_a_lease_that_ended_while_nobody_else_took_the_tile_does_no_harm(editing: Editing):
    wanted = Wanted(editing.batch(CELLS, CELLS))
    editor = editing.open(wanted.batch)
    task = editor.task
    editing.end_leases(wanted.batch)
    editor.draw(MINE)
    wanted.submitted[task] = editor.boxes()
    editor.confirm()
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted) == {task: [("reader", 1)]}


def test_a_batch_closed_meanwhile_keeps_the_boxes_in_the_browser(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    task = editor.task
    editor.draw(MINE)
    seen = editor.boxes()
    editing.site.read(
        f"""
from annotation.services.batches import close_batch
answer = close_batch(batch=Batch.objects.get(pk={batch}))
"""
    )
    editor.press("Space")
    expect(editor.page.locator("#notice-text")).to_contain_text("is closed: it takes no more annotations")
    assert editor.wait() == task
    assert sorted(editor.boxes()) == sorted(seen)
    assert editing.stored(batch)[task].annotations == []


# --- boxes that cannot be ------------------------------------------------------------------------

GOOD = {"class": 0, "x": 10, "y": 10, "width": 20, "height": 20, "origin": None}
IMPOSSIBLE = {
    "outside": ([GOOD, GOOD | {"x": 500}], "box 2: lies outside the tile"),
    "far outside": ([GOOD | {"y": -30}], "box 1: lies outside the tile"),
    "no area": ([GOOD | {"width": 0}], "box 1: is 0 x 20 px"),
    "negative": ([GOOD | {"height": -20}], "box 1: is 20 x -20 px"),
    "not a number": ([GOOD | {"x": float("nan")}], "box 1: x, y, width and height must be finite"),
    "infinite": ([GOOD | {"width": float("inf")}], "box 1: x, y, width and height must be finite"),
    "text": ([GOOD | {"x": "10"}], "box 1: x, y, width and height must be numbers"),
    "unknown class": ([GOOD | {"class": 19}], "box 1: class 19 is not in the taxonomy"),
    "somebody else's origin": ([GOOD | {"origin": 1}], "is not one of this tile's pre-label boxes"),
    "5000 boxes": ([GOOD] * 5000, "5000 boxes on one tile: at most 2000 are taken"),
    "no list": ({"boxes": 1}, "The boxes are not a list"),
}


def test_impossible_boxes_in_a_request_are_refused_and_nothing_is_stored(editing: Editing):
    batch = editing.batch(CELLS)
    editor = editing.open(batch)
    context = editor.page.context
    token = next(one["value"] for one in context.cookies() if one["name"] == "csrftoken")
    refused = {}
    for name, (boxes, _) in IMPOSSIBLE.items():
        body = {"uuid": "2b1f1a34-9c7e-4d52-8a3b-0c9d7a5e6f10", "revision": 0, "boxes": boxes, "effort": {}}
        answer = context.request.post(
            f"/tasks/{editor.task}/submit/",
            data=json.dumps(body).encode(),  # as it is: Playwright would mend text that is no JSON
            headers={"X-CSRFToken": token, "Content-Type": "application/json"},
        )
        refused[name] = (answer.status, answer.json()["error"])
    for name, (_, reason) in IMPOSSIBLE.items():
        status, error = refused[name]
        assert status == 400, name
        assert reason in error, name
    told = editing.stored(batch)[editor.task]
    assert (told.state, told.annotations) == ("leased", [])


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (GOOD | {"x": 500, "score": None}, "lies outside the tile"),
        (GOOD | {"width": 0.5, "score": None}, "a box is at least 2 px wide and high"),
        (GOOD | {"class": 99, "score": None}, "class 99 is not in the taxonomy"),
    ],
    ids=["outside", "too thin", "unknown class"],
)
def test_an_impossible_box_of_a_draft_is_shown_as_refused_and_kept(editing: Editing, box, reason):
    batch = editing.batch(CELLS, CELLS)
    task = editing.tasks(batch)[0]
    editing.site.read(
        f"""
from annotation.services.annotations import boxes_as_json
task = Task.objects.get(pk={task})
kept = [one | {{"origin": one["id"]}} for one in boxes_as_json(task.pre_label_id)]
draft = {{"sequence": 3, "revision": 0, "boxes": [*kept, {box!r}]}}
answer = task.drafts.create(user=User.objects.get(username="reader"), **draft).pk
"""
    )
    editor = editing.open(batch)
    assert editor.task == task
    assert len(editor.boxes()) == 4
    editor.press("Space")
    expect(editor.page.locator("#notice-text")).to_contain_text(reason)
    assert editor.wait() == task
    assert editor.selected_box() == Box.of(box)
    assert len(editor.boxes()) == 4
    assert editing.stored(batch)[task].annotations == []
    editor.page.reload()
    editor.wait()
    assert len(editor.boxes()) == 4
    editor.walk_to(3)
    assert editor.selected_box() == Box.of(box)
    editor.press("Delete")
    editor.confirm()
    told = editing.stored(batch)[task]
    assert [sorted(one.boxes) for one in told.annotations] == [sorted(PRE_LABELS)]
