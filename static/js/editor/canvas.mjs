// Draws the tile and its boxes on two layers. Nothing is drawn unless something changed, and never more than once a frame.

import { certainty } from "./state.mjs";
import { TAG_HEIGHT, Tags } from "./tags.mjs";

export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const HANDLE_SIDE = 8;
// Below this side on screen (CSS px) a box shows its corner handles only, and an unselected box no label.
const SMALL_SIDE = 30;
const LABEL_SIDE = 22;
const DASH = [8, 4];
const OUTLINE = "rgb(0 0 0 / 62%)";
// From this many device px per tile px, pixels are shown as they are instead of smoothed.
const PIXELATED_FROM = 6;

/** Handle positions of a rectangle on screen: [name, x, y]. */
export function handlesOf(rectangle) {
  const { x, y, width, height } = rectangle;
  const small = Math.min(width, height) < SMALL_SIDE;
  const names = small ? HANDLES.filter((name) => name.length === 2) : HANDLES;
  const along = (name, low, high, start, size) => start + (name.includes(low) ? 0 : name.includes(high) ? size : size / 2);
  return names.map((name) => [name, along(name, "w", "e", x, width), along(name, "n", "s", y, height)]);
}

export class Renderer {
  constructor(editor, imageCanvas, boxesCanvas) {
    this.editor = editor;
    this.imageCanvas = imageCanvas;
    this.boxesCanvas = boxesCanvas;
    // Without alpha, and drawn as soon as asked for: both make the step to the next tile shorter.
    this.imageContext = imageCanvas.getContext("2d", { alpha: false });
    this.boxesContext = boxesCanvas.getContext("2d");
    this.tags = new Tags();
    this.ratio = 1;
    this.dirty = { image: true, boxes: true };
    this.frame = null;
    this.afterFrame = [];
    this.background = getComputedStyle(imageCanvas).backgroundColor;
    editor.on("work view", () => this.invalidate("image", "boxes"));
    editor.on("boxes selection preview display", () => this.invalidate("boxes"));
    this.watchSize();
  }

