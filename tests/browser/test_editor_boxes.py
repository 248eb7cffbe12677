"""Many boxes, many classes, large tiles, small windows, fingers and pens."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import CDPSession, expect

from tests.browser.editing import Box, Editing, Editor, PreLabel
from tests.browser.images import image_batch, import_image

# Classes of the taxonomy with 19, by number.
NEUTROPHIL, METAMYELOCYTE, MYELOCYTE, BLAST, EOSINOPHIL = 0, 1, 2, 4, 10
TILE = 512
CELLS = [PreLabel(Box(NEUTROPHIL, 60, 60, 80, 80), 0.9), PreLabel(Box(METAMYELOCYTE, 200, 60, 60, 90), 0.8)]
CELLS += [PreLabel(Box(MYELOCYTE, 350, 80, 100, 96), 0.7), PreLabel(Box(BLAST, 60, 350, 60, 60), 0.3)]
FIRST, SECOND, THIRD, LAST = BOXES = [label.box for label in CELLS]


def moved(box: Box, x: float, y: float) -> Box:
    return box._replace(x=box.x + x, y=box.y + y)


def shift_drag(editor: Editor, start: tuple[float, float], end: tuple[float, float]) -> None:
    editor.page.keyboard.down("Shift")
    editor.drag(start, end)
    editor.page.keyboard.up("Shift")


def shift_click(editor: Editor, box: Box) -> None:
    editor.page.keyboard.down("Shift")
    editor.click(*box.middle)
    editor.page.keyboard.up("Shift")


def chosen(editor: Editor) -> list[Box]:
    """The selected boxes, which the page counts and the table marks."""
    boxes = [row.box for row in editor.rows() if row.selected]
    assert editor.fact("chosen") == str(len(boxes))
    return sorted(boxes)


def near(boxes: list[Box]) -> list[Box]:
    """The boxes to a tenth of a pixel, in order."""
    return sorted(Box(number, *(round(side, 1) for side in sides)) for number, *sides in boxes)


def stored(editing: Editing, batch: int, task: str) -> tuple[list[Box], Counter[str]]:
    """The boxes of the task's only annotation, and what became of its pre-labels."""
    (annotation,) = editing.stored(batch)[task].annotations
    return sorted(annotation.boxes), Counter({name: count for name, count in annotation.changes.items() if count})


# --- several boxes -------------------------------------------------------------------------------


