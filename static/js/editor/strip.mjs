// The film strip: every cell of the tile as a crop, by class, the least certain first; and the same as a table for
// screen readers. Crops are redrawn only when their box changes, and only once the tile itself is on screen.

import { centre, differs } from "./geometry.mjs";
import { keepFocus, make, swatch } from "./panels.mjs";
import { certainty, selectedKeys, walkOrder } from "./state.mjs";
import { DOUBTFUL_BELOW, formatCertainty } from "./tags.mjs";

const SIDE = 72;
const OUTSIDE = "#3a3a3a";
// The crop shows the cell with this much around it: its neighbourhood helps to name it.
const CONTEXT = 1.25;
const CROPS_PER_FRAME = 40;

export class FilmStrip {
  constructor(editor, list) {
    this.editor = editor;
    this.list = list;
    this.cells = new Map();
    this.headings = new Map();
    this.waiting = new Set();
    this.frame = null;
    keepFocus(list);
    list.addEventListener("click", (event) => this.click(event));
    list.addEventListener("pointerover", (event) => editor.hover(keyOf(event.target)));
    list.addEventListener("pointerleave", () => editor.hover(null));
    editor.on("work", () => this.reset());
    editor.on("boxes filter", () => this.update());
    editor.on("selection", () => this.showSelection());
    editor.on("picture", () => this.redraw());
  }

  click(event) {
    const key = keyOf(event.target);
    if (key === null) return;
    if (event.shiftKey) return this.editor.toggle(key);
    this.editor.select(key);
    this.editor.reveal();
  }

  reset() {
    this.cells.clear();
    this.waiting.clear();
    this.list.replaceChildren();
    this.list.scrollTop = 0;
    // The tile and its boxes come first: the strip is built once they have been drawn.
    requestAnimationFrame(() => setTimeout(() => this.update()));
  }

  update() {
    const { shown } = this.editor;
    const wanted = this.editor.classes.flatMap((cellClass) => this.groupOf(cellClass, shown));
    const alive = new Set(shown.map((box) => box.key));
    for (const key of this.cells.keys()) if (!alive.has(key)) this.cells.delete(key);
    place(this.list, wanted);
    this.showSelection();
  }

  /** The heading and the crops of one class. */
  groupOf(cellClass, shown) {
    const boxes = walkOrder(shown.filter((box) => box.class === cellClass.id));
    if (!boxes.length) return [];
    return [this.heading(cellClass, boxes.length), ...boxes.map((box) => this.cell(box, cellClass))];
  }

  heading(cellClass, count) {
    if (!this.headings.has(cellClass.id)) {
      const item = make("li", "group");
      item.append(swatch(cellClass.colour), make("span", "name", cellClass.name), make("span", "count"));
      this.headings.set(cellClass.id, item);
    }
    const item = this.headings.get(cellClass.id);
    item.lastChild.textContent = count;
    return item;
  }

  cell(box, cellClass) {
    const known = this.cells.get(box.key);
    if (known?.box === box) return known.item;
    const cell = known ?? this.makeCell(box.key);
    const moved = !known || differs(known.box, box);
    cell.box = box;
    const score = certainty(box);
    cell.code.textContent = cellClass.code;
    cell.score.textContent = formatCertainty(score);
    cell.score.classList.toggle("doubtful", score !== null && score < DOUBTFUL_BELOW);
    cell.button.classList.toggle("untouched", !box.touched);
    cell.button.style.borderColor = cellClass.colour;
    const spoken = score === null ? "" : `, certainty ${formatCertainty(score)}`;
    cell.button.setAttribute("aria-label", `${cellClass.name}${spoken}`);
    if (moved) this.drawLater(cell);
    return cell.item;
  }

