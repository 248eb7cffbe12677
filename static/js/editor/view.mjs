// Where the tile lies in its pane. A view: { scale, x, y }: CSS px per tile px, and the tile's origin in CSS px of the
// pane.

const MARGIN = 8;
const LARGEST_SCALE = 32;
// The tile can be pulled this far (CSS px) past the pane's edge: room to work at its border, never lost from sight.
const SLACK = 80;
// A box smaller than the first (CSS px) on an image shown reduced is brought as near as the second.
const SMALLEST_SIDE = 40;
const GOOD_SIDE = 96;

const clamp = (value, low, high) => Math.max(low, Math.min(value, high));

/** The whole tile, as large as the pane lets it, in the middle. */
export function fit(tile, pane) {
  const room = (size) => Math.max(1, size - 2 * MARGIN);
  return centred(tile, pane, Math.min(room(pane.width) / tile.width, room(pane.height) / tile.height));
}

/** The tile with one tile's width around it, in the middle. */
export function fitAround(tile, pane) {
  return centred(tile, pane, fit({ width: 3 * tile.width, height: 3 * tile.height }, pane).scale);
}

/** One image pixel on one screen pixel: `ratio` is the device pixel ratio. */
export function actualSize(view, tile, pane, ratio) {
  const scale = 1 / ratio;
  const middle = toTile(view, { x: pane.width / 2, y: pane.height / 2 });
  const moved = { scale, x: pane.width / 2 - middle.x * scale, y: pane.height / 2 - middle.y * scale };
  return keepVisible(moved, tile, pane);
}

function centred(tile, pane, scale) {
  return { scale, x: (pane.width - tile.width * scale) / 2, y: (pane.height - tile.height * scale) / 2 };
}

/** Zooms by `factor` and leaves the tile's point under `at` (pane px) where it is. */
export function zoomAt(view, factor, at, tile, pane) {
  // On a dense screen 1:1 can be smaller than that: zooming out never makes the tile larger.
  const smallest = Math.min(fitAround(tile, pane).scale, view.scale);
  const scale = clamp(view.scale * factor, smallest, LARGEST_SCALE);
  const point = toTile(view, at);
  return keepVisible({ scale, x: at.x - point.x * scale, y: at.y - point.y * scale }, tile, pane);
}

export function pan(view, dx, dy, tile, pane) {
  return keepVisible({ ...view, x: view.x + dx, y: view.y + dy }, tile, pane);
}

function keepVisible(view, tile, pane) {
  const within = (start, size, room) => {
    return clamp(start, Math.min(0, room - size) - SLACK, Math.max(0, room - size) + SLACK);
  };
  return {
    scale: view.scale,
    x: within(view.x, tile.width * view.scale, pane.width),
    y: within(view.y, tile.height * view.scale, pane.height),
  };
}

export const toTile = (view, at) => ({ x: (at.x - view.x) / view.scale, y: (at.y - view.y) / view.scale });

export const toPane = (view, point) => ({ x: point.x * view.scale + view.x, y: point.y * view.scale + view.y });

/**
 * The view unchanged if the box is wholly in the pane, else panned so that the box is in its middle. On a large image
 * that is shown reduced, a box too small to be judged is brought nearer.
 */
export function reveal(view, box, tile, pane) {
  const side = Math.min(box.width, box.height);
  if (view.scale < 1 && side * view.scale < SMALLEST_SIDE) {
    return centreOn({ ...view, scale: Math.min(1, GOOD_SIDE / side) }, box, tile, pane);
  }
  const start = toPane(view, box);
  const end = toPane(view, { x: box.x + box.width, y: box.y + box.height });
  const isInside = start.x >= 0 && start.y >= 0 && end.x <= pane.width && end.y <= pane.height;
  return isInside ? view : centreOn(view, box, tile, pane);
}

function centreOn(view, box, tile, pane) {
  const middle = toPane(view, { x: box.x + box.width / 2, y: box.y + box.height / 2 });
  return pan(view, pane.width / 2 - middle.x, pane.height / 2 - middle.y, tile, pane);
}
