// The left panel (classes), the top line (batch, save state, time), the info block and the spoken announcements.

import { DOUBTFUL_BELOW } from "./tags.mjs";
import { formatSeconds } from "./clock.mjs";
import { usableHotkeys } from "./keyboard.mjs";
import { certainty, countByClass, walkOrder } from "./state.mjs";

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
    const hotkeys = new Map([...usableHotkeys(editor.classes)].map(([key, id]) => [id, key]));
    let lineage = editor.classes[0]?.lineage;
    for (const cellClass of editor.classes) {
      const row = this.makeRow(cellClass, hotkeys.get(cellClass.id));
      if (cellClass.lineage !== lineage) row.item.classList.add("lineage-start");
      lineage = cellClass.lineage;
      this.rows.set(cellClass.id, row);
      list.append(row.item);
    }
    keepFocus(list);
    editor.on("boxes selection armed work", () => this.update());
  }

  makeRow(cellClass, hotkey) {
    const item = make("li");
    const button = make("button", "class-row");
    button.type = "button";
    button.dataset.class = cellClass.id;
    button.title = `${cellClass.name} (${cellClass.code})`;
    const key = make("kbd", hotkey ? "" : "none", hotkey?.toUpperCase() ?? "");
    const name = make("span", "name", cellClass.name);
    const count = make("span", "count", "0");
    button.append(key, swatch(cellClass.colour), name, count);
    button.addEventListener("click", () => this.editor.useClass(cellClass.id));
    item.append(button);
    return { item, button, count };
  }

  update() {
    const { editor } = this;
    const counts = countByClass(editor.state.boxes);
    this.nextClass.textContent = editor.classOf.get(editor.armed)?.name ?? "";
    for (const [id, { button, count }] of this.rows) {
      count.textContent = counts.get(id) ?? 0;
      button.classList.toggle("empty", !counts.has(id));
      button.classList.toggle("armed", editor.armed === id);
      button.setAttribute("aria-pressed", String(editor.selected?.class === id));
      button.setAttribute("aria-label", this.describe(id, counts.get(id) ?? 0));
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
    editor.on("work boxes", () => this.showBoxes());
    editor.on("work view", () => this.showZoom());
  }

  showTile() {
    const tile = this.editor.work?.task.tile;
    this.elements.slide.textContent = tile?.slide ?? "–";
    this.elements.patient.textContent = tile?.patient ?? "–";
    const placed = tile && tile.row !== null && tile.row !== undefined;
    this.elements.place.textContent = placed ? `${tile.row + 1}, ${tile.column + 1}` : "–";
  }

  showBoxes() {
    const { boxes } = this.editor.state;
    const doubtful = boxes.filter((box) => !box.touched && box.score !== null && box.score < DOUBTFUL_BELOW).length;
    this.elements.boxes.textContent = `${boxes.length}${doubtful ? `, ${doubtful} doubtful` : ""}`;
  }

  showZoom() {
    const percent = Math.round(this.editor.view.scale * window.devicePixelRatio * 100);
    const text = this.editor.work ? `${percent} %` : "–";
    if (this.elements.zoom.textContent !== text) this.elements.zoom.textContent = text;
  }
}

/** Says aloud (aria-live) what is selected and what happened. */
export class Announcer {
  constructor(editor, element) {
    this.editor = editor;
    this.element = element;
    this.count = 0;
    editor.on("selection", () => this.announceSelection());
    editor.on("boxes", () => this.announceBoxes());
    editor.on("armed", () => this.say(`Next box: ${editor.classOf.get(editor.armed).name}`));
  }

  say(text) {
    this.element.textContent = text;
  }

  announceSelection() {
    const { selected } = this.editor;
    if (selected) this.say(describeBox(this.editor, selected));
  }

  announceBoxes() {
    const { boxes } = this.editor.state;
    const before = this.count;
    this.count = boxes.length;
    if (boxes.length < before) this.say(`Deleted. ${countText(boxes.length)}`);
    else if (boxes.length > before) this.say(`Added. ${countText(boxes.length)}`);
    else if (this.editor.selected) this.announceSelection();
  }
}

export const countText = (count) => `${count} ${count === 1 ? "box" : "boxes"}`;

/** "neutrophil, certainty 0.91, box 3 of 12" */
export function describeBox(editor, box) {
  const order = walkOrder(editor.state.boxes);
  const score = certainty(box);
  const parts = [editor.classOf.get(box.class)?.name ?? "unknown class"];
  if (score !== null) parts.push(`certainty ${score.toFixed(2)}`);
  parts.push(`box ${order.findIndex(({ key }) => key === box.key) + 1} of ${order.length}`);
  return parts.join(", ");
}