  makeCell(key) {
    const item = make("li", "cell");
    const button = make("button");
    button.type = "button";
    button.dataset.key = key;
    const crop = make("canvas");
    const caption = make("span", "caption");
    const code = make("span", "code");
    const score = make("span", "score");
    caption.append(code, score);
    button.append(crop);
    item.append(button, caption);
    const cell = { item, button, crop, code, score, box: null };
    this.cells.set(key, cell);
    return cell;
  }

  redraw() {
    for (const cell of this.cells.values()) this.drawLater(cell);
  }

  drawLater(cell) {
    this.waiting.add(cell);
    this.frame ??= requestAnimationFrame(() => this.drawSome());
  }

  drawSome() {
    this.frame = null;
    const batch = [...this.waiting].slice(0, CROPS_PER_FRAME);
    for (const cell of batch) {
      this.waiting.delete(cell);
      this.drawCrop(cell);
    }
    if (this.waiting.size) this.frame = requestAnimationFrame(() => this.drawSome());
  }

  drawCrop({ crop, box }) {
    const image = this.editor.picture;
    if (!image) return;
    const ratio = window.devicePixelRatio || 1;
    crop.width = crop.height = Math.round(SIDE * ratio);
    const side = Math.max(box.width, box.height) * CONTEXT;
    const middle = centre(box);
    const context = crop.getContext("2d", { alpha: false });
    context.fillStyle = OUTSIDE;
    context.fillRect(0, 0, crop.width, crop.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, middle.x - side / 2, middle.y - side / 2, side, side, 0, 0, crop.width, crop.height);
  }

  showSelection() {
    const { state } = this.editor;
    const keys = new Set(selectedKeys(state));
    for (const [key, { button }] of this.cells) setPressed(button, keys.has(key));
    const cell = this.cells.get(state.selected);
    if (cell) scrollInto(this.list, cell.item);
  }
}

function setPressed(button, pressed) {
  if (button.ariaPressed !== String(pressed)) button.ariaPressed = String(pressed);
}

function keyOf(element) {
  const button = element.closest("li")?.querySelector("[data-key]");
  return button ? Number(button.dataset.key) : null;
}

/** Makes `wanted` the children of the list, touching only those out of place. */
function place(list, wanted) {
  wanted.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  while (list.children.length > wanted.length) list.lastChild.remove();
}

function scrollInto(list, item) {
  const top = item.offsetTop - list.offsetTop;
  if (top < list.scrollTop) list.scrollTop = top - 24;
  else if (top + item.offsetHeight > list.scrollTop + list.clientHeight) {
    list.scrollTop = top + item.offsetHeight - list.clientHeight + 4;
  }
}

export class BoxTable {
  constructor(editor, body) {
    this.editor = editor;
    this.body = body;
    this.rows = new Map();
    editor.on("work", () => this.rows.clear());
    editor.on("work boxes filter", () => this.update());
    editor.on("selection", () => this.showSelection());
  }

  update() {
    const order = walkOrder(this.editor.shown);
    place(this.body, order.map((box, index) => this.row(box, index + 1)));
    const alive = new Set(order.map((box) => box.key));
    for (const key of this.rows.keys()) if (!alive.has(key)) this.rows.delete(key);
    this.showSelection();
  }

  row(box, number) {
    const known = this.rows.get(box.key);
    if (known?.box === box && known.number === number) return known.row;
    const row = known?.row ?? make("tr");
    this.rows.set(box.key, { row, box, number });
    Object.assign(row.dataset, { key: box.key, class: box.class, touched: box.touched });
    const name = this.editor.classOf.get(box.class)?.name ?? "unknown class";
    const geometry = [box.x, box.y, box.width, box.height].map((value) => Math.round(value * 100) / 100);
    const texts = [number, name, formatCertainty(certainty(box)), ...geometry];
    row.replaceChildren(...texts.map((text) => make("td", "", String(text))));
    return row;
  }

  showSelection() {
    const selected = new Set(selectedKeys(this.editor.state));
    for (const [key, { row }] of this.rows) row.setAttribute("aria-selected", String(selected.has(key)));
  }
}
