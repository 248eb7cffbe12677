// Arrow keys over the tiles of a slide. Without this script every tile is a tab stop of its own; with it the grid
// is one stop, and the arrows go to the nearest tile in that direction.

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function position(link) {
  const rectangle = link.querySelector("rect");
  return [rectangle.x.baseVal.value, rectangle.y.baseVal.value];
}

// Distance along the direction, with sideways distance counted double, so that a step stays in its row or column.
function nearest(links, from, [directionX, directionY]) {
  const [fromX, fromY] = position(from);
  let best = null;
  let bestCost = Infinity;
  for (const link of links) {
    const [x, y] = position(link);
    const along = (x - fromX) * directionX + (y - fromY) * directionY;
    const sideways = Math.abs((x - fromX) * directionY) + Math.abs((y - fromY) * directionX);
    const cost = along + 2 * sideways;
    if (along > 0 && cost < bestCost) [best, bestCost] = [link, cost];
  }
  return best;
}

function moveStop(grid, link) {
  grid.querySelector('a[tabindex="0"]')?.setAttribute("tabindex", "-1");
  link.setAttribute("tabindex", "0");
}

for (const grid of document.querySelectorAll("[data-tile-grid]")) {
  const links = [...grid.querySelectorAll("a")];
  links.forEach((link, index) => link.setAttribute("tabindex", index === 0 ? "0" : "-1"));
  grid.addEventListener("keydown", (event) => {
    const direction = DIRECTIONS[event.key];
    const link = event.target.closest("a");
    if (!direction || !link) return;
    event.preventDefault();
    const next = nearest(links, link, direction);
    if (!next) return;
    moveStop(grid, next);
    next.focus();
  });
  grid.addEventListener("focusin", (event) => {
    const link = event.target.closest("a");
    if (link) moveStop(grid, link);
  });
}
