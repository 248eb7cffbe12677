// The left panel (classes), the top line (batch, save state, time), the info block and the spoken announcements.

import { DOUBTFUL_BELOW } from "./tags.mjs";
import { formatSeconds } from "./clock.mjs";
import { keyCap } from "./keyboard.mjs";
import { certainty, countByClass, isBelow, walkOrder } from "./state.mjs";

/** An element with a class name and text. */
export function make(tag, className, text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

export function swatch(colour) {
  const element = make("span", "swatch");
  element.style.backgroundColor = colour;
  return element;
}

/** Pressing a control with the pointer leaves the keyboard with the tile. */
export function keepFocus(element) {
  // Only on buttons: a panel's scroll bar must still take the pointer.
  element.addEventListener("mousedown", (event) => event.target.closest("button") && event.preventDefault());
}

export class ClassPanel {
  constructor(editor, list, nextClass) {
    this.editor = editor;
    this.nextClass = nextClass;
    this.rows = new Map();
    let lineage = editor.classes[0]?.lineage;
    for (const cellClass of editor.classes) {
      const row = this.makeRow(cellClass);
      if (cellClass.lineage !== lineage) row.item.classList.add("lineage-start");
      lineage = cellClass.lineage;
      this.rows.set(cellClass.id, row);
      list.append(row.item);
    }
    keepFocus(list);
    editor.on("boxes selection armed filter work", () => this.update());
  }

  makeRow({ id, name, code, colour, hotkey }) {
    const item = make("li");
    const button = make("button", "class-row");
    button.type = "button";
    button.dataset.class = id;
    button.title = `${name} (${code})`;
    const count = make("span", "count", "0");
    button.append(make("kbd", "", keyCap(hotkey)), swatch(colour), make("span", "name", name), count);
    // With Alt, as with the class's key.
    button.addEventListener("click", ({ altKey }) => (altKey ? this.editor.showOnly(id) : this.editor.useClass(id)));
    const only = make("button", "only");
    only.type = "button";
    only.dataset.only = id;
    only.title = `Show only ${name} (Alt ${keyCap(hotkey)})`;
    only.setAttribute("aria-label", `Show only ${name}`);
    only.addEventListener("click", () => this.editor.showOnly(id));
    item.append(button, only);
    return { item, button, only, count };
  }

  update() {
    const { editor } = this;
    const counts = countByClass(editor.accepted);
    const selected = new Set(editor.chosen.map((box) => box.class));
    this.nextClass.textContent = editor.classOf.get(editor.armed)?.name ?? "";
    for (const [id, { button, only, count }] of this.rows) {
      count.textContent = counts.get(id) ?? 0;
      button.classList.toggle("empty", !counts.has(id));
      button.classList.toggle("armed", editor.armed === id);
      button.setAttribute("aria-pressed", String(selected.has(id)));
      button.setAttribute("aria-label", this.describe(id, counts.get(id) ?? 0));
      only.setAttribute("aria-pressed", String(editor.only === id));
    }
  }

  describe(id, count) {
    const { name } = this.editor.classOf.get(id);
    return `${name}, ${count} in this tile${this.editor.armed === id ? ", class of the next box" : ""}`;
  }
}

export class TopBar {
  constructor(elements) {
    this.elements = elements;
    this.spent = new Map(); // task id -> active seconds
  }

  showBatch({ done, total }, onTheirWay) {
    const shown = Math.min(total, done + onTheirWay);
    this.elements.progress.max = Math.max(1, total);
    this.elements.progress.value = shown;
    this.elements.progressText.textContent = `${shown} of ${total}`;
  }

  showStatus(status) {
    const { saveState, saveText, signIn } = this.elements;
    if (saveText.textContent !== status.text) saveText.textContent = status.text;
    saveState.dataset.state = status.state;
    signIn.hidden = status.state !== "signed-out";
  }

  /** Active time of this tile, and of all tiles since the page was opened. */
  showTime(work) {
    const { tileTime, sittingTime, time } = this.elements;
    const active = work?.clock.activeSeconds() ?? 0;
    if (work) this.spent.set(work.task.id, active);
    tileTime.textContent = formatSeconds(active);
    sittingTime.textContent = formatSeconds([...this.spent.values()].reduce((sum, seconds) => sum + seconds, 0));
    time.classList.toggle("idle", work?.clock.isIdle() ?? true);
  }
}

/** Slide, patient, place and what is left to look at; its size never changes. */
export class InfoBlock {
  constructor(editor, elements) {
    this.editor = editor;
    this.elements = elements;
    editor.on("work", () => this.showTile());
    editor.on("work boxes filter", () => this.showBoxes());
    editor.on("work view", () => this.showZoom());
  }

  showTile() {
    const tile = this.editor.work?.task.tile;
    this.elements.slide.textContent = tile?.slide ?? "–";
    this.elements.slide.title = tile?.slide ?? "";
    this.elements.patient.textContent = tile?.patient ?? "–";
    // A plain image is all of its slide: it has no place on one.
    this.elements.place.textContent = tile?.neighbourhood ? `${tile.row + 1}, ${tile.column + 1}` : "–";
  }

  showBoxes() {
    const { accepted } = this.editor;
    const doubtful = accepted.filter((box) => isBelow(box, DOUBTFUL_BELOW)).length;
    this.elements.boxes.textContent = `${accepted.length}${doubtful ? `, ${doubtful} doubtful` : ""}`;
  }

  showZoom() {
    const percent = Math.round(this.editor.view.scale * window.devicePixelRatio * 100);
    const text = this.editor.work ? `${percent} %` : "–";
    if (this.elements.zoom.textContent !== text) this.elements.zoom.textContent = text;
    this.showScale();
  }

  /** A bar of a round number of micrometres, about a sixth of the pane wide. */
  showScale() {
    const { scaleBar } = this.elements;
    const { tile, view, pane } = this.editor;
    scaleBar.hidden = !tile.mpp;
    if (!tile.mpp) return;
    const pixelsPerMicron = view.scale / tile.mpp;
    const microns = roundLength(pane.width / 6 / pixelsPerMicron);
    const text = `${microns} µm`;
    if (scaleBar.textContent !== text) scaleBar.textContent = text;
    scaleBar.style.width = `${microns * pixelsPerMicron}px`;
  }
}

/** The largest of 1, 2, 5, 10, 20, 50 ... that is not more than this. */
function roundLength(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return power * ([5, 2, 1].find((step) => step * power <= length) ?? 1);
}

/** Says aloud (aria-live) what is selected and what happened. */
export class Announcer {
  constructor(editor, element) {
    this.editor = editor;
    this.element = element;
    this.count = 0;
    this.texts = [];
    editor.on("selection", () => this.announceSelection());
    editor.on("boxes", () => this.announceBoxes());
    editor.on("armed", () => this.say(`Next box: ${editor.classOf.get(editor.armed).name}`));
  }

  /** What is said at the same moment is said together: a live region speaks only what it holds in the end. */
  say(text) {
    if (!this.texts.length) queueMicrotask(() => this.speak());
    this.texts.push(text);
  }

  speak() {
    this.element.textContent = this.texts.splice(0).join(" ");
  }

  announceSelection() {
    const { chosen } = this.editor;
    if (chosen.length > 1) this.say(`${countText(chosen.length)} selected`);
    else if (chosen.length) this.say(describeBox(this.editor, chosen[0]));
  }

  announceBoxes() {
    const { boxes } = this.editor.state;
    const before = this.count;
    this.count = boxes.length;
    if (boxes.length < before) this.say(`Deleted. ${countText(boxes.length)}.`);
    else if (boxes.length > before) this.say(`Added. ${countText(boxes.length)}.`);
    else this.announceSelection();
  }
}

export const countText = (count) => `${count} ${count === 1 ? "box" : "boxes"}`;

/** "neutrophil, certainty 0.91, box 3 of 12" */
export function describeBox(editor, box) {
  const order = walkOrder(editor.shown);
  const score = certainty(box);
  const parts = [editor.classOf.get(box.class)?.name ?? "unknown class"];
  if (score !== null) parts.push(`certainty ${score.toFixed(2)}`);
  parts.push(`box ${order.findIndex(({ key }) => key === box.key) + 1} of ${order.length}`);
  return parts.join(", ");
}
