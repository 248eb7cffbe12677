"""How long a frame of the editor takes while the pointer drags, pans or zooms without a pause."""

from typing import NamedTuple

from tests.browser.editing import Box, Editor, PreLabel

WARM_UP, FRAMES = 40, 400
RADIUS = 60  # CSS px round which the pointer turns
COLUMNS, ROWS = 25, 20

# One move of the pointer for each frame: the press and the release are real, the moves between are made in the page, so
# that none of them waits for the browser's driver. Returns the time from frame to frame, ms.
MOVES = """async ({ x, y, radius, warmUp, frames, wheel }) => {
    const surface = document.getElementById("surface");
    const common = { bubbles: true, cancelable: true };
    const act = (count) => {
        if (wheel) {
            const deltaY = Math.floor(count / 20) % 2 ? 40 : -40;
            surface.dispatchEvent(new WheelEvent("wheel", { ...common, clientX: x, clientY: y, deltaY }));
        } else {
            const turn = count / 15;
            const place = { clientX: x + radius * Math.sin(turn), clientY: y + radius * (1 - Math.cos(turn)) };
            const held = { pointerId: 1, pointerType: "mouse", isPrimary: true, buttons: 1 };
            surface.dispatchEvent(new PointerEvent("pointermove", { ...common, ...held, ...place }));
        }
    };
    const times = [];
    let last = null;
    for (let count = 0; count < warmUp + frames; count += 1) {
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        if (count >= warmUp) times.push(now - last);
        last = now;
        act(count);
    }
    return times;
}"""


class Frames(NamedTuple):
    """ms from frame to frame."""

    drag: list[float]
    pan: list[float]
    zoom: list[float]


def many_boxes(side: float, classes: int) -> list[PreLabel]:
    """500 boxes over a square tile of this side (px), of sizes and classes that alternate."""
    step_x, step_y = side / COLUMNS, side / ROWS
    boxes = []
    for place in range(COLUMNS * ROWS):
        row, column = divmod(place, COLUMNS)
        size = (0.7 + 0.2 * (place % 3)) * step_x
        x, y = min(column * step_x, side - size), min(row * step_y, side - size)
        boxes.append(PreLabel(Box(place % classes, round(x, 2), round(y, 2), round(size, 2), round(size, 2)), 0.6))
    return boxes


def measure(editor: Editor, box: Box) -> Frames:
    """The editor shows a tile; `box` is one of its boxes, in the middle. The tile is as it was afterwards."""
    editor.press("f")
    editor.click(*box.middle)
    before = editor.selected_box()
    drag = _moves(editor, box, "left")
    if editor.selected_box() == before:
        raise RuntimeError(f"{before} was dragged, and lies where it lay")
    editor.press("Control+z", "Escape")
    view = editor.view()
    pan = _moves(editor, box, "middle")
    if editor.view() == view:
        raise RuntimeError("the tile was panned, and lies where it lay")
    editor.press("f")
    zoom = _moves(editor, box, "")
    editor.press("f")
    return Frames(drag, pan, zoom)


def _moves(editor: Editor, box: Box, button: str) -> list[float]:
    """With a button held the pointer moves, without one the wheel turns."""
    x, y = editor.to_screen(*box.middle)
    editor.mouse.move(x, y)
    facts = {"x": x, "y": y, "radius": RADIUS, "warmUp": WARM_UP, "frames": FRAMES, "wheel": not button}
    if button == "left":
        editor.mouse.down()
    elif button == "middle":
        editor.mouse.down(button="middle")
    times: list[float] = editor.page.evaluate(MOVES, facts)
    if button:
        editor.mouse.move(x + RADIUS, y + RADIUS / 2)
        editor.mouse.up(button="left" if button == "left" else "middle")
    return times
