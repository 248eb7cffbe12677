// Label tags ("NEU 0.91") drawn once and kept as small bitmaps: text is the slowest thing a canvas draws.

const FONT = '600 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
export const TAG_HEIGHT = 16;
const BAR = 4;
const PADDING = 4;
const LARGEST_CACHE = 2000;

export const DOUBTFUL_BELOW = 0.5;

export const formatCertainty = (score) => (score === null ? "" : score.toFixed(2));

export class Tags {
  constructor() {
    this.cache = new Map();
    this.ruler = new OffscreenCanvas(1, 1).getContext("2d");
    this.ratio = 1;
  }

  setRatio(ratio) {
    if (ratio !== this.ratio) this.cache.clear();
    this.ratio = ratio;
  }

  /** { image, width, height } of a tag, width and height in CSS px. A doubtful one is dark on light. */
  get(code, score, colour) {
    const text = score === null ? code : `${code} ${formatCertainty(score)}`;
    const key = `${text}|${colour}`;
    if (!this.cache.has(key)) {
      if (this.cache.size > LARGEST_CACHE) this.cache.clear();
      this.cache.set(key, this.draw(text, colour, score !== null && score < DOUBTFUL_BELOW));
    }
    return this.cache.get(key);
  }

  draw(text, colour, doubtful) {
    const width = Math.ceil(this.measure(text)) + BAR + 2 * PADDING;
    const canvas = new OffscreenCanvas(Math.ceil(width * this.ratio), Math.ceil(TAG_HEIGHT * this.ratio));
    const context = canvas.getContext("2d");
    context.scale(this.ratio, this.ratio);
    context.fillStyle = doubtful ? "#f4f4f4" : "rgb(20 20 20 / 86%)";
    context.fillRect(0, 0, width, TAG_HEIGHT);
    context.fillStyle = colour;
    context.fillRect(0, 0, BAR, TAG_HEIGHT);
    context.fillStyle = doubtful ? "#111" : "#fff";
    context.font = FONT;
    context.textBaseline = "middle";
    context.fillText(text, BAR + PADDING, TAG_HEIGHT / 2 + 0.5);
    return { image: canvas.transferToImageBitmap(), width, height: TAG_HEIGHT };
  }

  measure(text) {
    this.ruler.font = FONT;
    return this.ruler.measureText(text).width;
  }
}
