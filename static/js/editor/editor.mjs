// The tile being worked on: what is shown, what is selected, and the one place where boxes change.
// Other modules listen: "work" (another tile), "boxes" (committed change), "selection", "armed", "view", "preview",
// "display" (labels or boxes shown or hidden), "filter" (which boxes are shown), "picture" (the image looks different),
// "hover", "lock", "stored" (the server has taken a tile).

import { looksDifferent, picture } from "./picture.mjs";
import * as geometry from "./geometry.mjs";
import * as states from "./state.mjs";
import * as views from "./view.mjs";

const DEFAULT_SIDE = 48;
const DUPLICATE_OFFSET = 8;

export class Editor {
  /** `preferences`: this reader's own, see preferences.mjs. */
  constructor(classes, preferences) {
    this.classes = classes;
    this.classOf = new Map(classes.map((cellClass) => [cellClass.id, cellClass]));
    this.preferences = preferences;
    this.armed = classes[0]?.id ?? null;
    this.work = null;
    this.locked = true;
    this.pane = { width: 1, height: 1 };
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    this.preview = null; // what a drag would do: { drawn: box } or { moved: boxes } or { marquee: rectangle }
    this.hovered = null;
    this.only = null; // the one class that is shown
    this.surroundings = null; // image of the 3 x 3 extents around the tile, while it is asked for
    this.boxesHidden = false;
    this.clipboard = [];
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

  /** All selected boxes. */
  get chosen() {
    return states.selectedBoxes(this.state);
  }

  get tile() {
    return this.work?.task.tile ?? { width: 1, height: 1 };
  }

  /** Shows another tile (null: none). */
  show(work) {
    this.work = work;
    this.preview = null;
    this.hovered = null;
    this.only = null;
    this.surroundings = null;
    this.locked = work === null || work.image === null;
    this.fit();
    this.tell("work");
  }

  lock(locked) {
    this.locked = locked;
    this.tell("lock");
  }

  // --- what is shown -----------------------------------------------------------------------------

  /** The boxes that a confirmation would store: all but the pre-labels below the threshold. */
  get accepted() {
    const { threshold } = this.preferences.values;
    return this.state.boxes.filter((box) => !states.isBelow(box, threshold));
  }

  /** The boxes on screen. */
  get shown() {
    return this.only === null ? this.accepted : this.accepted.filter((box) => box.class === this.only);
  }

  /** The tile's image with the reader's brightness, contrast, gamma and saturation; null without an image. */
  get picture() {
    return this.work?.image ? picture(this.work, this.preferences.values) : null;
  }

  setPreferences(values) {
    const before = this.preferences.values;
    this.preferences.set(values);
    if ("threshold" in values) this.filterChanged();
    if (looksDifferent(before, this.preferences.values)) this.tell("picture");
    this.tell("display");
  }

  /** Shows the boxes of one class only; the same class again, or null: all. */
  showOnly(classId) {
    if (!this.work) return;
    this.only = classId === this.only ? null : classId;
    this.filterChanged();
  }

  filterChanged() {
    const shown = new Set(this.shown.map((box) => box.key));
    const keys = states.selectedKeys(this.state);
    if (keys.some((key) => !shown.has(key))) this.selectMany(keys.filter((key) => shown.has(key)));
    this.tell("filter");
  }

  showSurroundings(image) {
    this.surroundings = image;
    if (image) this.setView(views.fitAround(this.tile, this.pane));
    else this.fit();
    this.tell("picture");
  }

  toggleLabels() {
    this.setPreferences({ labels: !this.preferences.values.labels });
  }

  hideBoxes(hidden) {
    if (hidden === this.boxesHidden) return;
    this.boxesHidden = hidden;
    this.tell("display");
  }

  // --- boxes -------------------------------------------------------------------------------------

  commit(next, options = {}) {
    if (this.locked) return;
    const { state } = this;
    const [before, after] = [states.selectedKeys(state), states.selectedKeys(next)];
    this.work.state = next;
    this.work.history.record(next.boxes, after, before, options);
    this.tell("boxes");
    if (next.selected !== state.selected || next.group !== state.group) this.tell("selection");
  }

  /** Changes these boxes, unless that would change nothing. */
  change(boxes, fieldsOf, options) {
    const next = states.change(this.state, boxes.map((box) => box.key), fieldsOf);
    const differs = (box, fields) => !box.touched || Object.keys(fields).some((name) => box[name] !== fields[name]);
    if (boxes.some((box) => differs(box, fieldsOf(box)))) this.commit(next, options);
  }

  draw(rectangle) {
    this.showAllUnless(this.armed);
    this.commit(states.add(this.state, { class: this.armed, ...rectangle }));
  }

  /** A box that has just been drawn or pasted must not be hidden by the filter. */
  showAllUnless(classId) {
    if (this.only !== null && this.only !== classId) this.showOnly(null);
  }

  /** Puts boxes where a drag or the arrows have left them; where that is where they were, nothing is changed. */
  place(moved, options) {
    const places = new Map(moved.map(({ key, x, y, width, height }) => [key, { x, y, width, height }]));
    const there = this.state.boxes.filter((box) => places.has(box.key));
    const isMoved = (box) => geometry.differs(box, places.get(box.key));
    if (there.some(isMoved)) this.change(there, (box) => places.get(box.key), options);
  }

  /** A class key: the class of the selected boxes, or of the next box to be drawn. */
  useClass(classId) {
    if (this.locked) return;
    if (this.chosen.length) return this.change(this.chosen, () => ({ class: classId }));
    this.armed = classId;
    this.tell("armed");
  }

  /** Marks the selected boxes as looked at, and goes on to the next of the walk. */
  confirmBox() {
    if (!this.selected || this.locked) return;
    this.change(this.chosen, () => ({}));
    this.walk(1);
  }

  nudge(dx, dy, merge) {
    const { chosen } = this;
    if (!chosen.length) return;
    this.place(geometry.moveTogether(chosen, dx, dy, this.tile), { merge });
  }

  /** Moves the right and bottom edges. */
  stretch(dx, dy, merge) {
    this.place(this.chosen.map((box) => geometry.resizeBy(box, dx ? "e" : "s", dx, dy, this.tile)), { merge });
  }

  removeSelected() {
    if (this.selected) this.commit(states.remove(this.state, states.selectedKeys(this.state)));
  }

  removeBox(key) {
    this.commit(states.remove(this.state, [key]));
  }

  duplicate() {
    const { chosen } = this;
    if (!chosen.length) return;
    const copies = geometry.moveTogether(chosen, DUPLICATE_OFFSET, DUPLICATE_OFFSET, this.tile);
    this.commit(states.add(this.state, ...copies));
  }

  /** Remembers the selected boxes, also for the next tiles; how many. */
  copy() {
    if (this.chosen.length) this.clipboard = this.chosen;
    return this.chosen.length;
  }

  /** Adds the copied boxes, their middle at the point `at` (tile px; null: a little beside where they were). */
  paste(at) {
    const fitting = this.clipboard.filter((box) => box.width <= this.tile.width && box.height <= this.tile.height);
    if (!fitting.length || this.locked) return 0;
    const from = geometry.centre(geometry.union(fitting));
    const to = at ?? { x: from.x + DUPLICATE_OFFSET, y: from.y + DUPLICATE_OFFSET };
    const pasted = geometry.moveTogether(fitting, to.x - from.x, to.y - from.y, this.tile);
    if (pasted.some((box) => box.class !== this.only)) this.showAllUnless(null);
    this.commit(states.add(this.state, ...pasted));
    return pasted.length;
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
    const before = this.state;
    this.work.state = states.selectMany({ ...before, boxes: moment.boxes }, moment.keys);
    // What is brought back must be seen.
    if (this.only !== null && this.chosen.some((box) => box.class !== this.only)) this.showOnly(null);
    this.tell("boxes");
    this.tell("selection");
    if (this.selected) this.reveal();
  }

  // --- selection ---------------------------------------------------------------------------------

  setSelection(state) {
    if (!this.work) return;
    this.work.state = state;
    this.tell("selection");
  }

  select(key) {
    if (key !== this.state.selected || this.state.group.length) this.setSelection(states.select(this.state, key));
  }

  selectMany(keys) {
    this.setSelection(states.selectMany(this.state, keys));
  }

  toggle(key) {
    this.setSelection(states.toggle(this.state, key));
  }

  selectAll() {
    this.selectMany(this.shown.map((box) => box.key));
  }

  walk(step) {
    this.setSelection(states.walk(this.state, step, this.shown));
    this.reveal();
  }

  setPreview(preview) {
    this.preview = preview;
    this.tell("preview");
  }

  hover(key) {
    if (key === this.hovered) return;
    this.hovered = key;
    this.tell("preview");
    this.tell("hover");
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
}

const EMPTY = states.makeState([]);
