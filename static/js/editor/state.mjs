// What the reader sees on one tile: an immutable list of boxes, the selection and the place reached in the walk.
// A state: { boxes, selected, group, walked, nextKey }
//   selected    key of the box that arrows and handles act on, or null
//   group       keys of all selected boxes where there are several, else empty
// A box: { key, class, x, y, width, height, score, origin, modelClass, touched }.
//   key         number, unique within the tile, never sent
//   modelClass  the class the model gave, to which `score` belongs (null for a box without a model)
//   touched     confirmed, edited or added by the reader: drawn solid; an untouched pre-label is dashed

import { area, contains, differs } from "./geometry.mjs";

const NONE = Object.freeze([]);

const sameBox = (first, second) => first.class === second.class && !differs(first, second);

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
  const nextKey = boxes.reduce((high, box) => Math.max(high, box.key), 0) + 1;
  return { boxes, selected: null, group: NONE, walked: null, nextKey };
}

export const findBox = (state, key) => state.boxes.find((box) => box.key === key) ?? null;

export const selectedBox = (state) => (state.selected === null ? null : findBox(state, state.selected));

export function selectedKeys({ selected, group }) {
  if (group.length) return group;
  return selected === null ? NONE : [selected];
}

export function selectedBoxes(state) {
  const keys = new Set(selectedKeys(state));
  return state.boxes.filter((box) => keys.has(box.key));
}

/** The certainty to show: only while the class is still the model's own. */
export const certainty = (box) => (box.score !== null && box.class === box.modelClass ? box.score : null);

/** Whether a box is a pre-label that nobody has touched and that the model is less sure of than the threshold. */
export const isBelow = (box, threshold) => !box.touched && box.score !== null && box.score < threshold;

export function select(state, key) {
  const box = key === null ? null : findBox(state, key);
  if (!box) return { ...state, selected: null, group: NONE };
  return { ...state, selected: key, group: NONE, walked: rank(box) };
}

/** Selects all of these; the last one is the one that handles act on. */
export function selectMany(state, keys) {
  const known = keys.filter((key) => findBox(state, key));
  const chosen = select(state, known.at(-1) ?? null);
  return known.length > 1 ? { ...chosen, group: known } : chosen;
}

/** Takes a box into the selection, or out of it. */
export function toggle(state, key) {
  const keys = selectedKeys(state);
  return selectMany(state, keys.includes(key) ? keys.filter((other) => other !== key) : [...keys, key]);
}

/** Adds boxes of the reader's own (class and geometry) and selects them. */
export function add(state, ...given) {
  const added = given.map(({ class: classId, x, y, width, height }, index) => {
    const key = state.nextKey + index;
    return Object.freeze({
      key, class: classId, x, y, width, height, score: null, origin: null, modelClass: null, touched: true,
    });
  });
  const next = { ...state, boxes: [...state.boxes, ...added], nextKey: state.nextKey + added.length };
  return selectMany(next, added.map((box) => box.key));
}

/** Replaces fields of some boxes (`fieldsOf(box)`); a box the reader has changed counts as touched. */
export function change(state, keys, fieldsOf) {
  const chosen = new Set(keys);
  const boxes = state.boxes.map((box) => {
    return chosen.has(box.key) ? Object.freeze({ ...box, ...fieldsOf(box), touched: true }) : box;
  });
  return { ...state, boxes };
}

export function remove(state, keys) {
  const gone = new Set(keys);
  return { ...state, boxes: state.boxes.filter((box) => !gone.has(box.key)), selected: null, group: NONE };
}

// Order of the walk: least certain first; boxes without a score (the reader's own) come last.
const rank = (box) => [box.score ?? 2, box.key];
const compareRanks = (first, second) => first[0] - second[0] || first[1] - second[1];

export function walkOrder(boxes) {
  return [...boxes].sort((first, second) => compareRanks(rank(first), rank(second)));
}

/** Selects the next (step 1) or previous (step -1) of these boxes, round the end. Goes on from a box just deleted. */
export function walk(state, step, boxes) {
  const order = walkOrder(boxes);
  if (step < 0) order.reverse();
  const from = state.walked;
  const following = from === null ? order[0] : order.find((box) => step * compareRanks(rank(box), from) > 0);
  const box = following ?? order[0];
  return box ? select(state, box.key) : state;
}

/** Boxes under a point (tile px), the smallest first. */
export function boxesAt(boxes, point) {
  return boxes.filter((box) => contains(box, point)).sort((first, second) => area(first) - area(second));
}

export function countByClass(boxes) {
  const counts = new Map();
  for (const box of boxes) counts.set(box.class, (counts.get(box.class) ?? 0) + 1);
  return counts;
}

/** Boxes as the server stores them in an annotation. */
export function forSubmission(boxes) {
  return forDraft(boxes).map(({ score, touched, ...box }) => box);
}

/** Boxes as a draft keeps them, with which of them the reader has confirmed one by one. */
export function forDraft(boxes) {
  return boxes.map(({ class: classId, x, y, width, height, score, origin, touched }) => {
    return { class: classId, x, y, width, height, score, origin, touched };
  });
}
