// The two questions the editor asks: why a tile is skipped, and which of two versions holds.

import { drawStill } from "./canvas.mjs";
import { countText } from "./panels.mjs";
import { picture } from "./picture.mjs";
import { countByClass } from "./state.mjs";

/** Opens the dialog for a reason; `onSkip(reason)` is called only if one is given. */
export function askReason(dialog, onSkip) {
  const form = dialog.querySelector("form");
  const other = form.elements.other;
  form.reset();
  form.onsubmit = () => {
    const chosen = form.elements.reason.value;
    const text = other.value.trim();
    onSkip(chosen === "other" ? text || "other" : text ? `${chosen}: ${text}` : chosen);
  };
  dialog.showModal();
}

/** Shows both versions; calls `onMine` or `onTheirs`, or neither if closed: then the tile stays as it is. */
export function askVersion(dialog, editor, work, answer, { onMine, onTheirs }) {
  const { theirs } = answer;
  const author = theirs.author ?? "another reader";
  const message = answer.error ?? "This tile has been submitted by somebody else meanwhile.";
  dialog.querySelector("[data-message]").textContent = message;
  dialog.querySelector("[data-theirs-title]").textContent = `Theirs: ${author}, revision ${theirs.revision}`;
  showVersion(dialog, "mine", editor, work, work.state.boxes);
  showVersion(dialog, "theirs", editor, work, theirs.boxes);
  const choose = (name, act) => {
    dialog.querySelector(`[data-take="${name}"]`).onclick = () => {
      dialog.close();
      act();
    };
  };
  choose("mine", onMine);
  choose("theirs", onTheirs);
  if (!dialog.open) dialog.showModal();
}

function showVersion(dialog, name, editor, work, boxes) {
  const canvas = dialog.querySelector(`canvas[data-version="${name}"]`);
  drawStill(canvas, work.task, picture(work, editor.preferences.values), boxes, editor.classOf);
  const counts = countByClass(boxes);
  const parts = editor.classes.filter(({ id }) => counts.has(id)).map(({ id, code }) => `${code} ${counts.get(id)}`);
  dialog.querySelector(`[data-summary="${name}"]`).textContent = [countText(boxes.length), ...parts].join(", ");
}
