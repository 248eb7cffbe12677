// What the reader sees beside the boxes: notices, waiting, the end of the batch, and the facts that browser tests wait
// for (data attributes of <html> and of the tile's surface).

import { countText } from "./panels.mjs";
import { isReview } from "./work.mjs";

const byId = (id) => document.getElementById(id);

export class Screen {
  constructor(editor, topBar, announcer) {
    this.editor = editor;
    this.topBar = topBar;
    this.announcer = announcer;
    this.page = document.documentElement;
    this.surface = byId("surface");
    editor.on("work boxes selection armed display filter lock", () => this.showFacts());
    editor.on("work view", () => Object.assign(this.surface.dataset, editor.view));
  }

  notice(text) {
    byId("notice-text").textContent = text;
    byId("notice").hidden = false;
  }

  /** True if there was a notice to close. */
  clearNotice() {
    const wasShown = !byId("notice").hidden;
    byId("notice").hidden = true;
    byId("notice-text").textContent = "";
    return wasShown;
  }

  closeDialogs() {
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  }

  showTile(work) {
    this.closeDialogs();
    byId("end").hidden = true;
    byId("waiting").hidden = true;
    byId("image-error").hidden = !work.imageError;
    byId("image-error-text").textContent = work.imageError ?? "";
    this.showReview(work);
    if (work.restored) this.notice("Your work on this tile that this browser had kept has been restored.");
    const count = work.state.boxes.length;
    this.announcer.count = count;
    this.announcer.say(`Tile of slide ${work.task.tile.slide}, ${countText(count)}.`);
    this.surface.focus({ preventScroll: true });
  }

  /** What is special about a tile that the reader has done before. */
  showReview(work) {
    byId("review").hidden = !isReview(work);
    if (!isReview(work)) return;
    const { skipped } = work.task;
    const text = skipped ? `Skipped: ${skipped}. Space confirms it` : "Done before. Space stores your corrections";
    byId("review-text").textContent = text;
    byId("review-text").title = text;
  }

  showWaiting(status) {
    const troubled = !["saved", "saving"].includes(status.state);
    byId("waiting").hidden = false;
    byId("waiting-text").textContent = troubled
      ? `${status.text}. This tile is sent as soon as the server can take it; the next one follows.`
      : "Getting the next tile";
  }

  updateWaiting(status) {
    if (!byId("waiting").hidden) this.showWaiting(status);
  }

  showEnd({ done, total }, unsent) {
    const isComplete = done + unsent >= total;
    byId("waiting").hidden = true;
    byId("end").hidden = false;
    byId("review").hidden = true;
    byId("end-title").textContent = isComplete
      ? `Batch done: ${total} of ${total}.`
      : `No tile left for you: ${done} of ${total} done.`;
    byId("end-text").textContent = endText(isComplete, unsent);
    this.page.dataset.ready = "true";
    byId("end-link").focus();
  }

  setReady(ready) {
    this.page.dataset.ready = String(ready);
  }

  showStatus(status) {
    this.topBar.showStatus(status);
    this.page.dataset.saveState = status.state;
    this.page.dataset.unsent = status.unsent;
    this.updateWaiting(status);
  }

  showFacts() {
    const { work, state, locked, shown, chosen } = this.editor;
    Object.assign(this.page.dataset, {
      task: work?.task.id ?? "",
      boxes: state.boxes.length,
      shown: shown.length,
      selected: state.selected ?? "",
      chosen: chosen.length,
      review: work !== null && isReview(work),
      armed: this.editor.classOf.get(this.editor.armed)?.code ?? "",
      locked,
      ended: work === null && !byId("end").hidden,
    });
    setEnabled("undo", !locked && work?.history.canUndo);
    setEnabled("redo", !locked && work?.history.canRedo);
    setEnabled("remove", !locked && state.selected !== null);
    setEnabled("confirm", !locked);
    setEnabled("skip", !locked);
    setEnabled("forward", work?.revisited);
    document.querySelector('[data-command="labels"]').ariaPressed = String(this.editor.preferences.values.labels);
  }
}

function endText(isComplete, unsent) {
  if (unsent) return `${countTiles(unsent)} still to be sent: kept in this browser, leave this page open.`;
  return isComplete ? "Everything is stored." : "The others are with other readers or in another window of yours.";
}

const countTiles = (count) => `${count} ${count === 1 ? "tile" : "tiles"}`;

function setEnabled(command, enabled) {
  document.querySelector(`.tools [data-command="${command}"]`).disabled = !enabled;
}
