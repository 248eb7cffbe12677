"""What the editor shows, and what it then confirms: score, one class, image settings, surroundings, examples, keys."""

from collections import Counter

import pytest
from playwright.sync_api import expect

from tests.browser.editing import Box, Editing, Editor, PreLabel

# Classes of the taxonomy with 19, by number.
NEUTROPHIL, METAMYELOCYTE, MYELOCYTE, BLAST = 0, 1, 2, 4
MEGAKARYOCYTE, DEBRIS, HISTIOCYTE, MAST_CELL = 12, 13, 14, 15
TILE = 512
CELLS = [PreLabel(Box(NEUTROPHIL, 60, 60, 80, 80), 0.91), PreLabel(Box(METAMYELOCYTE, 300, 80, 60, 90), 0.62)]
CELLS += [PreLabel(Box(MYELOCYTE, 120, 320, 100, 96), 0.43), PreLabel(Box(NEUTROPHIL, 380, 380, 60, 60), 0.22)]
SURE, FAIR, DOUBTFUL, WEAK = (label.box for label in CELLS)
WALKED = [WEAK, DOUBTFUL, FAIR, SURE]  # in the order of the walk

# What a canvas shows: means of lightness, of its spread and of colourfulness, and a number that tells pictures apart.
LOOK = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let [sum, squares, colour, print] = [0, 0, 0, 0];
    for (let at = 0; at < data.length; at += 4) {
        const [red, green, blue] = [data[at], data[at + 1], data[at + 2]];
        const light = (red + green + blue) / 3;
        sum += light; squares += light * light;
        colour += Math.max(red, green, blue) - Math.min(red, green, blue);
        print = (Math.imul(print, 31) + red * 65536 + green * 256 + blue) | 0;
    }
    const count = data.length / 4;
    const light = sum / count;
    return { light, spread: Math.sqrt(squares / count - light * light), colour: colour / count, print };
}"""
# The first tile's own image, for what comes next.
FETCH = """async () => {
    window.tile = JSON.parse(document.getElementById("editor-data").textContent).task.tile;
    window.scanned = await createImageBitmap(await (await fetch(tile.image)).blob());
}"""
# What the image layer shows, once it is this image exactly as it was scanned.
AS_SCANNED = """() => {
    const layer = document.getElementById("image-layer");
    const { scale, x, y } = document.getElementById("surface").dataset;
    const wanted = document.createElement("canvas");
    Object.assign(wanted, { width: layer.width, height: layer.height });
    const context = wanted.getContext("2d", { alpha: false });
    context.fillStyle = getComputedStyle(layer).backgroundColor;
    context.fillRect(0, 0, wanted.width, wanted.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(scanned, Number(x), Number(y), tile.width * scale, tile.height * scale);
    const [first, second] = [layer, wanted].map((one) =>
        new Uint32Array(one.getContext("2d").getImageData(0, 0, one.width, one.height).data.buffer));
    return first.every((value, at) => value === second[at]) && (LOOK)(layer);
}""".replace("LOOK", LOOK)


@pytest.fixture(autouse=True)
def _no_settings(editing: Editing) -> None:
    """Nobody has settings of their own yet."""
    editing.site.read("answer = User.objects.update(preferences={})")


def sees(editor: Editor, *boxes: Box) -> None:
    """Canvas, table, film strip and class counts all show these boxes."""
    expect(editor.html).to_have_attribute("data-shown", str(len(boxes)))
    assert sorted(editor.boxes()) == sorted(boxes)
    expect(editor.page.locator("#strip [data-key]")).to_have_count(len(boxes))


def counted(editor: Editor) -> Counter[int]:
    """Class -> how many boxes the class list says that there are."""
    rows = editor.page.evaluate(
        """() => [...document.querySelectorAll("#classes [data-class]")].map(row =>
            [Number(row.dataset.class), Number(row.querySelector(".count").textContent)])"""
    )
    return Counter({number: count for number, count in rows if count})


def only_key(editor: Editor, number: int) -> str:
    return f"Alt+{editor.class_key(number)}"


def look(editor: Editor, canvas: str = "#image-layer") -> dict[str, float]:
    editor.frame()
    found: dict[str, float] = editor.page.locator(canvas).first.evaluate(LOOK)
    return found


def as_scanned(editor: Editor) -> dict[str, float]:
    """Wait until nothing changes how the image looks; returns its look then."""
    editor.page.evaluate(FETCH)
    found: dict[str, float] = editor.page.wait_for_function(AS_SCANNED, polling=100).json_value()
    return found


def settings(editing: Editing, user: str) -> dict[str, float]:
    found: dict[str, float] = editing.site.read(
        f"answer = User.objects.get(username={user!r}).preferences.get('editor', {{}})"
    )
    return found


def changes(editing: Editing, batch: int, task: str) -> tuple[list[Box], dict[str, int]]:
    """The boxes of the task's only annotation, and what became of its pre-labels."""
    (annotation,) = editing.stored(batch)[task].annotations
    return sorted(annotation.boxes), {name: count for name, count in annotation.changes.items() if count}


# --- the score -----------------------------------------------------------------------------------


def test_pre_labels_below_the_score_are_neither_shown_nor_confirmed(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    sees(editor, *WALKED)
    drawn = editor.drawn("boxes")
    editor.walk_to(0)
    editor.press("Enter", "Escape")  # whatever has been looked at stays
    editor.page.locator("#threshold").click()  # its middle
    expect(editor.page.locator("#threshold-value")).to_have_text("0.50")
    sees(editor, WEAK, FAIR, SURE)
    assert editor.drawn("boxes") < drawn
    assert counted(editor) == Counter({NEUTROPHIL: 2, METAMYELOCYTE: 1})
    expect(editor.page.locator("#threshold-hidden")).to_have_text("1 below it: not confirmed")
    editor.saved()
    task = editor.task
    assert sorted(editing.stored(batch)[task].drafts["reader"]) == sorted(WALKED)
    editor.confirm()
    assert changes(editing, batch, task) == (sorted([WEAK, FAIR, SURE]), {"kept": 3, "deleted": 1})
    sees(editor, FAIR, SURE)


def test_brackets_move_the_score_and_it_comes_back_after_a_reload(editing: Editing):
    batch = editing.batch(CELLS)
    editor = editing.open(batch)
    editor.walk_to(3)
    editor.press("ArrowRight")
    moved = Box(NEUTROPHIL, 61, 60, 80, 80)
    editor.press(*["]"] * 20)
    value = editor.page.locator("#threshold-value")
    expect(value).to_have_text("1.00")
    sees(editor, moved)
    editor.saved()
    with editor.page.expect_response("**/preferences/"):
        editor.press("]", *["["] * 11)
    expect(value).to_have_text("0.45")
    sees(editor, FAIR, moved)
    assert settings(editing, "reader") == {"threshold": 0.45}
    assert sorted(editing.stored(batch)[editor.task].drafts["reader"]) == sorted([WEAK, DOUBTFUL, FAIR, moved])
    editor.page.reload()
    editor.wait()
    sees(editor, FAIR, moved)
    with editor.page.expect_response("**/preferences/"):
        editor.press(*["["] * 10)
    expect(value).to_have_text("0.00")
    sees(editor, WEAK, DOUBTFUL, FAIR, moved)
    expect(editor.page.locator("#threshold-hidden")).to_have_text("")
    editor.press("Space")
    editor.ended()
    editor.saved()
    assert changes(editing, batch, editing.tasks(batch)[0])[1] == {"kept": 3, "moved": 1}


# --- one class -----------------------------------------------------------------------------------


def test_one_class_is_shown_and_walked_alone(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    sees(editor, *WALKED)
    drawn, chip = editor.drawn("boxes"), editor.page.locator("#only")
    editor.press(only_key(editor, NEUTROPHIL))
    sees(editor, WEAK, SURE)
    assert editor.drawn("boxes") < drawn
    expect(chip).to_contain_text("Only neutrophil: 2 hidden")
    expect(editor.page.locator(f'[data-only="{NEUTROPHIL}"]')).to_have_attribute("aria-pressed", "true")
    walked = []
    for _ in range(3):
        editor.press("Tab")
        walked.append(editor.selected_box())
    assert walked == [WEAK, SURE, WEAK]
    editor.press("Control+a")
    assert editor.fact("chosen") == "2"
    editor.press("Escape", "Escape")  # first the selection, then the filter
    sees(editor, *WALKED)
    ring = editor.page.locator(f'[data-only="{MYELOCYTE}"]')
    ring.click()
    sees(editor, DOUBTFUL)
    ring.click()
    sees(editor, *WALKED)
    ring.click()
    chip.get_by_role("button", name="Show all").click()
    sees(editor, *WALKED)
    expect(chip).to_be_hidden()


def test_a_box_drawn_or_brought_back_is_shown_whatever_the_filter(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    editor.walk_to(2)
    editor.press("Delete", "Escape", only_key(editor, NEUTROPHIL))
    sees(editor, WEAK, SURE)
    editor.press("Control+z")
    sees(editor, *WALKED)
    editor.press("Escape", editor.class_key(BLAST), only_key(editor, NEUTROPHIL))
    editor.drag((200, 200), (260, 270))
    sees(editor, *WALKED, Box(BLAST, 200, 200, 60, 70))


def test_space_shows_what_one_class_hides_before_it_confirms(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    task = editor.task
    sent: list[str] = []
    editor.page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    editor.press(only_key(editor, MYELOCYTE))
    sees(editor, DOUBTFUL)
    editor.press("Space")
    sees(editor, *WALKED)
    assert editor.notice == "3 boxes of other classes had been hidden. All are shown now: Space confirms."
    assert (editor.task, [url for url in sent if url.endswith("/submit/")]) == (task, [])
    assert editing.stored(batch)[task].annotations == []
    editor.press(only_key(editor, METAMYELOCYTE), "Space", "Space")
    editor.wait(after=task)
    editor.saved()
    assert changes(editing, batch, task) == (sorted(WALKED), {"kept": 4})
    editor.press(only_key(editor, METAMYELOCYTE))
    sees(editor, FAIR)
    editor.press("Space")
    editor.confirm_last()


def test_the_next_tile_shows_all_classes_again(editing: Editing):
    editor = editing.open(editing.batch(CELLS, CELLS))
    editor.press(only_key(editor, MYELOCYTE))
    sees(editor, DOUBTFUL)
    before = editor.task
    editor.press("s")
    editor.page.get_by_role("button", name="Skip the tile").click()
    editor.wait(after=before)
    sees(editor, *WALKED)
    expect(editor.page.locator("#only")).to_be_hidden()
    editor.saved()


# --- how the image looks -------------------------------------------------------------------------

SETTINGS = {"brightness": "-0.3", "contrast": "0.5", "gamma": "0.5", "saturation": "0"}


def test_each_image_setting_changes_the_picture_and_as_scanned_undoes_it(editing: Editing):
    batch = editing.batch(CELLS, CELLS)
    editor = editing.open(batch)
    sees(editor, *WALKED)
    scanned, crop = as_scanned(editor), look(editor, "#strip canvas")
    editor.press("v")
    seen = {}
    for name, value in SETTINGS.items():
        editor.page.locator(f'[name="{name}"]').fill(value)
        expect(editor.page.locator(f'[data-value="{name}"]')).to_have_text(f"{float(value):.2f}")
        seen[name] = look(editor)
        assert look(editor, "#strip canvas")["print"] != crop["print"], name
        editor.page.get_by_role("button", name="As scanned").click()
        assert as_scanned(editor) == scanned
    assert seen["brightness"]["light"] < scanned["light"] - 20
    assert seen["contrast"]["spread"] > scanned["spread"] * 1.1
    assert seen["gamma"]["light"] < scanned["light"] - 20
    assert seen["saturation"]["colour"] < 0.2 * scanned["colour"]
    assert look(editor, "#strip canvas") == crop


def test_v_opens_the_image_panel_and_escape_or_v_gives_the_keys_back_to_the_tile(editing: Editing):
    editor = editing.open(editing.batch(CELLS))
    panel, brightness = editor.page.locator("#looks"), editor.page.locator('[name="brightness"]')
    for key in ("Escape", "v"):
        editor.press("v")
        expect(panel).to_be_visible()
        expect(brightness).to_be_focused()
        editor.press("ArrowRight")  # the slider's, not a box's
        editor.press(key)
        expect(panel).to_be_hidden()
        expect(editor.surface).to_be_focused()
    expect(editor.page.locator('[data-value="brightness"]')).to_have_text("0.04")
    editor.press("Tab")
    assert editor.selected_box() == WEAK
    editor.page.locator('[data-command="view"]').click()
    editor.press("Tab", "Tab", "Tab", "Tab", "Enter")  # past the sliders to "As scanned"
    expect(editor.page.locator('[data-value="brightness"]')).to_have_text("0.00")


def test_image_settings_follow_their_reader_to_every_computer_and_nobody_else(editing: Editing):
    batch = editing.batch(*[CELLS] * 5)
    editor = editing.open(batch)
    editor.press("v")
    with editor.page.expect_response("**/preferences/"):
        editor.page.locator('[name="gamma"]').fill("0.5")
        editor.page.locator('[name="saturation"]').fill("2")
        editor.press("Escape", "l")
    assert settings(editing, "reader") == {"gamma": 0.5, "saturation": 2, "labels": False}
    print_of = f"({LOOK})(document.getElementById('image-layer')).print"
    seen = look(editor)
    again = editing.open(batch)
    assert again.task == editor.task
    again.page.wait_for_function(f"wanted => {print_of} === wanted", arg=seen["print"], polling=100)
    expect(again.page.locator('[data-value="gamma"]')).to_have_text("0.50")
    expect(again.page.locator('[data-command="labels"]')).to_have_attribute("aria-pressed", "false")
    other = editing.open(batch, "lead")
    as_scanned(other)
    assert other.page.locator("#looks [data-value]").all_text_contents() == ["0.00", "0.00", "1.00", "1.00"]


# --- where the tile lies -------------------------------------------------------------------------


def pixel(editor: Editor, x: float, y: float) -> list[int]:
    """Red, green, blue of the image layer at a place of the tile (tile px)."""
    scale, left, top = editor.view()
    at = [round(left + x * scale), round(top + y * scale)]
    found: list[int] = editor.page.evaluate(
        """([x, y]) => [...document.getElementById("image-layer").getContext("2d").getImageData(x, y, 1, 1).data]""", at
    )
    return found[:3]


def test_w_shows_what_lies_around_the_tile(editing: Editing):
    editor = editing.open(editing.batch(CELLS, CELLS))
    fitted, button = editor.view(), editor.page.locator("#minimap")
    background = pixel(editor, TILE / 2, -4)
    pane = editor.surface.bounding_box()
    assert pane is not None
    for leave in ("w", "Escape"):
        editor.press("w")
        expect(button).to_have_attribute("aria-pressed", "true")
        scale, left, top = editor.view()
        # Three tiles' widths fill the pane, up to its margin, with this tile in the middle.
        assert min(pane["width"], pane["height"]) - 3 * TILE * scale == pytest.approx(16, abs=0.1)
        assert (2 * left + TILE * scale, 2 * top + TILE * scale) == pytest.approx((pane["width"], pane["height"]))
        editor.frame()
        around = [(TILE * 1.5, TILE / 2), (TILE / 2, TILE * 1.5), (-TILE / 2, TILE / 2), (TILE / 2, -TILE / 2)]
        assert background not in [pixel(editor, *place) for place in around]
        assert pixel(editor, TILE * 2 + 4, TILE / 2) == background
        editor.press(leave)
        expect(button).to_have_attribute("aria-pressed", "false")
        assert editor.view() == fitted
    editor.press("w")
    expect(button).to_have_attribute("aria-pressed", "true")
    editor.confirm()
    assert editor.view() == fitted
    expect(button).to_have_attribute("aria-pressed", "false")
    editor.frame()
    assert pixel(editor, TILE / 2, -4) == background


# A row and a column of the small slide near its lower and its right edge: what is green in them.
EDGES = """canvas => {
    const { tile } = JSON.parse(document.getElementById("editor-data").textContent).task;
    const { slide_width: wide, slide_height: high } = tile;
    const scale = Math.min(canvas.width / wide, canvas.height / high);
    const [width, height] = [wide * scale, high * scale].map(Math.floor);
    const [left, top] = [Math.ceil((canvas.width - width) / 2), Math.ceil((canvas.height - height) / 2)];
    const context = canvas.getContext("2d");
    const strip = (...place) => [...context.getImageData(...place).data].filter((_, at) => at % 4 === 1);
    return { across: strip(left, Math.floor(top + 0.95 * height), width, 1),
             down: strip(Math.floor(left + 0.95 * width), top, 1, height) };
}"""


def differences(first: list[int], second: list[int], parts: int) -> set[int]:
    """Where two strips of the small slide differ, in so many parts of their length."""
    pairs = enumerate(zip(first, second, strict=True))
    return {round(parts * (at + 0.5) / len(first)) for at, (one, other) in pairs if one != other}


def test_the_small_slide_says_where_the_tile_lies(editing: Editing):
    editor = editing.open(editing.batch(*[[]] * 7))
    button, seen = editor.page.locator("#minimap"), []
    for number in range(7):
        if number in (0, 6):
            editor.page.wait_for_load_state("networkidle")
            editor.frame()
            seen.append((button.get_attribute("aria-label"), button.locator("canvas").evaluate(EDGES)))
        if number < 6:
            editor.confirm()
    # Of 5 x 4 tiles, the first one, and the second one of the second row.
    (one, first), (other, second) = seen
    assert one == "Place of the tile on its slide: 10 % from the left, 13 % from the top. Show what lies around it"
    assert other == "Place of the tile on its slide: 30 % from the left, 38 % from the top. Show what lies around it"
    # Lines lead from the edges to the tile: at 10 % and 30 %, and at 12.5 % and 37.5 %.
    assert differences(first["across"], second["across"], 10) == {1, 3}
    assert differences(first["down"], second["down"], 8) == {1, 3}


# --- confirmed examples --------------------------------------------------------------------------


def test_examples_are_of_the_class_selected_else_pointed_at_else_next(editing: Editing):
    giants = [PreLabel(Box(MEGAKARYOCYTE, 60, 60, 90, 90), 0.4), PreLabel(Box(MEGAKARYOCYTE, 300, 60, 80, 90), 0.6)]
    other = PreLabel(Box(HISTIOCYTE, 200, 300, 70, 60), 0.9)
    batch = editing.batch([*giants, other], [*giants, other])
    editor = editing.open(batch)
    task = editor.task
    editor.confirm()
    title, pictures = editor.page.locator("#atlas-title"), editor.page.locator("#atlas img")
    editor.press(editor.class_key(DEBRIS))
    expect(title).to_have_text("debrisnone confirmed yet")
    expect(pictures).to_have_count(0)
    editor.mouse.move(*editor.to_screen(*other.box.middle))
    expect(title).to_have_text("histiocyte1 confirmed")
    editor.press("Tab")  # the pointer stays where it is
    expect(title).to_have_text("megakaryocyte2 confirmed")
    expect(pictures).to_have_count(2)
    assert {picture.get_attribute("alt") for picture in pictures.all()} == {"megakaryocyte of patient T01"}
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
    editor.page.wait_for_function(
        "() => [...document.querySelectorAll('#atlas img')].every(one => one.naturalWidth === 96)"
    )
    giant = f"annotation__task={task}, cell_class__number={MEGAKARYOCYTE}"
    stored = editing.site.read(f"answer = list(Box.objects.filter({giant}).values_list('pk', flat=True))")
    sources = [f"/boxes/{key}/crop/" for key in stored]
    assert sorted(str(picture.get_attribute("src")) for picture in pictures.all()) == sorted(sources)
    editor.press("Escape")
    expect(title).to_have_text("histiocyte1 confirmed")
    editor.mouse.move(0, 0)
    expect(title).to_have_text("debrisnone confirmed yet")


def test_examples_count_what_has_just_been_confirmed(editing: Editing):
    labels = [PreLabel(Box(MAST_CELL, 60, 60, 90, 90), 0.4)]
    editor = editing.open(editing.batch(labels, labels))
    title = editor.page.locator("#atlas-title")
    editor.press("Tab")
    expect(title).to_have_text("mast cellnone confirmed yet")
    editor.confirm()
    editor.press("Tab")
    expect(title).to_have_text("mast cell1 confirmed")
