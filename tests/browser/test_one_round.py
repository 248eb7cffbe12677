"""The whole loop as its users go through it: import, truth, training, pre-labels, reading, retraining, export."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import ROOT, Site
from tests.browser.steps import close_round, project_key, release_round, start_round, upload_slide, wait_for_round

SMEARS = ROOT / "../shared/data/smears"
PROJECT = "Marrow"
# Small enough for seconds; many small steps, so that the detector is sure of some boxes whatever its start.
TRAINING = {"kind": "one-stage", "epochs": "18", "image_size": "192", "batch_size": "2"}
PRECISION = 0.01  # tile px

pytestmark = pytest.mark.skipif(not SMEARS.is_dir(), reason="the shared slides are not on this machine")


@dataclass(frozen=True)
class Drawn:
    """A box as it should be stored: class number and tile px."""

    class_number: int
    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Drawn":
        return cls(row["class"], row["x"], row["y"], row["width"], row["height"])


class Editor:
    """The editor's page, and what the pointer does on it in tile px."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.html = page.locator("html")
        self.surface = page.locator("#surface")

    def wait(self, after: str = "") -> str:
        """Until a tile other than `after` can be worked on; returns its task."""
        self.page.wait_for_function(
            """after => { const { ready, task, locked } = (document.documentElement?.dataset ?? {});
                          return ready === "true" && locked === "false" && task !== after; }""",
            arg=after,
        )
        return self.fact("task")

    def fact(self, name: str) -> str:
        return self.html.get_attribute(f"data-{name}") or ""

    def confirm(self, task: str) -> None:
        """Space: the next tile comes, and this one reaches the server."""
        self.page.keyboard.press("Space")
        self.wait(after=task)
        expect(self.html).to_have_attribute("data-unsent", "0")
        expect(self.html).to_have_attribute("data-save-state", "saved")

    def to_screen(self, x: float, y: float) -> tuple[float, float]:
        scale, left, top = (float(self.surface.get_attribute(f"data-{name}") or 0) for name in ("scale", "x", "y"))
        bounds = self.surface.bounding_box()
        assert bounds is not None
        return bounds["x"] + left + x * scale, bounds["y"] + top + y * scale

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one point to another, tile px."""
        self.page.mouse.move(*self.to_screen(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.to_screen((start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
        self.page.mouse.move(*self.to_screen(*end))
        self.page.mouse.up()

    def walk_to(self, rank: int) -> None:
        """Tab to the box of this rank in certainty, from none selected."""
        for _ in range(rank + 1):
            self.page.keyboard.press("Tab")
        expect(self.html).not_to_have_attribute("data-selected", "")

    def expect_boxes(self, count: int) -> None:
        expect(self.html).to_have_attribute("data-boxes", str(count))


def test_it_learns_from_what_a_reader_did_and_exports_it_exactly(site: Site, sign_in, page, tmp_path):
    lead, reader = page, sign_in("reader")
    project = _make_project(lead)
    _import_slides(site, lead, project)
    entered = site.manage("import_truth", str(SMEARS / "P16.json"), "--project", PROJECT, "--tiles", "20")
    assert "on 20 tiles" in entered

    start_round(lead, project, {"mode": "manual", "size": "300", "strategy": "random"} | TRAINING)
    wait_for_round(lead, "annotating")
    truth_files = [str(SMEARS / f"{name}.json") for name in ("P01", "P03")]
    entered = site.manage("import_truth", *truth_files, "--project", PROJECT, "--batch", "Round 1", "--tiles", "60")
    assert "on 60 tiles" in entered
    close_round(lead)
    wait_for_round(lead, "done")

    assisted = TRAINING | {"mode": "assisted", "size": "20", "strategy": "rare", "epochs": "4", "hold": "on"}
    start_round(lead, project, assisted)
    wait_for_round(lead, "ready to release")
    release_round(lead)
    wait_for_round(lead, "annotating")
    pre_labels = pre_labels_of(site, "Round 2")
    assert len(pre_labels) == 20

    expected = _annotate(reader, pre_labels, hotkeys_of(site))

    close_round(lead)
    wait_for_round(lead, "done")
    lead.get_by_role("link", name="Overview").click()
    expect(lead.locator("svg.curve circle.point")).to_have_count(2)

    labels = _exported_labels(lead, tmp_path)
    stored = truth_of(site)
    assert len(stored) == 20 + 60 + len(expected)
    assert sorted(labels) == sorted(tile["name"] for tile in stored.values())
    assert any(not tile["boxes"] for tile in stored.values())
    for task, tile in stored.items():
        _assert_same_boxes(labels[tile["name"]], [Drawn.of(box) for box in tile["boxes"]], tile["name"])
        if task in expected:
            _assert_same_boxes(labels[tile["name"]], expected[task], f"{tile['name']}, as it was drawn")
    assert set(expected) <= set(stored)


def _make_project(lead: Page) -> int:
    lead.get_by_role("link", name="New project").click()
    lead.get_by_label("Name").fill(PROJECT)
    lead.get_by_label("Taxonomy").select_option("blood-and-marrow")
    lead.get_by_role("button", name="Make the project").click()
    lead.get_by_role("link", name="Members").click()
    lead.get_by_label("User name").fill("reader")
    lead.get_by_label("Role").last.select_option("annotator")
    lead.get_by_role("button", name="Add").click()
    expect(lead.get_by_role("row", name="reader")).to_be_visible()
    return project_key(lead)


def _import_slides(site: Site, lead: Page, project: int) -> None:
    """One slide through the page, two from the disk; the third patient is locked on the page."""
    upload_slide(lead, project, SMEARS / "P03.svs")
    site.manage("import_slides", str(SMEARS / "P01.svs"), str(SMEARS / "P16.tif"), "--project", PROJECT)
    lead.reload()
    for name in ("P01.svs", "P03.svs", "P16.tif"):
        expect(lead.get_by_role("link", name=name)).to_be_visible()
    lead.get_by_role("button", name="Lock patient P16").click()
    expect(lead.get_by_role("button", name="Unlock patient P16")).to_be_visible()


def hotkeys_of(site: Site) -> dict[int, str]:
    classes = f"CellClass.objects.filter(taxonomy__projects__name={PROJECT!r})"
    pairs = site.read(f"answer = list({classes}.values_list('number', 'hotkey'))")
    return dict(map(tuple, pairs))


def pre_labels_of(site: Site, batch: str) -> dict[str, list[dict[str, Any]]]:
    """Task -> its pre-label boxes, the least certain first, as the editor walks them."""
    rows = site.read(
        f"""
