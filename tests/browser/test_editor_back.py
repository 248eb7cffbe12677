"""Back to tiles done before, skipping, two tabs, and work that a browser keeps until its reader is back."""

from collections import Counter

import pytest
from playwright.sync_api import Error, Route, expect

from tests.browser import faults
from tests.browser.editing import Box, Editing, Editor, PreLabel

# Classes of the taxonomy with 19, by number.
NEUTROPHIL, METAMYELOCYTE, MYELOCYTE, EOSINOPHIL = 0, 1, 2, 10
CELLS = [PreLabel(Box(NEUTROPHIL, 60, 60, 80, 80), 0.9), PreLabel(Box(METAMYELOCYTE, 200, 60, 60, 90), 0.7)]
CELLS += [PreLabel(Box(MYELOCYTE, 350, 80, 100, 96), 0.4)]
SURE, FAIR, DOUBTFUL = BOXES = [label.box for label in CELLS]
MINE, LATER = Box(EOSINOPHIL, 240, 240, 50, 60), Box(EOSINOPHIL, 20, 420, 66, 70)


def arrive(editor: Editor, task: str, *, review: bool) -> None:
    """Wait until this task is on screen and can be worked on."""
    editor.page.wait_for_function(
        """task => { const { ready, task: shown, locked } = (document.documentElement?.dataset ?? {});
                     return ready === "true" && locked === "false" && shown === task; }""",
        arg=task,
    )
    assert editor.fact("review") == str(review).lower()
    expect(editor.page.locator("#review")).to_be_visible(visible=review)


def back(editor: Editor, task: str) -> None:
    editor.press(",")
    arrive(editor, task, review=True)


def forward(editor: Editor, task: str, *, review: bool = True) -> None:
    editor.press(".")
    arrive(editor, task, review=review)


def revisions(editing: Editing, batch: int) -> list[list[int]]:
    """Of each task in the batch's order: the revisions of its annotations."""
    return [[one.revision for one in told.annotations] for told in editing.stored(batch).values()]


def skip(editor: Editor, reason: str = "Out of focus") -> None:
    editor.press("s")
    editor.page.get_by_label(reason).check()
    editor.page.get_by_role("button", name="Skip the tile").click()


def crash(editor: Editor) -> None:
    """The tab ends without a last word to the server."""
    with editor.page.expect_event("crash"), pytest.raises(Error):
        editor.page.goto("chrome://crash")
    editor.page.close()


# --- back to one's own tiles ---------------------------------------------------------------------


def test_a_correction_makes_a_new_revision_and_the_tile_left_for_it_is_as_it_was(editing: Editing):
    batch = editing.batch(CELLS, CELLS, CELLS)
    editor = editing.open(batch)
    first = editor.task
    editor.press("Tab", editor.class_key(EOSINOPHIL))
    second = editor.confirm()
    editor.draw(MINE)
    seen = editor.boxes()
    back(editor, first)  # at once: the tile that is left has not been saved yet
    expect(editor.page.locator("#review-text")).to_have_text("Done before. Space stores your corrections")
    named = DOUBTFUL._replace(number=EOSINOPHIL)
    rows = {row.box: row for row in editor.rows()}
    assert all(row.touched for row in rows.values())
    assert {box: row.certainty for box, row in rows.items()} == {named: None, FAIR: 0.7, SURE: 0.9}
    editor.press("Tab", "Delete", "Tab", "ArrowRight")
    corrected = editor.boxes()
    assert sorted(corrected) == sorted([named, SURE._replace(x=61)])
    editor.press("Space")
    arrive(editor, second, review=False)
    assert sorted(editor.boxes()) == sorted(seen)
    editor.press("Control+z")
    assert sorted(editor.boxes()) == sorted(BOXES)
    editor.press("Control+y")
    editor.saved()
    expect(editor.page.locator("#progress-text")).to_have_text("1 of 3")

    old, new = editing.stored(batch)[first].annotations
    assert (old.revision, new.revision) == (1, 2)
    assert sorted(old.boxes) == sorted([named, FAIR, SURE])
    assert sorted(new.boxes) == sorted(corrected)
    assert Counter(new.changes) == Counter(reclassified=1, moved=1, deleted=1)
    newest = f"Annotation.objects.get(task={first}, revision=2)"
    assert editing.site.read(f"one = {newest}; answer = [one.supersedes.revision, one.tile.truth_id == one.pk]") == [
        1,
        True,
    ]
    assert sorted(editing.stored(batch)[second].drafts["reader"]) == sorted(seen)


