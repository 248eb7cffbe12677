"""The editor in a real browser: keys, mouse, pen and touch, checked against what the site has stored."""

from collections import Counter
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.editing import Box, Editing, Editor, PreLabel, Stored

# Classes of the taxonomy with 19, by number.
NEUTROPHIL, METAMYELOCYTE, MYELOCYTE, BLAST, EOSINOPHIL = 0, 1, 2, 4, 10
TILE = 512
CELLS = [PreLabel(Box(NEUTROPHIL, 60, 60, 80, 80), 0.91)]
CELLS += [PreLabel(Box(METAMYELOCYTE, 300.5, 80.25, 60, 90), 0.82), PreLabel(Box(MYELOCYTE, 120, 320, 100, 96), 0.43)]
SURE, LESS_SURE, DOUBTFUL = (label.box for label in CELLS)
# Each lies in the one before it.
NESTED = [PreLabel(Box(NEUTROPHIL, 100, 100, 300, 300), 0.9), PreLabel(Box(MYELOCYTE, 160, 160, 180, 180), 0.8)]
NESTED += [PreLabel(Box(BLAST, 200, 200, 60, 60), 0.7)]
OUTER, MIDDLE, INNER = (label.box for label in NESTED)
KEPT = Counter(kept=3)
PANES = ["classes", "threshold", "strip", "minimap", "back"]


def moved(box: Box, x: float = 0, y: float = 0, width: float = 0, height: float = 0, number: int | None = None) -> Box:
    """The box with its sides changed by so much."""
    return Box(box.number if number is None else number, box.x + x, box.y + y, box.width + width, box.height + height)


def only(annotations: list[Stored]) -> Stored:
    assert len(annotations) == 1
    return annotations[0]


# --- a whole batch by keyboard -------------------------------------------------------------------

# Each act: the keys on the tile before Space, given the class keys; then what must be stored of it.
Act = tuple[Callable[[Editor], list[str]], list[Box], Counter[str]]
WALKED = (DOUBTFUL, LESS_SURE, SURE)  # in the order of the walk
CENTRED = Box(EOSINOPHIL, 206, 211, 100, 90)


def middle_box(like: Box) -> Box:
    """What N adds: as large as `like`, in the middle of a tile that is fitted."""
    return Box(like.number, TILE / 2 - like.width / 2, TILE / 2 - like.height / 2, like.width, like.height)


ACTS: list[Act] = [
    (lambda editor: [], list(WALKED), KEPT),
    (
        lambda editor: ["Tab", editor.class_key(BLAST)],
        [moved(DOUBTFUL, number=BLAST), LESS_SURE, SURE],
        Counter(kept=2, reclassified=1),
    ),
    (
        lambda editor: ["Tab", "Tab", "ArrowRight", "ArrowRight", "ArrowUp"],
        [DOUBTFUL, moved(LESS_SURE, 2, -1), SURE],
        Counter(kept=2, moved=1),
    ),
    (lambda editor: ["Tab", "Delete"], [LESS_SURE, SURE], Counter(kept=2, deleted=1)),
    (
        lambda editor: ["Shift+Tab", "Alt+ArrowRight", "Alt+Shift+ArrowDown", editor.class_key(EOSINOPHIL)],
        [DOUBTFUL, LESS_SURE, moved(SURE, 0, 0, 1, 10, EOSINOPHIL)],
        Counter(kept=2, reclassified=1),
    ),
    (lambda editor: ["Tab", "Enter", "Enter", "Enter"], list(WALKED), KEPT),
    (lambda editor: ["Tab", "Delete", "Tab", "Backspace", "Tab", "Delete"], [], Counter(deleted=3)),
    (
        lambda editor: ["Tab", "Control+d", "Shift+ArrowRight"],
        [*WALKED, moved(DOUBTFUL, 18, 8)],
        Counter(kept=3, added=1),
    ),
    (
        lambda editor: ["Tab", "Tab", "n", editor.class_key(BLAST)],
        [*WALKED, middle_box(moved(LESS_SURE, number=BLAST))],
        Counter(kept=3, added=1),
    ),
    (
        lambda editor: ["Tab", "Delete", "Control+z", "Control+Shift+z", "Control+z", "Tab", "ArrowLeft"],
        [DOUBTFUL, moved(LESS_SURE, -1), SURE],
        Counter(kept=2, moved=1),
    ),
]