from annotation.services.annotations import boxes_as_json
tasks = Task.objects.filter(batch__project__name={PROJECT!r}, batch__name={batch!r})
answer = [[str(one.pk), boxes_as_json(one.pre_label_id)] for one in tasks]
"""
    )
    return {task: sorted(boxes, key=lambda box: (box["score"], box["id"])) for task, boxes in rows}


def truth_of(site: Site) -> dict[str, dict[str, Any]]:
    """The truth of every tile, by the task that it came from (by the tile, if it came from an import)."""
    return site.read(
        f"""
from annotation.services.annotations import boxes_as_json
from annotation.services.exports import tile_name, truth_tiles
answer = dict()
for tile in truth_tiles(Project.objects.get(name={PROJECT!r})):
    key = tile.truth.task_id or f"tile {{tile.pk}}"
    answer[key] = dict(name=tile_name(tile), boxes=boxes_as_json(tile.truth_id))
"""
    )


def _annotate(
    reader: Page, pre_labels: dict[str, list[dict[str, Any]]], hotkeys: dict[int, str]
) -> dict[str, list[Drawn]]:
    """Go on from the home page; returns each confirmed task's boxes as they must have been stored."""
    reader.reload()
    reader.get_by_role("link", name="Annotate").click()
    editor = Editor(reader)
    task = editor.wait()
    expected: dict[str, list[Drawn]] = {}
    for act in (_leave_as_it_is, _fix, _draw_and_delete, _empty):
        while len(pre_labels[task]) < 2:
            expected[task] = _leave_as_it_is(editor, pre_labels[task], hotkeys)
            editor.confirm(task)
            task = editor.fact("task")
        editor.expect_boxes(len(pre_labels[task]))
        expected[task] = act(editor, pre_labels[task], hotkeys)
        editor.confirm(task)
        task = editor.fact("task")
    return expected


def _leave_as_it_is(editor: Editor, boxes: list[dict[str, Any]], hotkeys: dict[int, str]) -> list[Drawn]:
    return [Drawn.of(box) for box in boxes]