def test_several_boxes_are_selected_by_rectangle_click_strip_and_key(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    expect(editor.page.locator("#strip [data-key]")).to_have_count(4)
    shift_drag(editor, (370, 200), (30, 30))  # the third box too, but not its middle
    assert chosen(editor) == sorted([FIRST, SECOND])
    assert editor.announced == "2 boxes selected"
    shift_click(editor, LAST)
    assert chosen(editor) == sorted([FIRST, SECOND, LAST])
    shift_click(editor, FIRST)
    assert chosen(editor) == sorted([SECOND, LAST])
    shift_drag(editor, (330, 70), (480, 200))
    assert chosen(editor) == sorted([SECOND, THIRD, LAST])
    key = next(row.key for row in editor.rows() if row.box == SECOND)
    crop = editor.page.locator(f'#strip [data-key="{key}"]')
    crop.click(modifiers=["Shift"])
    assert chosen(editor) == sorted([THIRD, LAST])
    expect(crop).to_have_attribute("aria-pressed", "false")
    crop.click(modifiers=["Shift"])
    expect(crop).to_have_attribute("aria-pressed", "true")
    expect(editor.page.locator('#strip [aria-pressed="true"]')).to_have_count(3)
    editor.press("Control+a")
    assert chosen(editor) == sorted(BOXES)
    editor.click(*FIRST.middle)
    assert chosen(editor) == [FIRST]
    editor.press("Escape")
    assert chosen(editor) == []
    assert sorted(editor.boxes()) == sorted(BOXES)
    expect(editor.page.locator('[data-command="undo"]')).to_be_disabled()


def test_several_boxes_are_named_and_deleted_at_once_and_brought_back_in_one_step(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    task = editor.task
    shift_drag(editor, (30, 30), (300, 200))
    editor.press(editor.class_key(EOSINOPHIL))
    renamed = [box._replace(number=EOSINOPHIL) for box in (FIRST, SECOND)]
    assert chosen(editor) == sorted(renamed)
    assert [row.touched for row in editor.rows() if row.selected] == [True, True]
    editor.press("Control+z")
    assert (sorted(editor.boxes()), chosen(editor)) == (sorted(BOXES), sorted([FIRST, SECOND]))
    assert not any(row.touched for row in editor.rows())
    editor.press("Control+y", "Control+a", "Delete")
    assert editor.boxes() == []
    assert "0 boxes" in editor.announced
    editor.press("Control+z")
    assert chosen(editor) == sorted([*renamed, THIRD, LAST])
    editor.press("Escape")
    shift_click(editor, THIRD)
    shift_click(editor, LAST)
    editor.press("Backspace")
    editor.confirm()
    assert stored(editing, batch, task) == (sorted(renamed), Counter(reclassified=2, deleted=2))


def test_several_boxes_are_nudged_and_dragged_together_and_stop_together(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    task = editor.task
    editor.press("Control+a", *["Shift+ArrowLeft"] * 8)
    assert sorted(editor.boxes()) == sorted(moved(box, -60, 0) for box in BOXES)
    editor.press("ArrowRight", *["Shift+ArrowDown"] * 20)
    assert sorted(editor.boxes()) == sorted(moved(box, -59, 102) for box in BOXES)
    inside = moved(SECOND, -59, 102).middle
    editor.drag(inside, (inside[0] + 400, inside[1] - 20))
    assert sorted(editor.boxes()) == sorted(moved(box, 62, 82) for box in BOXES)
    editor.press("Control+z")
    assert sorted(editor.boxes()) == sorted(moved(box, -59, 102) for box in BOXES)
    editor.press(*["Control+z"] * 18)  # six to the left edge, one back, and eleven to the lower edge
    assert sorted(editor.boxes()) == sorted(BOXES)
    editor.press("Escape")
    shift_drag(editor, (30, 30), (300, 200))
    editor.press("Alt+ArrowRight", "Shift+ArrowUp")
    changed = [box._replace(y=50, width=box.width + 1) for box in (FIRST, SECOND)]
    assert chosen(editor) == sorted(changed)
    editor.confirm()
    assert stored(editing, batch, task) == (sorted([*changed, THIRD, LAST]), Counter(moved=2, kept=2))


# --- copy and paste ------------------------------------------------------------------------------


def origins(editing: Editing, task: str) -> list[int | None]:
    """The pre-label box that each box of the task's annotation came from."""
    answer: list[int | None] = editing.site.read(
        f"answer = list(Box.objects.filter(annotation__task={task}).values_list('origin', flat=True))"
    )
    return answer


def at(x: float, y: float, *boxes: Box) -> list[Box]:
    """The boxes, moved so that their common middle is here."""
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
    return [moved(box, x - (left + right) / 2, y - (top + bottom) / 2) for box in boxes]


def test_boxes_are_pasted_at_the_pointer_also_on_the_next_tile(editing: Editing):
    batch = editing.batch(CELLS, CELLS[:1], CELLS[:1])
    editor = editing.open(batch)
    first = editor.task
    shift_drag(editor, (30, 30), (300, 200))
    editor.press("Control+c")
    assert editor.announced == "2 boxes copied"
    editor.mouse.move(*editor.to_screen(300, 300))
    editor.press("Control+v")
    pasted = at(300, 300, FIRST, SECOND)
    assert near(chosen(editor)) == near(pasted)
    assert all(row.touched for row in editor.rows() if row.selected)
    editor.mouse.move(*editor.to_screen(500, 505))
    editor.press("Control+v")
    corner = [box._replace(x=box.x + TILE - 260, y=box.y + TILE - 150) for box in (FIRST, SECOND)]
    assert chosen(editor) == sorted(corner)
    editor.press("Control+z", "Escape")
    editor.click(*LAST.middle)
    editor.press("Control+x")
    assert near(editor.boxes()) == near([FIRST, SECOND, THIRD, *pasted])
    seen = editor.boxes()
    second = editor.confirm()
    editor.mouse.move(*editor.to_screen(400, 100))
    editor.press("Control+v")
    assert near(chosen(editor)) == near(at(400, 100, LAST))
    there = editor.boxes()
    editor.confirm()
    assert stored(editing, batch, first) == (sorted(seen), Counter(kept=3, added=2, deleted=1))
    assert origins(editing, first).count(None) == 2
    assert stored(editing, batch, second) == (sorted(there), Counter(kept=1, added=1))
    assert origins(editing, second).count(None) == 1


def test_a_paste_without_the_pointer_lies_beside_what_was_copied(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.press("Tab", "Control+c")
    editor.mouse.move(*editor.to_screen(100, 100))
    editor.mouse.move(0, 0)
    editor.press("Control+v")
    assert chosen(editor) == [moved(LAST, 8, 8)]
    assert len(editor.boxes()) == 5


# --- a key for each of 36 classes ----------------------------------------------------------------

CODES = [f"C{number:02}" for number in range(36)]


ROUND = [PreLabel(Box(0, 100, 100, 60, 60), 0.8)]


@pytest.fixture
def many_classes(editing: Editing, tmp_path: Path, request: pytest.FixtureRequest) -> int:
    """A project of one image and 36 classes whose file says nothing of keys."""
    colours = [f"#{7 * number:02x}80{255 - 7 * number:02x}" for number in range(36)]
    classes = [{"code": code, "name": f"cell {number}", "colour": colours[number]} for number, code in enumerate(CODES)]
    taxonomy = {"name": request.node.name[:90], "classes": classes}  # its hotkeys are its own
    (tmp_path / "classes.json").write_text(json.dumps(taxonomy))
    pixels = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    image = tmp_path / f"{request.node.name[:80]}.png"
    Image.fromarray(pixels).save(image)
    return import_image(editing, image, taxonomy=tmp_path / "classes.json")


def caps(editor: Editor) -> list[str]:
    return editor.page.locator("#classes .class-row kbd").all_text_contents()


def type_key(editor: Editor, key: str, *, shift: bool) -> None:
    """A letter as the keyboard sends it, whatever Caps Lock makes of it."""
    event = {"key": key, "code": f"Key{key.upper()}", "modifiers": 8 if shift else 0}
    keyboard = editor.devtools()
    for kind in ("keyDown", "keyUp"):
        keyboard.send("Input.dispatchKeyEvent", event | {"type": kind})


def test_each_of_36_classes_has_a_key_of_its_own_and_shows_it(editing: Editing, many_classes):
    batch = image_batch(editing, many_classes, ROUND)
    editor = editing.open(batch)
    assert len(set(editor.hotkeys.values())) == 36
    assert caps(editor) == [f"⇧{key}" if key.isupper() else key.upper() for key in editor.hotkeys.values()]
    assert [key for key in editor.hotkeys.values() if key.isupper()] == list("ABCDEFGH")
    armed = []
    for number in range(36):
        editor.press(editor.class_key(number))
        armed.append(editor.fact("armed"))
    assert armed == CODES
    editor.press("Tab", "Shift+H")  # no command, though h is one
    assert editor.drawn("front") > 0
    assert editor.selected_box().number == 35
    editor.press("Space")
    editor.ended()
    editor.saved()
    ((told),) = editing.stored(batch).values()
    assert [box.number for box in told.newest] == [35]


def test_caps_lock_does_not_matter(editing: Editing, many_classes):
    editor = editing.open(image_batch(editing, many_classes, ROUND))
    numbers = {key: number for number, key in editor.hotkeys.items()}
    for key, shift, hotkey in [("A", False, "a"), ("a", True, "A"), ("a", False, "a"), ("A", True, "A")]:
        editor.press("1")
        type_key(editor, key, shift=shift)
        assert editor.fact("armed") == CODES[numbers[hotkey]], (key, shift)
    type_key(editor, "L", shift=False)
    expect(editor.page.locator('[data-command="labels"]')).to_have_attribute("aria-pressed", "false")


def test_a_hotkey_changed_on_the_taxonomy_page_works_after_a_reload(editing: Editing, many_classes):
    editor = editing.open(image_batch(editing, many_classes, ROUND))
    lead = editing.page(editing.context("lead")).page
    lead.goto(f"/projects/{many_classes}/taxonomy/")
    lead.get_by_label("Hotkey of cell 0", exact=True).fill("Y")
    lead.get_by_role("button", name="Save hotkeys and colours").click()
    expect(lead.get_by_label("Hotkey of cell 0", exact=True)).to_have_value("Y")
    editor.page.reload()
    editor.wait()
    assert caps(editor)[0] == "⇧Y"
    editor.press("2")
    assert editor.fact("armed") == CODES[1]
    editor.press("1")
    assert editor.fact("armed") == CODES[1]
    editor.press("Shift+Y")
    assert editor.fact("armed") == CODES[0]


# --- fingers and pens ----------------------------------------------------------------------------


def touch(fingers: CDPSession, kind: str, *places: tuple[float, float]) -> None:
    """`places`: of all fingers then on the screen, in CSS px of the page."""
    points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
    fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def whole(place: tuple[float, float]) -> tuple[int, int]:
    """A finger's place is in whole px."""
    return round(place[0]), round(place[1])


def test_two_fingers_zoom_and_pan_and_never_draw(editing: Editing):
    editor = editing.open(editing.batch(CELLS), has_touch=True)
    fingers = editor.devtools()
    x, y = whole(editor.to_screen(256, 256))
    held, scale = editor.to_tile(x, y), editor.view()[0]
    touch(fingers, "touchStart", (x - 50, y))
    touch(fingers, "touchMove", (x - 60, y + 30))  # one finger begins to draw
    touch(fingers, "touchMove", (x - 50, y))
    touch(fingers, "touchStart", (x - 50, y), (x + 50, y))
    for step in range(1, 5):
        out, along = 50 + 25 * step, 10 * step
        touch(fingers, "touchMove", (x - out + along, y - along), (x + out + along, y - along))
    touch(fingers, "touchEnd", (x + 190, y - 40))
    assert editor.view()[0] == pytest.approx(3 * scale)
    assert editor.to_tile(x + 40, y - 40) == pytest.approx(held, abs=0.1)
    touch(fingers, "touchMove", (x + 100, y + 100))  # the finger that is left does nothing
    touch(fingers, "touchEnd")
    assert editor.view()[0] == pytest.approx(3 * scale)
    assert sorted(editor.boxes()) == sorted(BOXES)
    expect(editor.page.locator('[data-command="undo"]')).to_be_disabled()
    expect(editor.html).to_have_attribute("data-chosen", "0")


def pen(editor: Editor, *places: tuple[float, float], button: str = "left") -> None:
    """A stroke along places in tile px, as the view is before it."""
    devtools = editor.devtools()
    kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
    on_screen = [editor.to_screen(*place) for place in places]
    for kind, (x, y) in zip(kinds, [*on_screen, on_screen[-1]], strict=True):
        event = {"type": kind, "x": x, "y": y, "button": button, "buttons": 2 if button == "right" else 1}
        devtools.send("Input.dispatchMouseEvent", event | {"clickCount": 1, "pointerType": "pen", "force": 0.5})


def test_once_a_pen_is_used_a_finger_only_pans(editing: Editing):
    editor = editing.open(editing.batch(CELLS), has_touch=True)
    fingers = editor.devtools()
    pen(editor, (250, 200), (270, 230), (330, 290))
    drawn = Box(NEUTROPHIL, 250, 200, 80, 90)
    assert chosen(editor) == [drawn]
    scale, left, top = editor.view()
    x, y = whole(editor.to_screen(*drawn.middle))
    touch(fingers, "touchStart", (x, y))
    touch(fingers, "touchMove", (x + 20, y + 20))
    touch(fingers, "touchMove", (x + 50, y - 30))
    touch(fingers, "touchEnd")
    assert editor.view() == pytest.approx((scale, left + 50, top - 30))
    assert sorted(editor.boxes()) == sorted([*BOXES, drawn])
    touch(fingers, "touchStart", whole(editor.to_screen(*THIRD.middle)))
    touch(fingers, "touchEnd")
    assert chosen(editor) == [THIRD]
    scale, left, top = editor.view()
    start = editor.to_screen(300, 400)
    pen(editor, (300, 400), editor.to_tile(start[0] + 30, start[1] + 40), button="right")  # the barrel button
    assert editor.view() == pytest.approx((scale, left + 30, top + 40))
    assert sorted(editor.boxes()) == sorted([*BOXES, drawn])


def test_the_eraser_of_a_pen_deletes(editing: Editing):
    batch = editing.batch(CELLS)
    editor = editing.open(batch)
    x, y = editor.to_screen(*SECOND.middle)
    editor.surface.evaluate(
        """(surface, [clientX, clientY]) => {
            // The one pointer that is always there: no other may be captured.
            const pointer = { pointerId: 1, pointerType: "pen", clientX, clientY, bubbles: true, cancelable: true };
            surface.dispatchEvent(new PointerEvent("pointerdown", { ...pointer, button: 5, buttons: 32 }));
            surface.dispatchEvent(new PointerEvent("pointerup", { ...pointer, button: 5, buttons: 0 }));
        }""",
        [x, y],
    )
    assert sorted(editor.boxes()) == sorted([FIRST, THIRD, LAST])
    editor.press("Control+z")
    assert sorted(editor.boxes()) == sorted(BOXES)
    editor.press("Control+y")
    editor.saved()
    assert sorted(editing.stored(batch)[editor.task].drafts["reader"]) == sorted([FIRST, THIRD, LAST])


# --- large tiles ---------------------------------------------------------------------------------


def test_500_boxes_on_one_tile_are_walked_filtered_deleted_brought_back_and_stored(editing: Editing):
    places = [(2 + 20 * (number % 25), 2 + 25 * (number // 25)) for number in range(500)]
    labels = [PreLabel(Box(number % 10, x, y, 16, 20), 0.3 + number / 1000) for number, (x, y) in enumerate(places)]
    wanted = sorted(label.box for label in labels)
    batch = editing.batch(labels, CELLS)
    editor = editing.open(batch)
    task = editor.task
    assert editor.fact("shown") == "500"
    editor.press("Tab", "Tab", "Enter")
    assert editor.selected_box() == labels[2].box
    editor.press(f"Alt+{editor.class_key(BLAST)}", "Tab")
    assert editor.fact("shown") == "50"
    assert editor.selected_box() == labels[4].box
    editor.press("Escape", "Escape", "Control+a")
    assert editor.fact("chosen") == "500"
    assert editor.drawn("front") > 0
    editor.press("Delete")
    assert editor.fact("boxes") == "0"
    editor.press("Control+z", "ArrowRight", "Control+z", editor.class_key(EOSINOPHIL), "Control+z")
    assert sorted(editor.boxes()) == wanted
    expect(editor.page.locator("#strip [data-key]")).to_have_count(500)
    editor.confirm()
    assert stored(editing, batch, task) == (wanted, Counter(kept=500))


@pytest.fixture(scope="module")
def plane(editing_site: Editing, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The project of a plain image of 4096 x 4096 px."""
    rows, columns = np.indices((4096, 4096), dtype=np.uint8)
    path = tmp_path_factory.mktemp("large") / "plane.jpg"
    Image.fromarray(np.stack([rows, columns, rows // 2 + 64], axis=2)).save(path, quality=80)
    return import_image(editing_site, path)


def test_an_image_of_4096_px_is_read_with_its_small_cells_brought_near(editing: Editing, plane):
    small = [PreLabel(Box(NEUTROPHIL, 3000, 700, 24, 20), 0.4), PreLabel(Box(MYELOCYTE, 100, 4060, 30, 30), 0.6)]
    batch = image_batch(editing, plane, small)
    editor = editing.open(batch)
    task, fitted = editor.task, editor.view()
    assert fitted[0] < 0.25
    pane = editor.surface.bounding_box()
    assert pane is not None
    for label in small:
        editor.press("Tab")
        assert editor.selected_box() == label.box
        scale, left, top = editor.view()
        assert scale == 1
        x, y = label.box.middle
        assert 0 < left + x < pane["width"]
        assert 0 < top + y < pane["height"]
    new = Box(BLAST, 150, 4000, 40, 50)
    editor.draw(new)
    assert near([editor.selected_box()]) == [new]
    editor.press("f")
    assert editor.view() == fitted
    # It is all of its slide: nothing lies around it.
    expect(editor.page.locator("#minimap")).to_be_disabled()
    expect(editor.page.locator("#info-place")).to_have_text("–")
    editor.press("w")
    assert editor.view() == fitted
    editor.confirm_last()
    boxes, changes = stored(editing, batch, task)
    assert near(boxes) == near([new, *(label.box for label in small)])
    assert changes == Counter(kept=2, added=1)


# --- windows and people --------------------------------------------------------------------------

# Parts of the top line that stick out of the window, or that lie over each other.
CROWDED = """() => {
    const parts = [...document.querySelector("header.bar").children].filter(one => one.checkVisibility());
    const places = parts.map(one => one.getBoundingClientRect());
    const out = parts.filter((_, at) => places[at].left < 0 || places[at].right > innerWidth || places[at].width === 0);
    const over = parts.filter((_, at) => at && places[at].left < places[at - 1].right - 0.5);
    return [...out, ...over].map(one => one.id || one.className);
}"""
OVERFLOW = """() => { const { scrollWidth, scrollHeight } = document.documentElement;
                       return [scrollWidth - innerWidth, scrollHeight - innerHeight]; }"""


def test_a_small_window_holds_everything_with_both_chips(editing: Editing):
    editor = editing.open(editing.batch(CELLS, CELLS), viewport={"width": 1024, "height": 768})
    task = editor.task
    editor.press("s")
    editor.page.get_by_label("Remark").fill("cells upon cells, and no end of them " * 4)
    editor.page.get_by_role("button", name="Skip the tile").click()
    editor.wait(after=task)
    editor.saved()
    editor.press(",")
    editor.page.wait_for_function("task => (document.documentElement?.dataset ?? {}).task === task", arg=task)
    editor.press(f"Alt+{editor.class_key(6)}")
    for chip in ("#review", "#only"):
        expect(editor.page.locator(chip)).to_be_in_viewport(ratio=1)
    assert (editor.page.evaluate(CROWDED), editor.page.evaluate(OVERFLOW)) == ([], [0, 0])
    for button in editor.page.locator("header .chip button").all():
        button.click(trial=True)
    editor.page.context.set_offline(True)
    editor.press("Escape", "n")
    editor.save_state("offline")
    assert (editor.page.evaluate(CROWDED), editor.page.evaluate(OVERFLOW)) == ([], [0, 0])
    editor.page.context.set_offline(False)
    editor.saved()


def test_nothing_moves_for_a_reader_who_asked_for_less_motion(editing: Editing):
    editor = editing.open(editing.batch(CELLS), reduced_motion="reduce")
    editor.press("v", "Escape", "?")
    moving = editor.page.evaluate(
        """() => [...document.querySelectorAll("*")].filter(one => {
            const { transitionDuration, animationDuration, scrollBehavior } = getComputedStyle(one);
            const times = `${transitionDuration}, ${animationDuration}`.split(", ");
            return times.some(time => time !== "0s") || scrollBehavior !== "auto";
        }).map(one => one.id || one.tagName)"""
    )
    assert moving == []