def pressed(keys: list[str]) -> int:
    """How many keys go down for these."""
    return sum(len(key.split("+")) for key in keys)


def test_a_whole_batch_of_20_tiles_is_read_by_keyboard_alone(editing: Editing):
    batch = editing.batch(*[CELLS] * 20)
    editor = editing.open(batch)
    tasks, acts = editing.tasks(batch), ACTS * 2
    keys = [act[0](editor) for act in acts]
    for task, some in zip(tasks, keys, strict=True):
        assert editor.wait() == task
        editor.press(*some, "Space")
        if task != tasks[-1]:
            editor.wait(after=task)
    editor.ended()
    editor.saved()
    expect(editor.page.locator("#end-title")).to_have_text("Batch done: 20 of 20.")

    stored = editing.stored(batch)
    assert list(stored) == tasks
    for (_, boxes, changes), some, told in zip(acts, keys, stored.values(), strict=True):
        annotation = only(told.annotations)
        assert (told.state, annotation.author, annotation.revision) == ("submitted", "reader", 1)
        assert sorted(annotation.boxes) == sorted(boxes), some
        assert Counter(annotation.changes) == changes, some
        assert (annotation.keys, annotation.clicks) == (pressed(some) + 1, 0), some
        assert 0 <= annotation.active_seconds <= annotation.wall_seconds < 60


def test_a_tile_that_is_right_costs_one_key(editing: Editing):
    batch = editing.batch(CELLS, NESTED, [])
    editor = editing.open(batch)
    for _ in range(2):
        editor.confirm()
    editor.confirm_last()
    annotations = [only(told.annotations) for told in editing.stored(batch).values()]
    assert [(one.keys, one.clicks) for one in annotations] == [(1, 0)] * 3
    assert [len(one.boxes) for one in annotations] == [3, 3, 0]


def test_space_held_down_confirms_one_tile_only(editing: Editing):
    editor = editing.open(editing.batch(CELLS, CELLS, CELLS))
    first = editor.task
    for _ in range(6):
        editor.page.keyboard.down("Space")
    second = editor.wait(after=first)
    for _ in range(6):
        editor.page.keyboard.down("Space")
    editor.page.keyboard.up("Space")
    editor.saved()
    assert editor.task == second


# --- drawing -------------------------------------------------------------------------------------