  watchSize() {
    new ResizeObserver(() => this.resize()).observe(this.boxesCanvas.parentElement);
    const watchRatio = () => {
      matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`).addEventListener("change", watchRatio, { once: true });
      this.resize();
    };
    watchRatio();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.boxesCanvas.parentElement;
    this.ratio = window.devicePixelRatio || 1;
    this.tags.setRatio(this.ratio);
    for (const canvas of [this.imageCanvas, this.boxesCanvas]) {
      canvas.width = Math.max(1, Math.round(width * this.ratio));
      canvas.height = Math.max(1, Math.round(height * this.ratio));
    }
    this.editor.resizePane({ width, height });
    this.invalidate("image", "boxes");
    // Setting a canvas' size empties it; drawing in the same frame avoids a flash.
    this.draw();
  }

  invalidate(...layers) {
    for (const layer of layers) this.dirty[layer] = true;
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  /** Calls back once, after the next frame has been drawn. */
  onceDrawn(callback) {
    this.afterFrame.push(callback);
    this.invalidate("boxes");
  }

  draw() {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    this.frame = null;
    if (this.dirty.image) this.drawImage();
    if (this.dirty.boxes) this.drawBoxes();
    this.dirty = { image: false, boxes: false };
    for (const callback of this.afterFrame.splice(0)) callback();
  }

  drawImage() {
    const { view, work, tile } = this.editor;
    const context = this.imageContext;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = this.background;
    context.fillRect(0, 0, this.editor.pane.width + 1, this.editor.pane.height + 1);
    if (!work?.image) return;
    context.imageSmoothingEnabled = view.scale * this.ratio < PIXELATED_FROM;
    context.imageSmoothingQuality = "high";
    context.drawImage(work.image, view.x, view.y, tile.width * view.scale, tile.height * view.scale);
  }

  drawBoxes() {
    const { editor, boxesContext: context } = this;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, editor.pane.width + 1, editor.pane.height + 1);
    if (editor.boxesHidden || !editor.work?.image) return;
    const shown = this.shownBoxes();
    const selectedKey = editor.state.selected;
    const others = shown.filter((item) => item.box.key !== selectedKey && !item.isPreview);
    const front = shown.filter((item) => item.box.key === selectedKey || item.isPreview);
    this.strokeAll(others);
    if (editor.labelsShown) others.forEach((item) => this.drawTag(item));
    const hovered = others.find((item) => item.box.key === editor.hovered);
    if (hovered) this.drawHovered(hovered);
    front.forEach((item) => this.drawSelected(item));
  }

  /** Boxes that touch the pane, with their rectangle on screen; a box under the pointer's drag at its new place. */
  shownBoxes() {
    const { state, preview, pane } = this.editor;
    const boxes = state.boxes.map((box) => (preview && preview.key === box.key ? { ...box, ...preview } : box));
    if (preview && preview.key === null) boxes.push({ ...preview, score: null, touched: true });
    return boxes.map((box) => this.placed(box, preview)).filter(({ rectangle: { x, y, width, height } }) => {
      return x + width > -4 && y + height > -4 && x < pane.width + 4 && y < pane.height + TAG_HEIGHT;
    });
  }

  placed(box, preview) {
    const { scale, x, y } = this.editor.view;
    const rectangle = {
      x: box.x * scale + x,
      y: box.y * scale + y,
      width: box.width * scale,
      height: box.height * scale,
    };
    return { box, rectangle, isPreview: preview !== null && preview.key === box.key };
  }

  colourOf(box) {
    return this.editor.classOf.get(box.class)?.colour ?? "#ffffff";
  }

  /** One path for all dark outlines and one per colour and dash: 500 boxes cost tens of strokes, not a thousand. */
  strokeAll(items) {
    const outline = new Path2D();
    const groups = new Map();
    for (const { box, rectangle: { x, y, width, height } } of items) {
      const key = `${this.colourOf(box)}|${box.touched}`;
      if (!groups.has(key)) groups.set(key, { colour: this.colourOf(box), touched: box.touched, path: new Path2D() });
      groups.get(key).path.rect(x, y, width, height);
      outline.rect(x, y, width, height);
    }
    this.stroke(outline, OUTLINE, 3.5);
    for (const { colour, touched, path } of groups.values()) this.stroke(path, colour, 2, touched ? [] : DASH);
  }

  stroke(path, colour, width, dash = []) {
    const context = this.boxesContext;
    context.setLineDash(dash);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke(path);
  }

  drawTag({ box, rectangle }, always = false) {
    if (!always && Math.min(rectangle.width, rectangle.height) < LABEL_SIDE) return;
    const cellClass = this.editor.classOf.get(box.class);
    const tag = this.tags.get(cellClass?.code ?? "?", certainty(box), this.colourOf(box));
    const x = Math.max(0, Math.min(rectangle.x - 1.5, this.editor.pane.width - tag.width));
    const above = rectangle.y - TAG_HEIGHT - 1.5;
    const y = above >= 0 ? above : Math.max(0, rectangle.y + 1.5);
    this.boxesContext.drawImage(tag.image, this.snap(x), this.snap(y), tag.width, tag.height);
  }

  /** To whole device pixels, so that text stays sharp. */
  snap(value) {
    return Math.round(value * this.ratio) / this.ratio;
  }

  drawHovered(item) {
    const path = new Path2D();
    path.rect(item.rectangle.x, item.rectangle.y, item.rectangle.width, item.rectangle.height);
    this.stroke(path, "#ffffff", 4);
    this.stroke(path, this.colourOf(item.box), 2.5, item.box.touched ? [] : DASH);
    this.drawTag(item, true);
  }

  drawSelected(item) {
    const { x, y, width, height } = item.rectangle;
    const path = new Path2D();
    path.rect(x, y, width, height);
    this.stroke(path, "rgb(0 0 0 / 75%)", 7);
    this.stroke(path, "#ffffff", 5);
    this.stroke(path, this.colourOf(item.box), 2.5, item.box.touched ? [] : DASH);
    this.drawTag({ ...item, rectangle: { x, y: y - HANDLE_SIDE / 2, width, height } }, true);
    if (item.isPreview || this.editor.locked) return;
    for (const [, handleX, handleY] of handlesOf(item.rectangle)) this.drawHandle(handleX, handleY);
  }

  drawHandle(x, y) {
    const context = this.boxesContext;
    const start = { x: this.snap(x - HANDLE_SIDE / 2), y: this.snap(y - HANDLE_SIDE / 2) };
    context.setLineDash([]);
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#000000";
    context.lineWidth = 1;
    context.fillRect(start.x, start.y, HANDLE_SIDE, HANDLE_SIDE);
    context.strokeRect(start.x, start.y, HANDLE_SIDE, HANDLE_SIDE);
  }
}

/** A small still picture of a tile with boxes, for comparing two versions. */
export function drawStill(canvas, work, boxes, classOf) {
  const { tile } = work.task;
  const scale = Math.min(canvas.width / tile.width, canvas.height / tile.height);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (work.image) context.drawImage(work.image, 0, 0, tile.width * scale, tile.height * scale);
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
