"""Readers at the editor: batches with given pre-labels on a running site, the editor's page, and what was stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, StorageState, ViewportSize, expect

from tests.browser.site import PASSWORD, Site

_projects = count(1)
WINDOW: ViewportSize = {"width": 1440, "height": 900}
PAGE_MILLISECONDS = 60_000
CLICK_PAUSE = 0.02  # seconds

# Every row of the table of boxes, in the order of the walk.
ROWS = """() => [...document.querySelectorAll("#boxes-table tbody tr")].map(row => ({
    ...row.dataset, selected: row.getAttribute("aria-selected"), texts: [...row.cells].map(cell => cell.textContent),
}))"""
# Opaque pixels of a layer: how much is drawn on it.
DRAWN = """layer => { const { data } = layer.getContext("2d").getImageData(0, 0, layer.width, layer.height);
                      let drawn = 0; for (let at = 3; at < data.length; at += 4) drawn += data[at] > 0;
                      return drawn; }"""


class Box(NamedTuple):
    """A box as it is drawn, shown or stored: class number and tile px."""

    number: int
    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Box":
        return cls(row["class"], *(round(float(row[name]), 2) for name in ("x", "y", "width", "height")))

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


class PreLabel(NamedTuple):
    """A box of a model."""

    box: Box
    score: float


class Row(NamedTuple):
    """A row of the table of boxes."""

    key: int
    box: Box
    certainty: float | None
    touched: bool
    selected: bool


@dataclass(frozen=True)
class Stored:
    """An annotation as the site has it."""

    author: str
    revision: int
    boxes: list[Box]
    changes: dict[str, int]
    keys: int
    clicks: int
    active_seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class StoredTask:
    """A task as the site has it: its annotations, the oldest first, and each reader's draft."""

    state: str
    skip_reason: str
    annotations: list[Stored] = field(default_factory=list)
    drafts: dict[str, list[Box]] = field(default_factory=dict)

    @property
    def newest(self) -> list[Box]:
        """The boxes of the newest annotation; none if there is none."""
        return self.annotations[-1].boxes if self.annotations else []


class Editor:
    """The editor's page; places are in tile px."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.html = page.locator("html")
        self.surface = page.locator("#surface")
        self.mouse = page.mouse
        self.hotkeys: dict[int, str] = {}

    def go(self, batch: int) -> "Editor":
        """Open the batch and wait for its tile, or for the message that there is none."""
        self.page.goto(f"/batches/{batch}/annotate/")
        self.page.wait_for_function("() => (document.documentElement?.dataset ?? {}).ready === 'true'")
        classes = self.page.evaluate("() => JSON.parse(document.getElementById('editor-data').textContent).classes")
        self.hotkeys = {one["id"]: one["hotkey"] for one in classes}
        return self

    # --- what the page says -----------------------------------------------------------------------

    def fact(self, name: str) -> str:
        return self.html.get_attribute(f"data-{name}") or ""

    @property
    def task(self) -> str:
        return self.fact("task")

    @property
    def selected(self) -> int | None:
        key = self.fact("selected")
        return int(key) if key else None

    @property
    def notice(self) -> str:
        return self.page.locator("#notice-text").inner_text()

    @property
    def announced(self) -> str:
        return self.page.locator("#announcer").text_content() or ""

    def rows(self) -> list[Row]:
        """The boxes in the order of the walk."""
        return [_row(row) for row in self.page.evaluate(ROWS)]

    def boxes(self) -> list[Box]:
        return [row.box for row in self.rows()]

    def selected_box(self) -> Box:
        return next(row.box for row in self.rows() if row.key == self.selected)

    def view(self) -> tuple[float, float, float]:
        """Scale (CSS px per tile px) and the tile's origin in the pane (CSS px)."""
        scale, x, y = (float(self.surface.get_attribute(f"data-{name}") or 0) for name in ("scale", "x", "y"))
        return scale, x, y

    def drawn(self, layer: str) -> int:
        """Opaque pixels on the layer named, after the next frame."""
        self.frame()
        found: int = self.page.locator(f"#{layer}-layer").evaluate(DRAWN)
        return found

    # --- waiting ----------------------------------------------------------------------------------

    def wait(self, after: str = "") -> str:
        """Until a tile other than `after` can be worked on; returns its task."""
        self.page.wait_for_function(
            """after => { const { ready, task, locked } = (document.documentElement?.dataset ?? {});
                          return ready === "true" && locked === "false" && task && task !== after; }""",
            arg=after,
        )
        return self.task

    def saved(self) -> None:
        """Until the site has all that the reader did."""
        self.page.wait_for_function(
            """() => { const { saveState, unsent } = (document.documentElement?.dataset ?? {});
                       return saveState === "saved" && unsent === "0"; }"""
        )

    def save_state(self, state: str) -> None:
        expect(self.html).to_have_attribute("data-save-state", state)

    def ended(self) -> None:
        expect(self.html).to_have_attribute("data-ended", "true")

    def frame(self) -> None:
        """Two frames: what was asked for is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def back_in_sight(self) -> None:
        """What the browser tells a page that its reader comes back to: it tries again at once."""
        self.page.evaluate("() => window.dispatchEvent(new Event('focus'))")

    # --- keys -------------------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def class_key(self, number: int) -> str:
        key = self.hotkeys[number]
        return f"Shift+{key}" if key.isupper() else key

    def arm(self, number: int) -> None:
        """The class of the next box to draw."""
        self.press("Escape", self.class_key(number))

    def walk_to(self, rank: int) -> None:
        """Tab to the box of this rank in certainty, from none selected on a tile just opened."""
        self.press(*["Tab"] * (rank + 1))

    def confirm(self) -> str:
        """Space; returns the next task, once this one has reached the site."""
        before = self.task
        self.press("Space")
        after = self.wait(after=before)
        self.saved()
        return after

    def confirm_last(self) -> None:
        self.press("Space")
        self.ended()
        self.saved()

    # --- pointer ----------------------------------------------------------------------------------

    def to_screen(self, x: float, y: float) -> tuple[float, float]:
        scale, left, top = self.view()
        bounds = self.surface.bounding_box()
        assert bounds is not None
        return bounds["x"] + left + x * scale, bounds["y"] + top + y * scale

    def to_tile(self, x: float, y: float) -> tuple[float, float]:
        scale, left, top = self.view()
        bounds = self.surface.bounding_box()
        assert bounds is not None
        return (x - bounds["x"] - left) / scale, (y - bounds["y"] - top) / scale

    def click(self, x: float, y: float) -> None:
        self.mouse.click(*self.to_screen(x, y))

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, steps: int = 2) -> None:
        self.mouse.move(*self.to_screen(*start))
        self.mouse.down()
        self.mouse.move(*self.to_screen(*end), steps=steps)
        self.mouse.up()

    def draw(self, *boxes: Box) -> None:
        """One drag for each box, of its class, with nothing selected before."""
        for box in boxes:
            self.arm(box.number)
            self.drag((box.x, box.y), (box.x + box.width, box.y + box.height))

    def devtools(self) -> CDPSession:
        """For pens and fingers, which Playwright's mouse is not."""
        return self.page.context.new_cdp_session(self.page)


