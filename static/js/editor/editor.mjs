// The tile being worked on: what is shown, what is selected, and the one place where boxes change.
// Other modules listen: "work" (another tile), "boxes" (committed change), "selection", "armed", "view", "preview",
// "display" (labels or boxes shown or hidden), "lock".

import * as geometry from "./geometry.mjs";
import * as states from "./state.mjs";
import * as views from "./view.mjs";

const DEFAULT_SIDE = 48;
const DUPLICATE_OFFSET = 8;

export class Editor {
  constructor(classes) {
    this.classes = classes;
    this.classOf = new Map(classes.map((cellClass) => [cellClass.id, cellClass]));
    this.armed = classes[0]?.id ?? null;
    this.work = null;
    this.locked = true;
    this.pane = { width: 1, height: 1 };
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    this.preview = null; // a box being drawn, moved or resized: { key: number | null, class, x, y, width, height }
    this.hovered = null;
    this.labelsShown = true;
    this.boxesHidden = false;
    this.listeners = new Map();
  }

  on(topics, listener) {
    for (const topic of topics.split(" ")) this.listeners.set(topic, [...(this.listeners.get(topic) ?? []), listener]);
  }

  tell(topic, detail) {
    for (const listener of this.listeners.get(topic) ?? []) listener(detail);
  }

  get state() {
    return this.work?.state ?? EMPTY;
  }

  get selected() {
    return states.selectedBox(this.state);
  }

  get tile() {
    return this.work?.task.tile ?? { width: 1, height: 1 };
  }

  /** Shows another tile (null: none). */
  show(work) {
    this.work = work;
    this.preview = null;
    this.hovered = null;
    this.locked = work === null || work.image === null;
    this.fit();
    this.tell("work");
  }

  lock(locked) {
    this.locked = locked;
    this.tell("lock");
  }

  // --- boxes -------------------------------------------------------------------------------------

  commit(next, options = {}) {
    if (this.locked) return;
    const before = this.work.state.selected;
    this.work.state = next;
    this.work.history.record(next.boxes, next.selected, before, options);
    this.tell("boxes");
    if (next.selected !== before) this.tell("selection");
  }

  draw(rectangle) {
    this.commit(states.add(this.state, this.armed, rectangle));
  }

  replaceGeometry(key, { x, y, width, height }, options) {
    const box = states.findBox(this.state, key);
    if (!box || (box.x === x && box.y === y && box.width === width && box.height === height)) return;
    this.commit(states.change(this.state, key, { x, y, width, height }), options);
  }

  /** A class key: the class of the selected box, or of the next box to be drawn. */
  useClass(classId) {
    if (this.locked) return;
    const box = this.selected;
    if (!box) {
      this.armed = classId;
      this.tell("armed");
    } else if (box.class !== classId || !box.touched) {
      this.commit(states.change(this.state, box.key, { class: classId }));
    }
  }

  /** Marks the selected box as looked at, and goes on to the next of the walk. */
  confirmBox() {
    const box = this.selected;
    if (!box || this.locked) return;
    if (!box.touched) this.commit(states.change(this.state, box.key, {}));
    this.walk(1);
  }

  nudge(dx, dy, merge) {
    const box = this.selected;
    if (box) this.replaceGeometry(box.key, geometry.moveBy(box, dx, dy, this.tile), { merge });
  }

  /** Moves the right and bottom edges. */
  stretch(dx, dy, merge) {
    const box = this.selected;
    if (box) this.replaceGeometry(box.key, geometry.resizeBy(box, dx ? "e" : "s", dx, dy, this.tile), { merge });
  }

  removeSelected() {
    if (this.selected) this.commit(states.remove(this.state, this.state.selected));
  }

  duplicate() {
    const box = this.selected;
    if (!box) return;
    const copy = geometry.moveBy(box, DUPLICATE_OFFSET, DUPLICATE_OFFSET, this.tile);
    this.commit(states.add(this.state, box.class, copy));
  }

  /** Adds a box without a pointer: in the middle of the view, as large as the selected box or the tile's median box. */
  addAtCentre() {
    if (this.locked) return;
    const size = this.selected ?? this.medianSize();
    const middle = views.toTile(this.view, { x: this.pane.width / 2, y: this.pane.height / 2 });
    const { width, height } = size;
    const start = { x: middle.x - width / 2, y: middle.y - height / 2, width, height };
    this.draw(geometry.moveBy(start, 0, 0, this.tile));
  }

  medianSize() {
    const sorted = [...this.state.boxes].sort((first, second) => geometry.area(first) - geometry.area(second));
    const side = Math.min(DEFAULT_SIDE, this.tile.width, this.tile.height);
    return sorted[Math.floor(sorted.length / 2)] ?? { width: side, height: side };
  }

  undo() {
    this.goTo(this.locked ? null : this.work.history.undo());
  }

  redo() {
    this.goTo(this.locked ? null : this.work.history.redo());
  }

  goTo(moment) {
    if (!moment) return;
    const before = this.state.selected;
    this.work.state = states.select({ ...this.state, boxes: moment.boxes }, moment.selected);
    this.tell("boxes");
    if (this.state.selected !== before) this.tell("selection");
    if (this.selected) this.reveal();
  }

  // --- selection ---------------------------------------------------------------------------------

  select(key) {
    if (!this.work || key === this.state.selected) return;
    this.work.state = states.select(this.state, key);
    this.tell("selection");
  }

  walk(step) {
    if (!this.work) return;
    this.work.state = states.walk(this.state, step);
    this.tell("selection");
    this.reveal();
  }

  setPreview(box) {
    this.preview = box;
    this.tell("preview");
  }

  hover(key) {
    if (key === this.hovered) return;
    this.hovered = key;
    this.tell("preview");
  }

  // --- view --------------------------------------------------------------------------------------

  resizePane(pane) {
    const middle = views.toTile(this.view, { x: this.pane.width / 2, y: this.pane.height / 2 });
    this.pane = pane;
    if (this.fitted) return this.fit();
    const at = views.toPane(this.view, middle);
    this.setView(views.pan(this.view, pane.width / 2 - at.x, pane.height / 2 - at.y, this.tile, pane));
  }

  setView(view, fitted = false) {
    this.view = view;
    this.fitted = fitted;
    this.tell("view");
  }

  fit() {
    this.setView(views.fit(this.tile, this.pane), true);
  }

  actualSize() {
    this.setView(views.actualSize(this.view, this.tile, this.pane, window.devicePixelRatio));
  }

  zoom(factor, at = { x: this.pane.width / 2, y: this.pane.height / 2 }) {
    this.setView(views.zoomAt(this.view, factor, at, this.tile, this.pane));
  }

  pan(dx, dy) {
    this.setView(views.pan(this.view, dx, dy, this.tile, this.pane));
  }

  reveal() {
    if (!this.selected) return;
    const view = views.reveal(this.view, this.selected, this.tile, this.pane);
    if (view !== this.view) this.setView(view);
  }

  toggleLabels() {
    this.labelsShown = !this.labelsShown;
    this.tell("display");
  }

  hideBoxes(hidden) {
    if (hidden === this.boxesHidden) return;
    this.boxesHidden = hidden;
    this.tell("display");
  }
}

const EMPTY = states.makeState([]);
