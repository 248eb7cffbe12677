// Rectangles in tile pixels (float, top-left origin). Pure functions: they return new objects and never change their
// arguments.

export const MINIMUM_SIDE = 2;

const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
// A hundredth of a pixel is finer than any reader or detector, and keeps drafts short.
const round = (value) => Math.round(value * 100) / 100;

/** The box between two corners, cut to the tile. `tile` has width and height. */
export function fromCorners(first, second, tile) {
  const left = clamp(Math.min(first.x, second.x), 0, tile.width);
  const top = clamp(Math.min(first.y, second.y), 0, tile.height);
  const right = clamp(Math.max(first.x, second.x), 0, tile.width);
  const bottom = clamp(Math.max(first.y, second.y), 0, tile.height);
  return { x: round(left), y: round(top), width: round(right - left), height: round(bottom - top) };
}

export function isLargeEnough(box) {
  return box.width >= MINIMUM_SIDE && box.height >= MINIMUM_SIDE;
}

/** The same box shifted by (dx, dy), stopped at the tile's edges; its size never changes. */
export function moveBy(box, dx, dy, tile) {
  return {
    ...box,
    x: clamp(round(box.x + dx), 0, Math.max(0, tile.width - box.width)),
    y: clamp(round(box.y + dy), 0, Math.max(0, tile.height - box.height)),
  };
}

/** The smallest rectangle that holds all of these boxes (at least one). */
export function union(boxes) {
  const x = Math.min(...boxes.map((box) => box.x));
  const y = Math.min(...boxes.map((box) => box.y));
  const right = Math.max(...boxes.map((box) => box.x + box.width));
  const bottom = Math.max(...boxes.map((box) => box.y + box.height));
  return { x, y, width: right - x, height: bottom - y };
}

/** Boxes shifted as one: stopped together at the tile's edges, so that they keep their distances. */
export function moveTogether(boxes, dx, dy, tile) {
  const whole = union(boxes);
  const stopped = moveBy(whole, dx, dy, tile);
  const [shiftX, shiftY] = [stopped.x - whole.x, stopped.y - whole.y];
  return boxes.map((box) => moveBy(box, shiftX, shiftY, tile));
}

/** The box with the edges named by `handle` ("n", "se", ...) shifted by (dx, dy): inside the tile, never below 2 px. */
export function resizeBy(box, handle, dx, dy, tile) {
  let left = box.x;
  let top = box.y;
  let right = box.x + box.width;
  let bottom = box.y + box.height;
  if (handle.includes("w")) left = clamp(round(left + dx), 0, right - MINIMUM_SIDE);
  if (handle.includes("e")) right = clamp(round(right + dx), left + MINIMUM_SIDE, tile.width);
  if (handle.includes("n")) top = clamp(round(top + dy), 0, bottom - MINIMUM_SIDE);
  if (handle.includes("s")) bottom = clamp(round(bottom + dy), top + MINIMUM_SIDE, tile.height);
  return { ...box, x: left, y: top, width: round(right - left), height: round(bottom - top) };
}

/** Whether two rectangles are not the same. */
export const differs = (first, second) => ["x", "y", "width", "height"].some((name) => first[name] !== second[name]);

export function contains(box, point) {
  return point.x >= box.x && point.x <= box.x + box.width && point.y >= box.y && point.y <= box.y + box.height;
}

export const area = (box) => box.width * box.height;

export const centre = (box) => ({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