def _fix(editor: Editor, boxes: list[dict[str, Any]], hotkeys: dict[int, str]) -> list[Drawn]:
    """Move the largest box with the mouse and the arrows, pull a corner of it, and give it another class."""
    rank = max(range(len(boxes)), key=lambda place: boxes[place]["width"] * boxes[place]["height"])
    box = Drawn.of(boxes[rank])
    editor.walk_to(rank)
    middle = (box.x + box.width / 2, box.y + box.height / 2)
    dx = 12 if box.x + box.width + 40 < 512 else -12
    editor.drag(middle, (middle[0] + dx, middle[1]))
    dy = 1 if box.y + box.height + 40 < 512 else -1
    editor.page.keyboard.press("ArrowDown" if dy > 0 else "ArrowUp")
    left, top = box.x + dx, box.y + dy
    editor.drag((left, top), (left + 5, top + 7))
    number = next(number for number in hotkeys if number != box.class_number)
    editor.page.keyboard.press(hotkeys[number])
    fixed = Drawn(number, left + 5, top + 7, box.width - 5, box.height - 7)
    return [Drawn.of(other) for place, other in enumerate(boxes) if place != rank] + [fixed]


def _draw_and_delete(editor: Editor, boxes: list[dict[str, Any]], hotkeys: dict[int, str]) -> list[Drawn]:
    """Delete the least certain box; draw two of another class, also over others; a third is taken back."""
    editor.walk_to(0)
    editor.page.keyboard.press("Delete")
    editor.expect_boxes(len(boxes) - 1)
    number = max(hotkeys)
    editor.page.keyboard.press(hotkeys[number])
    for x, y, width, height in ((40, 50, 61, 73), (300, 310, 90, 80)):
        editor.drag((x, y), (x + width, y + height))
        editor.page.keyboard.press("Escape")
    editor.drag((200, 200), (260, 260))
    editor.expect_boxes(len(boxes) + 2)
    editor.page.keyboard.press("Control+z")
    editor.expect_boxes(len(boxes) + 1)
    drawn = [Drawn(number, 40, 50, 61, 73), Drawn(number, 300, 310, 90, 80)]
    return [Drawn.of(box) for box in boxes[1:]] + drawn


def _empty(editor: Editor, boxes: list[dict[str, Any]], hotkeys: dict[int, str]) -> list[Drawn]:
    """Delete every box: a confirmed tile without a cell."""
    for _ in boxes:
        editor.walk_to(0)
        editor.page.keyboard.press("Delete")
    editor.expect_boxes(0)
    return []


def _exported_labels(lead: Page, folder: Path) -> dict[str, list[Drawn]]:
    """Ask for the YOLO export on the page and read its label files: tile name -> boxes in tile px."""
    lead.get_by_role("link", name="Exports").click()
    lead.get_by_label("Format").select_option("yolo")
    lead.get_by_role("button", name="Export", exact=True).click()
    with lead.expect_download() as download:
        lead.get_by_role("link", name="Download").click()
    download.value.save_as(folder / "export.zip")
    with zipfile.ZipFile(folder / "export.zip") as archive:
        texts = {
            Path(name).stem: archive.read(name).decode()
            for name in archive.namelist()
            if "labels" in Path(name).parts and name.endswith(".txt")
        }
        pictures = [name for name in archive.namelist() if name.endswith(".jpg")]
    assert len(pictures) == len(texts)
    return {name: [_from_yolo(line) for line in text.splitlines()] for name, text in texts.items()}


def _from_yolo(line: str) -> Drawn:
    number, centre_x, centre_y, width, height = line.split()
    sides = 512 * float(width), 512 * float(height)
    return Drawn(int(number), 512 * float(centre_x) - sides[0] / 2, 512 * float(centre_y) - sides[1] / 2, *sides)


def _assert_same_boxes(found: list[Drawn], wanted: list[Drawn], what: str) -> None:
    assert len(found) == len(wanted), what

    def order(box: Drawn) -> tuple[float, ...]:
        return (box.class_number, round(box.x), round(box.y), round(box.width))

    for one, other in zip(sorted(found, key=order), sorted(wanted, key=order), strict=True):
        assert one.class_number == other.class_number, what
        for name in ("x", "y", "width", "height"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=PRECISION), f"{what}: {one}, {other}"
