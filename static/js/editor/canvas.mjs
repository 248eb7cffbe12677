// Draws the tile on three layers: the image, the boxes at rest, and in front the box that is selected, hovered or
// being dragged, so that a drag redraws one box and not five hundred. Nothing is drawn unless something changed, and
// never more than once a frame.

import { DASH, Edges } from "./edges.mjs";
import { certainty, findBox, selectedKeys } from "./state.mjs";
import { TAG_HEIGHT, Tags } from "./tags.mjs";

export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const HANDLE_SIDE = 8;
// Below this side on screen (CSS px) a box shows its corner handles only, and an unselected box no label.
const SMALL_SIDE = 30;
const LABEL_SIDE = 22;
const OUTLINE = "rgb(0 0 0 / 62%)";
// From this many device px per tile px, pixels are shown as they are instead of smoothed.
const PIXELATED_FROM = 6;
const SETTLE_MS = 150;
// More selected boxes than these are drawn without labels.
const MANY = 40;
// What lies around the tile is darker: no box belongs there.
const SURROUNDINGS_ALPHA = 0.7;
// With more boxes in sight, labels are left out until the view rests.
const LABELS_WHILE_MOVING = 100;

/** Handle positions of a rectangle on screen: [name, x, y]. */
export function handlesOf(rectangle) {
  const { x, y, width, height } = rectangle;
  const small = Math.min(width, height) < SMALL_SIDE;
  const names = small ? HANDLES.filter((name) => name.length === 2) : HANDLES;
  const share = (name, low, high) => (name.includes(low) ? 0 : name.includes(high) ? 1 : 0.5);
  const along = (name, low, high, start, size) => start + share(name, low, high) * size;
  return names.map((name) => [name, along(name, "w", "e", x, width), along(name, "n", "s", y, height)]);
}

export class Renderer {
  constructor(editor, { imageCanvas, boxesCanvas, frontCanvas }) {
    this.editor = editor;
    this.imageCanvas = imageCanvas;
    this.boxesCanvas = boxesCanvas;
    this.frontCanvas = frontCanvas;
    // Without alpha: nothing lies below it.
    this.imageContext = imageCanvas.getContext("2d", { alpha: false });
    this.boxesContext = boxesCanvas.getContext("2d");
    this.frontContext = frontCanvas.getContext("2d");
    this.tags = new Tags();
    this.edges = new Edges();
    this.ratio = 1;
    this.dirty = { image: true, boxes: true, front: true };
    this.frame = null;
    this.afterFrame = [];
    this.background = getComputedStyle(imageCanvas).backgroundColor;
    this.isMoving = false;
    this.settled = null;
    editor.on("work", () => this.invalidate("image", "boxes", "front"));
    editor.on("view", () => this.follow());
    editor.on("boxes selection display filter lock", () => this.invalidate("boxes", "front"));
    editor.on("picture", () => this.invalidate("image"));
    editor.on("preview", () => this.invalidate("front"));
    this.watchSize();
  }