def test_commas_and_full_stops_walk_back_and_forth_and_looking_stores_nothing(editing: Editing):
    batch = editing.batch(*[CELLS] * 4)
    editor = editing.open(batch)
    tasks = [editor.task, *(editor.confirm() for _ in range(3))]
    for task in reversed(tasks[:3]):
        back(editor, task)
    editor.press(",")
    expect(editor.page.locator("#notice-text")).to_have_text("There is no earlier tile of yours in this batch.")
    assert editor.task == tasks[0]
    forward(editor, tasks[1])
    forward(editor, tasks[2])
    forward(editor, tasks[3], review=False)
    editor.page.locator('.tools [data-command="back"]').click()
    arrive(editor, tasks[2], review=True)
    back(editor, tasks[1])
    editor.page.get_by_role("button", name="Leave it").click()
    arrive(editor, tasks[2], review=True)
    editor.press("Space")
    arrive(editor, tasks[3], review=False)
    expect(editor.page.locator("#progress-text")).to_have_text("3 of 4")
    assert revisions(editing, batch) == [[1], [1], [1], []]
    editor.confirm_last()
    back(editor, tasks[3])
    editor.press("Space")
    editor.ended()
    assert revisions(editing, batch) == [[1]] * 4


def test_after_a_reload_the_server_knows_the_tiles_done_before(editing: Editing):
    batch = editing.batch(*[CELLS] * 4)
    editor = editing.open(batch)
    tasks = [editor.task, *(editor.confirm() for _ in range(2))]
    editor.page.reload()
    arrive(editor, tasks[2], review=False)
    back(editor, tasks[1])
    back(editor, tasks[0])
    editor.draw(MINE)
    editor.press("Space")
    arrive(editor, tasks[2], review=False)
    editor.saved()
    assert revisions(editing, batch) == [[1, 2], [1], [], []]


