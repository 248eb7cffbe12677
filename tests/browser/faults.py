"""What can go wrong while somebody reads, each played once: the tests look at every detail, the benchmark counts boxes.

Each function returns what the site must have stored once all is well again.
"""

from dataclasses import dataclass, field

from playwright.sync_api import Request, Route, expect

from tests.browser.editing import Box, Editing, Editor, PreLabel

# Three cells of three classes, and boxes that a reader adds to them.
CELLS = [PreLabel(Box(0, 60, 60, 80, 80), 0.91), PreLabel(Box(1, 300.5, 80.25, 60, 90), 0.82)]
CELLS += [PreLabel(Box(2, 120, 320, 100, 96), 0.43)]
MINE, THEIRS = Box(3, 240, 240, 50, 60), Box(4, 400, 330, 45, 40)
LATER, NEXT = Box(5, 20, 420, 66, 70), Box(6, 420, 20, 30, 44)


@dataclass
class Wanted:
    """Task -> boxes that its newest annotation must hold, that an older one must hold, that the reader's draft must."""

    batch: int
    submitted: dict[str, list[Box]] = field(default_factory=dict)
    superseded: dict[str, list[Box]] = field(default_factory=dict)
    drafted: dict[str, list[Box]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(len(boxes) for part in (self.submitted, self.superseded, self.drafted) for boxes in part.values())

    def lost(self, editing: Editing, user: str = "reader") -> list[Box]:
        """The boxes that the site does not have where they belong."""
        stored = editing.stored(self.batch)
        pairs = [(boxes, stored[task].newest) for task, boxes in self.submitted.items()]
        pairs += [(boxes, stored[task].annotations[0].boxes) for task, boxes in self.superseded.items()]
        pairs += [(boxes, stored[task].drafts.get(user, [])) for task, boxes in self.drafted.items()]
        return [box for boxes, found in pairs for box in _missing(boxes, found)]


def _missing(wanted: list[Box], found: list[Box]) -> list[Box]:
    left = list(found)
    lost = []
    for box in wanted:
        if box in left:
            left.remove(box)
        else:
            lost.append(box)
    return lost


def is_submission(request: Request) -> bool:
    return request.url.endswith("/submit/")


def is_draft(request: Request) -> bool:
    return request.url.endswith("/draft/")


def kill_in_mid_save(editing: Editing) -> Wanted:
    """The web server dies of kill -9 while a submission and a draft wait in it, and is started again."""
    wanted = Wanted(editing.batch(CELLS, CELLS, CELLS))
    editor = editing.open(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    first = editor.task
    editor.draw(MINE)
    wanted.submitted[first] = editor.boxes()
    with editing.site.writes_held():
        with editor.page.expect_request(is_submission):
            editor.press("Space")
        second = editor.wait(after=first)
        with editor.page.expect_request(is_draft):
            editor.draw(LATER)
        wanted.drafted[second] = editor.boxes()
        editing.site.kill_web()
    editor.save_state("offline")
    editing.site.serve()
    editor.back_in_sight()
    editor.saved()
    return wanted


def offline_and_back(editing: Editing) -> Wanted:
    """The network goes away; the reader confirms all tiles that the browser holds; it comes back."""
    wanted = Wanted(editing.batch(*[CELLS] * 4))
    editor = editing.open(wanted.batch)
    editor.page.wait_for_load_state("networkidle")
    editor.page.context.set_offline(True)
    last = confirm_while_there_are_tiles(editor, wanted)
    editor.save_state("offline")
    editor.page.context.set_offline(False)
    editor.wait(after=last)
    editor.saved()
    return wanted


def confirm_while_there_are_tiles(editor: Editor, wanted: Wanted) -> str:
    """Draw on each tile and confirm it until the browser holds no other; returns the last one's task."""
    task = ""
    while editor.fact("task") != task:
        task = editor.wait(after=task)
        editor.draw(MINE)
        wanted.submitted[task] = editor.boxes()
        editor.press("Space")
        editor.page.wait_for_function(
            """before => (document.documentElement?.dataset ?? {}).task !== before ||
                         !document.getElementById("waiting").hidden""",
            arg=task,
        )
    return task


def lost_answer(editing: Editing) -> Wanted:
    """The site stores a submission, but its answer never arrives: the browser sends it again."""
    wanted = Wanted(editing.batch(CELLS, CELLS))
    editor = editing.open(wanted.batch, intercepted=True)
    editor.page.wait_for_load_state("networkidle")

    def swallow(route: Route) -> None:
        route.fetch()
        route.abort()

    editor.page.route("**/submit/", swallow, times=1)
    task = editor.task
    editor.draw(MINE)
    wanted.submitted[task] = editor.boxes()
    editor.press("Space")
    editor.save_state("offline")
    editor.saved()
    return wanted


def two_readers(editing: Editing) -> tuple[Wanted, Editor]:
    """Somebody else submits a tile whose lease had ended; its first reader does too, and is asked.

    Returns the first reader's editor too. `superseded` holds the other's version; the reader has yet to choose.
    """
    wanted = Wanted(editing.batch(CELLS, CELLS, CELLS))
    reader = editing.open(wanted.batch)
    task = reader.task
    reader.draw(MINE)
    reader.saved()
    editing.end_leases(wanted.batch)
    other = editing.open(wanted.batch, "lead")
    assert other.task == task
    other.draw(THEIRS)
    wanted.superseded[task] = other.boxes()
    other.confirm()
    reader.press("Space")
    expect(reader.page.get_by_role("dialog", name="Two versions of this tile")).to_be_visible()
    return wanted, reader


def two_readers_keep_mine(editing: Editing) -> Wanted:
    wanted, reader = two_readers(editing)
    task = reader.task
    wanted.submitted[task] = reader.boxes()
    reader.page.get_by_role("button", name="Keep mine").click()
    reader.wait(after=task)
    reader.saved()
    return wanted
