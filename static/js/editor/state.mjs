// What the reader sees on one tile: an immutable list of boxes, the selection and the place reached in the walk.
// A box: { key, class, x, y, width, height, score, origin, modelClass, touched }.
//   key         number, unique within the tile, never sent
//   modelClass  the class the model gave, to which `score` belongs (null for a box without a model)
//   touched     confirmed, edited or added by the reader: drawn solid; an untouched pre-label is dashed

import { area, contains } from "./geometry.mjs";

const GEOMETRY = ["x", "y", "width", "height"];

function sameBox(first, second) {
  return first.class === second.class && GEOMETRY.every((name) => first[name] === second[name]);
}

/** Boxes as received (`received`: the draft's or the task's) joined with the task's pre-labels, by origin. */
export function receiveBoxes(received, prelabels) {
  const byOrigin = new Map(prelabels.filter((box) => box.origin !== null).map((box) => [box.origin, box]));
  return received.map((box, index) => {
    const prelabel = box.origin === null ? undefined : byOrigin.get(box.origin);
    const score = box.score ?? prelabel?.score ?? null;
    return Object.freeze({
      key: index + 1,
      class: box.class,
      x: box.x,
      y: box.y,
      width: box.width,
      height: box.height,
      origin: box.origin ?? null,
      score,
      modelClass: score === null ? null : (prelabel ?? box).class,
      touched: score === null || box.touched === true || !prelabel || !sameBox(box, prelabel),
    });
  });
}

export function makeState(boxes) {
  return { boxes, selected: null, walked: null, nextKey: boxes.reduce((high, box) => Math.max(high, box.key), 0) + 1 };
}

export const findBox = (state, key) => state.boxes.find((box) => box.key === key) ?? null;

export const selectedBox = (state) => (state.selected === null ? null : findBox(state, state.selected));

/** The certainty to show: only while the class is still the model's own. */
export const certainty = (box) => (box.score !== null && box.class === box.modelClass ? box.score : null);

export function select(state, key) {
  const box = key === null ? null : findBox(state, key);
  return box ? { ...state, selected: key, walked: rank(box) } : { ...state, selected: null };
}

/** Adds a box of the reader's own and selects it. */
export function add(state, classId, rectangle) {
  const { x, y, width, height } = rectangle;
  const key = state.nextKey;
  const box = { key, class: classId, x, y, width, height, score: null, origin: null, modelClass: null, touched: true };
  return select({ ...state, boxes: [...state.boxes, Object.freeze(box)], nextKey: key + 1 }, key);
}

/** Replaces fields of one box; a box the reader has changed counts as touched. */
export function change(state, key, fields) {
  const boxes = state.boxes.map((box) => (box.key === key ? Object.freeze({ ...box, ...fields, touched: true }) : box));
  return { ...state, boxes };
}

export function remove(state, key) {
  return { ...state, boxes: state.boxes.filter((box) => box.key !== key), selected: null };
}

// Order of the walk: least certain first; boxes without a score (the reader's own) come last.
const rank = (box) => [box.score ?? 2, box.key];
const compareRanks = (first, second) => first[0] - second[0] || first[1] - second[1];

export function walkOrder(boxes) {
  return [...boxes].sort((first, second) => compareRanks(rank(first), rank(second)));
}

/** Selects the next (step 1) or previous (step -1) box of the walk, round the end. Goes on from a box just deleted. */
export function walk(state, step) {
  const order = walkOrder(state.boxes);
  if (step < 0) order.reverse();
  const from = state.walked;
  const following = from === null ? order[0] : order.find((box) => step * compareRanks(rank(box), from) > 0);
  const box = following ?? order[0];
  return box ? select(state, box.key) : state;
}

/** Boxes under a point (tile px), the smallest first. */
export function boxesAt(state, point) {
  return state.boxes.filter((box) => contains(box, point)).sort((first, second) => area(first) - area(second));
}

export function countByClass(boxes) {
  const counts = new Map();
  for (const box of boxes) counts.set(box.class, (counts.get(box.class) ?? 0) + 1);
  return counts;
}

/** Boxes as the server stores them in an annotation. */
export function forSubmission(boxes) {
  return forDraft(boxes).map(({ score, ...box }) => box);
}

/** Boxes as the server keeps them in a draft. */
export function forDraft(boxes) {
  return boxes.map(({ class: classId, x, y, width, height, score, origin }) => {
    return { class: classId, x, y, width, height, score, origin };
  });
}

/** As a draft, with what only this browser knows: which boxes the reader has confirmed one by one. */
export function forBrowser(boxes) {
  return forDraft(boxes).map((box, index) => ({ ...box, touched: boxes[index].touched }));
}
