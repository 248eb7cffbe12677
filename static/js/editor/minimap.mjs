// The slide in small with the tile's place on it and what is in sight, and the tile's surroundings on demand.

import { loadImage } from "./api.mjs";
import { toTile } from "./view.mjs";

const SMALLEST_MARK = 5;

export class Minimap {
  constructor(editor, button, notice) {
    this.editor = editor;
    this.button = button;
    this.canvas = button.querySelector("canvas");
    this.notice = notice;
    this.slides = new Map(); // slide id -> promise of its picture, null where it cannot be had
    this.slide = null;
    this.frame = null;
    editor.on("work", () => this.showTile());
    editor.on("view", () => this.drawLater());
    new ResizeObserver(() => this.drawLater()).observe(button);
  }

  async showTile() {
    const { work } = this.editor;
    const tile = work?.task.tile;
    this.slide = null;
    this.button.disabled = !tile?.neighbourhood;
    this.button.setAttribute("aria-pressed", "false");
    this.button.setAttribute("aria-label", tile ? this.describe(tile) : "No tile");
    this.drawLater();
    if (!tile) return;
    // The tile itself comes first.
    if (!this.slides.has(tile.slide_id)) {
      await new Promise((resolve) => setTimeout(resolve));
      this.slides.set(tile.slide_id, loadImage(tile.slide_image).catch(() => null));
    }
    const slide = await this.slides.get(tile.slide_id);
    if (this.editor.work !== work) return;
    this.slide = slide;
    this.drawLater();
  }

  describe(tile) {
    const along = (value, whole) => `${Math.round((100 * value) / whole)} %`;
    const right = along(tile.x + tile.extent / 2, tile.slide_width);
    const down = along(tile.y + tile.extent / 2, tile.slide_height);
    return `Place of the tile on its slide: ${right} from the left, ${down} from the top. Show what lies around it`;
  }

  drawLater() {
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const tile = this.editor.work?.task.tile;
    if (!tile) return;
    const scale = Math.min(width / tile.slide_width, height / tile.slide_height);
    const [left, top] = [(width - tile.slide_width * scale) / 2, (height - tile.slide_height * scale) / 2];
    const place = (x, y, w, h) => [left + x * scale, top + y * scale, w * scale, h * scale];
    const whole = place(0, 0, tile.slide_width, tile.slide_height);
    if (this.slide) context.drawImage(this.slide, ...whole);
    const perPixel = tile.extent / tile.width; // level-0 px of a tile px
    mark(context, place(tile.x, tile.y, tile.extent, tile.height * perPixel), ratio, whole);
    this.markSight(context, tile, perPixel, place);
  }

  /** What is in sight, where that is less than the tile and large enough to be seen. */
  markSight(context, tile, perPixel, place) {
    const { view, pane } = this.editor;
    const start = toTile(view, { x: 0, y: 0 });
    const end = toTile(view, { x: pane.width, y: pane.height });
    const [x, right] = [Math.max(0, start.x), Math.min(tile.width, end.x)];
    const [y, bottom] = [Math.max(0, start.y), Math.min(tile.height, end.y)];
    if (right - x >= tile.width && bottom - y >= tile.height) return;
    const sight = place(tile.x + x * perPixel, tile.y + y * perPixel, (right - x) * perPixel, (bottom - y) * perPixel);
    if (Math.min(sight[2], sight[3]) >= SMALLEST_MARK) outline(context, sight, "#ffd400", 1);
  }

  /** Shows the tile in its surroundings, or by itself again. */
  async toggleSurroundings() {
    const { editor } = this;
    const { work } = editor;
    if (this.button.disabled || !work) return;
    if (editor.surroundings) return this.setSurroundings(null);
    try {
      work.surroundings ??= await loadImage(work.task.tile.neighbourhood);
    } catch (error) {
      return this.notice(error.message);
    }
    if (editor.work === work) this.setSurroundings(work.surroundings);
  }

  setSurroundings(image) {
    this.editor.showSurroundings(image);
    this.button.setAttribute("aria-pressed", String(image !== null));
  }
}

/** The tile's rectangle, never too small to be seen, with lines that lead to it. */
function mark(context, [x, y, width, height], ratio, [left, top, wide, high]) {
  const smallest = SMALLEST_MARK * ratio;
  const [w, h] = [Math.max(width, smallest), Math.max(height, smallest)];
  const middle = [x + width / 2, y + height / 2];
  context.fillStyle = "rgb(0 0 0 / 45%)";
  context.fillRect(left, middle[1] - ratio / 2, wide, ratio);
  context.fillRect(middle[0] - ratio / 2, top, ratio, high);
  outline(context, [middle[0] - w / 2, middle[1] - h / 2, w, h], "#ffffff", ratio);
}

function outline(context, rectangle, colour, width) {
  context.lineWidth = 3 * width;
  context.strokeStyle = "#000000";
  context.strokeRect(...rectangle);
  context.lineWidth = 1.5 * width;
  context.strokeStyle = colour;
  context.strokeRect(...rectangle);
}