def test_a_correction_that_is_left_waits_as_a_draft(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    first = editor.task
    second = editor.confirm()
    back(editor, first)
    editor.draw(MINE)
    forward(editor, second, review=False)
    assert "a draft" in editor.notice
    editor.page.reload()
    arrive(editor, second, review=False)
    assert revisions(editing, batch) == [[1], []]
    back(editor, first)
    assert MINE in editor.boxes()
    editor.press("Space")
    arrive(editor, second, review=False)
    editor.saved()
    assert revisions(editing, batch) == [[1, 2], []]
    assert MINE in editing.stored(batch)[first].newest


def test_time_spent_on_a_tile_since_it_was_saved_is_no_work_left_behind(editing: Editing):
    editor = editing.open(editing.batch(CELLS, CELLS))
    editor.draw(MINE)
    editor.saved()
    editor.page.wait_for_timeout(1_500)  # more than the second that is worth saving
    editor.page.goto("/")
    expect(editor.page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()
    expect(editor.page.locator("#unsent")).to_be_hidden()


def test_a_correction_that_is_undone_leaves_nothing_behind(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    first = editor.task
    second = editor.confirm()
    back(editor, first)
    editor.draw(MINE)
    editor.saved()
    editor.press("Control+z")
    forward(editor, second, review=False)
    editor.saved()
    editor.page.goto("/")
    expect(editor.page.locator("#unsent")).to_be_hidden()
    assert MINE not in editing.stored(batch)[first].drafts.get("reader", [])
    assert revisions(editing, batch) == [[1], []]


def test_a_tile_on_its_way_is_waited_for_before_it_is_opened_again(editing: Editing):
    batch = editing.batch(CELLS, CELLS, CELLS)
    editor = editing.open(batch, intercepted=True)
    editor.page.wait_for_load_state("networkidle")
    first = editor.task
    held: list[Route] = []
    editor.page.route("**/submit/", lambda route: held.append(route), times=1)
    editor.press("Space")
    editor.wait(after=first)
    asked: list[str] = []
    editor.page.on("request", lambda request: asked.append(request.url))
    editor.press(",")
    editor.frame()
    assert [url for url in asked if url.endswith(f"/tasks/{first}/")] == []
    held[0].continue_()
    arrive(editor, first, review=True)
    editor.saved()
    assert revisions(editing, batch) == [[1], [], []]


def test_a_comma_while_the_next_tile_is_awaited_opens_the_tile_just_done(editing: Editing):
    editor = editing.page(editing.context())
    held: list[Route] = []
    editor.page.route("**/next/", lambda route: held.append(route), times=1)
    editor.go(editing.batch(CELLS, CELLS, CELLS))
    first = editor.task
    editor.press("Space")
    editor.saved()
    editor.press(",")
    arrive(editor, first, review=True)
    held[0].continue_()
    editor.press("Space")
    editor.wait(after=first)
    assert editor.fact("review") == "false"


def test_without_the_server_a_comma_says_why_nothing_opens(editing: Editing):
    batch = editing.batch(CELLS, CELLS, CELLS)
    editor = editing.open(batch)
    second = editor.confirm()
    editor.page.wait_for_load_state("networkidle")
    notice = editor.page.locator("#notice-text")
    editor.page.context.set_offline(True)
    editor.press(",")
    expect(notice).to_contain_text("the server does not answer")
    editor.press("Space")
    third = editor.wait(after=second)
    editor.save_state("offline")
    editor.press(",")
    expect(notice).to_contain_text("still to be sent")
    assert editor.task == third
    editor.page.context.set_offline(False)
    editor.saved()
    back(editor, second)


# --- skipping ------------------------------------------------------------------------------------


def test_a_skipped_tile_comes_back_and_can_be_confirmed(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    first = editor.task
    skip(editor, "Too thick")
    second = editor.wait(after=first)
    assert editor.notice == "Skipped: too thick or crushed. The comma key brings the tile back."
    editor.saved()
    assert editing.stored(batch)[first].state == "skipped"
    back(editor, first)
    expect(editor.page.locator("#review-text")).to_have_text("Skipped: too thick or crushed. Space confirms it")
    editor.press("Space")
    arrive(editor, second, review=False)
    editor.saved()
    told = editing.stored(batch)[first]
    assert (told.state, told.skip_reason, sorted(told.newest)) == ("submitted", "", sorted(BOXES))
    expect(editor.page.locator("#progress-text")).to_have_text("1 of 2")


def test_a_skip_without_the_server_is_kept_and_sent_later(editing: Editing):
    batch = editing.batch(*[CELLS] * 4)
    context = editing.context()
    editor = editing.page(context).go(batch)
    tasks = editing.tasks(batch)
    editor.page.wait_for_load_state("networkidle")
    context.set_offline(True)
    skip(editor)
    assert editor.wait(after=tasks[0]) == tasks[1]
    editor.save_state("offline")
    assert editor.fact("unsent") == "1"
    context.set_offline(False)
    editor.saved()
    assert editing.stored(batch)[tasks[0]].state == "skipped"

    editor.page.wait_for_load_state("networkidle")
    context.set_offline(True)
    skip(editor, "Staining")
    editor.save_state("offline")
    crash(editor)
    context.set_offline(False)
    again = editing.page(context).go(batch)
    assert again.wait() == tasks[2]
    again.saved()
    told = [(one.state, one.skip_reason) for one in editing.stored(batch).values()][:2]
    assert told == [("skipped", "out of focus"), ("skipped", "staining or artefact")]


# --- two tabs ------------------------------------------------------------------------------------


def test_two_tabs_have_two_tiles_and_a_closed_one_frees_its_own(editing: Editing):
    batch = editing.batch(*[CELLS] * 7)
    context = editing.context()
    one = editing.page(context).go(batch)
    one.page.wait_for_load_state("networkidle")  # it has fetched ahead, too
    other = editing.page(context).go(batch)
    first, second = one.wait(), other.wait()
    assert first != second
    one.draw(MINE)
    other.draw(LATER)
    one.saved()
    other.saved()
    one.page.close()
    while other.fact("ended") != "true":
        before = other.task
        other.press("Space")
        other.page.wait_for_function(
            """before => { const { ready, task, locked, ended } = (document.documentElement?.dataset ?? {});
                           return ready === "true" && (ended === "true" || locked === "false" && task !== before); }""",
            arg=before,
        )
    other.saved()
    expect(other.page.locator("#end-title")).to_have_text("Batch done: 7 of 7.")
    assert revisions(editing, batch) == [[1]] * 7
    stored = editing.stored(batch)
    assert MINE in stored[first].newest
    assert LATER in stored[second].newest


# --- work that a browser keeps -------------------------------------------------------------------


def test_work_kept_in_the_browser_is_announced_on_every_page_and_sent_from_there(editing: Editing):
    wanted = faults.Wanted(editing.batch(*[CELLS] * 3))
    context = editing.context()
    editor = editing.page(context).go(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    first = editor.task
    context.set_offline(True)
    editor.draw(MINE)
    wanted.submitted[first] = editor.boxes()
    editor.press("Space")
    second = editor.wait(after=first)
    editor.draw(LATER)
    wanted.drafted[second] = editor.boxes()
    editor.save_state("offline")
    crash(editor)

    context.set_offline(False)
    again = editing.page(context)
    again.page.goto("/")
    banner = again.page.locator("#unsent")
    expect(banner).to_contain_text("Your work on 2 tiles")
    banner.get_by_role("link", name="Send these 2").click()
    arrive(again, second, review=False)
    again.saved()
    assert sorted(again.boxes()) == sorted(wanted.drafted[second])
    assert wanted.lost(editing) == []
    assert revisions(editing, wanted.batch) == [[1], [], []]
    again.page.goto("/")
    expect(banner).to_be_hidden()


def test_another_readers_work_in_the_same_browser_is_not_announced(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    context = editing.context()
    editor = editing.page(context).go(batch)
    context.set_offline(True)
    editor.draw(MINE)
    editor.save_state("offline")
    crash(editor)
    context.set_offline(False)
    context.clear_cookies()
    page = editing.page(context).page
    editing.sign_in(page, "lead")
    expect(page.locator("#unsent")).to_be_hidden()


def test_a_tile_begun_earlier_and_since_given_to_somebody_else_comes_back_by_comma(editing: Editing):
    batch = editing.batch(*[CELLS] * 4)
    context = editing.context()
    editor = editing.page(context).go(batch)
    task = editor.task
    editor.page.wait_for_load_state("networkidle")
    context.set_offline(True)
    editor.draw(MINE)
    seen = editor.boxes()
    editor.save_state("offline")
    crash(editor)
    editing.give_back(batch)
    assert editing.open(batch, "lead").task == task

    context.set_offline(False)
    again = editing.page(context).go(batch)
    other = again.wait()
    assert other != task
    assert "the comma key opens it" in again.notice
    again.press(",")
    arrive(again, task, review=False)
    assert sorted(again.boxes()) == sorted(seen)
    again.press("Space")
    arrive(again, other, review=False)
    again.saved()
    assert sorted(editing.stored(batch)[task].newest) == sorted(seen)


def test_a_begun_tile_opened_before_its_turn_is_shown_only_once(editing: Editing):
    batch = editing.batch(*[CELLS] * 3)
    tasks, context = editing.tasks(batch), editing.context()
    one = editing.page(context).go(batch)
    one.page.wait_for_load_state("networkidle")
    context.set_offline(True)
    skip(one)
    one.wait(after=tasks[0])
    one.draw(MINE)
    seen = one.boxes()
    one.save_state("offline")
    crash(one)
    # The skip is forgotten, as a browser forgets what is cleared: the first tile comes again.
    context.set_offline(False)
    again = editing.page(context)
    again.page.goto("/")
    again.page.evaluate("task => localStorage.removeItem(`marrowloop:submit:${task}`)", tasks[0])
    again.go(batch)
    arrive(again, tasks[0], review=False)
    again.page.wait_for_load_state("networkidle")
    again.press(",")
    arrive(again, tasks[1], review=False)
    assert sorted(again.boxes()) == sorted(seen)
    again.press("Space")
    arrive(again, tasks[0], review=False)
    assert again.confirm() == tasks[2]
    assert revisions(editing, batch) == [[1], [1], []]
