// Everything about one tile in this window: the task, its decoded image, the boxes with their history, and the effort.

import { loadImage } from "./api.mjs";
import { Clock } from "./clock.mjs";
import { History } from "./history.mjs";
import { forDraft, makeState, receiveBoxes } from "./state.mjs";

/** The newest of: the copy kept in this browser, the server's draft, the pre-labels. */
function startingPoint(task, kept) {
  const sequence = task.draft?.sequence ?? 0;
  if (kept && kept.sequence > sequence) return kept;
  return task.draft ?? { sequence: 0, revision: task.revision, boxes: task.boxes, effort: null };
}

export function makeWork(task, storage) {
  const kept = storage.get("draft", task.id);
  const start = startingPoint(task, kept);
  const boxes = receiveBoxes(start.boxes, task.boxes);
  return {
    task,
    image: null,
    imageError: null,
    state: makeState(boxes),
    history: new History(boxes),
    clock: new Clock(start.effort),
    // A draft is based on the revision it was begun on; a stale one is found out at submission, with both versions
    // shown.
    revision: start.revision,
    sequence: start.sequence,
    changed: start.sequence, // the sequence number of the last change of a box; later ones tell of time only
    saved: task.draft?.sequence ?? 0,
    savedActive: task.draft?.effort?.active_seconds ?? 0,
    // True while the server holds another version than the one this work is based on: drafts then stay in this browser.
    conflict: false,
    restored: start === kept,
    begun: start.sequence > 0,
    revisited: false,
    // Another reader who has this tile now, because the lease ran out: told once.
    heldBy: null,
    uuid: null,
    closed: false,
  };
}

/** Whether the reader has done this tile before and looks at it again. */
export const isReview = ({ task }) => task.revision > 0 || Boolean(task.skipped);

/** Whether there is nothing to store: a tile looked at again and left as it was. */
export function isUnchanged({ task, begun, history, sequence, saved }) {
  return task.revision > 0 && !begun && !history.canUndo && sequence <= saved;
}

/** Fetches and decodes the tile's image into `work.image`, or puts the reason why not into `work.imageError`. */
export async function prepareImage(work) {
  try {
    work.image = await loadImage(work.task.tile.image);
    work.imageError = null;
  } catch (error) {
    work.imageError = error.message;
  }
}

/** What the server keeps as a draft, and this browser until the server has it. */
export function snapshot(work) {
  return {
    sequence: work.sequence,
    revision: work.revision,
    boxes: forDraft(work.state.boxes),
    effort: work.clock.read(),
  };
}
