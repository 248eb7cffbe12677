// Drafts: every change is kept in this browser at once and sent to the server within a second. One request at a time;
// the latest state wins. When the server does not answer, the copy here is sent as soon as it does.

import { post } from "./api.mjs";
import { forDraft } from "./state.mjs";
import { backoff } from "./status.mjs";
import { snapshot } from "./work.mjs";

const DEBOUNCE_MS = 600;
const EFFORT_WORTH_SAVING_SECONDS = 1;

export class DraftSaver {
  /** `onConflict(work, data)` is told of a 409. */
  constructor(storage, status, onConflict) {
    this.storage = storage;
    this.status = status;
    this.onConflict = onConflict;
    this.work = null;
    this.sending = null;
    this.timer = null;
    this.attempt = 0;
  }

  /** From now on saves this work (null: none). Whatever is unsaved of the one before is sent first. */
  follow(work) {
    if (this.work && this.work !== work) this.flush();
    this.work = work;
    this.attempt = 0;
    this.clearTimer();
    this.status.set("draft", work?.conflict ? "conflict" : "saved");
    this.retry();
  }

  changed() {
    const { work } = this;
    work.sequence += 1;
    this.keep(work);
    this.showSaving();
    if (!work.conflict) this.schedule(DEBOUNCE_MS);
  }

  /** Saving follows saved; a failure stays on show until an attempt has succeeded. */
  showSaving() {
    if (this.status.states.get("draft") === "saved") this.status.set("draft", "saving");
  }

  keep(work) {
    this.status.kept(this.storage.put("draft", work.task.id, { ...snapshot(work), kept: Date.now() }));
  }

  schedule(delay) {
    this.clearTimer();
    this.timer = setTimeout(() => this.send(), delay);
  }

  clearTimer() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** Tries again now, if something is waiting. */
  retry() {
    if (this.work && this.work.sequence > this.work.saved && !this.work.conflict) this.schedule(0);
  }

  async send() {
    this.clearTimer();
    const { work } = this;
    if (this.sending || !work || work.closed || work.conflict || work.sequence <= work.saved) return;
    const sequence = work.sequence;
    this.showSaving();
    this.sending = post(work.task.urls.draft, this.body(work));
    const answer = await this.sending;
    this.sending = null;
    this.received(work, sequence, answer);
    // Another tile may have been opened, or another change made, while the request was under way.
    if (this.work && !this.timer && answer.outcome === "ok") this.send();
  }

  body(work) {
    const { sequence, revision, effort } = snapshot(work);
    return { sequence, revision, boxes: forDraft(work.state.boxes), effort };
  }

  received(work, sequence, { outcome, data }) {
    if (outcome === "ok") {
      work.saved = Math.max(work.saved, sequence);
      work.savedActive = work.clock.activeSeconds();
      if (work.sequence === sequence) this.storage.drop("draft", work.task.id);
    }
    // The tile has been submitted meanwhile: its draft no longer matters.
    if (work !== this.work || work.closed) return outcome === "ok" ? undefined : this.retry();
    if (outcome === "ok") return this.succeeded(work);
    if (outcome === "conflict") return this.conflicted(work, data);
    this.status.set("draft", ["offline", "signed-out"].includes(outcome) ? outcome : "error");
    this.schedule(backoff(this.attempt));
    this.attempt += 1;
  }

  succeeded(work) {
    this.attempt = 0;
    this.status.set("draft", work.sequence > work.saved ? "saving" : "saved");
  }

  conflicted(work, data) {
    work.conflict = true;
    this.status.set("draft", "conflict");
    this.onConflict(work, data ?? {});
  }

  /** The page may be about to close: keeps here and sends now, also the effort spent since the last change. */
  flush() {
    const { work } = this;
    if (!work || work.closed || work.conflict) return;
    const effortUnsaved = work.clock.activeSeconds() - work.savedActive > EFFORT_WORTH_SAVING_SECONDS;
    if (work.sequence <= work.saved && !effortUnsaved) return;
    if (work.sequence <= work.saved) work.sequence += 1;
    this.keep(work);
    const sequence = work.sequence;
    const sent = post(work.task.urls.draft, this.body(work), { keepalive: true });
    sent.then((answer) => this.received(work, sequence, answer));
  }

  /** The tile is submitted or skipped: its drafts are history. */
  close(work) {
    work.closed = true;
    if (work === this.work) this.clearTimer();
    this.storage.drop("draft", work.task.id);
    this.status.set("draft", "saved");
  }

  reopen(work) {
    work.closed = false;
    work.uuid = null;
  }
}