def test_boxes_drawn_at_full_speed_undone_redone_and_submitted_at_once_are_all_stored(editing: Editing):
    batch = editing.batch([], CELLS)
    editor = editing.open(batch)
    first = editor.task
    editor.arm(EOSINOPHIL)
    wanted = [Box(EOSINOPHIL, 10 + 80 * (place % 6), 10 + 80 * (place // 6), 50, 41) for place in range(30)]
    for box in wanted:
        editor.drag((box.x, box.y), (box.x + box.width, box.y + box.height), steps=1)
    editor.press(*["Control+z"] * 8, *["Control+y"] * 5)
    seen = editor.boxes()
    editor.press("Space")
    editor.wait(after=first)
    editor.saved()

    annotation = only(editing.stored(batch)[first].annotations)
    assert seen == wanted[:27]
    assert annotation.boxes == seen
    assert Counter(annotation.changes) == Counter(added=27)
    assert annotation.clicks == 30


def test_a_drag_that_starts_inside_another_box_draws(editing: Editing):
    editor = editing.open(editing.batch(NESTED))
    new = Box(METAMYELOCYTE, 210, 205, 100, 120)
    editor.draw(new)
    assert sorted(editor.boxes()) == sorted([OUTER, MIDDLE, INNER, new])


def test_a_drag_past_the_edge_is_cut_to_the_tile(editing: Editing):
    editor = editing.open(editing.batch([]))
    editor.arm(NEUTROPHIL)
    editor.drag((400, 450), (530, 530))
    editor.press("Escape")
    editor.drag((30, 40), (-20, -10))
    assert editor.boxes() == [Box(NEUTROPHIL, 400, 450, 112, 62), Box(NEUTROPHIL, 0, 0, 30, 40)]


def test_a_fast_click_neither_draws_nor_pans_nor_moves(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    view = editor.view()
    for x, y in [SURE.middle, (250, 250), (2, 2), LESS_SURE.middle, LESS_SURE.middle]:
        for button in ("left", "middle", "right"):
            at = editor.to_screen(x, y)
            editor.mouse.move(*at)
            editor.mouse.down(button=button)
            editor.mouse.move(at[0] + 2, at[1] - 2)
            editor.mouse.up(button=button)
    assert sorted(editor.boxes()) == sorted(WALKED)
    assert editor.view() == view
    expect(editor.page.locator('[data-command="undo"]')).to_be_disabled()


def test_a_click_takes_the_smallest_box_and_again_the_next_larger_one(editing: Editing):
    editor = editing.open(editing.batch(NESTED))
    taken = []
    for _ in range(4):
        editor.click(*INNER.middle)
        taken.append(editor.selected_box())
    assert taken == [INNER, MIDDLE, OUTER, INNER]
    editor.click(380, 380)
    assert editor.selected_box() == OUTER
    editor.click(30, 30)
    assert editor.selected is None


def test_only_the_selected_box_moves_and_resizes(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.click(*SURE.middle)
    editor.drag(SURE.middle, (SURE.middle[0] + 30, SURE.middle[1] + 17))
    assert sorted(editor.boxes()) == sorted([moved(SURE, 30, 17), LESS_SURE, DOUBTFUL])
    corner = (SURE.x + 30 + SURE.width, SURE.y + 17 + SURE.height)
    editor.drag(corner, (corner[0] + 12, corner[1] - 9))
    resized = moved(SURE, 30, 17, 12, -9)
    assert sorted(editor.boxes()) == sorted([resized, LESS_SURE, DOUBTFUL])
    side = (resized.x, resized.y + resized.height / 2)
    editor.drag(side, (side[0] - 20, side[1] + 50))
    resized = moved(resized, -20, 0, 20)
    editor.drag((310, 90), (350, 160))  # inside a box that is not selected
    drawn = Box(NEUTROPHIL, 310, 90, 40, 70)
    assert sorted(editor.boxes()) == sorted([resized, LESS_SURE, DOUBTFUL, drawn])
    editor.press("Control+z", "Control+z", "Control+z", "Control+z")
    assert sorted(editor.boxes()) == sorted(WALKED)


def test_escape_stops_a_drag(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.mouse.move(*editor.to_screen(250, 250))
    editor.mouse.down()
    editor.mouse.move(*editor.to_screen(300, 300))
    editor.press("Escape")
    editor.mouse.move(*editor.to_screen(330, 330))
    editor.mouse.up()
    assert sorted(editor.boxes()) == sorted(WALKED)


@pytest.mark.parametrize("screen", ["plain", "dense"])
def test_a_pen_draws_and_resizes(editing: Editing, screen):
    editor = editing.open(editing.batch([]), device_scale_factor=2 if screen == "dense" else 1)
    pen = editor.devtools()

    def drag(*places: tuple[float, float]) -> None:
        for kind, (x, y) in zip(["mousePressed", "mouseMoved", "mouseReleased"], places, strict=True):
            at_x, at_y = editor.to_screen(x, y)
            event = {"type": kind, "x": at_x, "y": at_y, "button": "left", "buttons": 1, "clickCount": 1}
            pen.send("Input.dispatchMouseEvent", event | {"pointerType": "pen", "force": 0.5})

    drag((100, 120), (130, 150), (180, 190))
    assert editor.boxes() == [Box(NEUTROPHIL, 100, 120, 80, 70)]
    drag((180, 190), (190, 190), (200, 205))
    assert editor.boxes() == [Box(NEUTROPHIL, 100, 120, 100, 85)]


def test_a_finger_draws_selects_and_moves(editing: Editing):
    editor = editing.open(editing.batch(CELLS), has_touch=True)
    fingers = editor.devtools()

    def drag(*places: tuple[float, float]) -> None:
        kinds = ["touchStart", *["touchMove"] * (len(places) - 1)]
        for kind, place in zip(kinds, places, strict=True):
            x, y = editor.to_screen(*place)
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    drag((250, 200), (270, 230), (330, 290))
    drawn = editor.selected_box()
    assert drawn == pytest.approx(Box(NEUTROPHIL, 250, 200, 80, 90), abs=1)  # a finger's place is in whole px
    drag(SURE.middle)
    assert editor.selected_box() == SURE
    drag(SURE.middle, (SURE.middle[0] + 10, SURE.middle[1] + 5), (SURE.middle[0] + 40, SURE.middle[1] + 20))
    assert editor.selected_box() == pytest.approx(moved(SURE, 40, 20), abs=1)
    assert len(editor.boxes()) == 4


# --- keys on a box -------------------------------------------------------------------------------


def test_arrows_nudge_and_stretch_the_selected_box_within_the_tile(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.walk_to(2)
    editor.press("ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp")
    assert editor.selected_box() == moved(SURE, 11, -9)
    editor.press("Alt+ArrowRight", "Alt+ArrowDown", "Alt+Shift+ArrowRight", "Alt+ArrowLeft")
    assert editor.selected_box() == moved(SURE, 11, -9, 10, 1)
    editor.press(*["Shift+ArrowLeft"] * 9, *["Shift+ArrowUp"] * 9)
    assert editor.selected_box() == Box(NEUTROPHIL, 0, 0, 90, 81)


def test_a_held_arrow_is_one_step_to_undo(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.walk_to(0)
    for key, times in (("ArrowRight", 8), ("ArrowDown", 5)):
        for _ in range(times):
            editor.page.keyboard.down(key)
        editor.page.keyboard.up(key)
    assert editor.selected_box() == moved(DOUBTFUL, 8, 5)
    editor.press("Control+z")
    assert editor.selected_box() == moved(DOUBTFUL, 8)
    editor.press("Control+z")
    assert editor.selected_box() == DOUBTFUL


def test_what_was_saved_by_itself_can_be_undone(editing: Editing):
    batch = editing.batch(CELLS)
    editor = editing.open(batch)
    drawn = Box(EOSINOPHIL, 240, 240, 50, 60)
    editor.draw(drawn)
    editor.saved()
    assert drawn in editing.stored(batch)[editor.task].drafts["reader"]
    editor.press("Control+z")
    editor.saved()
    assert sorted(editing.stored(batch)[editor.task].drafts["reader"]) == sorted(WALKED)
    editor.press("Control+Shift+z")
    editor.saved()
    assert drawn in editing.stored(batch)[editor.task].drafts["reader"]
    before = editor.boxes()
    editor.page.reload()
    editor.wait()
    assert sorted(editor.boxes()) == sorted(before)


def test_a_class_key_arms_without_a_selection_and_reclassifies_with_one(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.press(editor.class_key(BLAST))
    expect(editor.html).to_have_attribute("data-armed", "BLA")
    assert Counter(editor.boxes()) == Counter(WALKED)
    editor.walk_to(1)
    editor.press(editor.class_key(EOSINOPHIL))
    assert editor.selected_box() == moved(LESS_SURE, number=EOSINOPHIL)
    expect(editor.html).to_have_attribute("data-armed", "BLA")
    editor.page.locator(f'#classes [data-class="{MYELOCYTE}"]').click()
    assert editor.selected_box() == moved(LESS_SURE, number=MYELOCYTE)
    assert not next(row for row in editor.rows() if row.key == editor.selected).certainty


def test_the_walk_takes_the_least_certain_first_and_says_each_box(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    assert [(row.box, row.certainty) for row in editor.rows()] == list(zip(WALKED, (0.43, 0.82, 0.91), strict=True))
    said = []
    for key in ("Tab", "Tab", "Tab", "Tab", "Shift+Tab"):
        editor.press(key)
        said.append((editor.selected_box(), editor.announced))
    assert said == [
        (DOUBTFUL, "myelocyte, certainty 0.43, box 1 of 3"),
        (LESS_SURE, "metamyelocyte, certainty 0.82, box 2 of 3"),
        (SURE, "neutrophil, certainty 0.91, box 3 of 3"),
        (DOUBTFUL, "myelocyte, certainty 0.43, box 1 of 3"),
        (SURE, "neutrophil, certainty 0.91, box 3 of 3"),
    ]
    editor.press("Delete")
    assert "2 boxes" in editor.announced


def test_enter_marks_a_box_as_right_and_goes_on(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.press("Tab", "Enter")
    assert [row.touched for row in editor.rows()] == [True, False, False]
    assert editor.selected_box() == LESS_SURE


def test_the_film_strip_shows_every_cell_and_selects_it(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    crops = editor.page.locator("#strip [data-key]")
    expect(crops).to_have_count(3)
    for row in editor.rows():
        editor.page.locator(f'#strip [data-key="{row.key}"]').click()
        assert editor.selected_box() == row.box
    editor.press("Delete")
    expect(crops).to_have_count(2)


# --- the view ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [(256, 256), (100, 400), (470, 60)])
def test_the_wheel_zooms_at_the_pointer(editing: Editing, place):
    editor = editing.open(editing.batch(CELLS))
    x, y = editor.to_screen(*place)
    pointer = (round(x), round(y))  # a wheel's place is in whole px
    place = editor.to_tile(*pointer)
    editor.mouse.move(*pointer)
    scales = [editor.view()[0]]
    for turn in (-240, -240, 120, -500):
        editor.mouse.wheel(0, turn)
        editor.page.wait_for_function(f"() => document.getElementById('surface').dataset.scale !== '{scales[-1]}'")
        scales.append(editor.view()[0])
        assert editor.to_tile(*pointer) == pytest.approx(place, abs=0.01)
    assert scales[0] < scales[1] < scales[2] > scales[3] < scales[4]
    assert sorted(editor.boxes()) == sorted(WALKED)


def test_the_middle_and_the_right_button_pan(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    for button in ("middle", "right"):
        scale, x, y = editor.view()
        start = editor.to_screen(*SURE.middle)
        editor.mouse.move(*start)
        editor.mouse.down(button=button)
        editor.mouse.move(start[0] + 20, start[1] + 11)
        editor.mouse.move(start[0] + 35, start[1] - 22)
        editor.mouse.up(button=button)
        assert editor.view() == pytest.approx((scale, x + 35, y - 22))
    assert sorted(editor.boxes()) == sorted(WALKED)


@pytest.mark.parametrize("ratio", [1, 2])
def test_f_fits_the_tile_and_z_shows_pixel_for_pixel(editing: Editing, ratio):
    editor = editing.open(editing.batch(CELLS), device_scale_factor=ratio)
    fitted = editor.view()
    editor.press("z")
    assert editor.view()[0] == 1 / ratio
    editor.press("+", "+", "ArrowLeft")
    assert editor.view()[0] == pytest.approx(1.5625 / ratio)
    editor.press("f")
    assert editor.view() == fitted


def test_boxes_are_hidden_while_h_is_held_and_labels_by_l(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    labels = editor.page.locator('[data-command="labels"]')
    shown = editor.drawn("boxes")
    editor.page.keyboard.down("h")
    assert (editor.drawn("boxes"), editor.drawn("front")) == (0, 0)
    editor.page.keyboard.up("h")
    assert editor.drawn("boxes") == shown
    editor.press("l")
    expect(labels).to_have_attribute("aria-pressed", "false")
    assert 0 < editor.drawn("boxes") < shown
    editor.press("l")
    expect(labels).to_have_attribute("aria-pressed", "true")
    assert editor.drawn("boxes") == shown


def test_a_dense_screen_is_drawn_in_its_own_pixels_and_at_the_same_places(editing: Editing):
    editor = editing.open(editing.batch(CELLS), device_scale_factor=2)
    sides = "layer => [layer.width, layer.clientWidth, layer.height, layer.clientHeight]"
    for layer in ("image", "boxes", "front"):
        width, css_width, height, css_height = editor.page.locator(f"#{layer}-layer").evaluate(sides)
        assert (width, height) == (2 * css_width, 2 * css_height)
    drawn = Box(BLAST, 250.5, 250.25, 41, 33)
    editor.draw(drawn)
    assert editor.selected_box() == pytest.approx(drawn, abs=0.01)


def test_everything_is_in_sight_on_a_small_screen(editing: Editing):
    editor = editing.open(editing.batch(CELLS), viewport={"width": 1024, "height": 768})
    page = editor.page
    whole = "() => { const page = document.scrollingElement; return [page.scrollWidth, page.scrollHeight]; }"
    assert page.evaluate(whole) == [1024, 768]
    # What a list scrolls to is in sight too.
    covered = page.evaluate("""() => [...document.querySelectorAll("button, a")]
        .filter(one => one.checkVisibility() && !one.closest("dialog")).filter(one => {
            one.scrollIntoView({ block: "nearest" });
            const { left, top, width, height } = one.getBoundingClientRect();
            const found = document.elementFromPoint(left + width / 2, top + height / 2);
            return !one.contains(found); }).map(one => one.outerHTML)""")
    assert covered == []
    editor.draw(Box(BLAST, 250, 250, 41, 33))
    assert len(editor.boxes()) == 4


# --- beside the tile -----------------------------------------------------------------------------


def test_a_tile_is_skipped_with_a_reason(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    first = editor.task
    dialog = editor.page.get_by_role("dialog")
    editor.press("s", "Escape")
    expect(dialog).to_be_hidden()
    assert editor.task == first
    editor.press("s")
    dialog.get_by_label("Too thick").check()
    dialog.get_by_label("Remark").fill("n s 1, nothing but cells")  # letters that are keys elsewhere
    dialog.get_by_role("button", name="Skip the tile").click()
    editor.wait(after=first)
    assert sorted(editor.boxes()) == sorted(WALKED)
    editor.saved()
    told = editing.stored(batch)[first]
    assert (told.state, told.annotations) == ("skipped", [])
    assert told.skip_reason == "too thick or crushed: n s 1, nothing but cells"


def test_the_help_lists_every_key(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.press("?")
    dialog = editor.page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    listed = set(dialog.locator("kbd").all_inner_texts())
    keys = {"Space", "S", "Ctrl Z", "Ctrl Shift Z", "Ctrl Y", "Tab", "Shift Tab", "Enter", "Arrows", "Alt Arrows", "N"}
    keys |= {"Ctrl D", "Delete", "Backspace", "Escape", "F", "Z", "H (hold)", "L", "F6", "Shift F6", "?"}
    assert keys <= listed
    assert {key.upper() for key in editor.hotkeys.values() if key.islower() or key.isdigit()} <= listed
    editor.press("Space", "Delete", "Escape")
    expect(dialog).to_be_hidden()
    assert sorted(editor.boxes()) == sorted(WALKED)
    editor.press("Tab")
    assert editor.selected_box() == DOUBTFUL


def test_f6_goes_round_the_panes_with_the_focus_in_sight(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    where = """panes => { const one = document.activeElement;
        const { outlineStyle, outlineWidth } = getComputedStyle(one);
        const drawn = outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
        return { pane: one.closest(panes)?.id, seen: drawn && one.matches(":focus-visible") }; }"""
    every = ", ".join(f"#{pane}" for pane in [*PANES, "surface"])
    panes = []
    while "surface" not in panes:
        editor.press("F6")
        found = editor.page.evaluate(where, every)
        assert found["seen"], found
        panes.append(found["pane"])
    assert panes == [*PANES, "surface"]
    editor.press("F6")
    pressed_class = "() => document.activeElement.closest('.class-row')?.dataset.class"
    assert editor.page.evaluate(pressed_class) == str(NEUTROPHIL)
    while editor.page.evaluate(pressed_class) != str(METAMYELOCYTE):
        editor.press("Tab")  # from control to control, as on every page
        assert editor.page.evaluate(where, every) == {"pane": "classes", "seen": True}
    assert editor.selected is None
    editor.press("Enter")
    expect(editor.html).to_have_attribute("data-armed", "MET")
    editor.press("Shift+F6")
    assert editor.page.evaluate(where, every)["pane"] == "surface"


def test_the_progress_counts_and_a_reload_goes_on_where_it_was(editing: Editing):
    batch = editing.batch(CELLS, CELLS, CELLS)
    editor = editing.open(batch)
    progress = editor.page.locator("#progress-text")
    expect(progress).to_have_text("0 of 3")
    second = editor.confirm()
    expect(progress).to_have_text("1 of 3")
    editor.walk_to(0)
    editor.press("Delete")
    editor.saved()
    editor.page.reload()
    assert editor.wait() == second
    expect(progress).to_have_text("1 of 3")
    assert editor.boxes() == [LESS_SURE, SURE]
