// Mouse, pen and touch on the tile. A drag draws with the armed class, also where it starts inside another box; only
// selected boxes move, and only the selected box is resized; a click selects the smallest box under it, and again the
// next larger one. Two fingers zoom and pan.

import { handlesOf } from "./canvas.mjs";
import { centre, contains, fromCorners, isLargeEnough, moveTogether, resizeBy } from "./geometry.mjs";
import { boxesAt, selectedKeys } from "./state.mjs";
import { toPane, toTile } from "./view.mjs";

// A press that stays within this distance (CSS px) is a click, never a drag, however fast.
const DRAG_FROM = { mouse: 4, pen: 6, touch: 10 };
// A hand in a hurry slips: a press as short as this is a click up to a larger distance.
const QUICK_MS = 150;
const QUICK_DISTANCE = 8;
const REACH = { mouse: 7, pen: 12, touch: 18 };
const CURSORS = { n: "ns", s: "ns", e: "ew", w: "ew", nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw" };
const MAIN_BUTTON = 0;
const PEN_ERASER = 5;
const LINE_HEIGHT = 16;

const distanceOf = (first, second) => Math.max(Math.abs(first.x - second.x), Math.abs(first.y - second.y));

export class Pointer {
  constructor(editor, surface) {
    this.editor = editor;
    this.surface = surface;
    this.gesture = null;
    this.fingers = new Map(); // pointer id -> place, of touches
    this.penSeen = false;
    this.at = null; // where the pointer is over the tile, in pane px
    this.lastClick = null;
    surface.addEventListener("pointerdown", (event) => this.down(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    surface.addEventListener("pointerup", (event) => this.up(event));
    surface.addEventListener("pointercancel", (event) => this.lost(event));
    surface.addEventListener("lostpointercapture", (event) => this.lost(event));
    surface.addEventListener("pointerleave", () => this.leave());
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

  leave() {
    this.at = null;
    this.editor.hover(null);
  }

  down(event) {
    if (!this.editor.work) return;
    const at = this.position(event);
    if (event.pointerType === "touch") this.fingers.set(event.pointerId, at);
    if (event.pointerType === "pen") this.penSeen = true;
    if (this.fingers.size === 2) return this.beginPinch();
    if (this.gesture || this.fingers.size > 2) return;
    this.surface.setPointerCapture(event.pointerId);
    const { pointerId: pointer, pointerType: device, timeStamp: since } = event;
    const begun = { pointer, device, since, start: at, last: at, moved: false };
    if (event.button === PEN_ERASER) this.erase(at);
    else if (event.button !== MAIN_BUTTON || this.isPalm(device)) this.gesture = { ...begun, kind: "pan" };
    else if (!this.editor.locked) this.gesture = { ...begun, ...this.intention(at, event) };
  }

  /** With a pen in use, a touch is a hand: it pans and never draws. */
  isPalm(device) {
    return device === "touch" && this.penSeen;
  }

  /** What a drag from here would do. */
  intention(at, { pointerType, shiftKey }) {
    const { chosen } = this.editor;
    const point = toTile(this.editor.view, at);
    if (shiftKey) return { kind: "marquee" };
    const handle = this.handleAt(at, pointerType);
    if (handle) return { kind: "resize", handle, boxes: chosen };
    if (chosen.some((box) => contains(box, point))) return { kind: "move", boxes: chosen };
    return { kind: "draw" };
  }

  handleAt(at, pointerType) {
    const [box, ...others] = this.editor.chosen;
    if (!box || others.length || this.editor.boxesHidden) return null;
    const { scale } = this.editor.view;
    const rectangle = { ...toPane(this.editor.view, box), width: box.width * scale, height: box.height * scale };
    const reach = REACH[pointerType] ?? REACH.mouse;
    const near = handlesOf(rectangle)
      .map(([name, x, y]) => ({ name, distance: distanceOf(at, { x, y }) }))
      .filter(({ distance }) => distance <= reach)
      .sort((first, second) => first.distance - second.distance);
    return near[0]?.name ?? null;
  }

  move(event) {
    const at = this.position(event);
    this.at = at;
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, at);
    if (this.gesture?.kind === "pinch") return this.pinch();
    if (!this.gesture) return this.hover(at, event.pointerType);
    if (event.pointerId === this.gesture.pointer) this.drag(at, event.timeStamp);
  }

  drag(at, now) {
    const { gesture } = this;
    if (!gesture.moved && this.isClick(gesture, at, now)) return;
    gesture.moved = true;
    if (gesture.kind === "pan") this.editor.pan(at.x - gesture.last.x, at.y - gesture.last.y);
    else this.editor.setPreview(this.result(at));
    gesture.last = at;
  }

  isClick({ start, since, device }, at, now) {
    const distance = distanceOf(at, start);
    return distance < (DRAG_FROM[device] ?? DRAG_FROM.mouse) || (now - since < QUICK_MS && distance < QUICK_DISTANCE);
  }

  /** What there would be if the pointer were released here, as the editor's preview. */
  result(at) {
    const { editor, gesture } = this;
    const start = toTile(editor.view, gesture.start);
    const end = toTile(editor.view, at);
    const [dx, dy] = [end.x - start.x, end.y - start.y];
    if (gesture.kind === "move") return { moved: moveTogether(gesture.boxes, dx, dy, editor.tile) };
    if (gesture.kind === "resize") return { moved: [resizeBy(gesture.boxes[0], gesture.handle, dx, dy, editor.tile)] };
    const rectangle = fromCorners(start, end, editor.tile);
    return gesture.kind === "marquee" ? { marquee: rectangle } : { drawn: { class: editor.armed, ...rectangle } };
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (this.gesture?.kind === "pinch") return this.fingers.size || this.cancel();
    if (!this.gesture || event.pointerId !== this.gesture.pointer) return;
    const at = this.position(event);
    this.drag(at, event.timeStamp);
    const { gesture } = this;
    const result = gesture.moved && gesture.kind !== "pan" ? this.result(at) : null;
    this.cancel();
    if (result) this.finish(result);
    else if (gesture.kind === "marquee") this.toggleAt(gesture.start);
    else if (!gesture.moved && (gesture.kind !== "pan" || gesture.device === "touch")) this.click(gesture.start);
  }

  finish({ moved, drawn, marquee }) {
    const { editor } = this;
    if (moved) editor.place(moved);
    else if (marquee) this.selectInside(marquee);
    else if (isLargeEnough(drawn)) editor.draw(drawn);
  }

  /** Adds the boxes whose middle lies in the rectangle to the selection. */
  selectInside(rectangle) {
    const inside = this.editor.shown.filter((box) => contains(rectangle, centre(box))).map((box) => box.key);
    this.editor.selectMany([...new Set([...selectedKeys(this.editor.state), ...inside])]);
  }

  lost(event) {
    this.fingers.delete(event.pointerId);
    if (this.gesture?.pointer === event.pointerId || !this.fingers.size) this.cancel();
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
    const under = this.keysAt(at);
    const again = this.lastClick && distanceOf(at, this.lastClick) < DRAG_FROM.mouse;
    this.lastClick = at;
    const place = again ? under.indexOf(editor.state.selected) : -1;
    editor.select(under[(place + 1) % under.length] ?? null);
  }

  keysAt(at) {
    return boxesAt(this.editor.shown, toTile(this.editor.view, at)).map((box) => box.key);
  }

  toggleAt(at) {
    const [key] = this.keysAt(at);
    if (key !== undefined) this.editor.toggle(key);
  }

  erase(at) {
    const [key] = this.keysAt(at);
    if (key !== undefined) this.editor.removeBox(key);
  }

  hover(at, pointerType) {
    const { editor } = this;
    if (!editor.work) return;
    const point = toTile(editor.view, at);
    editor.hover(boxesAt(editor.shown, point)[0]?.key ?? null);
    const handle = this.handleAt(at, pointerType);
    const overSelected = editor.chosen.some((box) => contains(box, point));
    this.surface.style.cursor = handle ? `${CURSORS[handle]}-resize` : overSelected ? "move" : "crosshair";
  }

  // --- zoom --------------------------------------------------------------------------------------

  /** Two fingers: whatever the first one had begun is dropped. */
  beginPinch() {
    this.cancel();
    this.gesture = { kind: "pinch", ...this.spread(), moved: true };
  }

  /** Middle and distance of the first two fingers. */
  spread() {
    const [first, second] = this.fingers.values();
    const middle = { x: (first.x + second.x) / 2, y: (first.y + second.y) / 2 };
    return { middle, distance: Math.max(1, Math.hypot(first.x - second.x, first.y - second.y)) };
  }

  pinch() {
    if (this.fingers.size < 2) return;
    const before = this.gesture;
    const now = this.spread();
    this.editor.pan(now.middle.x - before.middle.x, now.middle.y - before.middle.y);
    this.editor.zoom(now.distance / before.distance, now.middle);
    Object.assign(before, now);
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
