// Box edges copied from ready-made strips on whole device pixels: stroking 500 dashed rectangles takes tens of
// milliseconds without a graphics card, copying their edges a few.

const OUTLINE = "rgb(0 0 0 / 62%)";
const LENGTH = 2048;
// All in CSS px.
const CORE = 2;
const MARGIN = 1;
export const DASH = [8, 4];

export class Edges {
  constructor() {
    this.strips = new Map();
    this.ratio = 1;
  }

  setRatio(ratio) {
    if (ratio !== this.ratio) this.strips.clear();
    this.ratio = ratio;
  }

  get thickness() {
    return Math.round((CORE + 2 * MARGIN) * this.ratio);
  }

  /** Draws a rectangle given in CSS px; the context's transform must be the identity. */
  draw(context, rectangle, colour, dashed) {
    const { across, down } = this.get(colour, dashed);
    const thick = this.thickness;
    const half = thick / 2;
    const [left, top] = [Math.round(rectangle.x * this.ratio - half), Math.round(rectangle.y * this.ratio - half)];
    const right = Math.round((rectangle.x + rectangle.width) * this.ratio - half);
    const bottom = Math.round((rectangle.y + rectangle.height) * this.ratio - half);
    copyAcross(context, across, left, top, right - left + thick, thick);
    copyAcross(context, across, left, bottom, right - left + thick, thick);
    copyDown(context, down, left, top + thick, bottom - top - thick, thick);
    copyDown(context, down, right, top + thick, bottom - top - thick, thick);
  }

  get(colour, dashed) {
    const key = `${colour}|${dashed}`;
    if (!this.strips.has(key)) {
      this.strips.set(key, { across: this.make(colour, dashed, true), down: this.make(colour, dashed, false) });
    }
    return this.strips.get(key);
  }

  make(colour, dashed, isAcross) {
    const thick = this.thickness;
    const margin = Math.round(MARGIN * this.ratio);
    const canvas = new OffscreenCanvas(isAcross ? LENGTH : thick, isAcross ? thick : LENGTH);
    const context = canvas.getContext("2d");
    const fill = (start, length, inset) => {
      if (isAcross) context.fillRect(start, inset, length, thick - 2 * inset);
      else context.fillRect(inset, start, thick - 2 * inset, length);
    };
    context.fillStyle = OUTLINE;
    fill(0, LENGTH, 0);
    context.fillStyle = colour;
    const [on, off] = dashed ? DASH.map((part) => Math.round(part * this.ratio)) : [LENGTH, 0];
    for (let start = 0; start < LENGTH; start += on + off) fill(start, on, margin);
    return canvas.transferToImageBitmap();
  }
}

function copyAcross(context, strip, x, y, length, thick) {
  for (let done = 0; done < length; done += LENGTH) {
    const part = Math.min(LENGTH, length - done);
    context.drawImage(strip, 0, 0, part, thick, x + done, y, part, thick);
  }
}

function copyDown(context, strip, x, y, length, thick) {
  for (let done = 0; done < length; done += LENGTH) {
    const part = Math.min(LENGTH, length - done);
    context.drawImage(strip, 0, 0, thick, part, x, y + done, thick, part);
  }
}