def _row(row: dict[str, Any]) -> Row:
    texts = row["texts"]
    sides = [float(text) for text in texts[3:7]]
    certainty = float(texts[2]) if texts[2] else None
    box = Box(int(row["class"]), sides[0], sides[1], sides[2], sides[3])
    return Row(int(row["key"]), box, certainty, row["touched"] == "true", row["selected"] == "true")


class Editing:
    """A project of imported slides on a running site, with the readers lead and reader."""

    def __init__(self, site: Site, browser: Browser, slides: Sequence[Path], *, taxonomy: str, tiling: str) -> None:
        self.site, self.browser = site, browser
        self.project = f"Editing {next(_projects)}"
        self.batches = 0
        self.complaints: list[str] = []
        self._passports: dict[str, StorageState] = {}
        self._contexts: list[BrowserContext] = []
        paths = [str(path) for path in slides]
        site.manage("import_slides", *paths, "--project", self.project, "--taxonomy", taxonomy, "--tiling", tiling)
        site.read(
            f"""
from annotation.models import Role
from annotation.services.projects import set_member
project = Project.objects.get(name={self.project!r})
for name, role in (("lead", Role.LEAD), ("reader", Role.ANNOTATOR)):
    set_member(project=project, member=User.objects.get(username=name), role=role, user=None)
answer = None
"""
        )

    # --- batches and what became of them ----------------------------------------------------------

    def batch(self, *tiles: Sequence[PreLabel], slide: str = "") -> int:
        """An open batch with a tile for each list of pre-labels, handed out in this order; of any slide, or of one."""
        self.batches += 1
        drawn = [[(*label.box, label.score) for label in labels] for labels in tiles]
        made: int = self.site.read(
            f"""
from tests.factories.pre_labelled import make_pre_labelled_batch
project = Project.objects.get(name={self.project!r})
tiles = Tile.objects.filter(slide__project=project, slide__name__contains={slide!r}).order_by("pk")[:{len(drawn)}]
answer = make_pre_labelled_batch(project=project, name="Batch {self.batches}", tiles=list(tiles), boxes={drawn!r}).pk
"""
        )
        return made

    def truth_batch(self, files: Sequence[Path], tiles: int, *, skip: int = 0) -> int:
        """An open batch of real tiles, from the `skip`th on, with the truth files' boxes as pre-labels."""
        self.batches += 1
        made: int = self.site.read(
            f"""
from pathlib import Path
from tests.factories.pre_labelled import make_pre_labelled_batch, truth_as_pre_labels
project = Project.objects.get(name={self.project!r})
files = [Path(one) for one in {[str(path) for path in files]!r}]
found = truth_as_pre_labels(project=project, files=files, tiles={skip + tiles})[{skip}:]
tiles, boxes = [tile for tile, _ in found], [drawn for _, drawn in found]
answer = make_pre_labelled_batch(project=project, name="Batch {self.batches}", tiles=tiles, boxes=boxes).pk
"""
        )
        return made

    def stored(self, batch: int) -> dict[str, StoredTask]:
        """Task -> what the site has of it, in the batch's order."""
        rows = self.site.read(
            f"""
from annotation.services.annotations import boxes_as_json
def told(one):
    boxes = boxes_as_json(one.pk)
    return {{"author": one.author.name, "revision": one.revision, "boxes": boxes, "effort": one.effort,
             "active": one.active_seconds, "wall": one.wall_seconds}}
def drafts(task):
    return {{one.user.username: one.boxes for one in task.drafts.select_related("user")}}
answer = [[str(task.pk), task.state, task.skip_reason, [told(one) for one in task.annotations.all()], drafts(task)]
          for task in Task.objects.filter(batch={batch})]
"""
        )
        return {
            task: StoredTask(
                state, reason, [_stored(one) for one in told], {who: _boxes(b) for who, b in drafts.items()}
            )
            for task, state, reason, told, drafts in rows
        }

    def tasks(self, batch: int) -> list[str]:
        found: list[str] = self.site.read(f"answer = [str(one.pk) for one in Task.objects.filter(batch={batch})]")
        return found

    def end_leases(self, batch: int) -> None:
        """As if the readers had been away for long."""
        self.site.read(
            f"""
from datetime import timedelta
from django.utils import timezone
past = timezone.now() - timedelta(minutes=1)
answer = Task.objects.filter(batch={batch}, state="leased").update(leased_until=past)
"""
        )

    def give_back(self, batch: int) -> None:
        """As if the lead had given what the readers hold to everybody again."""
        free = 'state="open", reader=None, leased_until=None'
        self.site.read(f'answer = Task.objects.filter(batch={batch}, state="leased").update({free})')

    # --- browsers ---------------------------------------------------------------------------------

    def context(self, user: str = "reader", **options: Any) -> BrowserContext:
        """A browser of its own in which the user has signed in."""
        settings = {"viewport": WINDOW} | options
        context = self.browser.new_context(base_url=self.site.url, storage_state=self._passport(user), **settings)
        context.set_default_timeout(PAGE_MILLISECONDS)
        self._contexts.append(context)
        return context

    def page(self, context: BrowserContext) -> Editor:
        """Another tab; what goes wrong in its scripts is a complaint."""
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        return Editor(page)

    def open(self, batch: int, user: str = "reader", *, intercepted: bool = False, **options: Any) -> Editor:
        """`intercepted`: for tests that hold or answer requests themselves. Chromium tells a page already loaded that
        its requests are to be stopped, and a request sent before that message arrives is not stopped.
        """
        editor = self.page(self.context(user, **options))
        if intercepted:
            editor.page.route("**/an-address-nobody-asks-for", lambda route: route.abort())
        return editor.go(batch)

    def sign_in(self, page: Page, user: str) -> None:
        page.goto("/sign-in/")
        page.get_by_label("Username").fill(user)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Projects", exact=True).wait_for()

    def sign_out_everywhere(self, user: str) -> None:
        """Their sessions end on the site, as they do after two weeks."""
        self._passports.pop(user, None)
        self.site.read(
            f"""
from django.contrib.sessions.models import Session
pk = str(User.objects.get(username={user!r}).pk)
theirs = [one.pk for one in Session.objects.all() if one.get_decoded().get("_auth_user_id") == pk]
answer = Session.objects.filter(pk__in=theirs).delete()[0]
"""
        )

    def close(self) -> list[str]:
        """Close every browser; returns what went wrong in the pages' scripts since the last time."""
        while self._contexts:
            self._contexts.pop().close()
        told, self.complaints = self.complaints, []
        return told

    def _passport(self, user: str) -> StorageState:
        if user not in self._passports:
            with self.browser.new_context(base_url=self.site.url) as context:
                self.sign_in(context.new_page(), user)
                self._passports[user] = context.storage_state()
        return self._passports[user]


def _boxes(rows: list[dict[str, Any]]) -> list[Box]:
    return [Box.of(row) for row in rows]


def _stored(one: dict[str, Any]) -> Stored:
    effort = dict(one["effort"])
    keys, clicks = effort.pop("keys", 0), effort.pop("clicks", 0)
    return Stored(
        one["author"], one["revision"], _boxes(one["boxes"]), effort, keys, clicks, one["active"], one["wall"]
    )