  watchSize() {
    new ResizeObserver(() => this.resize()).observe(this.imageCanvas.parentElement);
    const watchRatio = () => {
      matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`).addEventListener("change", watchRatio, { once: true });
      this.resize();
    };
    watchRatio();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.imageCanvas.parentElement;
    this.ratio = window.devicePixelRatio || 1;
    this.tags.setRatio(this.ratio);
    this.edges.setRatio(this.ratio);
    for (const canvas of [this.imageCanvas, this.boxesCanvas, this.frontCanvas]) {
      canvas.width = Math.max(1, Math.round(width * this.ratio));
      canvas.height = Math.max(1, Math.round(height * this.ratio));
    }
    this.editor.resizePane({ width, height });
    this.invalidate("image", "boxes", "front");
    // Setting a canvas' size empties it; drawing in the same frame avoids a flash.
    this.draw();
  }

  /** While the view moves the image is scaled the quick way; once it rests, the careful way. */
  follow() {
    clearTimeout(this.settled);
    this.isMoving = this.settled !== null;
    this.settled = setTimeout(() => {
      this.settled = null;
      if (this.isMoving) this.invalidate("image", "boxes");
      this.isMoving = false;
    }, SETTLE_MS);
    this.invalidate("image", "boxes", "front");
  }

  invalidate(...layers) {
    for (const layer of layers) this.dirty[layer] = true;
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  /** Calls back once, after the next frame has been drawn. */
  onceDrawn(callback) {
    this.afterFrame.push(callback);
    this.invalidate("front");
  }

  draw() {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    this.frame = null;
    if (this.dirty.image) this.drawImage();
    if (this.dirty.boxes) this.drawBoxes();
    if (this.dirty.front) this.drawFront();
    this.dirty = { image: false, boxes: false, front: false };
    for (const callback of this.afterFrame.splice(0)) callback();
  }

  drawImage() {
    const { view, picture, surroundings, tile } = this.editor;
    const context = this.imageContext;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = this.background;
    context.fillRect(0, 0, this.editor.pane.width + 1, this.editor.pane.height + 1);
    if (!picture) return;
    context.imageSmoothingEnabled = view.scale * this.ratio < PIXELATED_FROM;
    context.imageSmoothingQuality = this.isMoving ? "low" : "high";
    const [width, height] = [tile.width * view.scale, tile.height * view.scale];
    if (surroundings) {
      context.globalAlpha = SURROUNDINGS_ALPHA;
      context.drawImage(surroundings, view.x - width, view.y - height, 3 * width, 3 * height);
      context.globalAlpha = 1;
    }
    context.drawImage(picture, view.x, view.y, width, height);
  }

  clear(context) {
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.editor.pane.width + 1, this.editor.pane.height + 1);
    // Edges and labels are copied pixel by pixel.
    context.imageSmoothingEnabled = false;
    return !this.editor.boxesHidden && Boolean(this.editor.work?.image);
  }

  drawBoxes() {
    const { editor } = this;
    if (!this.clear(this.boxesContext)) return;
    const selected = new Set(selectedKeys(editor.state));
    const resting = editor.shown.filter((box) => !selected.has(box.key));
    const items = resting.map((box) => this.placed(box)).filter((item) => this.isInSight(item));
    this.strokeAll(this.boxesContext, items, (box) => this.colourOf(box));
    const labelled = editor.preferences.values.labels && !(this.isMoving && items.length > LABELS_WHILE_MOVING);
    if (labelled) items.forEach((item) => this.drawTag(this.boxesContext, item));
  }

  drawFront() {
    const { editor } = this;
    if (!this.clear(this.frontContext)) return;
    const { chosen, preview, state } = editor;
    const hovered = preview || selectedKeys(state).includes(editor.hovered) ? null : findBox(state, editor.hovered);
    if (hovered) this.drawHovered(this.placed(hovered));
    const boxes = preview?.moved ?? chosen;
    if (boxes.length > MANY) this.drawMany(boxes);
    else for (const box of boxes) this.drawSelected(this.placed(box), boxes.length === 1 && !preview);
    if (preview?.drawn) this.drawSelected(this.placed({ ...preview.drawn, score: null, touched: true }), false);
    if (preview?.marquee) this.drawMarquee(this.placed(preview.marquee));
  }

  isInSight({ rectangle: { x, y, width, height } }) {
    const { pane } = this.editor;
    return x + width > -4 && y + height > -4 && x < pane.width + 4 && y < pane.height + TAG_HEIGHT;
  }

  /** A box with its rectangle on screen (CSS px of the pane). */
  placed(box) {
    const { scale, x, y } = this.editor.view;
    const rectangle = {
      x: box.x * scale + x,
      y: box.y * scale + y,
      width: box.width * scale,
      height: box.height * scale,
    };
    return { box, rectangle };
  }

  colourOf(box) {
    return this.editor.classOf.get(box.class)?.colour ?? "#ffffff";
  }

  strokeAll(context, items, colourOf) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    for (const { box, rectangle } of items) this.edges.draw(context, rectangle, colourOf(box), !box.touched);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
  }

  stroke(path, colour, width, dash = []) {
    const context = this.frontContext;
    context.setLineDash(dash);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke(path);
  }

  drawTag(context, { box, rectangle }, always = false) {
    if (!always && Math.min(rectangle.width, rectangle.height) < LABEL_SIDE) return;
    const cellClass = this.editor.classOf.get(box.class);
    const tag = this.tags.get(cellClass?.code ?? "?", certainty(box), this.colourOf(box));
    const x = Math.max(0, Math.min(rectangle.x - 1.5, this.editor.pane.width - tag.width));
    const above = rectangle.y - TAG_HEIGHT - 1.5;
    const y = above >= 0 ? above : Math.max(0, rectangle.y + 1.5);
    const { width, height } = tag.image;
    context.drawImage(tag.image, this.snap(x), this.snap(y), width / this.ratio, height / this.ratio);
  }

  /** To whole device pixels, so that text stays sharp. */
  snap(value) {
    return Math.round(value * this.ratio) / this.ratio;
  }

  drawHovered(item) {
    const path = pathOf(item.rectangle);
    this.stroke(path, "#ffffff", 4);
    this.stroke(path, this.colourOf(item.box), 2.5, item.box.touched ? [] : DASH);
    this.drawTag(this.frontContext, item, true);
  }

  drawSelected(item, withHandles) {
    const { rectangle } = item;
    const path = pathOf(rectangle);
    this.stroke(path, "rgb(0 0 0 / 75%)", 7);
    this.stroke(path, "#ffffff", 5);
    this.stroke(path, this.colourOf(item.box), 2.5, item.box.touched ? [] : DASH);
    this.drawTag(this.frontContext, { ...item, rectangle: { ...rectangle, y: rectangle.y - HANDLE_SIDE / 2 } }, true);
    if (!withHandles || this.editor.locked) return;
    for (const [, x, y] of handlesOf(rectangle)) this.drawHandle(x, y);
  }

  /** Many selected boxes: without labels, and as quick as those at rest. */
  drawMany(boxes) {
    const items = boxes.map((box) => this.placed(box)).filter((item) => this.isInSight(item));
    this.strokeAll(this.frontContext, items, () => "#ffffff");
  }

  drawMarquee({ rectangle }) {
    const path = pathOf(rectangle);
    this.stroke(path, "rgb(0 0 0 / 75%)", 3);
    this.stroke(path, "#ffffff", 1, DASH);
  }

  drawHandle(x, y) {
    const context = this.frontContext;
    const start = { x: this.snap(x - HANDLE_SIDE / 2), y: this.snap(y - HANDLE_SIDE / 2) };
    context.setLineDash([]);
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#000000";
    context.lineWidth = 1;
    context.fillRect(start.x, start.y, HANDLE_SIDE, HANDLE_SIDE);
    context.strokeRect(start.x, start.y, HANDLE_SIDE, HANDLE_SIDE);
  }
}

function pathOf({ x, y, width, height }) {
  const path = new Path2D();
  path.rect(x, y, width, height);
  return path;
}

/** A small still picture of a tile with boxes, for comparing two versions. */
export function drawStill(canvas, { tile }, image, boxes, classOf) {
  const scale = Math.min(canvas.width / tile.width, canvas.height / tile.height);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (image) context.drawImage(image, 0, 0, tile.width * scale, tile.height * scale);
  for (const box of boxes) {
    const rectangle = [box.x * scale, box.y * scale, box.width * scale, box.height * scale];
    const cellClass = classOf.get(box.class);
    context.lineWidth = 4;
    context.strokeStyle = OUTLINE;
    context.strokeRect(...rectangle);
    context.lineWidth = 2;
    context.strokeStyle = cellClass?.colour ?? "#ffffff";
    context.strokeRect(...rectangle);
    context.font = "600 16px system-ui, sans-serif";
    context.lineWidth = 3;
    context.strokeStyle = "#000000";
    context.strokeText(cellClass?.code ?? "?", rectangle[0] + 3, rectangle[1] + 16);
    context.fillStyle = "#ffffff";
    context.fillText(cellClass?.code ?? "?", rectangle[0] + 3, rectangle[1] + 16);
  }
}
