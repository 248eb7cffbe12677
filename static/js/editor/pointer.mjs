// Mouse, pen and touch on the tile. A drag draws with the armed class, also where it starts inside another box; only
// the selected box moves or is resized; a click selects the smallest box under it, and again the next larger one.

import { handlesOf } from "./canvas.mjs";
import { contains, fromCorners, isLargeEnough, moveBy, resizeBy } from "./geometry.mjs";
import { boxesAt } from "./state.mjs";
import { toPane, toTile } from "./view.mjs";

// A press that stays within this distance (CSS px) is a click, never a drag, however fast.
const DRAG_FROM = 4;
const REACH = { mouse: 7, pen: 12, touch: 18 };
const CURSORS = { n: "ns", s: "ns", e: "ew", w: "ew", nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw" };
const MAIN_BUTTON = 0;
const LINE_HEIGHT = 16;

export class Pointer {
  constructor(editor, surface) {
    this.editor = editor;
    this.surface = surface;
    this.gesture = null;
    this.lastClick = null;
    surface.addEventListener("pointerdown", (event) => this.down(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    surface.addEventListener("pointerup", (event) => this.up(event));
    surface.addEventListener("pointercancel", () => this.cancel());
    surface.addEventListener("lostpointercapture", () => this.cancel());
    surface.addEventListener("pointerleave", () => this.editor.hover(null));
    surface.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    // The right button pans, as does a pen's barrel button.
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
    // Chromium would scroll by itself on a middle-button press.
    surface.addEventListener("mousedown", (event) => event.button === 1 && event.preventDefault());
  }

  position(event) {
    const bounds = this.surface.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  }

  down(event) {
    if (this.gesture || !this.editor.work) return;
    const at = this.position(event);
    this.surface.setPointerCapture(event.pointerId);
    const begun = { pointer: event.pointerId, start: at, last: at, moved: false };
    if (event.button !== MAIN_BUTTON) {
      this.gesture = { ...begun, kind: "pan" };
    } else if (!this.editor.locked) {
      this.gesture = { ...begun, ...this.intention(at, event.pointerType) };
    }
  }

  /** What a drag from here would do. */
  intention(at, pointerType) {
    const box = this.editor.selected;
    const handle = this.handleAt(at, pointerType);
    if (handle) return { kind: "resize", handle, box };
    if (box && contains(box, toTile(this.editor.view, at))) return { kind: "move", box };
    return { kind: "draw" };
  }

  handleAt(at, pointerType) {
    const box = this.editor.selected;
    if (!box || this.editor.boxesHidden) return null;
    const { scale } = this.editor.view;
    const rectangle = { ...toPane(this.editor.view, box), width: box.width * scale, height: box.height * scale };
    const reach = REACH[pointerType] ?? REACH.mouse;
    const near = handlesOf(rectangle)
      .map(([name, x, y]) => ({ name, distance: Math.max(Math.abs(at.x - x), Math.abs(at.y - y)) }))
      .filter(({ distance }) => distance <= reach)
      .sort((first, second) => first.distance - second.distance);
    return near[0]?.name ?? null;
  }

  move(event) {
    const at = this.position(event);
    if (!this.gesture) return this.hover(at, event.pointerType);
    if (event.pointerId !== this.gesture.pointer) return;
    this.drag(at);
  }

  drag(at) {
    const { gesture } = this;
    const distance = Math.max(Math.abs(at.x - gesture.start.x), Math.abs(at.y - gesture.start.y));
    if (!gesture.moved && distance < DRAG_FROM) return;
    gesture.moved = true;
    if (gesture.kind === "pan") {
      this.editor.pan(at.x - gesture.last.x, at.y - gesture.last.y);
    } else {
      this.editor.setPreview(this.result(at));
    }
    gesture.last = at;
  }

  /** The box as it would be if the pointer were released here. */
  result(at) {
    const { editor, gesture } = this;
    const start = toTile(editor.view, gesture.start);
    const end = toTile(editor.view, at);
    const [dx, dy] = [end.x - start.x, end.y - start.y];
    if (gesture.kind === "move") return moveBy(gesture.box, dx, dy, editor.tile);
    if (gesture.kind === "resize") return resizeBy(gesture.box, gesture.handle, dx, dy, editor.tile);
    return { key: null, class: editor.armed, ...fromCorners(start, end, editor.tile) };
  }

  up(event) {
    if (!this.gesture || event.pointerId !== this.gesture.pointer) return;
    const at = this.position(event);
    this.drag(at);
    const { gesture } = this;
    const result = gesture.moved && gesture.kind !== "pan" ? this.result(at) : null;
    this.cancel();
    if (result) this.finish(gesture, result);
    else if (!gesture.moved && gesture.kind !== "pan") this.click(gesture.start);
  }

  finish(gesture, result) {
    if (gesture.kind !== "draw") this.editor.replaceGeometry(gesture.box.key, result);
    else if (isLargeEnough(result)) this.editor.draw(result);
  }

  /** Drops the drag under way, if any; the boxes stay as they were. True if there was one. */
  cancel() {
    const wasDragging = this.gesture !== null && this.gesture.moved;
    this.gesture = null;
    if (this.editor.preview) this.editor.setPreview(null);
    return wasDragging;
  }

  click(at) {
    const { editor } = this;
    const under = boxesAt(editor.state, toTile(editor.view, at)).map((box) => box.key);
    const last = this.lastClick;
    const again = last && Math.max(Math.abs(at.x - last.x), Math.abs(at.y - last.y)) < DRAG_FROM;
    this.lastClick = at;
    const place = again ? under.indexOf(editor.state.selected) : -1;
    editor.select(under[(place + 1) % under.length] ?? null);
  }

  hover(at, pointerType) {
    const { editor } = this;
    if (!editor.work) return;
    const point = toTile(editor.view, at);
    editor.hover(boxesAt(editor.state, point)[0]?.key ?? null);
    const handle = this.handleAt(at, pointerType);
    const overSelected = editor.selected && contains(editor.selected, point);
    this.surface.style.cursor = handle ? `${CURSORS[handle]}-resize` : overSelected ? "move" : "crosshair";
  }

  wheel(event) {
    event.preventDefault();
    if (!this.editor.work) return;
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : event.deltaY * LINE_HEIGHT;
    // A pinch on a touchpad arrives as a wheel with Ctrl and small steps.
    const speed = event.ctrlKey ? 0.01 : 0.0018;
    const bounded = Math.max(-300, Math.min(300, pixels));
    this.editor.zoom(Math.exp(-bounded * speed), this.position(event));
  }
}
